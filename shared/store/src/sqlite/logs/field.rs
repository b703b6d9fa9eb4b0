//! Whether a top-level field of a record has a value: read from the JSON as the game sent it, so
//! that odd names, escapes and numbers of any form mean what they say.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Whether the object `json` has a field `name` whose text, number or truth value is `value`.
/// Numbers are compared as the game wrote them.
pub(super) fn has(json: &str, name: &str, value: &str) -> bool {
    let mut parser = serde_json::Deserializer::from_str(json);
    parser.deserialize_map(Object { name, value }).unwrap_or(false)
}

struct Object<'a> {
    name: &'a str,
    value: &'a str,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut found = false;
        // To its end, as the parser wants it; a name that stands twice may have the value once.
        while let Some(named) = map.next_key_seed(SameText(self.name))? {
            if named {
                let raw: &RawValue = map.next_value()?;
                found |= is(raw.get(), self.value);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

fn is(raw: &str, value: &str) -> bool {
    match raw.as_bytes().first() {
        Some(b'"') => {
            let mut parser = serde_json::Deserializer::from_str(raw);
            SameText(value).deserialize(&mut parser).unwrap_or(false)
        }
        Some(b'{' | b'[') | None => false,
        Some(_) => raw == value && raw != "null",
    }
}

/// Whether a JSON string, decoded, is this text. Read as bytes: a lone surrogate is no text, and is
/// equal to none, but it is no reason not to read on.
struct SameText<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for SameText<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<bool, D::Error> {
        parser.deserialize_bytes(self)
    }
}

impl Visitor<'_> for SameText<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<bool, E> {
        Ok(bytes == self.0.as_bytes())
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(text == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_compared_as_it_is_written() {
        let json = r#"{"hp":10,"ratio":1.50,"name":"a \"b\" \u00e4","up":true,"no":null,
            "in":{"hp":11},"list":["x"],"":"empty","\u006fdd":"\ud800","big":1e999,"hp":12}"#;
        for (name, value) in [
            ("hp", "10"),
            ("hp", "12"),
            ("ratio", "1.50"),
            ("name", "a \"b\" ä"),
            ("up", "true"),
            ("", "empty"),
            ("big", "1e999"),
        ] {
            assert!(has(json, name, value), "{name}:{value}");
        }
        for (name, value) in
            [("hp", "1"), ("no", "null"), ("in", "{\"hp\":11}"), ("list", "x"), ("odd", "")]
        {
            assert!(!has(json, name, value), "{name}:{value}");
        }
    }

    #[test]
    fn a_name_that_is_no_text_hides_no_other() {
        assert!(has(r#"{"\ud800":1,"a":"b"}"#, "a", "b"));
    }
}
