//! What the server said, read from one line. Nothing is done about it here.

use observer_wire::ApiKey;
use observer_wire::declare::text_of;
use observer_wire::payload::Payload;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A line from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// `OK`: the sign-in is good.
    Fine,
    /// `OK <mid>`: that line is safe.
    Done {
        /// The line's message id.
        mid: String,
    },
    /// `ERR …`: a line was not accepted.
    Refused {
        /// Stable name of the reason; empty from the original's servers.
        code: String,
        /// The line's message id, if it had one.
        mid: Option<String>,
        /// When to send it again, if at all.
        retry_ms: Option<u64>,
        /// For people.
        words: String,
    },
    /// `v:<key>:…`: operators want these values.
    Edits(Vec<Edit>),
    /// Anything else: of a later release, or not for us. The echo of a ping is one: these devices
    /// sign in without a hello, so the server sends no pings of its own, and to echo an echo would
    /// never end.
    Other(String),
}

/// What operators want of one variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    /// The variable.
    pub(crate) name: String,
    /// The value as text; `None` gives it back to the default.
    pub(crate) value: Option<String>,
}

impl Edit {
    /// A value for a variable.
    #[cfg(test)]
    pub(crate) fn set(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), value: Some(value.to_owned()) }
    }
}

#[derive(Deserialize)]
struct Element {
    name: String,
    #[serde(default)]
    value: Option<Box<RawValue>>,
    #[serde(default)]
    unset: bool,
}

impl Heard {
    /// Reads a line without its end. What cannot be read is [`Heard::Other`].
    pub(crate) fn parse(line: &str, key: ApiKey) -> Self {
        let words: Vec<&str> = line.splitn(5, ' ').collect();
        match words.as_slice() {
            ["OK"] => return Self::Fine,
            ["OK", mid] => return Self::Done { mid: (*mid).to_owned() },
            ["ERR", rest @ ..] => return refused(rest),
            _ => {}
        }
        let start = format!("v:{}:", key.as_str());
        line.strip_prefix(&start)
            .and_then(edits)
            .map_or_else(|| Self::Other(line.to_owned()), Self::Edits)
    }
}

fn refused(fields: &[&str]) -> Heard {
    let field = |at: usize| fields.get(at).copied().filter(|text| *text != "-");
    Heard::Refused {
        code: field(0).unwrap_or_default().to_owned(),
        mid: field(1).map(str::to_owned),
        retry_ms: field(2).and_then(|text| text.parse().ok()),
        words: field(3).unwrap_or_default().to_owned(),
    }
}

fn edits(payload: &str) -> Option<Vec<Edit>> {
    let payload = match payload.as_bytes().first() {
        // Behind plain JSON may come revisions, with the hello of a later release.
        Some(b'[' | b'{') => Payload::Json(&payload.as_bytes()[..=payload.rfind([']', '}'])?]),
        _ => Payload::Base64(payload.split(':').next()?.as_bytes()),
    };
    let mut decoded = Vec::new();
    let json = payload.decode(&mut decoded).ok()?;
    let elements: Vec<Element> = if json.trim_start().starts_with('[') {
        serde_json::from_str(json).ok()?
    } else {
        vec![serde_json::from_str(json).ok()?]
    };
    let edit = |element: Element| Edit {
        value: element.value.filter(|_| !element.unset).map(|value| text_of(&value).into_owned()),
        name: element.name,
    };
    Some(elements.into_iter().map(edit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Heard {
        Heard::parse(line, "0123456789ab".parse().unwrap())
    }

    #[test]
    fn answers_are_told_apart() {
        assert_eq!(parse("OK"), Heard::Fine);
        assert_eq!(parse("OK m-1"), Heard::Done { mid: "m-1".into() });
        assert_eq!(
            parse("ERR busy m-1 500 the store is slow"),
            Heard::Refused {
                code: "busy".into(),
                mid: Some("m-1".into()),
                retry_ms: Some(500),
                words: "the store is slow".into(),
            }
        );
        let bare =
            Heard::Refused { code: String::new(), mid: None, retry_ms: None, words: String::new() };
        assert_eq!(parse("ERR"), bare);
        assert_eq!(parse("p:1"), Heard::Other("p:1".into()));
        assert_eq!(parse("x:draining:500"), Heard::Other("x:draining:500".into()));
    }

    #[test]
    fn edits_come_in_base64_and_in_json_as_an_array_or_an_object() {
        // base64 of [{"name":"a","value":"1"}]
        let base64 = "W3sibmFtZSI6ImEiLCJ2YWx1ZSI6IjEifV0=";
        for payload in [
            base64,
            r#"[{"name":"a","value":"1"}]"#,
            r#"{"name":"a","value":1}"#,
            &format!("{base64}:7:6"),
        ] {
            let heard = parse(&format!("v:0123456789ab:{payload}"));
            assert_eq!(heard, Heard::Edits(vec![Edit::set("a", "1")]), "{payload}");
        }
        let unset = parse(r#"v:0123456789ab:[{"name":"a","unset":true}]"#);
        assert_eq!(unset, Heard::Edits(vec![Edit { name: "a".into(), value: None }]));
    }

    #[test]
    fn what_is_no_edit_is_shown_as_it_came() {
        for line in ["v:0123456789ab:%%", "v:0123456789ab:[1]", "v:ab:[]", "v:0123456789ab"] {
            assert_eq!(parse(line), Heard::Other(line.into()));
        }
    }
}
