//! Who may come in: which names the server is reached under, which pages may ask, and who may open a
//! project. There is no sign-in yet; `open_keys` decides for all.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use observer_wire::{ApiKey, ProjectId};

use crate::app::App;
use crate::connections::LocalIp;
use crate::problem::ApiError;

/// Refuses requests that a foreign page may have made: to a name that is not ours (rebinding), or
/// from an origin that is not ours. Only while keys are open: otherwise there is nothing to take.
pub(crate) async fn hosts(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if app.config.open_keys {
        let local = request.extensions().get::<LocalIp>().map(|local| local.0);
        if let Err(error) = check_hosts(request.headers(), local, &app.config.allowed_hosts) {
            return error.into_response();
        }
    }
    next.run(request).await
}

fn check_hosts(
    headers: &HeaderMap,
    local: Option<IpAddr>,
    allowed: &[String],
) -> Result<(), ApiError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(ApiError::ForeignHost);
    };
    let host = host.to_str().map_err(|_| ApiError::ForeignHost)?;
    if !is_ours(host, local, allowed) {
        return Err(ApiError::ForeignHost);
    }
    // A program sends no Origin; a browser does, and does not let a page choose it.
    let foreign = |origin: &HeaderValue| !origin.to_str().is_ok_and(|text| is_same(text, host));
    if headers.get_all(header::ORIGIN).iter().any(foreign) {
        return Err(ApiError::ForeignOrigin);
    }
    Ok(())
}

/// Whether an origin is the site that the request went to. `null` is none.
fn is_same(origin: &str, host: &str) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

/// Whether a `Host` is loopback, the address the connection came to, or named in the settings. The
/// port is the one that was connected to, whatever it says.
fn is_ours(host: &str, local: Option<IpAddr>, allowed: &[String]) -> bool {
    let name = without_port(host);
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if let Ok(address) = address.parse::<IpAddr>() {
        let address = address.to_canonical();
        if address.is_loopback() || local == Some(address) {
            return true;
        }
    }
    let same =
        |allowed: &String| allowed.eq_ignore_ascii_case(name) || allowed.eq_ignore_ascii_case(host);
    name.eq_ignore_ascii_case("localhost") || allowed.iter().any(same)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Proof that whoever asks may use keys without signing in.
pub(crate) struct OpenKeys;

impl FromRequestParts<Arc<App>> for OpenKeys {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        if app.config.open_keys { Ok(Self) } else { Err(ApiError::Unauthenticated) }
    }
}

/// The project of a route, which whoever asks may see and change.
pub(crate) struct OpenProject(pub(crate) ProjectId);

impl FromRequestParts<Arc<App>> for OpenProject {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        OpenKeys::from_request_parts(parts, app).await?;
        let params = RawPathParams::from_request_parts(parts, app).await;
        let params = params.map_err(|_| ApiError::UnknownProject)?;
        let key = params.iter().find(|(name, _)| *name == "key").map(|(_, key)| key.to_owned());
        project_of(app, &key.ok_or(ApiError::UnknownProject)?).await.map(Self)
    }
}

/// The project that a key opens.
///
/// # Errors
///
/// [`ApiError::UnknownProject`] for unknown and malformed keys alike, or when the store fails.
pub(crate) async fn project_of(app: &App, key: &str) -> Result<ProjectId, ApiError> {
    let key: ApiKey = key.parse().map_err(|_| ApiError::UnknownProject)?;
    app.ports.accounts.project_of(key).await?.ok_or(ApiError::UnknownProject)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: Option<&str>, origin: Option<&str>) -> &'static str {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(header::HOST, host.parse().unwrap());
        }
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        let local = Some("192.168.0.7".parse().unwrap());
        match check_hosts(&headers, local, &["console.example".into()]) {
            Ok(()) => "ok",
            Err(ApiError::ForeignHost) => "host",
            Err(ApiError::ForeignOrigin) => "origin",
            Err(_) => "other",
        }
    }

    #[test]
    fn names_of_ours_are_let_in() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:8080",
            "127.1.2.3",
            "[::1]:8080",
            "[::1]",
            "192.168.0.7:8080",
            "console.example",
            "Console.Example:443",
        ] {
            assert_eq!(check(Some(host), None), "ok", "{host}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.168.0.8",
            "0.0.0.0:8080",
            "",
            "localhost:80:80",
            "user@localhost",
        ] {
            assert_eq!(check(Some(host), None), "host", "{host}");
        }
        assert_eq!(check(None, None), "host");
    }

    #[test]
    fn only_our_own_pages_may_ask() {
        let host = Some("localhost:8080");
        assert_eq!(check(host, Some("http://localhost:8080")), "ok");
        assert_eq!(check(Some("console.example"), Some("https://console.example")), "ok");
        for origin in [
            "http://evil.example",
            "http://localhost:3000",
            "http://localhost",
            "http://127.0.0.1:8080",
            "null",
            "",
            "file://localhost:8080",
        ] {
            assert_eq!(check(host, Some(origin)), "origin", "{origin}");
        }
    }
}
