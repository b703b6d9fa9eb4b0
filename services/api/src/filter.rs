//! Which records a viewer asked for. A search means the same for stored records, where the store
//! carries it out, and for live ones, where this file does.

use observer_wire::record::Level;
use observer_wire::text::{QUERY_BYTES_MAX, QUERY_TERMS_MAX, Term, parse_query};
use serde_json::value::RawValue;

use crate::feed::Record;
use crate::object;
use crate::problem::ApiError;
use crate::query::Params;

/// Longest device id that anybody has, in bytes.
const DEVICE_BYTES_MAX: usize = 128;

/// Conditions, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Filter {
    pub(crate) level: Option<Level>,
    pub(crate) device: Option<String>,
    pub(crate) terms: Vec<Term>,
}

impl Filter {
    /// Reads `level`, `device` and `q`.
    pub(crate) fn read(params: &Params) -> Result<Self, ApiError> {
        let level = match params.text("level") {
            None => None,
            Some(name) => Some(Level::named(name).ok_or_else(|| {
                let names = Level::ALL.map(Level::name).join(", ");
                ApiError::field("level", format!("expected one of {names}"))
            })?),
        };
        let device = params.text("device").map(str::to_owned);
        if device.as_ref().is_some_and(|device| device.len() > DEVICE_BYTES_MAX) {
            return Err(ApiError::field("device", "is longer than any device's id"));
        }
        let query = params.text("q").unwrap_or_default();
        if query.len() > QUERY_BYTES_MAX {
            return Err(ApiError::field("q", format!("has more than {QUERY_BYTES_MAX} bytes")));
        }
        let terms = parse_query(query);
        if terms.is_empty() && !query.trim().is_empty() {
            return Err(ApiError::field("q", "has no letter or digit to look for"));
        }
        if terms.len() > QUERY_TERMS_MAX {
            return Err(ApiError::field("q", format!("has more than {QUERY_TERMS_MAX} terms")));
        }
        Ok(Self { level, device, terms })
    }

    /// Whether every record passes.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a live record passes.
    pub(crate) fn matches(&self, record: &Record) -> bool {
        self.level.is_none_or(|level| record.level >= level)
            && self.device.as_ref().is_none_or(|device| *device == record.device)
            && self.terms.iter().all(|term| term_matches(term, record))
    }
}

fn term_matches(term: &Term, record: &Record) -> bool {
    match term {
        Term::Phrase(words) => {
            let phrase = words.join(" ");
            find(&record.text, &phrase).any(|end| is_word_end(&record.text, end))
        }
        Term::Prefix(words) => find(&record.text, &words.join(" ")).next().is_some(),
        Term::Field { name, value } => field_matches(&record.json, name, value),
    }
}

/// Where `words` end in `text`, for each place where they begin at a word's beginning.
fn find<'a>(text: &'a str, words: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(words)
        .filter(|(start, _)| *start == 0 || text.as_bytes()[start - 1] == b' ')
        .map(|(start, found)| start + found.len())
}

fn is_word_end(text: &str, end: usize) -> bool {
    end == text.len() || text.as_bytes()[end] == b' '
}

fn field_matches(json: &str, name: &str, value: &str) -> bool {
    let fields = object::fields(json).unwrap_or_default();
    fields.iter().any(|(found, json)| found == name && is_value(json, value))
}

/// Whether a scalar reads so: a text by its letters, a number also by what it amounts to.
fn is_value(json: &RawValue, value: &str) -> bool {
    let text = json.get();
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(text).is_ok_and(|text| text == value),
        Some(b't' | b'f') => text == value,
        Some(b'-' | b'0'..=b'9') => text == value || same_number(text, value),
        _ => false,
    }
}

fn same_number(left: &str, right: &str) -> bool {
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    // Long integers differ where their nearest floats do not.
    if left.parse::<i64>().is_ok() && right.parse::<i64>().is_ok() {
        return left.parse::<i64>() == right.parse::<i64>();
    }
    number(left).is_some() && number(left) == number(right)
}

#[cfg(test)]
mod tests {
    use observer_wire::record;

    use super::*;

    fn matches(json: &str, query: &str) -> bool {
        let mut text = String::new();
        let level = record::read(json, &mut text).level;
        let record =
            Record { json: json.into(), observer: String::new(), device: "d1".into(), level, text };
        Filter { terms: parse_query(query), ..Filter::default() }.matches(&record)
    }

    const SPAWN: &str =
        r#"{"message":"Player.Spawn at the gate","hp":10.0,"boss":false,"zone":"A 1","n":null}"#;

    #[test]
    fn words_must_all_stand_in_the_record() {
        for query in ["player", "SPAWN gate", "\"player spawn\" ", "gat", "player.sp", "10 ", ""] {
            assert!(matches(SPAWN, query), "{query}");
        }
        for query in ["gat ", "gate player spawnx", "\"spawn player\"", "layer", "\"play\""] {
            assert!(!matches(SPAWN, query), "{query}");
        }
    }

    #[test]
    fn a_field_must_have_exactly_the_value() {
        for query in [
            "hp:10",
            "hp:10.0",
            "boss:false",
            "zone:\"A 1\"",
            "message:\"Player.Spawn at the gate\"",
        ] {
            assert!(matches(SPAWN, query), "{query}");
        }
        for query in ["hp:1", "boss:true", "zone:a", "n:null", "other:10", "hp:nan"] {
            assert!(!matches(SPAWN, query), "{query}");
        }
    }

    #[test]
    fn a_level_lets_the_more_severe_pass_too() {
        let filter = Filter { level: Some(Level::Warn), ..Filter::default() };
        let record = |level| Record {
            json: "{}".into(),
            observer: String::new(),
            device: "d1".into(),
            level,
            text: String::new(),
        };
        assert!(filter.matches(&record(Level::Error)) && filter.matches(&record(Level::Warn)));
        assert!(!filter.matches(&record(Level::Info)));
        let filter = Filter { device: Some("d2".into()), ..Filter::default() };
        assert!(!filter.matches(&record(Level::Fatal)));
    }
}
