//! The query of an URL: every parameter is known and good, or the request is refused by its name.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use observer_store::logs::PAGE_MAX;
use observer_wire::time::parse_rfc3339;

use crate::problem::ApiError;

/// Parameters in the order they came. An empty one is as good as none.
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query: Result<Query<Vec<(String, String)>>, QueryRejection> =
            Query::from_request_parts(parts, state).await;
        let Query(params) =
            query.map_err(|_| ApiError::BadRequest("the query is malformed".into()))?;
        Ok(Self(params.into_iter().filter(|(_, value)| !value.is_empty()).collect()))
    }
}

impl Params {
    /// Refuses parameters that nobody knows, and those that stand twice.
    pub(crate) fn check_names(&self, known: &[&str]) -> Result<(), ApiError> {
        for (index, (name, _)) in self.0.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let words = format!("unknown parameter; there are {}", known.join(", "));
                return Err(ApiError::field(name, words));
            }
            if self.0[..index].iter().any(|(before, _)| before == name) {
                return Err(ApiError::field(name, "stands twice"));
            }
        }
        Ok(())
    }

    /// A parameter's text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Items of a page: `limit`, else `default`.
    pub(crate) fn limit(&self, default: usize) -> Result<usize, ApiError> {
        let Some(text) = self.text("limit") else { return Ok(default) };
        let limit = text.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
        limit.ok_or_else(|| {
            ApiError::field("limit", format!("expected a number of 1 to {PAGE_MAX}"))
        })
    }

    /// A time, in Unix milliseconds.
    pub(crate) fn time(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let time = parse_rfc3339(text);
        let words = "expected a time as 2026-11-23T10:00:00Z (RFC 3339)";
        time.map(Some).ok_or_else(|| ApiError::field(name, words))
    }
}
