//! A WebSocket of a page or a program: `/ws` of the original, and `/stream`.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl WebSocket {
    /// Opens `url`.
    ///
    /// # Errors
    ///
    /// When the server refuses; [`Error::Http`] has the status.
    pub async fn open(url: &str) -> Result<Self, Error> {
        Self::open_with(url, &[]).await
    }

    /// Opens `url` with further headers, such as `Origin`. `Host` is replaced.
    ///
    /// # Errors
    ///
    /// As [`WebSocket::open`].
    ///
    /// # Panics
    ///
    /// When a header is none.
    pub async fn open_with(url: &str, headers: &[(&str, &str)]) -> Result<Self, Error> {
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a test's header has a name");
            let value: HeaderValue = value.parse().expect("a test's header has a value");
            request.headers_mut().insert(name, value);
        }
        let (socket, _) = connect_async(request).await?;
        Ok(Self(socket))
    }

    /// Sends a JSON text frame.
    ///
    /// # Errors
    ///
    /// When the socket is closed.
    pub async fn send(&mut self, message: &Value) -> Result<(), Error> {
        self.0.send(Message::text(message.to_string())).await
    }

    /// The next text frame as JSON.
    ///
    /// # Panics
    ///
    /// When none comes within `deadline`, the socket closes, or the frame is not JSON.
    pub async fn next_json(&mut self, deadline: Duration) -> Value {
        let next = tokio::time::timeout(deadline, self.next_text()).await;
        let text = next.unwrap_or_else(|_| panic!("no frame within {deadline:?}"));
        let text = text.expect("the socket is open");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The first frame of the given `type`; others before it are dropped.
    ///
    /// # Panics
    ///
    /// As [`WebSocket::next_json`].
    pub async fn next_of_type(&mut self, r#type: &str, deadline: Duration) -> Value {
        let next = async {
            loop {
                let frame = self.next_json(deadline).await;
                if frame["type"] == r#type {
                    return frame;
                }
            }
        };
        let next = tokio::time::timeout(deadline, next).await;
        next.unwrap_or_else(|_| panic!("no frame of type {type} within {deadline:?}"))
    }

    /// Waits until the server closes the socket; text frames before that are dropped.
    ///
    /// # Panics
    ///
    /// When it is open after `deadline`.
    pub async fn closed(&mut self, deadline: Duration) {
        let closed = async { while self.next_text().await.is_some() {} };
        let closed = tokio::time::timeout(deadline, closed).await;
        closed.unwrap_or_else(|_| panic!("open after {deadline:?}"));
    }

    /// `None` when the socket is closed, cleanly or not.
    async fn next_text(&mut self) -> Option<String> {
        loop {
            let message = self.0.next().await?.ok()?;
            if let Message::Text(text) = message {
                return Some(text.as_str().to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::net::TcpListener;
    use tokio_tungstenite::accept_async;

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn frames_come_by_type_and_the_close_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        let server = async {
            let (socket, _) = listener.accept().await.unwrap();
            let mut socket = accept_async(socket).await.unwrap();
            for frame in [r#"{"type":"hello"}"#, r#"{"type":"logs","items":[1]}"#] {
                socket.send(Message::text(frame)).await.unwrap();
            }
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(r#"{"event":"init"}"#));
            socket.close(None).await.unwrap();
        };
        let client = async {
            let mut socket = WebSocket::open(&url).await.unwrap();
            assert_eq!(socket.next_of_type("logs", SOON).await["items"], json!([1]));
            socket.send(&json!({ "event": "init" })).await.unwrap();
            socket.closed(SOON).await;
        };
        tokio::join!(server, client);
    }
}
