//! The dashboard's files, built into the binary. A binary that was built without them says how to
//! build them.

use std::borrow::Cow;
use std::fmt::Write as _;

use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::problem::ApiError;

#[derive(RustEmbed)]
#[folder = "dashboard/dist"]
struct Dashboard;

/// Names under `assets/` change with their content.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// The page itself is asked for each time, and mostly answered with 304.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");

/// Shown in place of the dashboard when it was not built. No script, no style: the policy of all
/// pages forbids them inline.
const NOT_BUILT: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Observer</title></head><body>
<h1>Observer is running</h1>
<p>This binary was built without the dashboard. With Node 20, build it and then the binary again:</p>
<pre>cd services/api/dashboard
npm ci
npm run build
cd -
cargo build</pre>
<p>Or type <code>make run</code> at the top of the repository, which does all of it.
Everything else works without the dashboard: the API is under <code>/api/v1</code>.</p>
</body></html>
";

/// `GET /`.
pub(crate) async fn index(headers: HeaderMap) -> Response {
    match Dashboard::get("index.html") {
        Some(file) => serve("index.html", file, &headers, ASK_AGAIN),
        None => ([(header::CACHE_CONTROL, ASK_AGAIN)], Html(NOT_BUILT)).into_response(),
    }
}

/// `GET /assets/…`.
pub(crate) async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    let path = format!("assets/{path}");
    // A build of today reads the folder itself; nothing outside of it is an asset.
    let inside = !path.split(['/', '\\']).any(|part| part == "..");
    match Dashboard::get(&path).filter(|_| inside) {
        Some(file) => serve(&path, file, &headers, FOR_EVER),
        None => ApiError::NotFound.into_response(),
    }
}

fn serve(path: &str, file: EmbeddedFile, headers: &HeaderMap, caching: HeaderValue) -> Response {
    let tag = tag(&file);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let same = known.is_some_and(|known| {
        known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag || known == "*")
    });
    let tag = HeaderValue::from_str(&tag).expect("hex digits are good in a header");
    let caching = [(header::ETAG, tag), (header::CACHE_CONTROL, caching)];
    if same {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    let kind = mime_guess::from_path(path).first_or_octet_stream();
    let kind = if kind.type_() == mime_guess::mime::TEXT {
        format!("{kind}; charset=utf-8")
    } else {
        kind.to_string()
    };
    let body = match file.data {
        Cow::Borrowed(bytes) => Body::from(bytes),
        Cow::Owned(bytes) => Body::from(bytes),
    };
    (caching, [(header::CONTENT_TYPE, kind)], body).into_response()
}

fn tag(file: &EmbeddedFile) -> String {
    let mut tag = String::from("\"");
    for byte in &file.metadata.sha256_hash()[..16] {
        write!(tag, "{byte:02x}").expect("a String takes what is written");
    }
    tag.push('"');
    tag
}
