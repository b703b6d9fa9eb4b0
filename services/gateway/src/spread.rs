//! When the games of a gateway that stops come back: not all at once.

use std::sync::atomic::{AtomicU32, Ordering};

/// Soonest return, in milliseconds: another gateway must have been found by then.
const SOONEST_MS: u32 = 1_000;

/// The returns lie within this many milliseconds: an eighth of them or so in any second.
const WITHIN_MS: u32 = 8_000;

/// The golden section of the circle of all `u32`: steps of it lie as far from each other as can be.
const STEP: u32 = 2_654_435_769;

/// Times that are spread evenly, from a random one on, however many there are.
#[derive(Debug)]
pub(crate) struct Spread(AtomicU32);

impl Spread {
    /// Begins anywhere.
    pub(crate) fn new(random: u32) -> Self {
        Self(AtomicU32::new(random))
    }

    /// When the next one shall come back, in milliseconds.
    pub(crate) fn next_ms(&self) -> u32 {
        let at = u64::from(self.0.fetch_add(STEP, Ordering::Relaxed));
        let within = (at * u64::from(WITHIN_MS)) >> 32;
        SOONEST_MS + u32::try_from(within).unwrap_or(WITHIN_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_more_than_a_fifth_comes_back_within_any_second() {
        for (random, count) in [(0, 50), (7, 100), (u32::MAX, 1_000), (12_345, 20_000)] {
            let spread = Spread::new(random);
            let mut times: Vec<u32> = (0..count).map(|_| spread.next_ms()).collect();
            times.sort_unstable();
            for (at, first) in times.iter().enumerate() {
                let within = times[at..].iter().take_while(|time| **time < first + 1_000).count();
                assert!(within * 5 <= count, "{within} of {count} from {first} ms on");
            }
            assert!(times.iter().all(|time| (1_000..=9_000).contains(time)));
        }
    }
}
