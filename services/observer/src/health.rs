//! `observer healthcheck`: is a running process ready, and if not, why. For people and containers.

use serde_json::Value;

use crate::client::Client;
use crate::ready::Ready;
use crate::terminal;

/// Where the admin port of `observer serve` is unless somebody says otherwise.
const ADMIN_DEFAULT: &str = "http://127.0.0.1:9090";

/// Asks whether a process is ready.
#[derive(clap::Args)]
pub(crate) struct HealthArgs {
    /// Address of the admin port [default: that of the `observer serve` that runs here, else
    /// <http://127.0.0.1:9090>]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
}

/// Not everything that the process depends on works. What does not was printed.
#[derive(Debug, thiserror::Error)]
#[error("not ready")]
struct NotReady;

/// Prints what is not ready.
pub(crate) async fn run(args: &HealthArgs) -> anyhow::Result<()> {
    let address = match &args.admin {
        Some(admin) => admin.clone(),
        None => Ready::find()?.map_or(ADMIN_DEFAULT.to_owned(), |ready| ready.admin),
    };
    let client = Client::new(&address)?;
    let (_, report) = client.status_and_json(client.url(&["readyz"])).await?;
    for line in describe(&report) {
        terminal::line(&line)?;
    }
    if report["ready"] == true { Ok(()) } else { Err(NotReady.into()) }
}

fn describe(report: &Value) -> Vec<String> {
    if report["ready"] == true {
        return vec!["ready".to_owned()];
    }
    let none = serde_json::Map::new();
    let checks = report["checks"].as_object().unwrap_or(&none);
    let failing = checks.iter().filter(|(_, check)| check["ok"] != true);
    let line = |(name, check): (&String, &Value)| {
        let reason = check["reason"].as_str().unwrap_or("no reason given");
        terminal::clean(&format!("{name}: {reason}")).into_owned()
    };
    failing.map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_fails_is_named_with_its_reason() {
        let report = json!({ "ready": false, "checks": {
            "bus": { "ok": true }, "log_store": { "ok": false, "reason": "connection refused" } } });
        assert_eq!(describe(&report), ["log_store: connection refused"]);
        assert_eq!(describe(&json!({ "ready": true, "checks": {} })), ["ready"]);
    }
}
