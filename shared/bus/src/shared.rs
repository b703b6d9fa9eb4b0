//! The few things that both adapters do alike, so that they cannot come to differ.

use bytes::Bytes;

use crate::{BusError, BusErrorKind, PAYLOAD_BYTES_MAX, Stream, Topic};

/// Name of a stream, in dead letters and their subjects.
pub(crate) fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Logs => "logs",
        Stream::Vars => "vars",
        Stream::Edits => "edits",
    }
}

/// Refuses what must not be broadcast.
pub(crate) fn check_broadcast(topic: Topic, payload: &Bytes) -> Result<(), BusError> {
    let complaint = if topic == Topic::Edits {
        "edits are published, not broadcast".to_owned()
    } else if PAYLOAD_BYTES_MAX < payload.len() {
        format!("payload of {} bytes is too large", payload.len())
    } else {
        return Ok(());
    };
    Err(BusError { operation: "broadcast", kind: BusErrorKind::Refused, source: complaint.into() })
}

/// At most the first `bytes_max` bytes of a text, cut between characters.
pub(crate) fn shortened(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
