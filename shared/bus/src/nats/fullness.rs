//! How full the streams are: asked of the broker now and then, by processes that want to know, and
//! looked at where it is needed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::RawMessageErrorKind;
use observer_wire::{ProjectId, subject};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::broker::Broker;
use super::{Cause, consume, streams};
use crate::config::BusConfig;
use crate::{Durable, Stream, lock, percent};

/// How often the broker is asked about logs. A stream of 2 GiB takes seconds to fill.
const ASK_LOGS_EVERY: Duration = Duration::from_secs(1);

/// How often the broker is asked about reported values. Half of the stream takes far longer.
const ASK_VARS_EVERY: Duration = Duration::from_secs(5);

/// Questions without an answer after which what was heard last counts for nothing.
const MISSED_MAX: u32 = 3;

/// What was heard last.
#[derive(Debug)]
pub(super) struct Fullness {
    bounds: Bounds,
    asking: AtomicBool,
    logs: Mutex<Option<Heard<Arc<Logs>>>>,
    vars: Mutex<Option<Heard<u8>>>,
}

/// What the streams may hold.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    logs_bytes: u64,
    logs_project_messages: u64,
    vars_bytes: u64,
}

#[derive(Clone, Debug)]
struct Heard<T> {
    at: Instant,
    what: T,
}

/// What waits for the log indexer.
#[derive(Debug)]
struct Logs {
    bytes: u64,
    messages: HashMap<ProjectId, u64>,
}

impl Fullness {
    /// Nothing was heard yet.
    pub(super) fn new(config: &BusConfig) -> Self {
        let bounds = Bounds {
            logs_bytes: config.logs_bytes_max,
            logs_project_messages: config.logs_project_messages_max,
            vars_bytes: config.vars_bytes_max,
        };
        let asking = AtomicBool::new(false);
        Self { bounds, asking, logs: Mutex::default(), vars: Mutex::default() }
    }

    fn logs(&self, project: ProjectId) -> Option<u8> {
        let heard = lock(&self.logs).clone()?;
        let logs = heard.within(ASK_LOGS_EVERY)?;
        let of_project = logs.messages.get(&project).copied().unwrap_or_default();
        let all = percent(logs.bytes, self.bounds.logs_bytes);
        Some(all.max(percent(of_project, self.bounds.logs_project_messages)))
    }

    fn vars(&self) -> Option<u8> {
        let heard = lock(&self.vars).clone()?;
        heard.within(ASK_VARS_EVERY)
    }
}

impl<T> Heard<T> {
    fn now(what: T) -> Self {
        Self { at: Instant::now(), what }
    }

    /// What was heard, unless too many questions since had no answer.
    fn within(self, every: Duration) -> Option<T> {
        (self.at.elapsed() <= every * (MISSED_MAX + 1)).then_some(self.what)
    }
}

/// How full `stream` is, as heard last. The first question makes this process ask from then on.
pub(super) fn of(broker: &Arc<Broker>, stream: Stream, project: ProjectId) -> Option<u8> {
    if !broker.fullness.asking.swap(true, Ordering::Relaxed) {
        broker.spawn(ask(Arc::downgrade(broker), broker.closed.clone(), Stream::Logs));
        broker.spawn(ask(Arc::downgrade(broker), broker.closed.clone(), Stream::Vars));
    }
    if !broker.link.borrow().connected {
        return None;
    }
    match stream {
        Stream::Logs => broker.fullness.logs(project),
        Stream::Vars => broker.fullness.vars(),
        Stream::Edits => None,
    }
}

/// Asks until the bus is dropped.
async fn ask(broker: Weak<Broker>, closed: CancellationToken, stream: Stream) {
    let every = if stream == Stream::Logs { ASK_LOGS_EVERY } else { ASK_VARS_EVERY };
    loop {
        let Some(here) = broker.upgrade() else { return };
        let asked = async {
            if here.check_link("asking how full a stream is").is_err() {
                return Ok(()); // A question would only wait for the connection.
            }
            if stream == Stream::Logs { ask_logs(&here).await } else { ask_vars(&here).await }
        };
        let pause = match closed.run_until_cancelled(asked).await {
            None => return,
            Some(Ok(())) if here.link.borrow().connected => every,
            Some(Ok(())) => ASK_LOGS_EVERY,
            Some(Err(error)) => {
                tracing::debug!(error = %error, ?stream, "broker does not say how full a stream is");
                ASK_LOGS_EVERY
            }
        };
        drop(here);
        if closed.run_until_cancelled(sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// What the server says of a stream, as far as it matters.
#[derive(Deserialize)]
struct StreamInfo {
    state: StreamState,
}

#[derive(Deserialize)]
struct StreamState {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
    #[serde(default)]
    subjects: HashMap<String, u64>,
}

/// What the server says of a consumer, as far as it matters.
#[derive(Deserialize)]
struct ConsumerInfo {
    ack_floor: AckFloor,
}

#[derive(Deserialize)]
struct AckFloor {
    stream_seq: u64,
}

async fn stream_info(broker: &Broker, name: &str, question: &Value) -> Result<StreamState, Cause> {
    let subject = format!("STREAM.INFO.{name}");
    match broker.jetstream.request(subject, question).await? {
        Response::Ok(StreamInfo { state }) => Ok(state),
        Response::Err { error } => Err(error.into()),
    }
}

async fn ask_logs(broker: &Broker) -> Result<(), Cause> {
    // The server names 100,000 subjects at most. Of projects past them only the bytes are known.
    let question = json!({ "subjects_filter": format!("{}.*", subject::LOGS) });
    let state = stream_info(broker, streams::LOGS, &question).await?;
    let of_project =
        |(name, count): (&String, &u64)| Some((subject::project_of(subject::LOGS, name)?, *count));
    let messages = state.subjects.iter().filter_map(of_project).collect();
    let logs = Arc::new(Logs { bytes: state.bytes, messages });
    *lock(&broker.fullness.logs) = Some(Heard::now(logs));
    Ok(())
}

async fn ask_vars(broker: &Broker) -> Result<(), Cause> {
    let state = stream_info(broker, streams::VARS, &json!({})).await?;
    let consumed = consumed(broker).await?.max(state.first_seq.saturating_sub(1));
    let waiting = state.last_seq.saturating_sub(consumed);
    let percent = if waiting == 0 {
        0
    } else {
        // Messages are alike enough: it is half of the stream that matters, not a byte.
        let bytes = u128::from(state.bytes) * u128::from(waiting);
        let bytes = bytes / u128::from(state.messages.max(1));
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let age = age(broker, consumed + 1).await?;
        percent(bytes, broker.fullness.bounds.vars_bytes)
            .max(percent(age.as_secs(), streams::VARS_KEPT.as_secs()))
    };
    *lock(&broker.fullness.vars) = Some(Heard::now(percent));
    Ok(())
}

/// Sequence up to which var-store has dealt with everything; 0 when it never came.
async fn consumed(broker: &Broker) -> Result<u64, Cause> {
    let consumer = consume::name(Durable::VarStore);
    let subject = format!("CONSUMER.INFO.{}.{consumer}", streams::VARS);
    match broker.jetstream.request(subject, &json!({})).await? {
        Response::Ok(ConsumerInfo { ack_floor }) => Ok(ack_floor.stream_seq),
        Response::Err { error } if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND => Ok(0),
        Response::Err { error } => Err(error.into()),
    }
}

/// How long the first event from `sequence` on has been waiting.
async fn age(broker: &Broker, sequence: u64) -> Result<Duration, Cause> {
    let stream = broker.jetstream.get_stream_no_info(streams::VARS).await?;
    let all = format!("{}.*", subject::VARS);
    let first = stream.raw_message_builder().next_by_subject(&all).sequence(sequence);
    match first.send().await {
        Ok(first) => {
            let since = SystemTime::from(first.time);
            Ok(since.elapsed().unwrap_or_default())
        }
        // It was consumed and is gone by now.
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(Duration::ZERO),
        Err(error) => Err(error.into()),
    }
}
