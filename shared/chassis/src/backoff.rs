//! How long to wait before the next try. It never sleeps and never gives up: the caller does both.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Growing pauses with full jitter: each is a random time up to a ceiling that doubles.
///
/// Jitter spreads the tries of many processes that lost the same server at the same moment.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Starts with pauses of up to `first`, and never pauses longer than `max`.
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Self {
        let first = first.min(max);
        Self { first, max, ceiling: first }
    }

    /// The pause before the next try. The ceiling doubles with each call.
    pub fn next_delay(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_mul(2).min(self.max);
        ceiling.mul_f64(random_fraction())
    }

    /// Begins anew: call it once a try succeeded.
    pub fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

/// A number from 0 to 1, different in each process and each call. Not for secrets.
fn random_fraction() -> f64 {
    // Every RandomState has keys of its own, seeded by the system, so an empty hash is random.
    let random = RandomState::new().build_hasher().finish();
    let high = u32::try_from(random >> 32).expect("32 bits are left");
    f64::from(high) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(1);

    #[test]
    fn no_delay_is_longer_than_its_ceiling() {
        for _ in 0..1000 {
            let mut backoff = Backoff::new(FIRST, MAX);
            for ceiling_ms in [100, 200, 400, 800, 1000, 1000, 1000] {
                assert!(backoff.next_delay() <= Duration::from_millis(ceiling_ms));
            }
        }
    }

    #[test]
    fn delays_are_spread_over_the_whole_range() {
        let delays: Vec<_> = (0..1000).map(|_| Backoff::new(MAX, MAX).next_delay()).collect();
        assert!(delays.iter().any(|delay| *delay < MAX / 10));
        assert!(delays.iter().any(|delay| MAX / 10 * 9 < *delay));
    }

    #[test]
    fn reset_begins_with_the_first_delay_again() {
        let mut backoff = Backoff::new(FIRST, MAX);
        for _ in 0..10 {
            backoff.next_delay();
        }
        backoff.reset();
        assert!(backoff.next_delay() <= FIRST);
    }

    #[test]
    fn ceiling_does_not_overflow() {
        let mut backoff = Backoff::new(Duration::MAX / 2, Duration::MAX / 2);
        for _ in 0..10 {
            assert!(backoff.next_delay() <= Duration::MAX / 2);
        }
    }

    #[test]
    fn first_delay_longer_than_the_longest_is_cut() {
        assert!(Backoff::new(MAX, FIRST).next_delay() <= FIRST);
    }
}
