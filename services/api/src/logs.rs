//! `GET /logs`: stored records, newest first, a page at a time.

use std::sync::Arc;

use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use observer_store::logs::{LogPage, LogQuery, Position};

use crate::app::App;
use crate::filter::Filter;
use crate::guard::OpenProject;
use crate::item::{Stamp, push_item, push_json_text};
use crate::problem::ApiError;
use crate::query::Params;
use crate::vars::Json;

/// Records of a page, unless the request says otherwise.
const PAGE_DEFAULT: usize = 100;

/// Finds records.
pub(crate) async fn list(
    OpenProject(project): OpenProject,
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Json, ApiError> {
    params.check_names(&["q", "since", "until", "level", "device", "limit", "cursor"])?;
    let Filter { level, device, terms } = Filter::read(&params)?;
    let query = LogQuery {
        project,
        terms,
        since: params.time("since")?,
        until: params.time("until")?,
        level,
        device,
        limit: params.limit(PAGE_DEFAULT)?,
        before: read_cursor(&params)?,
    };
    let page = app.ports.logs.search(&query).await?;
    Ok(Json(write_page(&page)))
}

fn read_cursor(params: &Params) -> Result<Option<Position>, ApiError> {
    let Some(text) = params.text("cursor") else { return Ok(None) };
    let position = decode(text);
    position.map(Some).ok_or_else(|| ApiError::field("cursor", "is none of ours"))
}

/// A position as text that says nothing to people, so that nobody builds on its form.
fn encode(position: &Position) -> String {
    let Position { received, seq, id } = position;
    URL_SAFE_NO_PAD.encode(format!("1.{received}.{seq}.{id}"))
}

fn decode(cursor: &str) -> Option<Position> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let mut parts = text.splitn(4, '.');
    let (version, received, seq, id) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if version != "1" || id.is_empty() || !id.bytes().all(known) {
        return None;
    }
    Some(Position { received: received.parse().ok()?, seq: seq.parse().ok()?, id: id.into() })
}

fn write_page(page: &LogPage) -> String {
    let bytes: usize = page.hits.iter().map(|hit| hit.json.len() + 384).sum();
    let mut out = String::with_capacity(bytes + 128);
    out.push_str("{\"items\":[");
    for (index, hit) in page.hits.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_item(&mut out, &hit.json, &Stamp::from(hit).to_json());
    }
    out.push_str("],\"next\":");
    match &page.next {
        Some(position) => push_json_text(&mut out, &encode(position)),
        None => out.push_str("null"),
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_a_position_and_back() {
        let position = Position { received: -1, seq: u64::MAX, id: "m0f-001".into() };
        assert_eq!(decode(&encode(&position)), Some(position));
    }

    #[test]
    fn a_cursor_of_somebody_else_is_refused() {
        let of = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for bad in [
            "",
            "!",
            "a",
            &of("1.2.3"),
            &of("2.1.1.a"),
            &of("1.x.1.a"),
            &of("1.1.1."),
            &of("1.1.1.a b"),
        ] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
