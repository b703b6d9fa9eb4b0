//! A record as pages get it: the game's own text, byte for byte, with our object `observer` put in at
//! its end. No tree is built; only a record that forges our name is taken apart.

use observer_store::logs::LogHit;
use observer_wire::record::Level;
use observer_wire::time::to_rfc3339;
use serde::Serialize;

use crate::object;

/// What we know of a record, beside what the game said.
#[derive(Serialize)]
pub(crate) struct Stamp<'a> {
    pub(crate) id: &'a str,
    pub(crate) key: &'a str,
    pub(crate) device: &'a str,
    pub(crate) session: &'a str,
    pub(crate) seq: u64,
    pub(crate) received: String,
    pub(crate) rev: u64,
    pub(crate) level: Level,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<&'a str>,
}

impl Stamp<'_> {
    /// The object, as JSON.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a plain struct into memory always serialises")
    }
}

impl<'a> From<&'a LogHit> for Stamp<'a> {
    fn from(hit: &'a LogHit) -> Self {
        Self {
            id: &hit.position.id,
            key: &hit.key,
            device: &hit.device,
            session: &hit.session,
            seq: hit.position.seq,
            received: to_rfc3339(hit.position.received),
            rev: hit.rev,
            level: hit.level,
            tag: hit.tag.as_deref(),
            time: hit.time.map(to_rfc3339),
            message: hit.message.as_deref(),
        }
    }
}

/// Appends the record `json` with `observer`, an object of ours, in it.
pub(crate) fn push_item(out: &mut String, json: &str, observer: &str) {
    let json = json.trim();
    let inner = json.strip_prefix('{').and_then(|json| json.strip_suffix('}'));
    match inner {
        Some(inner) if !names_ours(json) => {
            out.push('{');
            out.push_str(inner);
            if !inner.trim().is_empty() {
                out.push(',');
            }
        }
        _ => push_without_ours(out, json),
    }
    out.push_str("\"observer\":");
    out.push_str(observer);
    out.push('}');
}

/// Whether a field of the record reads `observer`, also in escapes; or the record is none.
fn names_ours(json: &str) -> bool {
    // Without these letters it cannot, and nothing needs to be parsed.
    if !json.contains("\"observer\"") && !json.contains("\\u") {
        return false;
    }
    object::fields(json).map_or(true, |fields| fields.iter().any(|(name, _)| name == OURS))
}

/// Our name in every record.
const OURS: &str = "observer";

/// Appends the record up to where our object goes, without what the game calls `observer`.
fn push_without_ours(out: &mut String, json: &str) {
    out.push('{');
    let Ok(fields) = object::fields(json) else {
        // No gateway lets such a record in. It is shown as the text that it is.
        out.push_str("\"raw\":");
        push_json_text(out, json);
        out.push(',');
        return;
    };
    for (name, value) in fields.iter().filter(|(name, _)| name != OURS) {
        push_json_text(out, name);
        out.push(':');
        out.push_str(value.get());
        out.push(',');
    }
}

/// Appends `text` as a JSON string.
pub(crate) fn push_json_text(out: &mut String, text: &str) {
    out.push_str(&serde_json::to_string(text).expect("text always serialises"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &str) {
        let mut out = String::new();
        push_item(&mut out, json, "{\"id\":\"x\"}");
        assert_eq!(out, expected);
    }

    #[test]
    fn a_record_keeps_its_bytes() {
        check(
            "{ \"message\" : \"a\\/b\", \"n\":1.50e0 }",
            "{ \"message\" : \"a\\/b\", \"n\":1.50e0 ,\"observer\":{\"id\":\"x\"}}",
        );
        check(" {} ", "{\"observer\":{\"id\":\"x\"}}");
        check("{ }", "{ \"observer\":{\"id\":\"x\"}}");
    }

    #[test]
    fn an_observer_of_the_games_own_is_replaced() {
        for forged in [
            r#"{"observer":{"key":"other"},"a":1.0,"observer":2}"#,
            r#"{"\u006fbserver":{"key":"other"},"a":1.0}"#,
            r#"{"a":1.0,"\u006Fbserver":1}"#,
        ] {
            check(forged, r#"{"a":1.0,"observer":{"id":"x"}}"#);
        }
        check(r#"{"observer":1}"#, r#"{"observer":{"id":"x"}}"#);
        check(
            r#"{"m":"\"observer\" \u00e4","o":{"observer":1}}"#,
            r#"{"m":"\"observer\" \u00e4","o":{"observer":1},"observer":{"id":"x"}}"#,
        );
    }

    #[test]
    fn what_is_no_object_is_shown_as_text() {
        check("[1]", r#"{"raw":"[1]","observer":{"id":"x"}}"#);
    }
}
