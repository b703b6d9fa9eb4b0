//! The admin port: is the process alive, is it ready, what do its numbers say. For operators and
//! their machines only: it has no access control, so it never shares a port with the public.

mod bounded;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use self::bounded::Bounded;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// Name of the check that fails while the process is ending.
const SHUTDOWN_CHECK: &str = "shutdown";

/// Reason of a check that nobody has set yet.
const STARTING: &str = "starting";

/// Which dependencies of this process work. Clones share the same checks.
#[derive(Clone, Debug)]
pub struct Readiness {
    profile: Arc<str>,
    promise: Arc<str>,
    checks: Arc<Mutex<BTreeMap<&'static str, CheckReport>>>,
}

impl Readiness {
    /// No checks yet, and so ready. `profile` is the delivery profile, as `/readyz` shows it.
    #[must_use]
    pub fn new(profile: &str) -> Self {
        Self { profile: profile.into(), promise: Arc::default(), checks: Arc::default() }
    }

    /// Says, in the log now and in `/readyz` from now on, what the profile promises.
    #[must_use]
    pub fn promising(mut self, promise: &str) -> Self {
        self.promise = promise.into();
        info!(profile = &*self.profile, promise, "delivery profile");
        self
    }

    /// Registers the check `name`: not ok until its owner says so. The same name is the same check.
    #[must_use]
    pub fn check(&self, name: &'static str) -> Check {
        let starting = || CheckReport { ok: false, reason: Some(STARTING.to_owned()) };
        self.lock().entry(name).or_insert_with(starting);
        Check { name, readiness: self.clone() }
    }

    /// Whether every check is ok.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.lock().values().all(|check| check.ok)
    }

    /// Whether the check `name` is ok, and the reason it gives; `None` when nobody registered it.
    #[must_use]
    pub fn state_of(&self, name: &str) -> Option<(bool, Option<String>)> {
        self.lock().get(name).map(|check| (check.ok, check.reason.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, CheckReport>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner) // No update is half done.
    }

    fn set(&self, name: &'static str, now: CheckReport) {
        let before = self.lock().insert(name, now.clone());
        // A reason may differ with every try; only its first is news, and the change of `ok`.
        let kind = |report: &CheckReport| (report.ok, report.reason.is_some());
        if before.is_some_and(|before| kind(&before) == kind(&now) && !before.is_starting()) {
            return;
        }
        match (now.ok, now.reason) {
            (true, None) => info!(check = name, "check is ok"),
            (true, Some(reason)) => warn!(check = name, reason, "check is ok, but see the reason"),
            (false, reason) => warn!(check = name, reason, "check is not ok"),
        }
    }

    fn report(&self) -> ReadinessReport {
        let checks = self.lock().clone();
        let ready = checks.values().all(|check| check.ok);
        let (profile, promise) = (self.profile.to_string(), self.promise.to_string());
        ReadinessReport { ready, profile, promise, checks }
    }
}

/// One named dependency, reported on by whoever uses it. Changes are logged, repeats are not.
#[derive(Clone, Debug)]
pub struct Check {
    name: &'static str,
    readiness: Readiness,
}

impl Check {
    /// The dependency works.
    pub fn ok(&self) {
        self.readiness.set(self.name, CheckReport { ok: true, reason: None });
    }

    /// The dependency works, and somebody should look after it all the same; `reason` says why.
    pub fn ok_but(&self, reason: impl Into<String>) {
        self.readiness.set(self.name, CheckReport { ok: true, reason: Some(reason.into()) });
    }

    /// The dependency does not work; `reason` is for the operator who asks why.
    pub fn not_ok(&self, reason: impl Into<String>) {
        self.readiness.set(self.name, CheckReport { ok: false, reason: Some(reason.into()) });
    }
}

/// Body of `/readyz`.
#[derive(Debug, Serialize)]
struct ReadinessReport {
    ready: bool,
    profile: String,
    promise: String,
    checks: BTreeMap<&'static str, CheckReport>,
}

#[derive(Clone, Debug, Serialize)]
struct CheckReport {
    ok: bool,
    reason: Option<String>,
}

impl CheckReport {
    fn is_starting(&self) -> bool {
        self.reason.as_deref() == Some(STARTING)
    }
}

/// The admin port, open until this is dropped: it answers while the process drains.
#[derive(Debug)]
#[must_use = "dropping it closes the admin port"]
pub struct AdminServer {
    _stop: DropGuard,
}

/// Answers `/livez`, `/readyz` and `/metrics` on `listener` until the returned guard is dropped.
///
/// From the request of `shutdown` on, `/readyz` says 503, so that no new work is sent here.
///
/// # Panics
///
/// Outside a tokio runtime.
pub fn serve_admin(
    listener: TcpListener,
    readiness: Readiness,
    metrics: Metrics,
    shutdown: Shutdown,
) -> AdminServer {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render_metrics))
        .with_state(AdminState { readiness, metrics, shutdown })
        .layer(map_response(close));

    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    // No tracker is kept: the port stays open while others drain, and has nothing to finish.
    TaskTracker::new().spawn(async move {
        tokio::select! {
            () = stopped => {}
            Err(error) = async { axum::serve(Bounded::new(listener), router).await } => {
                error!(%error, "admin port closed");
            }
        }
    });
    AdminServer { _stop: stop.drop_guard() }
}

#[derive(Clone)]
struct AdminState {
    readiness: Readiness,
    metrics: Metrics,
    shutdown: Shutdown,
}

/// One request a connection: an idle one would hold a slot.
async fn close(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn livez() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "ok": true }))
}

async fn readyz(State(state): State<AdminState>) -> Response {
    let mut report = state.readiness.report();
    if state.shutdown.is_requested() {
        report.ready = false;
        let draining = CheckReport { ok: false, reason: Some("draining".to_owned()) };
        report.checks.insert(SHUTDOWN_CHECK, draining);
    }
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

async fn render_metrics(State(state): State<AdminState>) -> Response {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], state.metrics.render()).into_response()
}
