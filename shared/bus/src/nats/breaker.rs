//! Publishing stops while the broker does not answer. The client library keeps a few hundred bytes of
//! every request that nobody answered, for ever: a broker that hangs for minutes would cost memory
//! that never comes back, and every publisher would wait for what cannot come.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Attempts in a row without an answer, over all publishers, after which publishing stops. Fewer
/// are a hiccup; at 570 bytes each they cost 36 KiB.
const UNANSWERED_MAX: u32 = 64;

/// Whether attempts are allowed: all of them, or one at a time.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Attempts without an answer since the last answer.
    unanswered: AtomicU32,
    /// One attempt finds out whether the broker answers again.
    probing: AtomicBool,
}

/// Leave for one attempt. While publishing is stopped, nobody else has one.
#[derive(Debug)]
pub(super) struct Leave<'b> {
    breaker: &'b Breaker,
    is_probe: bool,
}

impl Breaker {
    /// Leave for an attempt; `None` when publishing is stopped and somebody is finding out already.
    pub(super) fn leave(&self) -> Option<Leave<'_>> {
        let is_probe = self.is_open();
        if is_probe && self.probing.swap(true, Ordering::AcqRel) {
            return None;
        }
        Some(Leave { breaker: self, is_probe })
    }

    /// Whether publishing is stopped.
    pub(super) fn is_open(&self) -> bool {
        UNANSWERED_MAX <= self.unanswered.load(Ordering::Relaxed)
    }
}

impl Leave<'_> {
    /// The broker answered, whatever it said: publishing goes on.
    pub(super) fn answered(self) {
        if self.breaker.unanswered.load(Ordering::Relaxed) == 0 {
            return; // The usual case writes nothing that others read.
        }
        if self.breaker.unanswered.swap(0, Ordering::Relaxed) >= UNANSWERED_MAX {
            tracing::info!("broker answers again, publishing goes on");
        }
    }

    /// The broker did not answer in time.
    pub(super) fn unanswered(self) {
        if self.breaker.unanswered.fetch_add(1, Ordering::Relaxed) + 1 == UNANSWERED_MAX {
            tracing::warn!("broker does not answer, publishing stops until it does");
        }
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.breaker.probing.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &Breaker, times: u32) {
        for _ in 0..times {
            breaker.leave().unwrap().unanswered();
        }
    }

    #[test]
    fn publishing_goes_on_below_the_bound_and_stops_at_it() {
        let breaker = Breaker::default();
        fail(&breaker, UNANSWERED_MAX - 1);
        let (_one, _two) = (breaker.leave().unwrap(), breaker.leave().unwrap());
        assert!(!breaker.is_open());
        fail(&breaker, 1);
        assert!(breaker.is_open());
    }

    #[test]
    fn one_at_a_time_finds_out_and_its_answer_opens_the_way_for_all() {
        let breaker = Breaker::default();
        fail(&breaker, UNANSWERED_MAX);
        let probe = breaker.leave().unwrap();
        assert!(breaker.leave().is_none());
        probe.unanswered();
        let probe = breaker.leave().expect("the next one may try");
        assert!(breaker.leave().is_none());
        drop(probe); // Given up without an outcome.
        breaker.leave().unwrap().answered();
        let (_one, _two) = (breaker.leave().unwrap(), breaker.leave().unwrap());
    }

    #[test]
    fn an_answer_in_between_begins_the_count_anew() {
        let breaker = Breaker::default();
        fail(&breaker, UNANSWERED_MAX - 1);
        breaker.leave().unwrap().answered();
        fail(&breaker, UNANSWERED_MAX - 1);
        assert!(!breaker.is_open());
    }
}
