//! Which index a record is in: one a day, by its arrival in UTC.

use observer_wire::time::to_day;

/// All indices of ours, as a pattern.
pub(super) const ALL: &str = "observer-logs-*";

const MS: i64 = 24 * 60 * 60 * 1_000;

/// What a gateway's clock may be ahead of ours, in milliseconds: it has named the day's index.
const SKEW_MS_MAX: i64 = 60 * 1_000;

/// A UTC day, in days since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Day(i64);

impl Day {
    /// The day of a time in Unix milliseconds.
    pub(super) fn of(unix_ms: i64) -> Self {
        Self(unix_ms.div_euclid(MS))
    }

    /// The day before.
    pub(super) fn before(self) -> Self {
        Self(self.0 - 1)
    }

    /// The day behind, once it has begun by a clock that shows `now`, in Unix milliseconds, or by one that
    /// is a little ahead of it.
    pub(super) fn after(self, now: i64) -> Option<Self> {
        let after = Self(self.0 + 1);
        (after <= Self::of(now.saturating_add(SKEW_MS_MAX))).then_some(after)
    }

    /// The name of the day's index.
    pub(super) fn index(self) -> String {
        format!("observer-logs-{}", to_day(self.0.saturating_mul(MS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_holds_what_arrived_on_its_day() {
        let midnight = Day::of(1_700_006_400_000);
        assert_eq!(midnight.index(), "observer-logs-2023.11.15");
        assert_eq!(Day::of(1_700_006_399_999), midnight.before());
        assert_eq!(midnight.before().index(), "observer-logs-2023.11.14");
        assert_eq!(Day::of(0).after(MS - SKEW_MS_MAX), Some(Day::of(MS)));
        assert_eq!(Day::of(0).after(MS - SKEW_MS_MAX - 1), None);
        assert_eq!(Day::of(-1).index(), "observer-logs-1969.12.31");
        assert_eq!(Day::of(i64::MIN).index(), "observer-logs-0001.01.01");
    }
}
