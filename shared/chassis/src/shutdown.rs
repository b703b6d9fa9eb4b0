//! The wish to end, and the time left for it. Whoever holds a [`Shutdown`] stops taking new work
//! when it is requested, and drains the old before the deadline.

use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::unix::Signals;

/// Work was still open when the time to end was over. It was cut off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DrainTimeout {
    /// The grace passed. What is cut off regularly needs a longer grace.
    #[error("work was still open {} s after shutdown was requested", grace.as_secs_f64())]
    GraceOver {
        /// The time that was given.
        grace: Duration,
    },
    /// Somebody asked a second time, and so for an end without waiting.
    #[error("work was still open when shutdown was requested a second time")]
    Hurried,
}

/// A request to end, shared by all parts of a process. Clones are the same request.
#[derive(Clone, Debug)]
pub struct Shutdown {
    requested: CancellationToken,
    common: Arc<Common>,
}

/// What all stages of one shutdown share.
#[derive(Debug)]
struct Common {
    grace: Duration,
    deadline: OnceLock<Instant>,
    /// Parent of every stage's token: to hurry is to request all stages.
    hurry: CancellationToken,
}

impl Shutdown {
    /// Nothing is requested yet; once it is, work has `grace` to finish.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        let hurry = CancellationToken::new();
        let requested = hurry.child_token();
        Self { requested, common: Arc::new(Common { grace, deadline: OnceLock::new(), hurry }) }
    }

    /// A later stage of the same shutdown: requested on its own, with the same deadline.
    ///
    /// For draining in order: consumers are asked to end once producers have.
    #[must_use]
    pub fn later_stage(&self) -> Self {
        Self { requested: self.common.hurry.child_token(), common: Arc::clone(&self.common) }
    }

    /// Waits until shutdown is requested.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again at will.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Whether shutdown was requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Requests shutdown. The first request, of any stage, starts the clock; repeating does nothing.
    pub fn request(&self) {
        self.start_clock();
        self.requested.cancel();
    }

    /// Requests an end at once, of all stages: no drain waits any longer.
    pub fn hurry(&self) {
        self.start_clock();
        self.common.hurry.cancel();
    }

    /// The time work is given to finish.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.common.grace
    }

    /// When the grace is over, or `None` while no stage has been requested.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.common.deadline.get().copied()
    }

    /// Waits for `work`, but not past the deadline. The clock starts now if it had not.
    ///
    /// Work that is ready is taken even when the time is over.
    ///
    /// # Errors
    ///
    /// [`DrainTimeout`] when the time was over first; `work` is dropped then.
    pub async fn drain<F: Future>(&self, work: F) -> Result<F::Output, DrainTimeout> {
        let deadline = self.start_clock();
        tokio::select! {
            biased;
            output = work => Ok(output),
            () = self.common.hurry.cancelled() => Err(DrainTimeout::Hurried),
            () = tokio::time::sleep_until(deadline) => {
                Err(DrainTimeout::GraceOver { grace: self.common.grace })
            }
        }
    }

    fn start_clock(&self) -> Instant {
        *self.common.deadline.get_or_init(|| Instant::now() + self.common.grace)
    }
}

/// A [`Shutdown`] that SIGTERM and SIGINT (elsewhere Ctrl-C) request; a second signal hurries it.
///
/// # Errors
///
/// When the system refuses the signal handlers.
///
/// # Panics
///
/// Outside a tokio runtime.
pub fn shutdown_on_signals(grace: Duration) -> io::Result<Shutdown> {
    let signals = Signals::listen()?; // Now, so that no signal ends the process in between.
    let shutdown = Shutdown::new(grace);
    // The watcher lives as long as the process: nobody waits for it, so no tracker is kept.
    TaskTracker::new().spawn(watch(signals, shutdown.clone()));
    Ok(shutdown)
}

async fn watch(mut signals: Signals, shutdown: Shutdown) {
    let signal = signals.next().await;
    info!(signal, grace_secs = shutdown.grace().as_secs_f64(), "shutdown requested");
    shutdown.request();

    let signal = signals.next().await;
    warn!(signal, "shutdown requested again, not waiting any longer");
    shutdown.hurry();
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn drain_gives_up_when_the_grace_is_over() {
        let shutdown = Shutdown::new(GRACE);
        let began = Instant::now();
        shutdown.request();
        let drained = shutdown.drain(pending::<()>()).await;
        assert_eq!(drained, Err(DrainTimeout::GraceOver { grace: GRACE }));
        assert!(GRACE <= began.elapsed());
        assert!(began.elapsed() < GRACE + Duration::from_millis(10));
    }

    #[tokio::test(start_paused = true)]
    async fn every_drain_has_the_same_deadline() {
        let shutdown = Shutdown::new(GRACE);
        let began = Instant::now();
        shutdown.request();
        assert!(shutdown.drain(pending::<()>()).await.is_err());
        assert!(shutdown.later_stage().drain(pending::<()>()).await.is_err());
        assert!(began.elapsed() < GRACE + Duration::from_millis(10));
    }

    #[tokio::test(start_paused = true)]
    async fn finished_work_is_taken_even_past_the_deadline() {
        let shutdown = Shutdown::new(GRACE);
        shutdown.request();
        tokio::time::advance(GRACE * 2).await;
        assert_eq!(shutdown.drain(ready(7)).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn hurry_ends_a_drain_at_once() {
        let shutdown = Shutdown::new(GRACE);
        shutdown.request();
        let other = shutdown.clone();
        let began = Instant::now();
        let (drained, ()) = tokio::join!(shutdown.drain(pending::<()>()), async {
            other.hurry();
        });
        assert_eq!(drained, Err(DrainTimeout::Hurried));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn request_reaches_every_clone() {
        let shutdown = Shutdown::new(GRACE);
        let clone = shutdown.clone();
        assert!(!clone.is_requested());
        shutdown.request();
        clone.requested().await;
        assert!(clone.is_requested());
    }

    #[tokio::test]
    async fn later_stage_waits_for_its_own_request() {
        let first = Shutdown::new(GRACE);
        let second = first.later_stage();
        first.request();
        assert!(!second.is_requested());
        second.request();
        assert!(second.is_requested());
        assert_eq!(first.deadline(), second.deadline());
    }

    #[tokio::test]
    async fn hurry_requests_every_stage() {
        let first = Shutdown::new(GRACE);
        let second = first.later_stage();
        first.hurry();
        assert!(first.is_requested());
        assert!(second.is_requested());
    }
}
