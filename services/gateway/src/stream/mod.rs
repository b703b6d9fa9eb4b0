//! What a session reads and writes: plain TCP, TLS, or a WebSocket over either. Bytes of lines in,
//! bytes of lines out; how they travel is nobody else's business.
//!
//! Plain TCP costs what it did: one comparison a call, no buffer, no allocation. The others keep
//! what their library keeps for a connection, idle or not.

mod raw;
pub(crate) mod web;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use observer_wire::{Code, Refusal};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

pub(crate) use raw::Raw;

use web::Web;

/// A connection that is ready for lines.
pub(crate) enum Stream {
    /// Lines as they are.
    Raw(Raw),
    /// Lines in text frames.
    Web(Box<Web>),
}

/// What a read brought.
#[derive(Debug)]
pub(crate) enum Received {
    /// So many bytes of lines, at the start of the buffer.
    Bytes(usize),
    /// The game said that nothing follows.
    End,
    /// Something came that can be no line.
    Refused(Refusal),
}

impl Stream {
    /// Reads some bytes of lines into `chunk`.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut [u8],
    ) -> Poll<io::Result<Received>> {
        match self {
            Self::Raw(raw) => {
                let mut read = ReadBuf::new(chunk);
                ready!(Pin::new(raw).poll_read(cx, &mut read))?;
                Poll::Ready(Ok(match read.filled().len() {
                    0 => Received::End,
                    count => Received::Bytes(count),
                }))
            }
            Self::Web(web) => web.poll_read(cx, chunk),
        }
    }

    /// Whether lines were read that wait here to be handed out: the next read brings them at once.
    pub(crate) fn has_read(&self) -> bool {
        match self {
            Self::Raw(_) => false,
            Self::Web(web) => web.has_read(),
        }
    }

    /// Reads and forgets some of what the game still says; returns how many bytes, 0 when it says no
    /// more.
    pub(crate) fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let raw = match self {
            Self::Raw(raw) => raw,
            Self::Web(web) => web.raw(),
        };
        let mut unwanted = ReadBuf::new(chunk);
        ready!(Pin::new(raw).poll_read(cx, &mut unwanted))?;
        Poll::Ready(Ok(unwanted.filled().len()))
    }

    /// Writes the start of `waiting`, whole lines of an outbox; returns how many bytes are taken.
    /// They are on their way once [`Stream::poll_flush`] is ready.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        waiting: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Raw(raw) => Pin::new(raw).poll_write(cx, waiting),
            Self::Web(web) => web.poll_write(cx, waiting),
        }
    }

    /// Writes what the transport itself keeps.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Raw(raw) => Pin::new(raw).poll_flush(cx),
            Self::Web(web) => web.poll_flush(cx),
        }
    }

    /// Says that nothing follows, and why, where the transport has words for it.
    pub(crate) fn poll_shutdown(
        &mut self,
        cx: &mut Context<'_>,
        why: Option<Code>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Raw(raw) => Pin::new(raw).poll_shutdown(cx),
            Self::Web(web) => web.poll_close(cx, why),
        }
    }

    /// Whether the game gave a sign of life that was no line, since this was asked last.
    pub(crate) fn take_heard(&mut self) -> bool {
        match self {
            Self::Raw(_) => false, // Whatever comes is part of a line.
            Self::Web(web) => web.take_heard(),
        }
    }

    /// Bytes of memory that the transport keeps of lines.
    pub(crate) fn kept_bytes(&self) -> usize {
        match self {
            Self::Raw(_) => 0, // A started TLS record is bounded by TLS.
            Self::Web(web) => web.kept_bytes(),
        }
    }

    /// Bytes of memory that it may keep after a read of `room` bytes.
    pub(crate) fn kept_after(&self, room: usize) -> usize {
        match self {
            Self::Raw(_) => 0,
            Self::Web(web) => web.kept_bytes() + room,
        }
    }

    /// How often a byte may be kept: by the transport, and once it is handed out.
    pub(crate) fn copies(&self) -> usize {
        match self {
            Self::Raw(_) => 1,
            Self::Web(_) => 2,
        }
    }

    /// Whether the last read ended because it may bring no more, though more may be there.
    pub(crate) fn is_out_of_room(&self) -> bool {
        match self {
            Self::Raw(_) => false,
            Self::Web(web) => web.is_out_of_room(),
        }
    }

    /// Bytes that the transport keeps of a line whose end has not come.
    pub(crate) fn started_bytes(&self) -> usize {
        match self {
            Self::Raw(_) => 0, // A started TLS record is bounded by TLS, and has no line in it yet.
            Self::Web(web) => web.started_bytes(),
        }
    }
}
