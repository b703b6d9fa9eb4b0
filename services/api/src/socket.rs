//! A WebSocket with its bounds: what a viewer may send, how long a frame may take to be written, and
//! how the end is told.

use std::time::Duration;

use axum::extract::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use axum::response::Response;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::app::App;
use crate::problem::ApiError;

/// Time for one frame to be written. A viewer that does not read is closed, not waited for.
const WRITE_TIMEOUT: Duration = Duration::from_secs(6);

/// Bytes that wait to be written: one frame of the largest bus message, and the frames of the
/// protocol itself.
const WRITE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What came from a viewer.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A text.
    Text(Utf8Bytes),
    /// Bytes, which nothing here takes.
    Binary,
    /// A ping, or the answer to one: the viewer is there. Pings are answered below us.
    Alive,
    /// More than a viewer may send.
    TooLarge,
    /// The end.
    Closed,
}

/// The viewer is gone, or does not read.
#[derive(Debug)]
pub(crate) struct Gone;

/// An open WebSocket.
pub(crate) struct Socket(WebSocket);

impl Socket {
    /// Waits for what the viewer sends next.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost when dropped.
    pub(crate) async fn next(&mut self) -> Incoming {
        match self.0.recv().await {
            Some(Ok(Message::Text(text))) => Incoming::Text(text),
            Some(Ok(Message::Binary(_))) => Incoming::Binary,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Incoming::Alive,
            // The library names this case by words alone.
            Some(Err(error)) if error.to_string().contains("too long") => Incoming::TooLarge,
            Some(Ok(Message::Close(_)) | Err(_)) | None => Incoming::Closed,
        }
    }

    /// Writes a text.
    ///
    /// # Errors
    ///
    /// [`Gone`] when it could not be written in time.
    pub(crate) async fn send(&mut self, text: String) -> Result<(), Gone> {
        self.write(Message::Text(text.into())).await
    }

    /// Asks the viewer for a sign of life.
    ///
    /// # Errors
    ///
    /// As [`Socket::send`].
    pub(crate) async fn ping(&mut self) -> Result<(), Gone> {
        self.write(Message::Ping(bytes::Bytes::new())).await
    }

    /// Says goodbye, and waits a moment for the viewer to agree: closed at once, the code may never
    /// arrive.
    pub(crate) async fn close(mut self, end: End) {
        let frame = CloseFrame { code: end.code(), reason: end.words().into() };
        if self.write(Message::Close(Some(frame))).await.is_ok() {
            let agreed = async { while let Some(Ok(_)) = self.0.recv().await {} };
            timeout(GOODBYE_TIMEOUT, agreed).await.ok();
        }
    }

    async fn write(&mut self, message: Message) -> Result<(), Gone> {
        match timeout(WRITE_TIMEOUT, self.0.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

/// Time for the answer to a close frame.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why we end a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The process ends; come back to another one.
    Away,
    /// Nobody was heard for too long.
    Idle,
    /// The viewer sent what it must not.
    Policy(&'static str),
    /// The viewer sent too much at once.
    TooLarge,
    /// The viewer left by itself, or does not read: there is nobody to tell.
    Gone,
}

impl End {
    fn code(self) -> u16 {
        match self {
            Self::Away => close_code::AWAY,
            Self::Idle | Self::Gone => close_code::NORMAL,
            Self::Policy(_) => close_code::POLICY,
            Self::TooLarge => close_code::SIZE,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Away => "the server is going away",
            Self::Idle => "nothing happened for too long",
            Self::Policy(words) => words,
            Self::TooLarge => "the message is too large",
            Self::Gone => "",
        }
    }
}

/// Opens a WebSocket for a viewer and lets `serve` have it; when `serve` is done, the end is told.
///
/// `observer_viewers{route}`: WebSockets that are open.
///
/// # Errors
///
/// When the request is no WebSocket's, or there are too many viewers.
pub(crate) fn open<F>(
    app: &App,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    route: &'static str,
    serve: impl FnOnce(Socket) -> F + Send + 'static,
) -> Result<Response, ApiError>
where
    F: Future<Output = (Socket, End)> + Send + 'static,
{
    let upgrade = upgrade.map_err(|rejection| {
        ApiError::BadRequest(format!("this route is a WebSocket: {}", rejection.body_text()))
    })?;
    let viewer: OwnedSemaphorePermit = std::sync::Arc::clone(&app.viewers)
        .try_acquire_owned()
        .map_err(|_| ApiError::Busy("too many viewers".into()))?;
    let bytes_max = app.config.ws_message_bytes_max.get();
    // Counted from now on, so that shutdown waits for a WebSocket that is just being opened.
    let open = app.open.token();
    Ok(upgrade
        .max_message_size(bytes_max)
        .max_frame_size(bytes_max)
        .max_write_buffer_size(WRITE_BYTES_MAX)
        .on_upgrade(async move |socket| {
            let gauge = metrics::gauge!("observer_viewers", "route" => route);
            gauge.increment(1);
            let (socket, end) = serve(Socket(socket)).await;
            if end != End::Gone {
                socket.close(end).await;
            }
            gauge.decrement(1);
            drop((open, viewer));
        }))
}
