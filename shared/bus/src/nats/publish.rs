//! Publishing: an event is sent, byte for byte the same each time, until the broker has said what
//! became of it or the time is over. A broker that does not answer is left alone: see
//! [`super::breaker`].

use std::time::Duration;

use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::RawMessageErrorKind;
use async_nats::{HeaderMap, Request, RequestErrorKind};
use bytes::Bytes;
use observer_wire::subject;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};

use super::broker::Broker;
use super::streams;
use crate::{BusError, Outgoing, PUBLISH_TIMEOUT, PublishError, Published};

/// Time for one attempt: a lost acknowledgement leaves time for two more.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause before another attempt after the broker said "not now".
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Time for which a lost connection is waited for. Past it, publishers are told at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// Something for a stream, and how it is recognised.
pub(super) struct Message<'a> {
    pub(super) stream: &'static str,
    pub(super) subject: String,
    pub(super) id: &'a str,
    pub(super) expected: Option<u64>,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

/// What an attempt came to.
enum Outcome {
    Taken(Published),
    Failed(PublishError),
    /// Not taken, but may be in a moment.
    NotNow,
    /// Another sequence was expected; or an earlier attempt had succeeded.
    Compare,
    /// Nobody knows: the connection was lost.
    Unknown,
    /// Nobody knows: no answer came in time.
    Silence,
}

/// Publishes an event.
pub(super) async fn publish(broker: &Broker, event: &Outgoing) -> Result<Published, PublishError> {
    crate::check_event(event)?;
    let message = Message {
        stream: streams::name(event.stream),
        subject: subject::of_project(streams::prefix(event.stream), event.project),
        id: &event.id,
        expected: event.expected,
        headers: HeaderMap::new(),
        payload: event.payload.clone(),
    };
    send(broker, message).await
}

/// Sends a message into its stream until it is acknowledged.
pub(super) async fn send(
    broker: &Broker,
    mut message: Message<'_>,
) -> Result<Published, PublishError> {
    let Ok(_permit) = broker.in_flight.try_acquire() else {
        return Err(PublishError::Unavailable);
    };
    message.headers.insert(NATS_MESSAGE_ID, message.id);
    if let Some(expected) = message.expected {
        message.headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
    }
    let until = Instant::now() + PUBLISH_TIMEOUT;
    let mut unknown = false; // Whether some attempt may have succeeded.
    while Instant::now() < until {
        if !connected(broker, until).await {
            break;
        }
        let Some(leave) = broker.breaker.leave() else {
            if !unknown {
                return Err(PublishError::Unavailable);
            }
            sleep(RETRY_PAUSE).await; // What may have succeeded is worth waiting for.
            continue;
        };
        let mut outcome = attempt(broker, &message, until).await;
        match outcome {
            Outcome::Silence => leave.unanswered(),
            Outcome::Unknown => drop(leave),
            Outcome::Taken(_) | Outcome::Failed(_) | Outcome::NotNow | Outcome::Compare => {
                leave.answered();
            }
        }
        if matches!(outcome, Outcome::Compare) {
            outcome = compare(broker, &message).await;
        }
        match outcome {
            // What an attempt without an answer may have published is not known from before.
            Outcome::Taken(Published { sequence, known }) => {
                return Ok(Published { sequence, known: known && !unknown });
            }
            // Not taken this time; but what was sent before it may still arrive.
            Outcome::Failed(PublishError::Full) if unknown => return Err(PublishError::Timeout),
            Outcome::Failed(error) => return Err(error),
            Outcome::Unknown | Outcome::Silence => unknown = true,
            Outcome::NotNow | Outcome::Compare => sleep(RETRY_PAUSE).await,
        }
    }
    Err(if unknown { PublishError::Timeout } else { PublishError::Unavailable })
}

/// Waits a little for a lost connection.
async fn connected(broker: &Broker, until: Instant) -> bool {
    let mut link = broker.link.clone();
    let patience = link.borrow().since + PATIENCE;
    let back = link.wait_for(|link| link.connected);
    matches!(timeout_at(patience.min(until), back).await, Ok(Ok(_)))
        || broker.link.borrow().connected
}

async fn attempt(broker: &Broker, message: &Message<'_>, until: Instant) -> Outcome {
    let mut link = broker.link.clone();
    let losses = link.borrow_and_update().losses;
    let request = Request::new()
        .headers(message.headers.clone())
        .payload(message.payload.clone())
        .timeout(None); // Ours is round it, and also bounds the way to the connection.
    let answer = broker.client.send_request(message.subject.clone(), request);
    let lost = link.wait_for(|link| !link.connected || link.losses != losses);
    let answer = tokio::select! {
        answer = timeout_at(until.min(Instant::now() + ATTEMPT_TIMEOUT), answer) => answer,
        _ = lost => return Outcome::Unknown, // The answer went to a connection that is gone.
    };
    match answer {
        Ok(Ok(answer)) => read(&answer.payload, message),
        Ok(Err(error)) => match error.kind() {
            RequestErrorKind::NoResponders => Outcome::NotNow,
            RequestErrorKind::MaxPayloadExceeded => too_large(message),
            RequestErrorKind::InvalidSubject => {
                Outcome::Failed(PublishError::Refused(error.to_string()))
            }
            RequestErrorKind::TimedOut => Outcome::Silence,
            RequestErrorKind::Other => Outcome::Unknown,
        },
        Err(_) => Outcome::Silence,
    }
}

fn too_large(message: &Message<'_>) -> Outcome {
    Outcome::Failed(PublishError::TooLarge { bytes: message.payload.len() })
}

/// What `JetStream` answers.
#[derive(Deserialize)]
struct Answer {
    stream: Option<String>,
    seq: Option<u64>,
    /// The stream had a message with this id.
    #[serde(default)]
    duplicate: bool,
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    code: u16,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

fn read(payload: &[u8], message: &Message<'_>) -> Outcome {
    let refused = |complaint: String| Outcome::Failed(PublishError::Refused(complaint));
    match serde_json::from_slice(payload) {
        Ok(Answer { error: Some(error), .. }) => read_error(&error, message),
        Ok(Answer { stream: Some(stream), seq: Some(sequence), duplicate: known, .. }) => {
            if stream == message.stream {
                return Outcome::Taken(Published { sequence, known });
            }
            refused(format!("stream {stream} answers for {}", message.subject))
        }
        Ok(_) => refused(format!("something else than JetStream answers for {}", message.subject)),
        Err(error) => refused(format!("cannot read the answer for {}: {error}", message.subject)),
    }
}

fn read_error(error: &AnswerError, message: &Message<'_>) -> Outcome {
    /// Too little memory or disk on the server.
    const INSUFFICIENT_RESOURCES: u64 = 10023;
    /// Not stored; the description says why.
    const STORE_FAILED: u64 = 10077;
    /// Storage limits of server and account.
    const LIMITS_EXCEEDED: [u64; 4] = [10002, 10028, 10047, 10122];
    const MESSAGE_TOO_LARGE: u64 = 10054;
    const WRONG_LAST_SEQUENCE: [ErrorCode; 3] = [
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE,
        ErrorCode::STREAM_WRONG_LAST_MESSAGE_ID,
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT,
    ];
    /// The same id is being stored at this moment.
    const DUPLICATE_IN_PROCESS: u64 = 10158;

    let code = error.err_code;
    if WRONG_LAST_SEQUENCE.iter().any(|wrong| wrong.0 == code) {
        return Outcome::Compare;
    }
    let bound_reached = code == STORE_FAILED && error.description.starts_with("maximum");
    if bound_reached || code == INSUFFICIENT_RESOURCES || LIMITS_EXCEEDED.contains(&code) {
        return Outcome::Failed(PublishError::Full);
    }
    if code == MESSAGE_TOO_LARGE {
        return too_large(message);
    }
    // The server's own "unavailable" and "too many requests": elections, overload.
    if code == DUPLICATE_IN_PROCESS || (code != STORE_FAILED && matches!(error.code, 429 | 503)) {
        return Outcome::NotNow;
    }
    Outcome::Failed(PublishError::Refused(format!("{} ({code})", error.description)))
}

/// Tells a wrong expectation from a retry of an append that had succeeded: then the message behind
/// the expected one bears this id.
async fn compare(broker: &Broker, message: &Message<'_>) -> Outcome {
    let Ok(stream) = broker.jetstream.get_stream_no_info(message.stream).await else {
        return Outcome::NotNow;
    };
    let subject = message.subject.as_str();
    let behind = message.expected.unwrap_or_default() + 1;
    let next = stream.raw_message_builder().next_by_subject(subject).sequence(behind).send().await;
    match next {
        Ok(next)
            if next.headers.get(NATS_MESSAGE_ID).is_some_and(|id| id.as_str() == message.id) =>
        {
            return Outcome::Taken(Published { sequence: next.sequence, known: true });
        }
        Ok(_) => {}
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {}
        Err(_) => return Outcome::NotNow,
    }
    match stream.raw_message_builder().last_by_subject(subject).send().await {
        Ok(last) => Outcome::Failed(PublishError::Unexpected { last: last.sequence }),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
            Outcome::Failed(PublishError::Unexpected { last: 0 })
        }
        Err(_) => Outcome::NotNow,
    }
}

/// A failed publish as a failed call.
pub(super) fn as_bus_error(operation: &'static str, error: PublishError) -> BusError {
    if matches!(error, PublishError::Refused(_) | PublishError::TooLarge { .. }) {
        return super::refused(operation, error);
    }
    super::unavailable(operation, error)
}
