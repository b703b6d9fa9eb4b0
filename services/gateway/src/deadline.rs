//! How long a socket may take to sign in, and to end a line it started. Time in which we do not read
//! does not count. A socket that owes nothing has no timer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The deadlines of one socket.
#[derive(Debug)]
pub(crate) struct Deadlines {
    /// When it must have signed in; `None` once it has.
    sign_in: Option<Instant>,
    /// When the line that it started must have ended; `None` between lines.
    line: Option<Instant>,
    /// Since when it has not been read.
    paused: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadlines {
    /// A socket that just connected.
    pub(crate) fn new(sign_in_within: Duration) -> Self {
        Self {
            sign_in: Some(Instant::now() + sign_in_within),
            line: None,
            paused: None,
            timer: None,
        }
    }

    /// It signed in: from now on it may be silent.
    pub(crate) fn signed_in(&mut self) {
        self.sign_in = None;
    }

    /// A line was started, which must end in time.
    pub(crate) fn line_started(&mut self, within: Duration) {
        self.line = Some(Instant::now() + within);
    }

    /// No line is unfinished.
    pub(crate) fn line_ended(&mut self) {
        self.line = None;
    }

    /// Whether a line is unfinished.
    pub(crate) fn has_line(&self) -> bool {
        self.line.is_some()
    }

    /// The socket is closing, and must be closed in time, whatever else it owed.
    pub(crate) fn replace(&mut self, within: Duration) {
        self.sign_in = Some(Instant::now() + within);
        (self.line, self.paused) = (None, None);
    }

    /// We do not read: what passes does not count.
    pub(crate) fn pause(&mut self) {
        if self.paused.is_none() && self.nearest().is_some() {
            self.paused = Some(Instant::now());
        }
    }

    /// We read again.
    pub(crate) fn resume(&mut self) {
        let Some(paused) = self.paused.take() else { return };
        let lost = paused.elapsed();
        for deadline in [&mut self.sign_in, &mut self.line].into_iter().flatten() {
            *deadline += lost;
        }
    }

    /// Ready when a deadline passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.nearest().filter(|_| self.paused.is_none()) else {
            self.timer = None;
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // A timer that is set too early is set again when it rings: deadlines move more often.
        if deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    fn nearest(&self) -> Option<Instant> {
        match (self.sign_in, self.line) {
            (Some(sign_in), Some(line)) => Some(sign_in.min(line)),
            (one, other) => one.or(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, timeout};

    use super::*;

    const SIGN_IN: Duration = Duration::from_mins(1);
    const LINE: Duration = Duration::from_secs(30);

    async fn passed_after(deadlines: &mut Deadlines) -> Duration {
        let began = Instant::now();
        poll_fn(|cx| deadlines.poll(cx)).await;
        began.elapsed()
    }

    fn about(time: Duration, expected: Duration) {
        assert!(expected <= time && time < expected + Duration::from_millis(5), "{time:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_nearest_deadline_counts() {
        let mut deadlines = Deadlines::new(SIGN_IN);
        deadlines.line_started(LINE);
        about(passed_after(&mut deadlines).await, LINE);
        deadlines.line_ended();
        about(passed_after(&mut deadlines).await, SIGN_IN.saturating_sub(LINE));
    }

    #[tokio::test(start_paused = true)]
    async fn time_without_reading_does_not_count() {
        let mut deadlines = Deadlines::new(SIGN_IN);
        advance(Duration::from_secs(10)).await;
        deadlines.pause();
        advance(Duration::from_secs(100)).await;
        deadlines.resume();
        about(passed_after(&mut deadlines).await, Duration::from_secs(50));
    }

    #[tokio::test(start_paused = true)]
    async fn who_owes_nothing_has_no_timer() {
        let mut deadlines = Deadlines::new(SIGN_IN);
        deadlines.signed_in();
        let waited = timeout(SIGN_IN * 100, passed_after(&mut deadlines)).await;
        assert!(waited.is_err());
        assert!(deadlines.timer.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_early_timer_is_set_again() {
        let mut deadlines = Deadlines::new(SIGN_IN);
        deadlines.line_started(LINE);
        assert!(timeout(Duration::from_secs(1), passed_after(&mut deadlines)).await.is_err());
        deadlines.line_ended();
        about(passed_after(&mut deadlines).await, Duration::from_secs(59));
    }
}
