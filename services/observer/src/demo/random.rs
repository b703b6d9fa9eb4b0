//! Chance for the demo. Not for secrets.

/// A small generator (splitmix64), the same numbers for the same seed.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// Numbers that follow from `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `below`, without `below`.
    pub(super) fn below(&mut self, below: u32) -> u32 {
        let high = u32::try_from(self.next() >> 32).expect("32 bits are left");
        // The bias of a few in 2^32 is no matter here.
        high % below.max(1)
    }

    /// A number from `low` to `high`, with two digits behind the point.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        let fraction = f64::from(self.below(1_000_001)) / 1_000_000.0;
        ((low + (high - low) * fraction) * 100.0).round() / 100.0
    }

    /// One of `choices`.
    pub(super) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        let last = u32::try_from(choices.len()).unwrap_or(u32::MAX);
        choices[self.below(last) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_in_their_range() {
        let mut random = Random::new(7);
        for _ in 0..1_000 {
            assert!(random.below(3) < 3);
            assert!((-1.0..=1.0).contains(&random.between(-1.0, 1.0)));
        }
    }
}
