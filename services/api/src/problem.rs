//! What an error looks like outside: this file alone knows statuses. The client sees a code, which is
//! a contract, and a plain sentence; the log sees the causes.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use observer_bus::{BusError, BusErrorKind, RequestError};
use observer_chassis::reason;
use observer_store::{StoreError, StoreErrorKind};
use observer_wire::edit::Wanted;
use serde::Serialize;
use tracing::error;

use crate::views::WantedView;

/// Seconds after which a client may try again what cannot be done now.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// There is no sign-in yet, and `open_keys` is off.
    #[error("sign in first; this server does not let a key alone open a project (api.open_keys)")]
    Unauthenticated,
    /// The `Host` is none of ours: somebody's page may have sent this.
    #[error("this server is not reached under that name (api.allowed_hosts)")]
    ForeignHost,
    /// The `Origin` is another site.
    #[error("requests from pages of other sites are refused")]
    ForeignOrigin,
    /// The key was never registered. A malformed one gets the same answer.
    #[error("no project has this key")]
    UnknownProject,
    /// No such route.
    #[error("nothing is here")]
    NotFound,
    /// The route has other methods.
    #[error("this method is not for this route")]
    WrongMethod,
    /// The request is malformed as a whole.
    #[error("{0}")]
    BadRequest(String),
    /// The body is no JSON.
    #[error("the body is no JSON: {0}")]
    BadJson(String),
    /// A field of query or body cannot be.
    #[error("{words}")]
    BadField {
        /// Its name, as `edits[0].value`.
        field: String,
        /// What would be good.
        words: String,
    },
    /// var-store refused the edit, and will again.
    #[error("{words}")]
    Refused {
        /// Stable name of the reason.
        code: String,
        /// The field to blame.
        field: String,
        /// A sentence.
        words: String,
    },
    /// The edit was made for another revision.
    #[error("variables changed meanwhile; the revision is {revision}")]
    Conflict {
        /// The revision in force.
        revision: u64,
        /// Values set since then.
        changed: Vec<Wanted>,
    },
    /// The body is larger than any request of ours.
    #[error("the request is too large")]
    TooLarge,
    /// Not carried out. May be sent again.
    #[error("{0}")]
    Busy(String),
    /// Perhaps carried out: there was no answer in time.
    #[error("there was no answer in time")]
    Timeout,
    /// A store failed.
    #[error("a store cannot answer now")]
    Store(#[source] StoreError),
    /// The bus failed. Not carried out, or not known.
    #[error("the bus cannot answer now")]
    Bus(#[from] BusError),
    /// A bug, or something that nobody can wait for.
    #[error("something is broken here: {0}")]
    Internal(&'static str),
}

impl ApiError {
    /// A field that cannot be, and what would be good.
    pub(crate) fn field(field: impl Into<String>, words: impl Into<String>) -> Self {
        Self::BadField { field: field.into(), words: words.into() }
    }

    /// Status, and the stable name of the reason.
    pub(crate) fn status_and_code(&self) -> (StatusCode, &str) {
        match self {
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated"),
            Self::ForeignHost => (StatusCode::FORBIDDEN, "foreign_host"),
            Self::ForeignOrigin => (StatusCode::FORBIDDEN, "foreign_origin"),
            Self::UnknownProject => (StatusCode::NOT_FOUND, "unknown_project"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::BadJson(_) => (StatusCode::BAD_REQUEST, "bad_json"),
            Self::BadField { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "bad_field"),
            Self::Refused { code, .. } => (StatusCode::UNPROCESSABLE_ENTITY, code),
            Self::Conflict { .. } => (StatusCode::CONFLICT, "conflict"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Self::Timeout => (StatusCode::SERVICE_UNAVAILABLE, "timeout"),
            Self::Store(error) => match error.kind() {
                StoreErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "store_down"),
                StoreErrorKind::Throttled => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
                StoreErrorKind::Refused => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            },
            Self::Bus(error) => match error.kind {
                BusErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
                BusErrorKind::Refused => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            },
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }

    /// The field to blame, if it is one field's fault.
    pub(crate) fn blamed_field(&self) -> Option<&str> {
        if let Self::BadField { field, .. } | Self::Refused { field, .. } = self {
            return Some(field);
        }
        None
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        if let RequestError::Timeout(_) = error {
            Self::Timeout
        } else if let RequestError::TooLarge { .. } = error {
            Self::TooLarge
        } else {
            Self::Busy("variables cannot be reached now".into())
        }
    }
}

/// The body of an error: RFC 9457.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    code: &'a str,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<Vec<WantedView<'a>>>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.status_and_code();
        if status == StatusCode::INTERNAL_SERVER_ERROR || matches!(self, Self::Store(_)) {
            error!(error = %reason(&self), code, "request failed");
        }
        let (mut revision, mut changed) = (None, None);
        if let Self::Conflict { revision: now, changed: since } = &self {
            revision = Some(*now);
            changed = Some(since.iter().map(WantedView::from).collect());
        }
        let problem = Problem {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("error"),
            status: status.as_u16(),
            code,
            detail: self.to_string(),
            field: self.blamed_field(),
            revision,
            changed,
        };
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: &ApiError, status: u16, code: &str) {
        let (found, name) = error.status_and_code();
        assert_eq!((found.as_u16(), name), (status, code));
    }

    #[test]
    fn a_store_error_tells_the_client_whether_to_wait() {
        let error = |kind| ApiError::from(StoreError::new("search", kind, "boom"));
        check(&error(StoreErrorKind::Unavailable), 503, "store_down");
        check(&error(StoreErrorKind::Throttled), 503, "busy");
        check(&error(StoreErrorKind::Refused), 500, "internal");
    }

    #[test]
    fn a_question_without_answer_says_whether_it_may_have_been_carried_out() {
        let service = observer_bus::Service::Vars;
        check(&RequestError::Timeout(service).into(), 503, "timeout");
        check(&RequestError::Nobody(service).into(), 503, "busy");
        check(&RequestError::Unavailable.into(), 503, "busy");
        check(&RequestError::TooLarge { bytes: 1 }.into(), 413, "too_large");
    }

    #[test]
    fn a_conflict_names_what_changed() {
        let error = ApiError::Conflict { revision: 58, changed: vec![] };
        let response = error.into_response();
        assert_eq!(response.status(), 409);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
}
