//! An operator's edit: what is committed to the edit log, and the frame that a game gets.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::key::{ApiKey, ProjectId};
use crate::payload;

/// Version of the format in the edit log. A reader refuses any other.
pub const EDIT_VERSION: u32 = 1;

/// Longest note of an edit, in bytes.
pub const NOTE_BYTES_MAX: usize = 1024;

/// Whom a wanted value is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// Every device of the project.
    #[default]
    All,
}

impl TryFrom<String> for Scope {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // Groups and single devices come with a later release; until then they are refused by name.
        if text == "all" { Ok(Self::All) } else { Err("expected scope \"all\"") }
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::All => "all".into(),
        }
    }
}

/// One change of an edit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The variable.
    pub name: String,
    /// For whom.
    #[serde(default)]
    pub scope: Scope,
    /// The wanted value from now on; `None` gives the variable back to the build's default.
    pub set: Option<TypedValue>,
}

/// A value with the type that says how to read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypedValue {
    /// Name of the type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The value, as text in its canonical form.
    pub value: String,
}

/// An accepted edit, as it stands in the edit log. Its place there is its commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Edit {
    /// [`EDIT_VERSION`].
    pub v: u32,
    /// The project.
    pub project: ProjectId,
    /// Epoch of the revision.
    pub epoch: String,
    /// Revision that this edit makes: the one before it and one.
    pub rev: u64,
    /// Id of the request.
    pub edit_id: String,
    /// Who: for people to read.
    pub actor: String,
    /// When, in Unix milliseconds of var-store's clock.
    pub at: i64,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What changes; never empty.
    pub changes: Vec<Change>,
    /// What the original's page sent, for devices that get it exactly so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Box<RawValue>>,
}

/// A wanted value as the stores keep it and the api shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The variable.
    pub name: String,
    /// Name of the type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The value, canonical.
    pub value: String,
    /// For whom.
    pub scope: Scope,
    /// Revision that set it.
    pub rev: u64,
    /// When, in Unix milliseconds.
    pub at: i64,
    /// Who set it.
    pub actor: String,
}

/// All wanted values of a project at a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// The revision; 0 when nothing was ever set.
    pub revision: u64,
    /// Its epoch; empty when nothing was ever set.
    pub epoch: String,
    /// The values, by name.
    pub wanted: Vec<Wanted>,
}

impl Document {
    /// Applies an edit in memory, as the stores do.
    pub fn apply(&mut self, edit: &Edit) {
        for change in &edit.changes {
            self.wanted.retain(|wanted| wanted.name != change.name || wanted.scope != change.scope);
            if let Some(set) = &change.set {
                self.wanted.push(Wanted {
                    name: change.name.clone(),
                    kind: set.kind.clone(),
                    value: set.value.clone(),
                    scope: change.scope.clone(),
                    rev: edit.rev,
                    at: edit.at,
                    actor: edit.actor.clone(),
                });
            }
        }
        self.wanted
            .sort_by(|left, right| (&left.name, &left.scope).cmp(&(&right.name, &right.scope)));
        self.revision = edit.rev;
        self.epoch.clone_from(&edit.epoch);
    }

    /// The document as a device gets it: `[{"name","type","value"},…]`.
    #[must_use]
    pub fn device_json(&self) -> Vec<u8> {
        let values: Vec<_> = self
            .wanted
            .iter()
            .map(|wanted| DeviceValue {
                name: &wanted.name,
                kind: Some(&wanted.kind),
                value: Some(&wanted.value),
                unset: false,
            })
            .collect();
        to_json(&values)
    }
}

impl Edit {
    /// The edit as a level 1 device gets it: exactly what the original's page sent, else an array of
    /// the changes.
    #[must_use]
    pub fn device_json(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.get().as_bytes().to_vec();
        }
        self.changes_json()
    }

    /// The edit as a device of level 2 gets it: an array of the changes, whoever made it.
    #[must_use]
    pub fn changes_json(&self) -> Vec<u8> {
        let values: Vec<_> = self
            .changes
            .iter()
            .map(|change| DeviceValue {
                name: &change.name,
                kind: change.set.as_ref().map(|set| set.kind.as_str()),
                value: change.set.as_ref().map(|set| set.value.as_str()),
                unset: change.set.is_none(),
            })
            .collect();
        to_json(&values)
    }
}

#[derive(Serialize)]
struct DeviceValue<'a> {
    name: &'a str,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unset: bool,
}

fn to_json(values: &[DeviceValue<'_>]) -> Vec<u8> {
    serde_json::to_vec(values).expect("plain structs into memory always serialise")
}

/// Writes a level 1 frame: `v:<key>:<base64 of json>` and a newline.
pub fn push_frame(out: &mut Vec<u8>, key: ApiKey, json: &[u8]) {
    out.extend_from_slice(b"v:");
    out.extend_from_slice(key.as_str().as_bytes());
    out.push(b':');
    payload::encode(json, out);
    out.push(b'\n');
}

/// Writes a level 2 frame: `v:<key>:<payload>:<rev>:<base>` and a newline. `payload` is encoded
/// already: many sockets get the same.
pub fn write_wanted(out: &mut Vec<u8>, key: ApiKey, payload: &[u8], (rev, base): (u64, u64)) {
    out.extend_from_slice(b"v:");
    out.extend_from_slice(key.as_str().as_bytes());
    out.push(b':');
    out.extend_from_slice(payload);
    out.extend_from_slice(format!(":{rev}:{base}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(rev: u64, name: &str, value: Option<&str>) -> Edit {
        Edit {
            v: EDIT_VERSION,
            project: "0123456789ab".parse().unwrap(),
            epoch: "abcd1234".into(),
            rev,
            edit_id: "e".into(),
            actor: "anna".into(),
            at: 1,
            note: None,
            changes: vec![Change {
                name: name.into(),
                scope: Scope::All,
                set: value.map(|value| TypedValue { kind: "float".into(), value: value.into() }),
            }],
            raw: None,
        }
    }

    fn text(json: Vec<u8>) -> String {
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn an_edit_reaches_a_device_as_an_array_of_its_changes() {
        let set = edit(1, "gravity", Some("3.5"));
        assert_eq!(text(set.device_json()), r#"[{"name":"gravity","type":"float","value":"3.5"}]"#);
        assert_eq!(text(edit(2, "a", None).device_json()), r#"[{"name":"a","unset":true}]"#);
    }

    #[test]
    fn what_the_originals_page_sent_reaches_a_device_as_it_is() {
        let raw = r#"{"name": "a","value":1.0}"#;
        let edit = Edit { raw: RawValue::from_string(raw.into()).ok(), ..edit(1, "a", Some("1")) };
        let stored = serde_json::to_vec(&edit).unwrap();
        let read: Edit = serde_json::from_slice(&stored).unwrap();
        assert_eq!(text(read.device_json()), raw);
    }

    #[test]
    fn a_frame_is_one_line_of_base64() {
        let mut out = Vec::new();
        push_frame(&mut out, "0123456789ab".parse().unwrap(), b"[]");
        assert_eq!(out, b"v:0123456789ab:W10=\n");
    }

    #[test]
    fn a_document_is_the_sum_of_its_edits() {
        let mut document = Document::default();
        for edit in [edit(1, "b", Some("1")), edit(2, "a", Some("2")), edit(3, "b", None)] {
            document.apply(&edit);
        }
        assert_eq!((document.revision, document.wanted.len()), (3, 1));
        assert_eq!(text(document.device_json()), r#"[{"name":"a","type":"float","value":"2"}]"#);
    }
}
