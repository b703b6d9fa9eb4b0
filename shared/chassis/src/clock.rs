//! The wall clock, as numbers. For timestamps only: measure durations with `Instant`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01 UTC. A clock set before then reads as 0.
#[must_use]
pub fn now_ms() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

/// Microseconds since 1970-01-01 UTC. A clock set before then reads as 0.
#[must_use]
pub fn now_us() -> u64 {
    u64::try_from(since_epoch().as_micros()).unwrap_or(u64::MAX)
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-01-01 UTC, in milliseconds.
    const YEAR_2024_MS: u64 = 1_704_067_200_000;

    #[test]
    fn both_units_tell_the_same_time() {
        let (ms, us) = (now_ms(), now_us());
        assert!(YEAR_2024_MS < ms);
        assert!(us / 1000 - ms < 60_000);
    }
}
