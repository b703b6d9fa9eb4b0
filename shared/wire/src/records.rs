//! The payload of an `l:` line is checked once, without building a tree: it is an array of objects
//! (or one object), not too many, not too deep. Names that could be mistaken for ours are noted, and
//! the level of the most severe record: under pressure the line is shed or taken by it.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use crate::answer::{Code, Refusal};
use crate::ids::short_hash;
use crate::json;
use crate::limits::Limits;
use crate::record::Level;

/// What a checked payload holds.
#[derive(Debug, Default)]
pub struct Records {
    /// Number of records.
    pub count: u32,
    /// Indices of records with a top-level name that is or begins like one of ours, begins with
    /// `_`, holds a NUL, or stands twice.
    pub odd: Vec<u32>,
    /// Level of the most severe record; the mildest there is when there are no records.
    pub level: Level,
    /// Hashes of the names of the record at hand; kept so that a session allocates once.
    names: Vec<u64>,
}

impl Records {
    /// Checks a payload; what was held before is forgotten.
    ///
    /// # Errors
    ///
    /// [`Code::BadJson`], [`Code::BadShape`], [`Code::TooMany`] or [`Code::TooDeep`].
    pub fn check(&mut self, payload: &str, limits: &Limits) -> Result<(), Refusal> {
        self.count = 0;
        self.odd.clear();
        self.level = Level::Trace;
        let mut parser = serde_json::Deserializer::from_str(payload);
        let all = AllRecords { records: self };
        // The parser's own recursion bound guards this pass; ours is checked on sound JSON.
        let checked = parser.deserialize_any(all).and_then(|()| parser.end());
        checked.map_err(|error| json::bad_json(&error))?;
        if self.count as usize > limits.line_records_max {
            return Err(Refusal::new(
                Code::TooMany,
                format!("a line carries at most {} records", limits.line_records_max),
            ));
        }
        json::check_depth(payload, self.count as usize, limits)
    }

    fn end_record(&mut self, mut odd: bool, level: Level) {
        self.level = self.level.max(level);
        if !odd {
            // Two names that collide make a record look odd, which costs it nothing but its safe form.
            self.names.sort_unstable();
            odd = self.names.windows(2).any(|pair| pair[0] == pair[1]);
        }
        if odd {
            self.odd.push(self.count);
        }
        self.count += 1;
    }
}

/// Whether a decoded top-level name could be mistaken for one of ours in a store.
#[must_use]
pub fn is_odd_name(name: &str) -> bool {
    name.starts_with('_')
        || name == "observer"
        || name.starts_with("observer.")
        || name.as_bytes().contains(&0)
}

struct AllRecords<'r> {
    records: &'r mut Records,
}

impl<'de> Visitor<'de> for AllRecords<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of records, or one record")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(OneRecord { records: self.records })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        OneRecord { records: self.records }.visit_map(map)
    }
}

struct OneRecord<'r> {
    records: &'r mut Records,
}

impl<'de> DeserializeSeed<'de> for OneRecord<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        parser.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneRecord<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record (a JSON object)")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut odd = false;
        let mut level = Level::default();
        self.records.names.clear();
        while let Some(name) = map.next_key_seed(Name)? {
            odd |= name.odd;
            self.records.names.push(name.hash);
            if name.is_level {
                // Raw: whatever else stands there is no level, and no error either.
                let raw: &RawValue = map.next_value()?;
                level = Level::of_json(raw.get()).unwrap_or(level);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if self.records.count == u32::MAX {
            return Err(A::Error::custom("too many records"));
        }
        self.records.end_record(odd, level);
        Ok(())
    }
}

/// A name, looked at where the parser holds it and not kept.
struct Name;

struct NameSeen {
    odd: bool,
    is_level: bool,
    hash: u64,
}

impl<'de> DeserializeSeed<'de> for Name {
    type Value = NameSeen;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<NameSeen, D::Error> {
        parser.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = NameSeen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<NameSeen, E> {
        let (odd, is_level) = (is_odd_name(name), name == "level");
        Ok(NameSeen { odd, is_level, hash: short_hash(name.as_bytes()) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn check(payload: &str) -> Result<(u32, Vec<u32>), Code> {
        let mut records = Records::default();
        match records.check(payload, &Limits::default()) {
            Ok(()) => Ok((records.count, records.odd)),
            Err(refusal) => Err(refusal.code),
        }
    }

    #[test]
    fn an_array_of_objects_and_one_object_are_records() {
        assert_eq!(check("[{\"message\":\"a\",\"x\":[1,{\"y\":null}]},{}]"), Ok((2, vec![])));
        assert_eq!(check(" {\"message\":\"a\"} "), Ok((1, vec![])));
        assert_eq!(check("[]"), Ok((0, vec![])));
    }

    #[test]
    fn json_of_another_shape_is_refused() {
        for payload in ["1", "\"a\"", "null", "[1]", "[[]]", "[{},null]"] {
            assert_eq!(check(payload), Err(Code::BadShape), "{payload}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for payload in ["", "[", "[{]", "[{}],", "[{\"a\"}]", "[{\"a\":01}]", "{'a':1}", "[{}] x"] {
            assert_eq!(check(payload), Err(Code::BadJson), "{payload}");
        }
    }

    #[test]
    fn a_line_of_500_records_passes_and_501_do_not() {
        let payload = |count| format!("[{}]", vec!["{}"; count].join(","));
        assert_eq!(check(&payload(500)), Ok((500, vec![])));
        assert_eq!(check(&payload(501)), Err(Code::TooMany));
    }

    #[test]
    fn a_record_of_32_levels_passes_and_33_do_not() {
        // The outer array and the record are two of the levels.
        let payload = |levels: usize| {
            format!("[{{\"a\":{}{}}}]", "[".repeat(levels - 2), "]".repeat(levels - 2))
        };
        assert_eq!(check(&payload(32)), Ok((1, vec![])));
        assert_eq!(check(&payload(33)), Err(Code::TooDeep));
        assert_eq!(check(&payload(500)), Err(Code::TooDeep));
    }

    #[test]
    fn names_that_could_be_mistaken_for_ours_are_noted() {
        let odd = [
            "{\"observer\":1}",
            "{\"observer.key\":1}",
            "{\"\\u006fbserver.key\":1}",
            "{\"_id\":1}",
            "{\"a\\u0000b\":1}",
            "{\"a\":1,\"b\":2,\"\\u0061\":3}",
        ];
        for record in odd {
            assert_eq!(check(&format!("[{{}},{record}]")), Ok((2, vec![1])), "{record}");
        }
        assert_eq!(check("[{\"observers\":1,\"a\":{\"_id\":1,\"observer\":2}}]"), Ok((1, vec![])));
    }

    fn level(payload: &str) -> Level {
        let mut records = Records::default();
        records.check(payload, &Limits::default()).unwrap();
        records.level
    }

    #[test]
    fn a_line_has_the_level_of_its_most_severe_record() {
        for (payload, expected) in [
            (r#"[{"level":"debug"},{"level":"TRACE"}]"#, Level::Debug),
            (r#"[{"level":"debug"},{"message":"none is info"}]"#, Level::Info),
            (r#"[{"level":"Warning"},{"level":"debug"}]"#, Level::Warn),
            (r#"{"level":"critical"}"#, Level::Fatal),
            (r#"[{"level":"loud"}]"#, Level::Info),
            (r#"[{"level":1e999}]"#, Level::Info),
            (r#"[{"level":["debug"]}]"#, Level::Info),
            (r#"[{"level":null,"more":{"level":"fatal"}}]"#, Level::Info),
            (r#"[{"l\u0065vel":"\u0064ebug"}]"#, Level::Debug),
            (r#"[{"level":"de\ud800bug"}]"#, Level::Info),
        ] {
            assert_eq!(level(payload), expected, "{payload}");
        }
    }

    #[test]
    fn a_line_is_as_severe_as_the_line_before_only_if_it_says_so() {
        let mut records = Records::default();
        records.check(r#"[{"level":"fatal"}]"#, &Limits::default()).unwrap();
        records.check(r#"[{"level":"debug"}]"#, &Limits::default()).unwrap();
        assert_eq!(records.level, Level::Debug);
    }

    proptest! {
        #[test]
        fn a_name_that_stands_twice_is_found_among_many(
            names in proptest::collection::vec("[a-z]{1,2}", 0..80),
        ) {
            let fields: Vec<_> = names.iter().map(|name| format!("\"{name}\":1")).collect();
            let twice = BTreeSet::from_iter(&names).len() < names.len();
            let odd = if twice { vec![0] } else { vec![] };
            prop_assert_eq!(check(&format!("{{{}}}", fields.join(","))), Ok((1, odd)));
        }

        #[test]
        fn the_level_is_the_one_that_the_stores_read(
            level in "\\PC{0,12}|debug|Trace|warn|ERR|fatal",
            twice in any::<bool>(),
        ) {
            let level_json = serde_json::to_string(&level).unwrap();
            let mut json = format!("{{\"level\":{level_json}}}");
            if twice {
                json = format!("{{\"level\":\"error\",{}", &json[1..]);
            }
            let theirs = crate::record::read(&json, &mut String::new()).level;
            prop_assert_eq!(self::level(&json), theirs);
        }

        #[test]
        fn any_text_is_checked_without_a_panic(payload in "\\PC{0,64}|[\\[\\]{}\":,a1 ]{0,64}") {
            let ours = check(&payload).is_ok();
            let theirs = serde_json::from_str::<Value>(&payload);
            let shaped = theirs.is_ok_and(|value| {
                value.is_object()
                    || value.as_array().is_some_and(|list| list.iter().all(Value::is_object))
            });
            prop_assert_eq!(ours, shaped);
        }
    }
}
