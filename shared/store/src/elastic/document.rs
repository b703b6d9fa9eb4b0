//! A record as a document of Elasticsearch, and back: the form is described at the module above.

use std::borrow::Cow;
use std::fmt;

use observer_wire::ProjectId;
use observer_wire::record::Level;
use observer_wire::records::is_odd_name;
use observer_wire::text::QUERY_BYTES_MAX;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::logs::{LogHit, NewRecord, Position};

/// How every document begins; the object `observer` follows.
const START: &str = "{\"observer\":";

/// Longest name and value of a field that is indexed, in bytes: a longer one cannot be asked for.
const FIELD_BYTES_MAX: usize = QUERY_BYTES_MAX;

/// Between name and value in `observer.fields`.
const TAB: char = '\t';

/// Which form a document has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The game's fields at the root, unless their names could be mistaken for ours.
    Spliced,
    /// Nothing at the root but `observer`.
    Safe,
}

/// Our object in a document, as it is written.
#[derive(Serialize)]
struct Written<'a> {
    id: &'a str,
    project: ProjectId,
    key: &'a str,
    device: &'a str,
    session: &'a str,
    seq: u64,
    received: i64,
    rev: u64,
    level: Level,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    text: &'a str,
    fields: Vec<Field<'a>>,
    /// The record's text where the document does not hold it byte for byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<&'a str>,
}

/// A top-level text, number or truth value.
struct Field<'a> {
    name: Cow<'a, str>,
    value: Cow<'a, str>,
}

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}{TAB}{}", self.name, self.value))
    }
}

/// The term of `observer.fields` for a field.
pub(super) fn field_term(name: &str, value: &str) -> String {
    format!("{name}{TAB}{value}")
}

/// Appends `record` as one line, and its newline.
pub(super) fn write(record: &NewRecord<'_>, form: Form, out: &mut Vec<u8>) {
    let (fields, safe) = match fields(record.json) {
        Some((fields, odd)) => (fields, record.odd || odd || form == Form::Safe),
        // What our parser does not read is no object to be copied into another one.
        None => (Vec::new(), true),
    };
    // A newline between tokens would end the line, and with it the document; space around the object
    // is not part of what is read back.
    let json = record.json;
    let exact = json.starts_with('{') && json.ends_with('}') && !json.contains('\n');
    let written = Written {
        id: record.id,
        project: record.project,
        key: record.key,
        device: record.device,
        session: record.session,
        seq: record.seq,
        received: record.received,
        rev: record.rev,
        level: record.level,
        tag: record.tag,
        time: record.time,
        message: record.message,
        text: record.text,
        fields,
        raw: (safe || !exact).then_some(json),
    };
    out.extend_from_slice(START.as_bytes());
    serde_json::to_writer(&mut *out, &written).expect("text and numbers can always be written");
    if safe {
        out.push(b'}');
    } else {
        splice(json, out);
    }
    out.push(b'\n');
}

/// Appends the rest of `json`, an object, behind our own.
fn splice(json: &str, out: &mut Vec<u8>) {
    let rest = json.trim_start().strip_prefix('{').expect("an object: its fields were read");
    if !rest.trim_start().starts_with('}') {
        out.push(b',');
    }
    let start = out.len();
    out.extend_from_slice(rest.as_bytes());
    for byte in &mut out[start..] {
        if *byte == b'\n' {
            *byte = b' ';
        }
    }
}

/// The fields of a record that can be asked for, and whether a name could be mistaken for ours.
/// `None` when it is no JSON object.
fn fields(json: &str) -> Option<(Vec<Field<'_>>, bool)> {
    let mut parser = serde_json::Deserializer::from_str(json);
    let fields = parser.deserialize_map(FieldsVisitor).ok()?;
    parser.end().ok()?;
    Some(fields)
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = (Vec<Field<'de>>, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::with_capacity(map.size_hint().unwrap_or(8));
        let mut odd = false;
        while let Some(Name(name)) = map.next_key()? {
            let value: &RawValue = map.next_value()?;
            odd |= is_odd_name(&String::from_utf8_lossy(&name));
            if let (Some(name), Some(value)) = (as_text(name), scalar(value.get()))
                && name.len() + value.len() <= FIELD_BYTES_MAX
            {
                fields.push(Field { name, value });
            }
        }
        Ok((fields, odd))
    }
}

/// A JSON string, decoded. Read as bytes: a lone surrogate is no text, but no reason not to read on.
struct Name<'a>(Cow<'a, [u8]>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(parser: D) -> Result<Self, D::Error> {
        parser.deserialize_bytes(NameVisitor).map(Self)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Cow<'de, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_bytes<E>(self, name: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name.as_bytes()))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.as_bytes().to_owned()))
    }
}

fn as_text(bytes: Cow<'_, [u8]>) -> Option<Cow<'_, str>> {
    match bytes {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

/// The text of a scalar, `None` for `null`, arrays and objects, and for what is too long.
fn scalar(json: &str) -> Option<Cow<'_, str>> {
    // An escaped character takes at most twelve bytes for one of text.
    if 12 * FIELD_BYTES_MAX < json.len() {
        return None;
    }
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str(json).ok().and_then(|Name(text)| as_text(text)),
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(json)),
    }
}

/// Our object in a document, as it is read.
#[derive(Deserialize)]
struct Read {
    id: String,
    key: String,
    device: String,
    session: String,
    seq: u64,
    received: i64,
    rev: u64,
    level: Level,
    tag: Option<String>,
    time: Option<i64>,
    message: Option<String>,
    text: String,
    raw: Option<String>,
}

/// A record that was read back, with its search text.
pub(super) struct Found {
    pub(super) hit: LogHit,
    pub(super) text: String,
}

/// Reads a document's `_source`. `None` when it is not of our form: somebody else wrote it.
pub(super) fn read(source: &str) -> Option<Found> {
    let tail = source.strip_prefix(START)?;
    let mut parser = serde_json::Deserializer::from_str(tail).into_iter::<Read>();
    let ours = parser.next()?.ok()?;
    let rest = &tail[parser.byte_offset()..];
    let json = ours.raw.unwrap_or_else(|| {
        let rest = rest.strip_prefix(',').unwrap_or(rest);
        let mut json = String::with_capacity(1 + rest.len());
        json.push('{');
        json.push_str(rest);
        json
    });
    let hit = LogHit {
        position: Position { received: ours.received, seq: ours.seq, id: ours.id },
        key: ours.key,
        device: ours.device,
        session: ours.session,
        rev: ours.rev,
        level: ours.level,
        message: ours.message,
        tag: ours.tag,
        time: ours.time,
        json,
    };
    Some(Found { hit, text: ours.text })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(json: &str) -> NewRecord<'_> {
        NewRecord {
            id: "r1-000",
            project: "0123456789ab".parse().unwrap(),
            key: "0123456789ab",
            device: "d",
            session: "s",
            seq: 1,
            received: 2,
            rev: 3,
            level: Level::Warn,
            message: Some("m"),
            tag: None,
            time: Some(-4),
            text: "m x",
            json,
            odd: false,
            again: false,
        }
    }

    fn written(record: &NewRecord<'_>, form: Form) -> String {
        let mut out = Vec::new();
        write(record, form, &mut out);
        let line = String::from_utf8(out).unwrap();
        let line = line.strip_suffix('\n').unwrap();
        assert!(!line.contains('\n'), "{line}");
        line.to_owned()
    }

    fn root(json: &str) -> Vec<String> {
        let document = written(&record(json), Form::Spliced);
        let root: serde_json::Map<_, _> = serde_json::from_str(&document).unwrap();
        root.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_record_comes_back_byte_for_byte_in_both_forms() {
        for json in [
            "{}",
            "{ }",
            "{\n}",
            r#"{"a":1.0,"b":1e2,"c":-0}"#,
            "{ \"a\" : [ 1 , 2 ] }",
            "{\r\n\t\"a\": 1\n}",
            " {\"a\": 1}\t",
            r#"{"a":"\u0041\/\ud800","é":"ü\n"}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"observer":{"id":"x"}}"#,
        ] {
            for form in [Form::Spliced, Form::Safe] {
                let found = read(&written(&record(json), form)).unwrap();
                assert_eq!(found.hit.json, json);
                assert_eq!(found.text, "m x");
                assert_eq!(found.hit.position.id, "r1-000");
                assert_eq!((found.hit.level, found.hit.time), (Level::Warn, Some(-4)));
            }
        }
    }

    #[test]
    fn a_name_that_could_be_ours_is_never_at_the_root() {
        assert_eq!(root(r#"{"a":1,"observerx.key":2}"#).len(), 3);
        for json in [
            r#"{"observer":{"id":"x"}}"#,
            r#"{"a":1,"observer.key":"x"}"#,
            r#"{"\u006fbserver.project":"x"}"#,
            r#"{"_id":"x"}"#,
            r#"{"a\u0000":"x"}"#,
            r#"{"observer.\ud800":"x"}"#,
            r#"{"a":1}} {"b":2}"#,
            "[1]",
            "",
        ] {
            assert_eq!(root(json), ["observer"], "{json}");
        }
        let odd = NewRecord { odd: true, ..record(r#"{"a":1}"#) };
        assert!(written(&odd, Form::Spliced).ends_with(r#","raw":"{\"a\":1}"}}"#));
    }

    #[test]
    fn fields_are_top_level_scalars_as_text() {
        let long = "x".repeat(FIELD_BYTES_MAX);
        let json = format!(
            r#"{{"hp":10,"x":1.0,"on":true,"who":"a\tb","z":null,"l":[1],"o":{{"p":1}},"long":"{long}"}}"#
        );
        let (fields, odd) = fields(&json).unwrap();
        let terms: Vec<_> =
            fields.iter().map(|field| field_term(&field.name, &field.value)).collect();
        assert_eq!(terms, ["hp\t10", "x\t1.0", "on\ttrue", "who\ta\tb"]);
        assert!(!odd);

        let (fields, odd) = super::fields(r#"{"a\ud800":1,"b":"\ud800","c\u00fc":2}"#).unwrap();
        assert!(fields.iter().map(|field| field.name.as_ref()).eq(["cü"]));
        assert!(!odd);
    }

    #[test]
    fn a_document_of_somebody_else_is_not_read() {
        for source in ["{}", r#"{"a":1}"#, r#"{"observer":{}}"#, r#"{"observer":{"id":1"#] {
            assert!(read(source).is_none(), "{source}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_one_document_of_ours(json in "\\PC{0,40}") {
            let document = written(&record(&json), Form::Spliced);
            prop_assert_eq!(read(&document).unwrap().hit.json, json);
        }

        #[test]
        fn any_object_comes_back(names in proptest::collection::vec("[ab_.\"\\\\\n]{0,4}", 0..4)) {
            let map: serde_json::Map<_, _> =
                names.into_iter().map(|name| (name, serde_json::Value::from(1))).collect();
            let json = serde_json::to_string_pretty(&map).unwrap();
            let document = written(&record(&json), Form::Spliced);
            prop_assert_eq!(read(&document).unwrap().hit.json, json);
        }
    }
}
