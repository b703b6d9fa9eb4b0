//! One log record, read for the stores: the recognised fields and the text that search looks in.
//!
//! The record itself is never rebuilt: what is stored and shown is the text that the game sent.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::text;

/// Bytes of search text kept of one record; what is beyond is stored and shown, but not found.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a number that is written without allocating: any integer, and floats as people write them.
const DIGITS_MAX: usize = 32;

/// Longest name of a level, in bytes, white space around it included.
const LEVEL_BYTES_MAX: usize = 16;

/// Longest JSON text of a level: its quotes, and each byte as an escape of six.
const LEVEL_JSON_BYTES_MAX: usize = 2 + 6 * LEVEL_BYTES_MAX;

/// How severe a record is. The order is that of severity.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Finest detail.
    Trace,
    /// For the developer.
    Debug,
    /// What a record without a level has.
    #[default]
    Info,
    /// Handled, worth knowing.
    Warn,
    /// Something failed.
    Error,
    /// The game cannot go on.
    Fatal,
}

impl Level {
    /// All levels, mildest first.
    pub const ALL: [Self; 6] =
        [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Fatal];

    /// Reads a level in any case, also by its other names; `None` for anything else.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut lower = [0_u8; LEVEL_BYTES_MAX];
        let name = name.trim();
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        Some(match &*lower {
            b"trace" | b"verbose" => Self::Trace,
            b"debug" => Self::Debug,
            b"info" | b"log" | b"notice" => Self::Info,
            b"warn" | b"warning" => Self::Warn,
            b"error" | b"err" | b"exception" | b"assert" => Self::Error,
            b"fatal" | b"critical" => Self::Fatal,
            _ => return None,
        })
    }

    /// Reads the JSON text of a field `level`: what a record has that says so. `None` when it is no
    /// text; unknown text is `info`.
    #[must_use]
    pub fn of_json(raw: &str) -> Option<Self> {
        let quoted = raw.trim_ascii().strip_prefix('"')?.strip_suffix('"')?;
        match quoted.as_bytes() {
            // As most games write them: cheap, since the gateway asks for each record.
            b"debug" => return Some(Self::Debug),
            b"info" => return Some(Self::Info),
            b"warn" => return Some(Self::Warn),
            b"error" => return Some(Self::Error),
            _ => {}
        }
        if !quoted.contains('\\') {
            return Some(Self::named(quoted).unwrap_or_default());
        }
        if LEVEL_JSON_BYTES_MAX < raw.len() {
            return Some(Self::default());
        }
        let text: Cow<'_, str> = serde_json::from_str(raw).ok()?; // Nobody writes it so: rare.
        Some(Self::named(&text).unwrap_or_default())
    }

    /// The name of the level.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }
}

/// The recognised fields of a record; every other field is the game's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recognised<'a> {
    /// `message`, when it is text.
    pub message: Option<Cow<'a, str>>,
    /// `level`; `info` when it is missing or unknown.
    pub level: Level,
    /// `tag`, when it is text.
    pub tag: Option<Cow<'a, str>>,
    /// `timestamp` in Unix milliseconds.
    pub time: Option<i64>,
}

/// The records of a checked payload as raw text: an array's elements, or the one object.
///
/// # Errors
///
/// When the payload is no JSON, which the gateway has checked.
pub fn split(payload: &str) -> Result<Vec<&RawValue>, serde_json::Error> {
    let whole: &RawValue = serde_json::from_str(payload)?;
    if whole.get().starts_with('[') { serde_json::from_str(payload) } else { Ok(vec![whole]) }
}

/// Reads the recognised fields of `json`, and appends the normalised text of all its values to
/// `search`, at most [`TEXT_BYTES_MAX`] bytes.
///
/// Never fails: of a record that a parser refuses (a lone surrogate), all of the text is searched
/// and nothing is recognised.
pub fn read<'a>(json: &'a str, search: &mut String) -> Recognised<'a> {
    let start = search.len();
    let mut parser = serde_json::Deserializer::from_str(json);
    match parser.deserialize_map(Reader { search }) {
        Ok(recognised) => recognised,
        Err(_refused) => {
            search.truncate(start);
            add_text(search, json);
            Recognised::default()
        }
    }
}

fn add_text(search: &mut String, value: &str) {
    let room = TEXT_BYTES_MAX.saturating_sub(search.len());
    if room == 0 {
        return;
    }
    if !search.is_empty() && !search.ends_with(' ') {
        search.push(' ');
    }
    text::normalise_into(text::prefix(value, room), search);
}

/// Unix time as milliseconds: numbers below 1e11 are seconds.
fn unix_ms(number: f64) -> Option<i64> {
    const SECONDS_BELOW: f64 = 1e11;
    let ms = if number.abs() < SECONDS_BELOW { number * 1000.0 } else { number };
    #[expect(clippy::cast_possible_truncation, reason = "out of range is refused just before")]
    (ms.is_finite() && ms.abs() < 9e15).then_some(ms.round() as i64)
}

/// Reads a record's object; each value's text goes to `search`.
struct Reader<'s> {
    search: &'s mut String,
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Recognised<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Recognised<'de>, A::Error> {
        let mut recognised = Recognised::default();
        while let Some(field) = map.next_key_seed(FieldName)? {
            // Level, time and sequence have filters of their own; as words they would match all.
            let searched = !matches!(field, Field::Level | Field::Timestamp | Field::Seq);
            let value = AnyValue { search: searched.then_some(&mut *self.search) };
            let found = map.next_value_seed(value)?;
            match (field, found) {
                (Field::Message, Found::Text(text)) => recognised.message = Some(text),
                (Field::Tag, Found::Text(text)) => recognised.tag = Some(text),
                (Field::Level, Found::Text(text)) => {
                    recognised.level = Level::named(&text).unwrap_or_default();
                }
                (Field::Timestamp, Found::Number(number)) => recognised.time = unix_ms(number),
                (Field::Timestamp, Found::Text(text)) => {
                    recognised.time = text.trim().parse().ok().and_then(unix_ms);
                }
                _ => {}
            }
        }
        Ok(recognised)
    }
}

/// The names of fields that are recognised.
enum Field {
    Message,
    Level,
    Tag,
    Timestamp,
    Seq,
    Other,
}

struct FieldName;

impl<'de> DeserializeSeed<'de> for FieldName {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Field, D::Error> {
        parser.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Field, E> {
        Ok(match name {
            "message" => Field::Message,
            "level" => Field::Level,
            "tag" => Field::Tag,
            "timestamp" => Field::Timestamp,
            "seq" => Field::Seq,
            _ => Field::Other,
        })
    }
}

/// What a field held, as far as recognised fields need it.
enum Found<'de> {
    Text(Cow<'de, str>),
    Number(f64),
    Other,
}

/// Any value: its scalars, at any depth, are added to the search text.
struct AnyValue<'s> {
    search: Option<&'s mut String>,
}

impl AnyValue<'_> {
    fn add(self, text: &str) {
        if let Some(search) = self.search {
            add_text(search, text);
        }
    }

    /// Adds a number without allocating, as nearly every record has one.
    fn add_number(self, number: impl fmt::Display) {
        let mut digits = [0; DIGITS_MAX];
        let mut rest = &mut digits[..];
        if write!(rest, "{number}").is_err() {
            return self.add(&number.to_string()); // A float of many digits; they are rare.
        }
        let length = DIGITS_MAX - rest.len();
        self.add(std::str::from_utf8(&digits[..length]).unwrap_or_default());
    }
}

impl<'de> DeserializeSeed<'de> for AnyValue<'_> {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Found<'de>, D::Error> {
        parser.deserialize_any(self)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a time past 2^53 ms is out of range anyway")]
impl<'de> Visitor<'de> for AnyValue<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Found<'de>, E> {
        self.add(text);
        Ok(Found::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Found<'de>, E> {
        self.add(text);
        Ok(Found::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Found<'de>, E> {
        self.add_number(number);
        Ok(Found::Number(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Found<'de>, E> {
        self.add_number(number);
        Ok(Found::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Found<'de>, E> {
        self.add_number(number);
        Ok(Found::Number(number))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Found<'de>, E> {
        self.add(if truth { "true" } else { "false" });
        Ok(Found::Other)
    }

    fn visit_unit<E>(self) -> Result<Found<'de>, E> {
        Ok(Found::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Found<'de>, A::Error> {
        while list.next_element_seed(AnyValue { search: self.search.as_deref_mut() })?.is_some() {}
        Ok(Found::Other)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Found<'de>, A::Error> {
        while map.next_key::<IgnoredAny>()?.is_some() {
            map.next_value_seed(AnyValue { search: self.search.as_deref_mut() })?;
        }
        Ok(Found::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search_text(json: &str) -> String {
        let mut search = String::new();
        read(json, &mut search);
        search
    }

    #[test]
    fn recognised_fields_are_found_and_all_values_are_searched() {
        let mut search = String::new();
        let json = r#"{"message":"Player.Spawn \"x\"","level":"WARNING","tag":"net",
            "timestamp":1700000000.5,"hp":10,"where":{"scene":["Cave",true]},"seq":7}"#;
        let found = read(json, &mut search);
        assert_eq!(found.message.as_deref(), Some("Player.Spawn \"x\""));
        assert_eq!((found.level, found.tag.as_deref()), (Level::Warn, Some("net")));
        assert_eq!(found.time, Some(1_700_000_000_500));
        assert_eq!(
            search.split_whitespace().collect::<Vec<_>>(),
            ["player", "spawn", "x", "net", "10", "cave", "true"]
        );
    }

    #[test]
    fn fields_of_another_type_are_kept_and_recognise_nothing() {
        let mut search = String::new();
        let json = r#"{"message":{"a":"deep"},"level":7,"tag":[1],"timestamp":"soon"}"#;
        let found = read(json, &mut search);
        assert_eq!(found, Recognised::default());
        assert_eq!(search.trim(), "deep 1");
    }

    #[test]
    fn a_record_that_no_parser_reads_is_searched_as_text() {
        let mut search = String::new();
        let found = read(r#"{"message":"a\ud800b","n":1}"#, &mut search);
        assert_eq!(found.message, None);
        assert!(search.contains("message"), "{search}");
    }

    #[test]
    fn times_are_seconds_below_1e11_and_milliseconds_from_there() {
        let time =
            |stamp: &str| read(&format!("{{\"timestamp\":{stamp}}}"), &mut String::new()).time;
        assert_eq!(time("123123123"), Some(123_123_123_000));
        assert_eq!(time("99999999999"), Some(99_999_999_999_000));
        assert_eq!(time("100000000000"), Some(100_000_000_000));
        assert_eq!(time("\"1700000000\""), Some(1_700_000_000_000));
        assert_eq!(time("1e300"), None);
    }

    #[test]
    fn search_text_ends_at_its_bound() {
        let long = "a".repeat(TEXT_BYTES_MAX);
        assert_eq!(search_text(&format!("{{\"a\":\"{long}\"}}")).len(), TEXT_BYTES_MAX);
        let more = format!("{{\"a\":\"{long}\",\"b\":\"more\"}}");
        assert!(search_text(&more).len() <= TEXT_BYTES_MAX + 1);
    }

    #[test]
    fn numbers_are_searched_by_their_digits() {
        let json = r#"{"a":-12,"b":18446744073709551615,"c":1.5,"d":1e-60}"#;
        let text = search_text(json);
        assert!(text.starts_with("12 18446744073709551615 1 5 0 00000000"), "{text}");
    }

    #[test]
    fn a_level_is_read_by_all_its_names_in_any_case() {
        for (name, level) in
            [("Verbose", Level::Trace), ("LOG", Level::Info), ("err", Level::Error)]
        {
            assert_eq!(Level::named(name), Some(level));
        }
        assert_eq!(Level::named("a name longer than any level"), None);
        assert!(Level::Fatal > Level::Error);
    }

    #[test]
    fn one_object_splits_like_an_array_of_one() {
        let texts = |json| split(json).unwrap().iter().map(|raw| raw.get()).collect::<Vec<_>>();
        assert_eq!(texts("[{\"a\":1.0}, {}]"), ["{\"a\":1.0}", "{}"]);
        assert_eq!(texts(" {\"a\":1} "), ["{\"a\":1}"]);
    }
}
