//! Which route goes where, and what wraps all of them.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequest, MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use metrics::{counter, histogram};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tracing::error;

use crate::app::App;
use crate::problem::ApiError;
use crate::{about, assets, dead_letters, edits, guard, logs, sends, stream, users, vars, ws};

/// Bytes of a request's body at most. An edit of a whole document is far smaller.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Time for a request, its body included. Live streams only begin with one.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The page needs nothing but itself, and nobody may frame it.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'";

/// Sent with every answer.
const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY)),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// All routes, wrapped.
pub(crate) fn routes(app: Arc<App>) -> Router {
    let page = Router::new()
        .route("/", get(assets::index))
        .route("/assets/{*path}", get(assets::asset))
        .layer(CompressionLayer::new());
    Router::new()
        .merge(page)
        .route("/alive", get(users::alive))
        .route("/users", post(users::create))
        .route("/users/tokens", get(users::new_token).post(users::register))
        .route("/ws", get(ws::open))
        .route("/api/v1/server", get(about::show))
        .route("/api/v1/projects/{key}/logs", get(logs::list))
        .route("/api/v1/projects/{key}/vars", get(vars::show).patch(edits::edit))
        .route("/api/v1/projects/{key}/devices/{device}/send", post(sends::send))
        .route("/api/v1/projects/{key}/stream", get(stream::open))
        .route("/api/v1/projects/{key}/dead-letters", get(dead_letters::list))
        .route(
            "/api/v1/projects/{key}/dead-letters/{id}",
            get(dead_letters::show).delete(dead_letters::drop),
        )
        .route("/api/v1/projects/{key}/dead-letters/{id}/replay", post(dead_letters::replay))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::WrongMethod)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(in_time))
        .layer(from_fn_with_state(Arc::clone(&app), guard::hosts))
        .layer(CatchPanicLayer::custom(|panic| panicked(&panic)))
        .layer(from_fn(counted))
        .with_state(app)
}

/// Ends a request that takes too long.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => ApiError::Timeout.into_response(),
    }
}

/// Counts every answer and gives it the headers that all have.
///
/// `observer_http_requests_total{route,status}`: answers by route pattern, never by path.
/// `observer_http_request_seconds{route}`: time to an answer's head.
async fn counted(request: Request, next: Next) -> Response {
    let began = std::time::Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    let route = route.map_or_else(|| "none".to_owned(), |route| route.as_str().to_owned());
    let status = response.status().as_u16().to_string();
    counter!("observer_http_requests_total", "route" => route.clone(), "status" => status)
        .increment(1);
    histogram!("observer_http_request_seconds", "route" => route).record(began.elapsed());
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, value);
    }
    // What a project says is nobody's to keep; the page's own files say otherwise.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn panicked(panic: &Box<dyn Any + Send>) -> Response {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
    error!(panic = words.unwrap_or("no words"), "a request's handler panicked");
    ApiError::Internal("the request was not finished").into_response()
}

/// A body of JSON, as text. What it must hold, the handler says.
pub(crate) struct JsonText(pub(crate) String);

impl<S: Send + Sync> FromRequest<S> for JsonText {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        // Only JSON: a form of a foreign page can be sent without asking, this cannot.
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::BadRequest("content-type must be application/json".into()));
        }
        let body = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::TooLarge
            } else {
                ApiError::BadRequest("the body did not come to its end".into())
            }
        })?;
        let text = String::from_utf8(body.into());
        text.map(Self).map_err(|_| ApiError::BadJson("it is no UTF-8".into()))
    }
}
