//! `PATCH /vars`: an edit is read strictly, each mistake named by its field, and handed to var-store,
//! which decides. The original's edits over `/ws` are read here too.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use observer_wire::ProjectId;
use observer_wire::ask::{EditAsk, EditInput, VarsAnswer, VarsAsk};
use observer_wire::declare::text_of;
use observer_wire::edit::{NOTE_BYTES_MAX, Scope};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::app::App;
use crate::guard::OpenProject;
use crate::object;
use crate::problem::ApiError;
use crate::query::Params;
use crate::router::JsonText;
use crate::vars::{Json, ask, unexpected};

/// Who edits, as long as nobody signs in: a page of ours, as browsers say where a request comes from,
/// or a program.
const PAGE: &str = "dashboard";
const PROGRAM: &str = "api";

/// Commits an edit.
pub(crate) async fn edit(
    OpenProject(project): OpenProject,
    State(app): State<Arc<App>>,
    params: Params,
    headers: HeaderMap,
    body: Result<JsonText, ApiError>,
) -> Result<Json, ApiError> {
    params.check_names(&[])?;
    let actor = if headers.contains_key(header::ORIGIN) { PAGE } else { PROGRAM };
    let edit = EditAsk { actor: actor.to_owned(), ..read(project, &body?.0)? };
    let revision = commit(&app, edit).await?;
    Ok(Json(format!("{{\"revision\":{revision}}}")))
}

/// Has an edit committed; the revision that it made.
///
/// # Errors
///
/// What var-store says against it, or that nobody answered: then it may have been committed.
pub(crate) async fn commit(app: &App, edit: EditAsk) -> Result<u64, ApiError> {
    // Asked once: nobody looks for what became of a first try, and a second one would be another edit.
    let answer = ask(app, &VarsAsk::Edit(edit)).await?;
    let VarsAnswer::Edited { revision } = answer else { return Err(unexpected(answer)) };
    Ok(revision)
}

/// Reads the body of a `PATCH`.
fn read(project: ProjectId, body: &str) -> Result<EditAsk, ApiError> {
    let body: &RawValue =
        serde_json::from_str(body).map_err(|error| ApiError::BadJson(error.to_string()))?;
    let fields = object::fields(body.get())
        .map_err(|_| ApiError::BadRequest("the body is no object with edits".into()))?;
    let mut edit = EditAsk { note: None, if_revision: None, ..empty(project)? };
    let mut edits = None;
    for (name, json) in fields {
        match name.as_ref() {
            "edits" => edits = Some(json),
            "if_revision" => {
                edit.if_revision = optional(json, "if_revision", "expected a revision number")?;
            }
            "note" => edit.note = optional(json, "note", "expected a text")?,
            _ => return Err(ApiError::field(name, "unknown field")),
        }
    }
    if edit.note.as_ref().is_some_and(|note| note.len() > NOTE_BYTES_MAX) {
        return Err(ApiError::field("note", format!("has more than {NOTE_BYTES_MAX} bytes")));
    }
    let edits = edits.ok_or_else(|| ApiError::field("edits", "is missing"))?;
    let edits: Vec<&RawValue> = Vec::deserialize(edits)
        .map_err(|_| ApiError::field("edits", "expected an array of edits"))?;
    if edits.is_empty() {
        return Err(ApiError::field("edits", "has no edit"));
    }
    for (index, json) in edits.iter().enumerate() {
        edit.edits.push(read_one(json, &format!("edits[{index}]"), &Known::ALL)?);
    }
    Ok(edit)
}

/// Reads what the original's page sent: a variable, or an array of them. It reaches level 1 games
/// exactly as it is.
pub(crate) fn read_original(project: ProjectId, vars: &RawValue) -> Result<EditAsk, ApiError> {
    let mut edit = empty(project)?;
    let one = [vars];
    let several: Vec<&RawValue>;
    let vars_of_page = if vars.get().starts_with('[') {
        several = Vec::deserialize(vars).map_err(|_| ApiError::field("vars", "is no array"))?;
        several.as_slice()
    } else {
        &one
    };
    if vars_of_page.is_empty() {
        return Err(ApiError::field("vars", "has no variable"));
    }
    for (index, json) in vars_of_page.iter().enumerate() {
        edit.edits.push(read_one(json, &format!("vars[{index}]"), &Known::ORIGINAL)?);
    }
    edit.raw = Some(vars.to_owned());
    Ok(edit)
}

fn empty(project: ProjectId) -> Result<EditAsk, ApiError> {
    Ok(EditAsk {
        project,
        edit_id: fresh_id()?,
        actor: PAGE.to_owned(),
        note: None,
        if_revision: None,
        edits: Vec::new(),
        raw: None,
    })
}

fn fresh_id() -> Result<String, ApiError> {
    let random = getrandom::u64().and_then(|high| Ok((high, getrandom::u64()?)));
    let (high, low) = random.map_err(|_| ApiError::Internal("the system has no randomness"))?;
    Ok(format!("{high:016x}{low:016x}"))
}

/// Which fields of an edit are refused.
struct Known {
    others: bool,
}

impl Known {
    /// A typo must not become an edit that says less than it was meant to.
    const ALL: Self = Self { others: false };
    /// The original's page sends whatever it holds of a variable.
    const ORIGINAL: Self = Self { others: true };
}

fn read_one(json: &RawValue, at: &str, known: &Known) -> Result<EditInput, ApiError> {
    let fields = object::fields(json.get())
        .map_err(|_| ApiError::field(at, "expected an object with name and value"))?;
    let (mut name, mut kind, mut value, mut scope, mut unset) = (None, None, None, None, None);
    for (field, json) in fields {
        let path = || format!("{at}.{field}");
        match field.as_ref() {
            "name" => name = Some(required::<String>(json, &path(), "expected a text")?),
            "type" => kind = optional::<String>(json, &path(), "expected the name of a type")?,
            "value" if json.get() == "null" => {
                return Err(ApiError::field(path(), "null is no value; unset takes a value back"));
            }
            "value" => {
                let broken = json.get().starts_with('"') && String::deserialize(json).is_err();
                if broken {
                    return Err(ApiError::field(path(), "is a text that nobody can decode"));
                }
                value = Some(text_of(json).into_owned());
            }
            "scope" if !known.others => {
                scope = optional::<Scope>(json, &path(), "expected \"all\"")?;
            }
            "unset" if !known.others => {
                unset = optional::<bool>(json, &path(), "expected true or false")?;
            }
            _ if known.others => {}
            _ => return Err(ApiError::field(path(), "unknown field")),
        }
    }
    let name = name.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| ApiError::field(format!("{at}.name"), "is missing"))?;
    let unset = unset.unwrap_or(false);
    match (&value, unset) {
        (None, false) => Err(ApiError::field(format!("{at}.value"), "is missing")),
        (Some(_), true) => {
            Err(ApiError::field(format!("{at}.unset"), "goes with no value: it takes it back"))
        }
        (None, true) | (Some(_), false) => {
            Ok(EditInput { name, kind, value, scope: scope.unwrap_or_default(), unset })
        }
    }
}

fn required<T: DeserializeOwned>(json: &RawValue, at: &str, words: &str) -> Result<T, ApiError> {
    T::deserialize(json).map_err(|_| ApiError::field(at, words))
}

/// `null` is as good as nothing.
fn optional<T: DeserializeOwned>(
    json: &RawValue,
    at: &str,
    words: &str,
) -> Result<Option<T>, ApiError> {
    required(json, at, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> ProjectId {
        "0123456789ab".parse().unwrap()
    }

    #[test]
    fn an_edit_is_read_whatever_its_value_is() {
        let body = r#"{"edits":[{"name":"a","type":"float","value":"3.0","scope":"all"},
            {"name":"b","value":1.50},{"name":"c","value":{"x": [1]}},{"name":"d","unset":true}],
            "if_revision":57,"note":"why"}"#;
        let edit = read(project(), body).unwrap();
        let read: Vec<_> = edit
            .edits
            .iter()
            .map(|edit| (edit.name.as_str(), edit.kind.as_deref(), edit.value.as_deref()))
            .collect();
        assert_eq!(
            read,
            [
                ("a", Some("float"), Some("3.0")),
                ("b", None, Some("1.50")),
                ("c", None, Some("{\"x\": [1]}")),
                ("d", None, None),
            ]
        );
        assert!(edit.edits[3].unset);
        assert_eq!((edit.if_revision, edit.note.as_deref()), (Some(57), Some("why")));
        assert_eq!(edit.edit_id.len(), 32);
    }

    fn check(body: &str, expected: &str) {
        let error = read(project(), body).unwrap_err();
        let (_, code) = error.status_and_code();
        assert_eq!(format!("{code} {}", error.blamed_field().unwrap_or("-")), expected, "{body}");
    }

    #[test]
    fn each_mistake_is_named_by_its_field() {
        check("{", "bad_json -");
        check("[]", "bad_request -");
        check("{}", "bad_field edits");
        check(r#"{"edits":[]}"#, "bad_field edits");
        check(r#"{"edits":{}}"#, "bad_field edits");
        check(r#"{"edits":[1]}"#, "bad_field edits[0]");
        check(r#"{"edits":[{"value":1}]}"#, "bad_field edits[0].name");
        check(r#"{"edits":[{"name":"","value":1}]}"#, "bad_field edits[0].name");
        check(r#"{"edits":[{"name":7,"value":1}]}"#, "bad_field edits[0].name");
        check(r#"{"edits":[{"name":"a","value":1},{"name":"b"}]}"#, "bad_field edits[1].value");
        check(r#"{"edits":[{"name":"a","value":null}]}"#, "bad_field edits[0].value");
        check(r#"{"edits":[{"name":"a","type":1,"value":1}]}"#, "bad_field edits[0].type");
        check(
            r#"{"edits":[{"name":"a","value":1,"scope":"device:x"}]}"#,
            "bad_field edits[0].scope",
        );
        check(r#"{"edits":[{"name":"a","value":1,"unset":true}]}"#, "bad_field edits[0].unset");
        check(r#"{"edits":[{"name":"a","unset":1}]}"#, "bad_field edits[0].unset");
        check(r#"{"edits":[{"name":"a","valeu":1}]}"#, "bad_field edits[0].valeu");
        check(r#"{"edits":[{"name":"a","value":1}],"if_revison":1}"#, "bad_field if_revison");
        check(r#"{"edits":[{"name":"a","value":1}],"if_revision":-1}"#, "bad_field if_revision");
        check(r#"{"edits":[{"name":"a","value":1}],"note":1}"#, "bad_field note");
        let note = "n".repeat(NOTE_BYTES_MAX + 1);
        let body =
            |note: &str| format!(r#"{{"edits":[{{"name":"a","value":1}}],"note":"{note}"}}"#);
        check(&body(&note), "bad_field note");
        assert!(read(project(), &body(&note[1..])).is_ok());
    }

    #[test]
    fn what_the_originals_page_sends_is_kept_as_it_is() {
        for (raw, names) in [
            (r#"{"name": "a","type":"float","value":"1.0","id":7}"#, vec!["a"]),
            (r#"[ {"name":"a","value":1}, {"name":"b","value":2} ]"#, vec!["a", "b"]),
        ] {
            let raw = RawValue::from_string(raw.into()).unwrap();
            let edit = read_original(project(), &raw).unwrap();
            assert_eq!(edit.raw.as_deref().map(RawValue::get), Some(raw.get()));
            let read: Vec<_> = edit.edits.iter().map(|edit| edit.name.as_str()).collect();
            assert_eq!(read, names);
        }
        for bad in ["1", "[]", "[1]", r#"{"name":"a"}"#, r#"{"name":"a","value":null}"#] {
            let raw = RawValue::from_string(bad.into()).unwrap();
            assert!(read_original(project(), &raw).is_err(), "{bad}");
        }
    }
}
