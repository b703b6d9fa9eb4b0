//! `GET /vars`: wanted and reported values of a project, as var-store knows them. Nothing is read from
//! a store here.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use observer_bus::{RequestError, Service};
use observer_wire::ProjectId;
use observer_wire::ask::{DeviceView, Place, Snapshot, VarsAnswer, VarsAsk};
use observer_wire::edit::Document;
use serde::Serialize;
use tracing::error;

use crate::app::App;
use crate::guard::OpenProject;
use crate::problem::ApiError;
use crate::query::Params;
use crate::views::{FullView, WantedView};

/// Bytes of an answer at most. It is made in memory, and a page could show no more.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A body of JSON that is ready to be sent.
pub(crate) struct Json(pub(crate) String);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        let kind = HeaderValue::from_static("application/json");
        ([(header::CONTENT_TYPE, kind)], self.0).into_response()
    }
}

/// Shows document and devices.
pub(crate) async fn show(
    OpenProject(project): OpenProject,
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Json, ApiError> {
    params.check_names(&[])?;
    let mut page = page(&app, project, None).await?;
    let document = page.document.take().unwrap_or_default();
    let mut out = String::from("{\"revision\":");
    push(&mut out, &document.revision);
    out.push_str(",\"epoch\":");
    push(&mut out, &document.epoch);
    out.push_str(",\"wanted\":");
    push(&mut out, &document.wanted.iter().map(WantedView::from).collect::<Vec<_>>());
    out.push_str(",\"devices\":[");
    let mut whole: Option<DeviceView> = None;
    loop {
        for device in page.devices {
            match &mut whole {
                // A device with many values comes in parts.
                Some(whole) if whole.device == device.device => {
                    whole.reported.extend(device.reported);
                }
                _ => {
                    if let Some(whole) = whole.replace(device) {
                        push(&mut out, &FullView::from(&whole));
                        out.push(',');
                    }
                }
            }
        }
        if out.len() > ANSWER_BYTES_MAX {
            return Err(ApiError::Internal("the devices are too many to be shown at once"));
        }
        let Some(after) = page.next else { break };
        page = self::page(&app, project, Some(after)).await?;
    }
    if let Some(whole) = &whole {
        push(&mut out, &FullView::from(whole));
    }
    out.push_str("]}");
    Ok(Json(out))
}

fn push(out: &mut String, value: &impl Serialize) {
    out.push_str(&serde_json::to_string(value).expect("plain structs always serialise"));
}

/// A page of devices; the first has the document.
pub(crate) async fn page(
    app: &App,
    project: ProjectId,
    after: Option<Place>,
) -> Result<Snapshot, ApiError> {
    let answer = ask(app, &VarsAsk::Snapshot { project, after }).await?;
    let VarsAnswer::Snapshot(page) = answer else { return Err(unexpected(answer)) };
    Ok(page)
}

/// The wanted document.
pub(crate) async fn document(app: &App, project: ProjectId) -> Result<Document, ApiError> {
    let answer = ask(app, &VarsAsk::Document { project }).await?;
    let VarsAnswer::Document(document) = answer else { return Err(unexpected(answer)) };
    Ok(document)
}

/// Asks var-store.
///
/// # Errors
///
/// [`RequestError`] when nobody answered. An answer that cannot be read counts as none.
pub(crate) async fn ask(app: &App, ask: &VarsAsk) -> Result<VarsAnswer, RequestError> {
    let ask = serde_json::to_vec(ask).expect("plain structs into memory always serialise");
    let answer = app.ports.bus.request(Service::Vars, Bytes::from(ask)).await?;
    serde_json::from_slice(&answer).map_err(|error| {
        error!(%error, "answer of var-store is not readable");
        RequestError::Timeout(Service::Vars)
    })
}

/// An answer that is not to the question, unless it says that there is none now.
pub(crate) fn unexpected(answer: VarsAnswer) -> ApiError {
    match answer {
        VarsAnswer::Busy { words } => ApiError::Busy(words),
        VarsAnswer::Refused { code, field, words } => ApiError::Refused { code, field, words },
        VarsAnswer::Conflict { revision, changed } => ApiError::Conflict { revision, changed },
        VarsAnswer::Document(_) | VarsAnswer::Snapshot(_) | VarsAnswer::Edited { .. } => {
            ApiError::Internal("var-store answered another question")
        }
    }
}
