//! Lines in text frames: each message is one or more whole lines, in both directions. The framing is
//! tungstenite's; here its messages become bytes of lines, and its buffers stay small.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use observer_wire::{Code, Limits, Refusal};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Raw, Received};

/// Bytes that one read may bring. Every WebSocket keeps a buffer of this size; a longer message
/// makes it grow.
const READ_BYTES: usize = 4 * 1024;

/// Most bytes of lines in one frame that we send: a longer line travels in several, so that no
/// connection keeps a larger buffer once it was sent one.
const FRAME_BYTES_MAX: usize = 16 * 1024;

/// Room in tungstenite's buffer for one frame, its head, and an answer to a ping and to a close.
const WRITE_BYTES_MAX: usize = FRAME_BYTES_MAX + 1024;

/// Bytes of line end that a message of the longest line may have behind it.
const LINE_END_BYTES: usize = 2;

/// A WebSocket whose upgrade is done.
pub(crate) struct Web {
    socket: WebSocketStream<Counted>,
    /// What was received and not handed out yet.
    text: Bytes,
    /// Bytes of the message that `text` is the rest of: all of it stays until the last is handed out.
    text_bytes: usize,
    /// The message ends a line, and did not say so itself.
    line_end: bool,
    /// The last frame that we sent ends no message.
    in_message: bool,
    /// Why we must close, though no line is to blame.
    broken: Option<CloseCode>,
    end: End,
}

/// Who ended the talk, if somebody did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nobody.
    Open,
    /// The game sent its close frame: it reads no more.
    ByGame,
    /// We sent ours.
    ByUs,
}

impl Web {
    /// A WebSocket on `raw`, of which `early` was read behind the upgrade's head.
    pub(crate) async fn new(raw: Raw, early: Vec<u8>, limits: &Limits) -> Self {
        let bytes_max = limits.line_bytes_max + LINE_END_BYTES;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0) // A frame is written at once.
            .max_write_buffer_size(WRITE_BYTES_MAX)
            .max_message_size(Some(bytes_max))
            .max_frame_size(Some(bytes_max));
        let raw = Counted { raw, bytes: early.len(), room: 0, heard: false };
        let socket =
            WebSocketStream::from_partially_read(raw, early, Role::Server, Some(config)).await;
        Self {
            socket,
            text: Bytes::new(),
            text_bytes: 0,
            line_end: false,
            in_message: false,
            broken: None,
            end: End::Open,
        }
    }

    /// The bytes beneath.
    pub(super) fn raw(&mut self) -> &mut Raw {
        &mut self.socket.get_mut().raw
    }

    /// Whether a whole message was received and is not handed out.
    pub(super) fn has_read(&self) -> bool {
        !self.text.is_empty() || self.line_end
    }

    /// Bytes of messages that were received in part, or not handed out yet.
    pub(super) fn started_bytes(&self) -> usize {
        self.text.len() + self.socket.get_ref().bytes
    }

    /// Bytes of memory that are kept of messages.
    pub(super) fn kept_bytes(&self) -> usize {
        self.text_bytes + self.socket.get_ref().bytes
    }

    /// Whether the last read ended because it may bring no more.
    pub(super) fn is_out_of_room(&self) -> bool {
        self.socket.get_ref().room == 0
    }

    /// Whether anything came since this was asked last: a ping, or a part of a message.
    pub(super) fn take_heard(&mut self) -> bool {
        std::mem::take(&mut self.socket.get_mut().heard)
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut [u8],
    ) -> Poll<io::Result<Received>> {
        self.socket.get_mut().room = chunk.len();
        loop {
            let count = self.hand_out(chunk);
            if count > 0 {
                return Poll::Ready(Ok(Received::Bytes(count)));
            }
            let received = match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(message)) => self.take(message),
                Some(Err(error)) => Some(self.failed(error)?),
                None => Some(Received::End),
            };
            if let Some(received) = received {
                return Poll::Ready(Ok(received));
            }
        }
    }

    /// Copies what was received into `chunk`, as far as there is room.
    fn hand_out(&mut self, chunk: &mut [u8]) -> usize {
        let count = self.text.len().min(chunk.len());
        chunk[..count].copy_from_slice(&self.text.split_to(count));
        if self.text.is_empty() {
            self.text = Bytes::new(); // Gives the memory back.
            self.text_bytes = 0;
            if self.line_end && count < chunk.len() {
                self.line_end = false;
                chunk[count] = b'\n';
                return count + 1;
            }
        }
        count
    }

    fn take(&mut self, message: Message) -> Option<Received> {
        let beneath = self.socket.get_mut();
        match message {
            Message::Text(text) => {
                beneath.bytes = 0;
                self.line_end = !text.as_str().ends_with('\n');
                self.text = text.into();
                self.text_bytes = self.text.len();
                None
            }
            Message::Binary(_) => {
                beneath.bytes = 0;
                let words = "send lines in text frames, not in binary ones";
                Some(Received::Refused(Refusal::new(Code::UnknownLine, words)))
            }
            Message::Ping(bytes) | Message::Pong(bytes) => {
                // It may stand between two parts of a message, whose bytes go on counting.
                beneath.bytes = beneath.bytes.saturating_sub(CONTROL_HEAD_BYTES + bytes.len());
                None
            }
            Message::Close(_) => {
                self.end = End::ByGame;
                Some(Received::End)
            }
            Message::Frame(_) => None, // Reading gives whole messages.
        }
    }

    /// What an error of the framing means. Nothing more can be read after any.
    fn failed(&mut self, error: Error) -> io::Result<Received> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest breaks the same rules")]
        match error {
            Error::Io(error) => Err(error),
            Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
                let words = format!("a message has at most {max_size} bytes");
                Ok(Received::Refused(Refusal::new(Code::LineTooLong, words)))
            }
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ok(Received::End),
            Error::Utf8(_) => {
                self.broken = Some(CloseCode::Invalid);
                Ok(Received::End)
            }
            _ => {
                self.broken = Some(CloseCode::Protocol);
                Ok(Received::End)
            }
        }
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        waiting: &[u8],
    ) -> Poll<io::Result<usize>> {
        // One frame at a time, so that tungstenite's buffer holds one at most.
        ready!(self.poll_flush(cx))?;
        if self.end == End::ByGame {
            return Poll::Ready(Ok(waiting.len())); // It reads no more, and we may send no more.
        }
        let (count, is_last) = frame_of(waiting);
        let kind = if self.in_message { Data::Continue } else { Data::Text };
        let bytes = Bytes::copy_from_slice(&waiting[..count]);
        let frame = Frame::message(bytes, OpCode::Data(kind), is_last);
        Pin::new(&mut self.socket).start_send(Message::Frame(frame)).map_err(into_io)?;
        self.in_message = !is_last;
        Poll::Ready(Ok(count))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(into_io)
    }

    pub(super) fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        why: Option<Code>,
    ) -> Poll<io::Result<()>> {
        if self.end == End::Open {
            self.end = End::ByUs;
            let code = why.map_or(self.broken.unwrap_or(CloseCode::Normal), close_code);
            let reason = why.map_or("", Code::name).into();
            let close = Message::Close(Some(CloseFrame { code, reason }));
            Pin::new(&mut self.socket).start_send(close).map_err(into_io)?;
        }
        ready!(self.poll_flush(cx))?;
        Pin::new(self.raw()).poll_shutdown(cx)
    }
}

/// Head of a control frame from a game, in bytes: two, and its mask.
const CONTROL_HEAD_BYTES: usize = 6;

/// How many bytes of whole lines go into the next frame, and whether its message ends there.
fn frame_of(waiting: &[u8]) -> (usize, bool) {
    let Some(start) = waiting.get(..FRAME_BYTES_MAX) else { return (waiting.len(), true) };
    match start.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => (end + 1, true),
        None => (start.len(), false),
    }
}

/// The number that a browser is given with the name of the code.
fn close_code(code: Code) -> CloseCode {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is about what the game did")]
    match code {
        Code::Draining => CloseCode::Restart,
        Code::TooManySockets => CloseCode::Again,
        Code::LineTooLong => CloseCode::Size,
        _ => CloseCode::Policy,
    }
}

fn into_io(error: Error) -> io::Error {
    if let Error::Io(error) = error { error } else { io::Error::other(error) }
}

/// Counts what was read since the last message was whole, and reads no more than may be kept.
#[derive(Debug)]
struct Counted {
    raw: Raw,
    bytes: usize,
    /// Bytes that may be read until somebody says otherwise.
    room: usize,
    heard: bool,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        read: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.room == 0 {
            return Poll::Pending; // Whoever asked sees why, and asks again.
        }
        let mut part = read.take(self.room);
        ready!(Pin::new(&mut self.raw).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        read.advance(count);
        self.room -= count;
        self.bytes += count;
        self.heard |= count > 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.raw).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.raw).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.raw).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_ends_with_a_line_unless_the_line_is_longer() {
        assert_eq!(frame_of(b"OK\nOK m\n"), (8, true));
        let long = [vec![b'x'; FRAME_BYTES_MAX], b"\n".to_vec()].concat();
        assert_eq!(frame_of(&long), (FRAME_BYTES_MAX, false));
        assert_eq!(frame_of(&long[1..]), (FRAME_BYTES_MAX, true));
        assert_eq!(frame_of(&[b"OK\n".to_vec(), long].concat()), (3, true));
    }

    #[test]
    fn a_browser_is_told_whether_to_come_back() {
        assert_eq!(u16::from(close_code(Code::Draining)), 1012);
        assert_eq!(u16::from(close_code(Code::TooManySockets)), 1013);
        assert_eq!(u16::from(close_code(Code::LineTooLong)), 1009);
        assert_eq!(u16::from(close_code(Code::UnknownKey)), 1008);
    }
}
