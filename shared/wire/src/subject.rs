//! Subjects on the bus. Built from checked tokens only: nothing a game sends gets into one.

use crate::key::ProjectId;

/// Logs of all projects on their way to the log indexer.
pub const LOGS: &str = "observer.logs";
/// Reported values, sign-ins and ends of sockets on their way to var-store.
pub const VARS: &str = "observer.vars";
/// Accepted edits, in order.
pub const EDITS: &str = "observer.edits";
/// What viewers watch: log events that are safe.
pub const LIVE_LOGS: &str = "observer.live.logs";
/// What viewers watch: values and receipts.
pub const LIVE_VARS: &str = "observer.live.vars";
/// What viewers watch: devices coming and going.
pub const LIVE_DEVICES: &str = "observer.live.devices";
/// Gateways that say they are alive.
pub const GATEWAYS: &str = "observer.control.gateways";
/// What all gateways are told: who signed in, and what games shall send.
pub const CONTROL: &str = "observer.control.sockets";
/// Requests for keys, answered by api.
pub const ASK_KEYS: &str = "observer.ask.keys";
/// Requests for variables, answered by var-store.
pub const ASK_VARS: &str = "observer.ask.vars";

/// The subject of one project under `prefix`.
#[must_use]
pub fn of_project(prefix: &str, project: ProjectId) -> String {
    format!("{prefix}.{project}")
}

/// The project of a subject under `prefix`, if it is one.
#[must_use]
pub fn project_of(prefix: &str, subject: &str) -> Option<ProjectId> {
    subject.strip_prefix(prefix)?.strip_prefix('.')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_gives_its_project_back() {
        let project: ProjectId = "0123456789ab".parse().unwrap();
        let subject = of_project(LIVE_LOGS, project);
        assert_eq!(subject, "observer.live.logs.0123456789ab");
        assert_eq!(project_of(LIVE_LOGS, &subject), Some(project));
        assert_eq!(project_of(LOGS, &subject), None);
    }
}
