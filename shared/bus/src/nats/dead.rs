//! Dead letters on the broker: each is a message of the stream `OBSERVER_DEAD`, its id the message's
//! sequence there; what is known about it stands in headers of ours.

use std::hash::{DefaultHasher, Hash, Hasher};

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream as JsStream};
use async_nats::jetstream::{ErrorCode, Message};
use async_trait::async_trait;
use bytes::Bytes;
use observer_wire::ProjectId;
use tokio::time::timeout;

use super::broker::{Broker, CALL_TIMEOUT};
use super::consume::{Ephemeral, Wanted, fetch};
use super::publish::{Message as Outgoing, as_bus_error, send};
use super::{Cause, NatsBus, streams, unavailable};
use crate::{
    BusError, DEAD_PAGE_MAX, DeadCount, DeadHead, DeadKind, DeadLetter, DeadLetters, DeadPage,
    Stream,
};

/// Longest reason that is kept with a dead letter, in bytes: it may quote what a game sent.
const REASON_BYTES_MAX: usize = 1024;

const REASON: &str = "Observer-Reason";
const KIND: &str = "Observer-Kind";
/// Sequence and id of the event that it was, or was in.
const SEQUENCE: &str = "Observer-Sequence";
const EVENT_ID: &str = "Observer-Id";

/// The subject of letters that came through `stream`; nothing but a project's name is put into it.
pub(super) fn subject(stream: Stream, project: &str) -> String {
    format!("{}.{}.{project}", streams::DEAD_PREFIX, stream.name())
}

/// Stream and project of a letter. `None` for what is not from Observer.
fn origin(subject: &str) -> Option<(Stream, ProjectId)> {
    let rest = subject.strip_prefix(streams::DEAD_PREFIX)?.strip_prefix('.')?;
    let (stream, project) = rest.split_once('.')?;
    Some((crate::stream_named(stream)?, project.parse().ok()?))
}

/// What is kept among the dead. Its headers are ours: the reason is made safe for one.
pub(super) struct Burial<'a> {
    pub(super) subject: String,
    pub(super) kind: DeadKind,
    pub(super) reason: &'a str,
    pub(super) original: &'a Message,
    pub(super) payload: &'a Bytes,
}

impl Burial<'_> {
    /// Keeps it. Buried again after a redelivery, it is the same letter.
    pub(super) async fn keep(self, broker: &Broker) -> Result<(), BusError> {
        let mut headers = HeaderMap::new();
        let reason = crate::shortened(self.reason, REASON_BYTES_MAX);
        let reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        headers.insert(REASON, reason.trim());
        headers.insert(KIND, self.kind.name());
        let sequence = self.original.info().map(|info| info.stream_sequence).unwrap_or_default();
        headers.insert(SEQUENCE, sequence.to_string());
        let event_id =
            self.original.headers.as_ref().and_then(|headers| headers.get(NATS_MESSAGE_ID));
        if let Some(id) = event_id {
            headers.insert(EVENT_ID, id.clone());
        }
        let mut hash = DefaultHasher::new();
        (self.payload, self.reason).hash(&mut hash);
        let message = Outgoing {
            stream: streams::DEAD,
            // The id is unique within a stream only, and all streams' dead lie in one.
            id: &format!("{} {sequence}-{:016x}", self.subject, hash.finish()),
            subject: self.subject.clone(),
            expected: None,
            headers,
            payload: self.payload.clone(),
        };
        let kept = send(broker, message).await;
        kept.map_err(|error| as_bus_error("burying an event", error))?;
        Ok(())
    }
}

/// What stands in a letter's headers and subject. `None` for what is not from Observer.
fn head(subject: &str, headers: &HeaderMap, id: u64, at_ms: i128, size: usize) -> Option<DeadHead> {
    let (stream, project) = origin(subject)?;
    let text = |name: &str| headers.get(name).map_or("", |value| value.as_str());
    Some(DeadHead {
        id,
        project,
        stream,
        kind: DeadKind::named(text(KIND)),
        reason: text(REASON).to_owned(),
        at: i64::try_from(at_ms).unwrap_or_default(),
        size,
    })
}

fn listed(message: &Message) -> Result<Option<DeadHead>, Cause> {
    let info = message.info()?;
    let at_ms = info.published.unix_timestamp_nanos() / 1_000_000;
    let no_headers = HeaderMap::new();
    let headers = message.headers.as_ref().unwrap_or(&no_headers);
    // The server leaves the payload out, and says how long it is.
    let size = headers.get("Nats-Msg-Size").and_then(|size| size.as_str().parse().ok());
    Ok(head(&message.subject, headers, info.stream_sequence, at_ms, size.unwrap_or_default()))
}

impl NatsBus {
    async fn dead_stream(&self, operation: &'static str) -> Result<JsStream<()>, BusError> {
        self.broker.check_link(operation)?;
        let stream = self.broker.jetstream.get_stream_no_info(streams::DEAD).await;
        stream.map_err(|error| unavailable(operation, error))
    }

    /// A letter as it lies in the stream, if it is the project's.
    async fn dead_message(
        &self,
        operation: &'static str,
        project: ProjectId,
        id: u64,
    ) -> Result<Option<StreamMessage>, BusError> {
        if id == 0 {
            return Ok(None); // The server would take it for "no sequence".
        }
        match self.dead_stream(operation).await?.get_raw_message(id).await {
            Ok(message) => {
                let ours = origin(&message.subject).is_some_and(|(_, owner)| owner == project);
                Ok(ours.then_some(message))
            }
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(unavailable(operation, error)),
        }
    }

    async fn dead_page(
        &self,
        project: ProjectId,
        after: Option<u64>,
        limit: usize,
    ) -> Result<DeadPage, Cause> {
        let wanted = Wanted {
            stream: streams::DEAD,
            subject: format!("{}.*.{project}", streams::DEAD_PREFIX),
            from: DeliverPolicy::ByStartSequence {
                start_sequence: after.map_or(1, |after| after.saturating_add(1)),
            },
            headers_only: true,
        };
        let consumer = Ephemeral::start(&self.broker, wanted).await?;
        // One more than asked for tells whether there are more.
        let messages = fetch(&consumer.consumer, limit + 1).await?;
        let mut page = DeadPage::default();
        for message in &messages {
            if limit <= page.letters.len() {
                page.next = page.letters.last().map(|letter| letter.id);
                break;
            }
            page.letters.extend(listed(message)?);
        }
        Ok(page)
    }
}

#[async_trait]
impl DeadLetters for NatsBus {
    async fn list(
        &self,
        project: ProjectId,
        after: Option<u64>,
        limit: usize,
    ) -> Result<DeadPage, BusError> {
        let operation = "listing dead letters";
        self.broker.check_link(operation)?;
        let page = self.dead_page(project, after, limit.clamp(1, DEAD_PAGE_MAX));
        match timeout(CALL_TIMEOUT, page).await {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(error)) => Err(unavailable(operation, error)),
            Err(elapsed) => Err(unavailable(operation, elapsed)),
        }
    }

    async fn get(&self, project: ProjectId, id: u64) -> Result<Option<DeadLetter>, BusError> {
        let message = self.dead_message("reading a dead letter", project, id).await?;
        Ok(message.and_then(|message| {
            let at_ms = message.time.unix_timestamp_nanos() / 1_000_000;
            let size = message.payload.len();
            let head = head(&message.subject, &message.headers, id, at_ms, size)?;
            Some(DeadLetter { head, payload: message.payload })
        }))
    }

    async fn drop(&self, project: ProjectId, id: u64) -> Result<bool, BusError> {
        let operation = "dropping a dead letter";
        if self.dead_message(operation, project, id).await?.is_none() {
            return Ok(false);
        }
        match self.dead_stream(operation).await?.delete_message(id).await {
            Ok(dropped) => Ok(dropped),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(unavailable(operation, error)),
        }
    }

    async fn count(&self) -> Result<DeadCount, BusError> {
        let operation = "counting dead letters";
        self.broker.check_link(operation)?;
        let stream = self.broker.jetstream.get_stream(streams::DEAD).await;
        let stream = stream.map_err(|error| unavailable(operation, error))?;
        let state = &stream.cached_info().state;
        Ok(DeadCount { letters: state.messages, bytes: state.bytes })
    }
}

/// Somebody else dropped it a moment ago.
fn is_gone(error: &async_nats::jetstream::stream::DeleteMessageError) -> bool {
    use async_nats::jetstream::stream::DeleteMessageErrorKind;
    /// The server's "message not found".
    const NOT_FOUND: [ErrorCode; 2] = [ErrorCode::NO_MESSAGE_FOUND, ErrorCode::SEQUENCE_NOT_FOUND];
    matches!(error.kind(), DeleteMessageErrorKind::JetStream(error)
        if NOT_FOUND.contains(&error.error_code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_has_the_stream_and_project_of_its_subject() {
        let project: ProjectId = "0123456789ab".parse().unwrap();
        for stream in [Stream::Logs, Stream::Vars, Stream::Edits] {
            assert_eq!(origin(&subject(stream, project.as_str())), Some((stream, project)));
        }
        for foreign in ["observer.dead.logs.unknown", "observer.dead.x.0123456789ab", "observer"] {
            assert_eq!(origin(foreign), None);
        }
    }
}
