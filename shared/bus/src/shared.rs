//! The few things that both adapters do alike, so that they cannot come to differ.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::{BusError, BusErrorKind, Outgoing, PAYLOAD_BYTES_MAX, PublishError, Stream, Topic};

/// Locks state that no panic can leave half changed for good: what a panicking holder may have left
/// undone is at most one event that comes again.
pub(crate) fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses what can never be published.
pub(crate) fn check_event(event: &Outgoing) -> Result<(), PublishError> {
    if PAYLOAD_BYTES_MAX < event.payload.len() {
        return Err(PublishError::TooLarge { bytes: event.payload.len() });
    }
    if event.expected.is_some() && event.stream != Stream::Edits {
        let complaint = "only edits are published with an expected sequence";
        return Err(PublishError::Refused(complaint.to_owned()));
    }
    Ok(())
}

/// The stream of that name.
pub(crate) fn stream_named(name: &str) -> Option<Stream> {
    [Stream::Logs, Stream::Vars, Stream::Edits].into_iter().find(|stream| stream.name() == name)
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

/// `part` of `whole` in percent, rounded down, at most 100.
pub(crate) fn percent(part: u64, whole: u64) -> u8 {
    if whole <= part {
        return 100;
    }
    let percent = u128::from(part) * 100 / u128::from(whole);
    u8::try_from(percent).expect("below 100, as the part is smaller")
}

/// At most the first `bytes_max` bytes of a text, cut between characters.
pub(crate) fn shortened(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_rounded_down_and_never_more_than_100() {
        assert_eq!(percent(0, 7), 0);
        assert_eq!(percent(599, 1000), 59);
        assert_eq!(percent(600, 1000), 60);
        assert_eq!(percent(u64::MAX - 1, u64::MAX), 99);
        assert_eq!(percent(8, 7), 100);
        assert_eq!(percent(0, 0), 100, "what may hold nothing is full");
    }
}
