//! How long a socket may take to sign in, and to end a line it started. Time in which we do not read
//! does not count. A socket that owes nothing has no timer. A game that said hello is asked after a
//! silence of one heartbeat whether it is there, and is closed after two.

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
    /// Of a game that said hello.
    heartbeat: Option<Box<Heartbeat>>,
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct Heartbeat {
    every: Duration,
    /// When something came last.
    heard: Instant,
    /// The game was asked whether it is there.
    asked: bool,
}

impl Heartbeat {
    fn due(&self) -> Instant {
        self.heard + self.every * if self.asked { 2 } else { 1 }
    }
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A sign-in, or the end of a line, did not come in time.
    Owed,
    /// The game was silent for a heartbeat: ask.
    Ask,
    /// It was silent for two.
    Silent,
}

impl Deadlines {
    /// A socket that just connected.
    pub(crate) fn new(sign_in_within: Duration) -> Self {
        Self {
            sign_in: Some(Instant::now() + sign_in_within),
            line: None,
            paused: None,
            heartbeat: None,
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

    /// Silence counts so from now on; not at all with `None`.
    pub(crate) fn beat(&mut self, every: Option<Duration>) {
        let now = self.heartbeat.as_ref().map(|heartbeat| heartbeat.every);
        if now != every {
            self.heartbeat = every
                .map(|every| Box::new(Heartbeat { every, heard: Instant::now(), asked: false }));
        }
    }

    /// Something came.
    pub(crate) fn heard(&mut self) {
        if let Some(heartbeat) = &mut self.heartbeat {
            (heartbeat.heard, heartbeat.asked) = (Instant::now(), false);
        }
    }

    /// Whether a line is unfinished.
    pub(crate) fn has_line(&self) -> bool {
        self.line.is_some()
    }

    /// The socket is closing, and must be closed in time, whatever else it owed.
    pub(crate) fn replace(&mut self, within: Duration) {
        self.sign_in = Some(Instant::now() + within);
        (self.line, self.paused, self.heartbeat) = (None, None, None);
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
        let heard = self.heartbeat.as_mut().map(|heartbeat| &mut heartbeat.heard);
        for deadline in [self.sign_in.as_mut(), self.line.as_mut(), heard].into_iter().flatten() {
            *deadline += lost;
        }
    }

    /// Ready when something is due.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
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
                return Poll::Ready(self.due());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// What passed.
    fn due(&mut self) -> Due {
        let now = Instant::now();
        let owed = [self.sign_in, self.line].into_iter().flatten().any(|deadline| deadline <= now);
        match &mut self.heartbeat {
            Some(heartbeat) if !owed && !heartbeat.asked => {
                heartbeat.asked = true;
                Due::Ask
            }
            Some(_) if !owed => Due::Silent,
            _ => Due::Owed,
        }
    }

    fn nearest(&self) -> Option<Instant> {
        let silence = self.heartbeat.as_ref().map(|heartbeat| heartbeat.due());
        [self.sign_in, self.line, silence].into_iter().flatten().min()
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
    async fn a_silent_game_is_asked_after_one_heartbeat_and_given_up_after_two() {
        let mut deadlines = Deadlines::new(SIGN_IN);
        deadlines.signed_in();
        deadlines.beat(Some(LINE));
        let began = Instant::now();
        assert_eq!(poll_fn(|cx| deadlines.poll(cx)).await, Due::Ask);
        about(began.elapsed(), LINE);
        assert_eq!(poll_fn(|cx| deadlines.poll(cx)).await, Due::Silent);
        about(began.elapsed(), LINE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_speaks_or_is_not_read_is_not_silent() {
        let mut deadlines = Deadlines::new(SIGN_IN);
        deadlines.signed_in();
        deadlines.beat(Some(LINE));
        assert_eq!(poll_fn(|cx| deadlines.poll(cx)).await, Due::Ask);
        deadlines.heard();
        deadlines.beat(Some(LINE));
        deadlines.pause();
        advance(LINE * 10).await;
        deadlines.resume();
        let began = Instant::now();
        assert_eq!(poll_fn(|cx| deadlines.poll(cx)).await, Due::Ask);
        about(began.elapsed(), LINE);
        deadlines.beat(None);
        assert!(timeout(LINE * 100, poll_fn(|cx| deadlines.poll(cx))).await.is_err());
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
