//! Settings that every process has, and how it waits for the systems it depends on.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::admin::Check;
use crate::backoff::Backoff;
use crate::shutdown::Shutdown;

/// Sections of settings of all processes: they share one environment and one file.
pub const SECTIONS: &[&str] = &[
    "admin",
    "api",
    "bus",
    "demo",
    "gateway",
    "limits",
    "log",
    "log_indexer",
    "shutdown",
    "store",
    "var_store",
];

/// Settings of the admin port: section `[admin]`, or `OBSERVER_ADMIN__*` in the environment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Address of `/livez`, `/readyz` and `/metrics`; each process has a default of its own.
    pub listen: Option<SocketAddr>,
}

/// Settings of the end: section `[shutdown]`, or `OBSERVER_SHUTDOWN__*` in the environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShutdownConfig {
    /// Time that open work has to finish, in seconds. What is cut off then, games send again.
    pub grace_secs: u64,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        // Container platforms kill after 30 s by default.
        Self { grace_secs: 25 }
    }
}

impl ShutdownConfig {
    /// Time that open work has to finish.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_secs)
    }
}

/// First pause between two tries to reach a system, and the longest: with the time that one try may
/// take, a process is ready within 10 s of the return of what it waits for.
const CONNECT_PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// Tries `connect` until it succeeds, and tells `check` meanwhile why not. `None` when shutdown is
/// requested first, as a signal during start must end the process at once.
pub async fn connect_patiently<T, E, F>(
    check: &Check,
    shutdown: &Shutdown,
    mut connect: impl FnMut() -> F,
) -> Option<T>
where
    F: Future<Output = Result<T, E>>,
    E: std::error::Error,
{
    let mut pauses = Backoff::new(CONNECT_PAUSES.0, CONNECT_PAUSES.1);
    loop {
        let tried = tokio::select! {
            () = shutdown.requested() => return None,
            tried = connect() => tried,
        };
        match tried {
            Ok(connected) => return Some(connected),
            Err(error) => check.not_ok(reason(&error)),
        }
        tokio::select! {
            () = shutdown.requested() => return None,
            () = tokio::time::sleep(pauses.next_delay()) => {}
        }
    }
}

/// Pause between two looks at a system that a process depends on.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Looks at a system again and again until shutdown is requested, and tells `check` what it saw.
pub async fn keep_checking<F>(check: Check, shutdown: Shutdown, mut look: impl FnMut() -> F)
where
    F: Future<Output = Result<(), String>>,
{
    loop {
        let seen = tokio::select! {
            () = shutdown.requested() => return,
            seen = look() => seen,
        };
        match seen {
            Ok(()) => check.ok(),
            Err(reason) => check.not_ok(reason),
        }
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(CHECK_EVERY) => {}
        }
    }
}

/// An error and its causes, in one line.
pub fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::admin::Readiness;

    #[tokio::test(start_paused = true)]
    async fn a_system_that_comes_up_late_is_waited_for() {
        let readiness = Readiness::new("test");
        let check = readiness.check("store");
        let shutdown = Shutdown::new(Duration::from_secs(1));
        let mut tries = 0;
        let connected = connect_patiently(&check, &shutdown, || {
            tries += 1;
            let now = tries;
            async move { if now < 4 { Err(io::Error::other("down")) } else { Ok(now) } }
        })
        .await;
        assert_eq!(connected, Some(4));
        assert!(!readiness.is_ready(), "whoever connected says when it is ok");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_when_shutdown_is_requested() {
        let check = Readiness::new("test").check("store");
        let shutdown = Shutdown::new(Duration::from_secs(1));
        shutdown.request();
        let connected =
            connect_patiently(&check, &shutdown, || async { Err::<(), _>(io::Error::other("x")) });
        assert_eq!(connected.await, None);
    }
}
