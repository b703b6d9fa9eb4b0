//! `/dead-letters`: what could never be dealt with, shown; back into its stream, or away for good.

use std::sync::Arc;

use axum::extract::{RawPathParams, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use observer_bus::{DeadHead, DeadKind, DeadLetter, PublishError, ReplayError, replay_dead};
use observer_chassis::reason;
use observer_wire::event::Event;
use observer_wire::time::to_rfc3339;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::app::App;
use crate::guard::OpenProject;
use crate::problem::ApiError;
use crate::query::Params;
use crate::vars::Json;

/// Letters of a page, unless the request says otherwise.
const PAGE_DEFAULT: usize = 100;

/// A letter as people see it, without its payload.
#[derive(Serialize)]
struct HeadView<'a> {
    id: String,
    stream: &'static str,
    kind: &'static str,
    reason: &'a str,
    at: String,
    size: usize,
}

impl<'a> From<&'a DeadHead> for HeadView<'a> {
    fn from(head: &'a DeadHead) -> Self {
        Self {
            id: head.id.to_string(),
            stream: head.stream.name(),
            kind: head.kind.name(),
            reason: &head.reason,
            at: to_rfc3339(head.at),
            size: head.size,
        }
    }
}

/// A letter as people see it.
#[derive(Serialize)]
struct LetterView<'a> {
    #[serde(flatten)]
    head: HeadView<'a>,
    /// The game's record, where the letter is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<&'a RawValue>,
    /// The event, where it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl<'a> From<&'a DeadLetter> for LetterView<'a> {
    fn from(letter: &'a DeadLetter) -> Self {
        let payload = std::str::from_utf8(&letter.payload).ok();
        let base64 = || STANDARD.encode(&letter.payload);
        Self {
            head: HeadView::from(&letter.head),
            record: (letter.head.kind == DeadKind::Record)
                .then(|| record(&letter.payload))
                .flatten(),
            payload,
            payload_base64: payload.is_none().then(base64),
        }
    }
}

/// The record that an event of one record holds.
fn record(payload: &[u8]) -> Option<&RawValue> {
    let event = Event::parse(payload).ok()?;
    let [line] = &event.lines[..] else { return None };
    serde_json::from_str(line.json).ok()
}

/// Lists a project's letters, oldest first.
pub(crate) async fn list(
    OpenProject(project): OpenProject,
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Json, ApiError> {
    params.check_names(&["limit", "cursor"])?;
    let after = match params.text("cursor") {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| ApiError::field("cursor", "is none of ours"))?),
    };
    let limit = params.limit(PAGE_DEFAULT)?;
    let page = app.ports.bus.dead().list(project, after, limit).await?;
    let items: Vec<_> = page.letters.iter().map(HeadView::from).collect();
    let next = page.next.map(|id| id.to_string());
    Ok(Json(serde_json::json!({ "items": items, "next": next }).to_string()))
}

/// Shows a letter.
pub(crate) async fn show(
    OpenProject(project): OpenProject,
    LetterId(id): LetterId,
    State(app): State<Arc<App>>,
) -> Result<Json, ApiError> {
    let letter = app.ports.bus.dead().get(project, id).await?;
    let letter = letter.ok_or(ApiError::NotFound)?;
    let text = serde_json::to_string(&LetterView::from(&letter));
    text.map(Json).map_err(|_| ApiError::Internal("a letter is no JSON"))
}

/// Publishes a letter again, and drops it once that is safe.
pub(crate) async fn replay(
    OpenProject(project): OpenProject,
    LetterId(id): LetterId,
    State(app): State<Arc<App>>,
) -> Result<Json, ApiError> {
    match replay_dead(app.ports.bus.as_ref(), project, id).await {
        Ok(()) => Ok(Json(r#"{"replayed":true}"#.to_owned())),
        Err(ReplayError::Unknown) => Err(ApiError::NotFound),
        Err(ReplayError::NotPublished(PublishError::Timeout)) => Err(ApiError::Timeout),
        Err(ReplayError::NotPublished(PublishError::Full | PublishError::Unavailable)) => {
            Err(ApiError::Busy("the bus takes nothing now; the letter is kept".into()))
        }
        Err(ReplayError::Bus(error)) => Err(error.into()),
        // An edit, or what the bus will never take: it stays among the dead.
        Err(error) => Err(ApiError::Refused {
            code: "not_replayable".into(),
            field: "id".into(),
            words: reason(&error),
        }),
    }
}

/// Drops a letter for good.
pub(crate) async fn drop(
    OpenProject(project): OpenProject,
    LetterId(id): LetterId,
    State(app): State<Arc<App>>,
) -> Result<Json, ApiError> {
    if app.ports.bus.dead().drop(project, id).await? {
        return Ok(Json(r#"{"dropped":true}"#.to_owned()));
    }
    Err(ApiError::NotFound)
}

/// The letter of a route. One that can be none is as unknown as one that is not there.
pub(crate) struct LetterId(u64);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for LetterId {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        state: &S,
    ) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let params = params.map_err(|_| ApiError::NotFound)?;
        let id = params.iter().find(|(name, _)| *name == "id").map(|(_, id)| id);
        let id = id.and_then(|id| id.parse().ok()).ok_or(ApiError::NotFound)?;
        Ok(Self(id))
    }
}
