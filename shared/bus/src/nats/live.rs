//! Live log events of a project: a plain subscription to what the broker republishes, and for
//! viewers that come back, first what they missed from the memory stream.
//!
//! A cursor is `<epoch>.<sequence>.<time>`: creation of the stream of logs, sequence there, and the
//! broker's time in seconds, which only says where to start looking.

use std::sync::Arc;
use std::time::Duration;

use async_nats::header::{NATS_LAST_SEQUENCE, NATS_SEQUENCE, NATS_TIME_STAMP};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::Stream as Messages;
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind, DirectGetErrorKind, Info};
use async_nats::{HeaderMap, HeaderName, Message};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use observer_wire::{ProjectId, subject};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::timeout;

use super::broker::{Broker, CALL_TIMEOUT};
use super::consume::{Ephemeral, Wanted};
use super::listen::Subscription;
use super::{Cause, streams, unavailable};
use crate::mailbox::Mail;
use crate::{BusError, Cursor, HeardLog, LiveLogs, LogListener, Resume};

/// Looked at before a cursor's time, in seconds: several brokers have several clocks.
const CLOCK_MARGIN_S: i64 = 10;

/// Missed events fetched ahead at most.
const FETCH_EVENTS_MAX: usize = 64;

/// Time without a missed event after which it is given up: they are in the broker's memory.
const MISSED_TIMEOUT: Duration = Duration::from_secs(5);

const OPERATION: &str = "listening to live logs";

/// A position among the log events of all projects.
#[derive(Clone, Copy)]
struct Position {
    sequence: u64,
    unix_s: i64,
}

/// A live event.
struct Log {
    position: Position,
    /// Sequence of the project's event before, as far as the broker still had it; else 0.
    last: u64,
    payload: Bytes,
}

/// Listens to a project, from `cursor` if nothing behind it is missing.
pub(super) async fn listen_from(
    broker: &Arc<Broker>,
    project: ProjectId,
    cursor: Option<&Cursor>,
) -> Result<LiveLogs, BusError> {
    let subject = subject::of_project(subject::LIVE_LOGS, project);
    let subscription = Subscription::start(broker, subject.clone(), read).await?;
    // Asked after the subscription is in force: what comes later is heard.
    let stream = broker.jetstream.get_stream(streams::LOGS).await;
    let stream = stream.map_err(|error| unavailable(OPERATION, error))?;
    let info = stream.cached_info();
    let epoch = epoch(info);
    let now = Position {
        sequence: info.state.last_sequence,
        unix_s: info.state.last_timestamp.unix_timestamp(),
    };
    let from = cursor.and_then(|cursor| parse(cursor, &epoch));
    let (resume, position, missed) = match (cursor, from) {
        (None, _) => (Resume::Fresh, now, None),
        (Some(_), None) => (Resume::Reset, now, None),
        (Some(_), Some(from)) => match missed(broker, subject, from, now).await {
            Ok(Some(missed)) => (Resume::Resumed, from, missed),
            Ok(None) => (Resume::Reset, now, None),
            Err(error) => return Err(unavailable(OPERATION, error)),
        },
    };
    // A time of the broker's that it had not yet is no place to start looking.
    let cursor = match resume {
        Resume::Resumed => cursor.cloned().unwrap_or_else(|| text(&epoch, position)),
        Resume::Fresh | Resume::Reset => text(&epoch, position),
    };
    let heard = position.sequence;
    let events =
        NatsLogListener { subscription, epoch, missed, heard, told_lost: false, waiting: None };
    Ok(LiveLogs { resume, cursor, events: Box::new(events) })
}

/// Recognises the stream of logs: one that is made anew counts anew.
fn epoch(info: &Info) -> String {
    format!("{:x}", info.created.unix_timestamp_nanos())
}

fn text(epoch: &str, position: Position) -> Cursor {
    Cursor(format!("{epoch}.{}.{}", position.sequence, position.unix_s))
}

fn parse(cursor: &Cursor, epoch: &str) -> Option<Position> {
    let rest = cursor.0.strip_prefix(epoch)?.strip_prefix('.')?;
    let (sequence, unix_s) = rest.split_once('.')?;
    Some(Position { sequence: sequence.parse().ok()?, unix_s: unix_s.parse().ok()? })
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).map(async_nats::HeaderValue::as_str)
}

/// Reads a republished event. Anything else is not from the broker.
fn read(message: Message) -> Option<Log> {
    let headers = message.headers.as_ref()?;
    let sequence = header(headers, NATS_SEQUENCE)?.parse().ok()?;
    let last = header(headers, NATS_LAST_SEQUENCE)?.parse().ok()?;
    let time = OffsetDateTime::parse(header(headers, NATS_TIME_STAMP)?, &Rfc3339).ok()?;
    let position = Position { sequence, unix_s: time.unix_timestamp() };
    Some(Log { position, last, payload: message.payload })
}

/// The events behind `from`, or nothing if some of them may be gone.
///
/// The memory stream drops its oldest first. So if it still has any project's event at `from` or
/// right behind it, it has all that follow.
async fn missed(
    broker: &Arc<Broker>,
    subject: String,
    from: Position,
    now: Position,
) -> Result<Option<Option<Missed>>, Cause> {
    if now.sequence < from.sequence {
        return Ok(None); // The broker went back, or the cursor was made up.
    }
    if now.sequence == from.sequence {
        return Ok(Some(None));
    }
    let start = OffsetDateTime::from_unix_timestamp(from.unix_s.saturating_sub(CLOCK_MARGIN_S));
    let policy =
        start.map_or(DeliverPolicy::All, |start_time| DeliverPolicy::ByStartTime { start_time });
    let wanted = Wanted { stream: streams::LIVE, subject, from: policy, headers_only: false };
    let ephemeral = match Ephemeral::start(broker, wanted).await {
        Ok(ephemeral) => ephemeral,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Asked after the consumer is made: what is there now was there for it too.
    let first = first_kept(broker).await?;
    if first.is_none_or(|first| from.sequence + 1 < first) {
        return Ok(None);
    }
    let left = ephemeral.consumer.cached_info().num_pending;
    if left == 0 {
        return Ok(Some(None));
    }
    let messages = ephemeral.consumer.stream().max_messages_per_batch(FETCH_EVENTS_MAX);
    let messages = timeout(CALL_TIMEOUT, messages.messages()).await??;
    Ok(Some(Some(Missed { messages, left, _ephemeral: ephemeral })))
}

/// Whether the server was restarted and its memory stream is not made anew yet.
fn is_missing(error: &ConsumerError) -> bool {
    matches!(error.kind(), ConsumerErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// Sequence of the oldest event in the memory stream, of whatever project.
async fn first_kept(broker: &Broker) -> Result<Option<u64>, Cause> {
    let live = broker.jetstream.get_stream_no_info(streams::LIVE).await?;
    let all = format!("{}.*", subject::LIVE_LOGS);
    match live.direct_get_builder().sequence(1).next_by_subject(all).send().await {
        Ok(message) => {
            let sequence = header(&message.headers, NATS_SEQUENCE).ok_or("not republished")?;
            Ok(Some(sequence.parse()?))
        }
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What a viewer that came back missed.
struct Missed {
    messages: Messages,
    left: u64,
    _ephemeral: Ephemeral,
}

impl Missed {
    /// The next event; nothing when all were had.
    async fn next(&mut self) -> Result<Option<Log>, Cause> {
        if self.left == 0 {
            return Ok(None);
        }
        let message = timeout(MISSED_TIMEOUT, self.messages.next()).await?;
        let message = message.ok_or("the consumer ended")??;
        // Those that the stream dropped meanwhile do not come; then the broker's count is lower.
        self.left = (self.left - 1).min(message.info()?.pending);
        let (message, _) = message.split();
        Ok(Some(read(message).ok_or("not republished")?))
    }
}

struct NatsLogListener {
    subscription: Subscription<Log>,
    epoch: String,
    missed: Option<Missed>,
    /// Sequence up to which all is heard.
    heard: u64,
    /// Whether the loss before the next event was told already.
    told_lost: bool,
    /// An event that waits until the loss before it is told.
    waiting: Option<Log>,
}

impl NatsLogListener {
    fn event(&mut self, log: Log) -> HeardLog {
        self.heard = log.position.sequence;
        self.told_lost = false;
        HeardLog::Event(log.payload, text(&self.epoch, log.position))
    }

    fn lost(&mut self, events: Option<u64>) -> HeardLog {
        self.told_lost = true;
        HeardLog::Lost { events }
    }
}

#[async_trait]
impl LogListener for NatsLogListener {
    async fn next(&mut self) -> HeardLog {
        while let Some(missed) = &mut self.missed {
            match missed.next().await {
                Ok(Some(log)) if log.position.sequence <= self.heard => {}
                Ok(Some(log)) => return self.event(log),
                Ok(None) => self.missed = None,
                Err(error) => {
                    tracing::debug!(%error, "missed events cannot be fetched");
                    self.missed = None;
                    return self.lost(None);
                }
            }
        }
        loop {
            let log = match self.waiting.take() {
                Some(log) => log,
                None => match self.subscription.mailbox.next().await {
                    Mail::Lost(events) => return self.lost(events),
                    Mail::Item(log) => log,
                },
            };
            if log.position.sequence <= self.heard {
                continue; // It came both ways.
            }
            if self.heard < log.last && !self.told_lost {
                self.waiting = Some(log);
                return self.lost(None);
            }
            return self.event(log);
        }
    }
}
