//! The HTTP request that becomes a WebSocket: `GET /device`. Every Origin is welcome and no cookie is
//! read: whoever has a key may do what the key grants, wherever the page came from.

use observer_wire::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::handshake::machine::TryParse as _;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::http::{Response, StatusCode, header};

use crate::stream::Raw;
use crate::stream::web::Web;

/// Longest head of a request, in bytes: a browser's has about 600.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Bytes read at once.
const READ_BYTES: usize = 1024;

/// Where games connect.
const PATH: &str = "/device";

/// Why a request becomes no WebSocket, for the game to read.
type Refusal = (StatusCode, &'static str);

/// Reads the request and answers it. `None` when it became no WebSocket.
pub(super) async fn upgrade(mut raw: Raw, limits: &Limits) -> Option<Web> {
    match answer(&mut raw).await? {
        Ok((response, early)) => {
            raw.write_all(&response).await.ok()?;
            raw.flush().await.ok()?;
            Some(Web::new(raw, early, limits).await)
        }
        Err(refusal) => {
            refuse(raw, refusal).await;
            None
        }
    }
}

/// Says that this port speaks TLS alone.
pub(super) async fn refuse_plain(raw: Raw) {
    let words = "this address takes wss:// alone (gateway.allow_plaintext)\n";
    refuse(raw, (StatusCode::FORBIDDEN, words)).await;
}

/// The response to what was asked, and what came behind the request; `None` when the game left.
async fn answer(raw: &mut Raw) -> Option<Result<(Vec<u8>, Vec<u8>), Refusal>> {
    let mut head = Vec::new();
    let end = loop {
        let seen = head.len();
        let mut piece = [0; READ_BYTES];
        let room = READ_BYTES.min(HEAD_BYTES_MAX - seen);
        if room == 0 {
            let words = "the head of the request is too long\n";
            return Some(Err((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, words)));
        }
        let count = raw.read(&mut piece[..room]).await.ok().filter(|count| *count > 0)?;
        head.extend_from_slice(&piece[..count]);
        // The blank line may have begun in an earlier piece.
        let from = seen.saturating_sub(3);
        if let Some(at) = head[from..].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break from + at + 4;
        }
    };
    let early = head.split_off(end);
    Some(respond(&head).map(|response| (response, early)))
}

fn respond(head: &[u8]) -> Result<Vec<u8>, Refusal> {
    let bad = (StatusCode::BAD_REQUEST, "this is not a GET request of HTTP/1.1\n");
    let Ok(Some((_, request))) = Request::try_parse(head) else { return Err(bad) };
    if request.uri().path() != PATH {
        return Err((StatusCode::NOT_FOUND, "games connect to /device\n"));
    }
    let words = "this is a WebSocket: connect with new WebSocket(\"ws://…/device\")\n";
    let response = create_response(&request).map_err(|_| (StatusCode::UPGRADE_REQUIRED, words))?;
    let mut bytes = Vec::new();
    write_response(&mut bytes, &response).map_err(|_| bad)?;
    Ok(bytes)
}

/// Answers with words. Whatever goes wrong, the connection ends.
async fn refuse(mut raw: Raw, (status, words): Refusal) {
    let response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .header(header::CONTENT_LENGTH, words.len())
        .header(header::CONNECTION, "close");
    let response = if status == StatusCode::UPGRADE_REQUIRED {
        response.header(header::UPGRADE, "websocket")
    } else {
        response
    };
    let mut bytes = Vec::new();
    let written = response.body(()).is_ok_and(|head| write_response(&mut bytes, &head).is_ok());
    bytes.extend_from_slice(words.as_bytes());
    if !written || raw.write_all(&bytes).await.is_err() || raw.shutdown().await.is_err() {
        return;
    }
    // Closing with unread bytes would take the answer back. The handshake's deadline ends this.
    let mut unwanted = [0; READ_BYTES];
    while raw.read(&mut unwanted).await.is_ok_and(|count| count > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &str) -> StatusCode {
        respond(head.replace('\n', "\r\n").as_bytes())
            .map_or_else(|(status, _)| status, |_| StatusCode::SWITCHING_PROTOCOLS)
    }

    const UPGRADE: &str = "Host: x\nConnection: keep-alive, Upgrade\nUpgrade: websocket\n\
        Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n";

    #[test]
    fn only_an_upgrade_of_the_device_path_becomes_a_web_socket() {
        for (head, expected) in [
            (format!("GET /device HTTP/1.1\n{UPGRADE}\n"), 101),
            (format!("GET /device?v=1 HTTP/1.1\nOrigin: http://evil.example\n{UPGRADE}\n"), 101),
            (format!("GET / HTTP/1.1\n{UPGRADE}\n"), 404),
            (format!("GET /devices HTTP/1.1\n{UPGRADE}\n"), 404),
            ("GET /device HTTP/1.1\nHost: x\n\n".into(), 426),
            ("GET / HTTP/1.1\nHost: x\n\n".into(), 404),
            (format!("POST /device HTTP/1.1\n{UPGRADE}\n"), 400),
            ("v:0123456789ab\n\n".into(), 400),
        ] {
            assert_eq!(status(&head).as_u16(), expected, "{head}");
        }
    }
}
