//! The payload of an `n:` line: what a game's SDK had to drop; and the gap record that it becomes, so
//! that a loss is seen where the lost records would have been.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::answer::{Code, Refusal};
use crate::json;
use crate::limits::Limits;

/// Reasons that one report may name. Protocol level 2 knows five; later ones may come.
pub const REASONS_MAX: usize = 16;

/// Longest name of a reason, in bytes.
pub const REASON_BYTES_MAX: usize = 32;

/// What was dropped, by reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Records that were dropped, by reason.
    pub counts: BTreeMap<String, u64>,
    /// Since when, in Unix milliseconds of the device's clock.
    pub since: Option<i64>,
}

#[derive(Deserialize)]
struct Report {
    dropped: Option<serde_json::Value>,
    since: Option<serde_json::Value>,
}

impl Dropped {
    /// Reads a report.
    ///
    /// # Errors
    ///
    /// [`Code::BadJson`], [`Code::BadShape`] or [`Code::TooMany`]; the words name the field.
    pub fn read(payload: &str, limits: &Limits) -> Result<Self, Refusal> {
        json::check_depth(payload, 1, limits)?;
        if !payload.trim_start().starts_with('{') {
            return Err(shape("expected an object, as {\"dropped\":{\"queue\":30},\"since\":ms}"));
        }
        let report: Report =
            serde_json::from_str(payload).map_err(|error| json::bad_json(&error))?;
        let Some(serde_json::Value::Object(dropped)) = report.dropped else {
            return Err(shape("`dropped` must be an object of counts by reason"));
        };
        if REASONS_MAX < dropped.len() {
            let words = format!("`dropped` names at most {REASONS_MAX} reasons");
            return Err(Refusal::new(Code::TooMany, words));
        }
        let mut counts = BTreeMap::new();
        for (reason, count) in dropped {
            let letters = reason.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            if !letters || !(1..=REASON_BYTES_MAX).contains(&reason.len()) {
                return Err(shape("a reason in `dropped` is 1 to 32 characters of a-z and _"));
            }
            let Some(count) = count.as_u64() else {
                return Err(shape(&format!("`dropped.{reason}` must be a whole number from 0 on")));
            };
            counts.insert(reason, count);
        }
        let since = match report.since {
            None | Some(serde_json::Value::Null) => None,
            Some(since) => {
                Some(since.as_i64().ok_or_else(|| shape("`since` must be Unix milliseconds"))?)
            }
        };
        Ok(Self { counts, since })
    }

    /// Records that were dropped, for all reasons.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The payload of the log line that tells of the loss; `by` ends the sentence "records lost".
    #[must_use]
    pub fn gap_json(&self, by: &str) -> String {
        let total = self.total();
        let mut message = format!("{total} record{} lost {by}:", if total == 1 { "" } else { "s" });
        let counts = self.counts.iter().filter(|(_, count)| 0 < **count);
        for (place, (reason, count)) in counts.enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(message, "{comma} {reason} {count}").expect("a String takes what is written");
        }
        let gap =
            Gap { kind: "gap", level: "warn", message, dropped: &self.counts, since: self.since };
        serde_json::to_string(&[gap]).expect("plain structs into memory always serialise")
    }
}

#[derive(Serialize)]
struct Gap<'a> {
    kind: &'static str,
    level: &'static str,
    message: String,
    dropped: &'a BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<i64>,
}

fn shape(words: &str) -> Refusal {
    Refusal::new(Code::BadShape, words.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::records::Records;

    fn read(json: &str) -> Result<Dropped, Refusal> {
        Dropped::read(json, &Limits::default())
    }

    #[test]
    fn a_loss_becomes_a_record_that_says_so() {
        let dropped =
            read(r#"{"dropped":{"queue":30,"rate":7,"disk":0},"since":1700000000000}"#).unwrap();
        assert_eq!(
            dropped.gap_json("by the game"),
            r#"[{"kind":"gap","level":"warn","message":"37 records lost by the game: queue 30, rate 7","dropped":{"disk":0,"queue":30,"rate":7},"since":1700000000000}]"#
        );
        let one = read(r#"{"dropped":{"size":1},"more":[1]}"#).unwrap();
        assert!(one.gap_json("by the game").contains("\"1 record lost by the game: size 1\""));
    }

    #[test]
    fn a_report_of_another_shape_is_refused_by_name() {
        for (json, named) in [
            ("[]", "object"),
            ("{}", "`dropped`"),
            (r#"{"dropped":7}"#, "`dropped`"),
            (r#"{"dropped":{"queue":-1}}"#, "`dropped.queue`"),
            (r#"{"dropped":{"queue":"1"}}"#, "`dropped.queue`"),
            (r#"{"dropped":{"Queue":1}}"#, "reason"),
            (r#"{"dropped":{"":1}}"#, "reason"),
            (r#"{"dropped":{},"since":"noon"}"#, "`since`"),
        ] {
            let refusal = read(json).unwrap_err();
            assert_eq!(refusal.code, Code::BadShape, "{json}");
            assert!(refusal.words.contains(named), "{json}: {refusal}");
        }
    }

    #[test]
    fn reasons_have_bounds() {
        let report = |count: usize| {
            let reasons: Vec<_> =
                (0..count).map(|n| format!("\"{}\":1", "a".repeat(n + 1))).collect();
            read(&format!("{{\"dropped\":{{{}}}}}", reasons.join(",")))
        };
        assert_eq!(report(REASONS_MAX).unwrap().total(), REASONS_MAX as u64);
        assert_eq!(report(REASONS_MAX + 1).unwrap_err().code, Code::TooMany);
        let longest = "a".repeat(REASON_BYTES_MAX);
        assert!(read(&format!("{{\"dropped\":{{\"{longest}\":1}}}}")).is_ok());
        assert!(read(&format!("{{\"dropped\":{{\"{longest}a\":1}}}}")).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,200}") {
            let _read = read(&text);
        }

        #[test]
        fn a_gap_is_one_good_record(
            counts in proptest::collection::btree_map("[a-z_]{1,32}", any::<u64>(), 0..16),
            since in any::<Option<i64>>(),
        ) {
            let json = Dropped { counts, since }.gap_json("by the game");
            let mut records = Records::default();
            records.check(&json, &Limits::default()).unwrap();
            prop_assert_eq!((records.count, records.odd.len()), (1, 0));
        }
    }
}
