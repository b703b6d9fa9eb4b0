//! Times as text: RFC 3339 in UTC with milliseconds, from Unix milliseconds and back.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// Unix milliseconds as RFC 3339 UTC with three digits of fraction; times out of range are clamped.
#[must_use]
pub fn to_rfc3339(unix_ms: i64) -> String {
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    from_ms(unix_ms).format(&format).expect("years 1 to 9999 can be written")
}

/// The UTC day of a time as `YYYY.MM.DD`, for the names of daily indices.
#[must_use]
pub fn to_day(unix_ms: i64) -> String {
    let format = format_description!("[year].[month].[day]");
    from_ms(unix_ms).format(&format).expect("years 1 to 9999 can be written")
}

/// Reads RFC 3339 with any offset; `None` when it is none.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

fn from_ms(unix_ms: i64) -> OffsetDateTime {
    // Years 1 to 9999: what RFC 3339 can say.
    const MIN_MS: i64 = -62_135_596_800_000;
    const MAX_MS: i64 = 253_402_300_799_999;
    let nanos = i128::from(unix_ms.clamp(MIN_MS, MAX_MS)) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).expect("clamped to the years 1 to 9999")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_its_text() {
        assert_eq!(to_rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(parse_rfc3339("2023-11-14T23:13:20.123+01:00"), Some(1_700_000_000_123));
        assert_eq!(to_day(1_700_000_000_123), "2023.11.14");
        assert_eq!(parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn times_nobody_can_write_are_clamped() {
        assert_eq!(to_rfc3339(i64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(to_rfc3339(i64::MIN), "0001-01-01T00:00:00.000Z");
    }
}
