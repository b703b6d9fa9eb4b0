//! The fields of a JSON object, one level deep: names decoded, values as they were written.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Fields in their order, repeated ones included.
pub(crate) type Fields<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// Reads the fields of an object.
///
/// # Errors
///
/// When the text is no object, or a name is no text that a program could hold.
pub(crate) fn fields(json: &str) -> Result<Fields<'_>, serde_json::Error> {
    serde_json::from_str::<Object<'_>>(json).map(|object| object.0)
}

struct Object<'a>(Fields<'a>);

#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(parser: D) -> Result<Self, D::Error> {
        parser.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some((Name(name), value)) = map.next_entry()? {
            fields.push((name, value));
        }
        Ok(Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_order_with_their_text() {
        let read = fields(r#" {"a": 1.50, "\u0062":{"c" : []}, "a":null} "#).unwrap();
        let read: Vec<_> = read.iter().map(|(name, json)| (name.as_ref(), json.get())).collect();
        assert_eq!(read, [("a", "1.50"), ("b", "{\"c\" : []}"), ("a", "null")]);
        for none in ["[]", "1", "{", "{\"a\"}", "{} x"] {
            assert!(fields(none).is_err(), "{none}");
        }
    }
}
