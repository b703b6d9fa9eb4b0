//! Consuming: one durable pull consumer for all processes that share a work, each event
//! acknowledged by itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::{Config, Stream as Messages};
use async_nats::jetstream::consumer::{AckPolicy, Consumer as JsConsumer, DeliverPolicy};
use async_nats::jetstream::stream::ConsumerError;
use async_nats::jetstream::{AckKind, Message};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use observer_wire::{ProjectId, subject};
use tokio::sync::watch;
use tokio::task::unconstrained;
use tokio::time::{sleep, timeout};

use super::broker::{Broker, CALL_TIMEOUT, Link};
use super::dead::{self, Burial};
use super::{Cause, streams, unavailable};
use crate::{BusError, Consumer, DeadKind, Delivery, Durable, REPLAY_MAX, ReplayedEdit, Stream};

/// Time after which an event that nobody settled comes again. Whoever needs longer says so with
/// `in_progress`.
const ACK_WAIT: Duration = Duration::from_secs(15);

/// Events delivered and not settled, over all processes, at most.
const UNSETTLED_MAX: i64 = 2_000;

/// Events fetched ahead at most, by count and by bytes.
const FETCH_EVENTS_MAX: usize = 256;
const FETCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Looks for messages that have arrived, when a stream of them is given up: more than can be there.
const ARRIVED_MAX: usize = 4 * FETCH_EVENTS_MAX;

/// Time after which the server forgets a fetch and is asked anew.
const FETCH_EXPIRES: Duration = Duration::from_secs(30);

/// The server says this often that it is there; two missing: start anew.
const FETCH_HEARTBEAT: Duration = Duration::from_secs(5);

/// Pauses before starting anew, doubling.
const RESTART_PAUSE_MIN: Duration = Duration::from_millis(50);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Pause before an event that was dropped unsettled comes again: whoever dropped it panicked, and
/// may panic again.
const DROPPED_RETRY: Duration = Duration::from_millis(100);

/// Time after which the server removes a consumer that we could not remove.
const REPLAY_INACTIVE: Duration = Duration::from_secs(30);

/// Name of a durable consumer on the server.
pub(super) fn name(durable: Durable) -> &'static str {
    match durable {
        Durable::LogIndexer => "observer-log-indexer",
        Durable::VarStore => "observer-var-store",
        Durable::EditApplier => "observer-edit-applier",
    }
}

/// Joins the consumers of `durable`.
pub(super) async fn join(
    broker: &Arc<Broker>,
    durable: Durable,
) -> Result<Box<dyn Consumer>, BusError> {
    broker.check_link("consuming")?;
    let link = broker.link.clone();
    let messages = None;
    let broker = Arc::clone(broker);
    let pause = RESTART_PAUSE_MIN;
    let here = VecDeque::new();
    let mut consumer = NatsConsumer { broker, durable, link, losses: 0, messages, here, pause };
    consumer.start().await.map_err(|error| unavailable("consuming", error))?;
    Ok(Box::new(consumer))
}

struct NatsConsumer {
    broker: Arc<Broker>,
    durable: Durable,
    link: watch::Receiver<Link>,
    /// What had happened to the link when the stream of messages was started.
    losses: u64,
    messages: Option<Messages>,
    /// Messages taken from a stream that had to be given up.
    here: VecDeque<Message>,
    pause: Duration,
}

impl NatsConsumer {
    /// Makes the consumer, if it is not there, and a new stream of messages.
    async fn start(&mut self) -> Result<(), Cause> {
        self.losses = self.link.borrow_and_update().losses;
        let config = Config {
            durable_name: Some(name(self.durable).to_owned()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_deliver: -1,
            max_ack_pending: UNSETTLED_MAX,
            ..Config::default()
        };
        let stream = streams::name(self.durable.stream());
        let consumer: JsConsumer<Config> =
            self.broker.jetstream.create_consumer_on_stream(config, stream).await?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(FETCH_EVENTS_MAX)
            .max_bytes_per_batch(FETCH_BYTES_MAX)
            .expires(FETCH_EXPIRES)
            .heartbeat(FETCH_HEARTBEAT);
        self.messages = Some(timeout(CALL_TIMEOUT, messages.messages()).await??);
        Ok(())
    }

    /// Gives up the stream of messages, but none that has arrived.
    fn stop(&mut self) {
        let Some(mut messages) = self.messages.take() else { return };
        for _ in 0..ARRIVED_MAX {
            // Unconstrained, or the runtime's fairness would end it in the middle.
            match unconstrained(messages.next()).now_or_never() {
                Some(Some(Ok(message))) => self.here.push_back(message),
                Some(Some(Err(_))) => {} // Messages may stand behind it.
                Some(None) | None => return,
            }
        }
    }

    /// The next message. Starts anew, with growing pauses, as long as that takes.
    async fn message(&mut self) -> Message {
        loop {
            if let Some(message) = self.here.pop_front() {
                return message;
            }
            let Some(messages) = &mut self.messages else {
                self.restart().await;
                continue;
            };
            let ended = tokio::select! {
                message = messages.next() => match message {
                    Some(Ok(message)) => {
                        self.pause = RESTART_PAUSE_MIN;
                        return message;
                    }
                    Some(Err(error)) => error.to_string(),
                    None => "it ended".to_owned(),
                },
                // A fetch does not outlive its connection.
                _ = self.link.wait_for(|link| !link.connected || link.losses != self.losses) => {
                    "connection lost".to_owned()
                }
            };
            tracing::debug!(durable = name(self.durable), error = ended, "fetching starts anew");
            self.stop();
        }
    }

    async fn restart(&mut self) {
        let connected = self.link.wait_for(|link| link.connected);
        if timeout(self.pause, connected).await.is_ok_and(|link| link.is_ok()) {
            match self.start().await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(durable = name(self.durable), %error, "cannot consume yet");
                }
            }
        }
        sleep(self.pause).await;
        self.pause = RESTART_PAUSE_MAX.min(self.pause * 2);
    }

    /// Makes a delivery of a message. What is none, since somebody else put it into the stream,
    /// comes back as it is.
    fn delivery(&self, message: Message) -> Result<NatsDelivery, Box<Message>> {
        let stream = self.durable.stream();
        let project = subject::project_of(streams::prefix(stream), &message.subject);
        let counts = message.info().ok().map(|info| (info.stream_sequence, info.delivered));
        let (Some(project), Some((sequence, delivered))) = (project, counts) else {
            return Err(Box::new(message));
        };
        let attempt = u64::try_from(delivered).unwrap_or(1);
        let broker = Arc::clone(&self.broker);
        let message = Some(message);
        Ok(NatsDelivery { broker, message, stream, project, sequence, attempt })
    }

    /// Buries what is not ours; until that has succeeded it comes again.
    async fn bury_foreign(&self, message: &Message) {
        let stream = self.durable.stream();
        let burial = Burial {
            subject: dead::subject(stream, "unknown"),
            kind: DeadKind::Event,
            reason: "not from Observer: its subject ends with no project",
            original: message,
            payload: &message.payload,
        };
        let buried = match burial.keep(&self.broker).await {
            Ok(()) => told_twice(message).await,
            Err(error) => Err(error),
        };
        if let Err(error) = buried {
            tracing::warn!(error = ?error, "a foreign message is not buried yet");
        }
    }
}

#[async_trait]
impl Consumer for NatsConsumer {
    async fn next(&mut self) -> Box<dyn Delivery> {
        loop {
            let message = self.message().await;
            match self.delivery(message) {
                Ok(delivery) => return Box::new(delivery),
                Err(foreign) => self.bury_foreign(&foreign).await,
            }
        }
    }

    fn try_next(&mut self) -> Option<Box<dyn Delivery>> {
        let message = self.here.pop_front().or_else(|| {
            let next = self.messages.as_mut()?.next().now_or_never()??;
            next.ok() // The error ends the stream; `next` will find that.
        })?;
        match self.delivery(message) {
            Ok(delivery) => Some(Box::new(delivery)),
            Err(foreign) => {
                self.here.push_back(*foreign); // For `next`, which has time to bury it.
                None
            }
        }
    }
}

impl Drop for NatsConsumer {
    /// Gives back what was fetched ahead, so that others need not wait for it.
    fn drop(&mut self) {
        self.stop();
        for message in self.here.drain(..) {
            give_back(&self.broker, message, None);
        }
    }
}

fn give_back(broker: &Broker, message: Message, delay: Option<Duration>) {
    broker.spawn(async move {
        let given = timeout(CALL_TIMEOUT, message.ack_with(AckKind::Nak(delay))).await;
        if !matches!(given, Ok(Ok(()))) {
            tracing::debug!("event not given back, it comes again by itself");
        }
    });
}

/// Acknowledges, and waits until the server has heard it: the event lies among the dead, and must
/// not come again.
async fn told_twice(message: &Message) -> Result<(), BusError> {
    let operation = "settling a buried event";
    match timeout(CALL_TIMEOUT, message.double_ack()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(unavailable(operation, error)),
        Err(elapsed) => Err(unavailable(operation, elapsed)),
    }
}

struct NatsDelivery {
    broker: Arc<Broker>,
    /// Taken when it is settled.
    message: Option<Message>,
    stream: Stream,
    project: ProjectId,
    sequence: u64,
    attempt: u64,
}

impl NatsDelivery {
    fn message(&self) -> &Message {
        self.message.as_ref().expect("only settling takes it, and settling consumes the delivery")
    }

    /// Tells the server what became of the event. That the server heard it is not waited for: if it
    /// did not, the event comes again, and that is normal.
    async fn tell(&self, operation: &'static str, kind: AckKind) -> Result<(), BusError> {
        self.broker.check_link(operation)?;
        match timeout(CALL_TIMEOUT, self.message().ack_with(kind)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(unavailable(operation, error)),
            Err(elapsed) => Err(unavailable(operation, elapsed)),
        }
    }

    async fn keep(&self, kind: DeadKind, payload: &Bytes, reason: &str) -> Result<(), BusError> {
        let subject = dead::subject(self.stream, self.project.as_str());
        Burial { subject, kind, reason, original: self.message(), payload }.keep(&self.broker).await
    }

    async fn settle(mut self: Box<Self>, kind: AckKind) -> Result<(), BusError> {
        let told = self.tell("settling an event", kind).await;
        self.message = None; // Settled or, if that failed, left to the server.
        told
    }
}

#[async_trait]
impl Delivery for NatsDelivery {
    fn project(&self) -> ProjectId {
        self.project
    }

    fn payload(&self) -> &Bytes {
        &self.message().payload
    }

    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn attempt(&self) -> u64 {
        self.attempt
    }

    async fn ack(self: Box<Self>) -> Result<(), BusError> {
        self.settle(AckKind::Ack).await
    }

    async fn retry(self: Box<Self>, delay: Duration) -> Result<(), BusError> {
        self.settle(AckKind::Nak(Some(delay))).await
    }

    async fn bury(mut self: Box<Self>, reason: &str) -> Result<(), BusError> {
        self.keep(DeadKind::Event, self.payload(), reason).await?;
        let told = told_twice(self.message()).await;
        if told.is_ok() {
            self.message = None;
        }
        told
    }

    async fn in_progress(&self) -> Result<(), BusError> {
        self.tell("keeping an event", AckKind::Progress).await
    }

    async fn bury_part(&self, payload: Bytes, reason: &str) -> Result<(), BusError> {
        self.keep(DeadKind::Record, &payload, reason).await
    }
}

impl Drop for NatsDelivery {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            give_back(&self.broker, message, Some(DROPPED_RETRY));
        }
    }
}

/// Events that wait for `durable`, delivered or not.
pub(super) async fn backlog(broker: &Broker, durable: Durable) -> Result<u64, BusError> {
    let operation = "counting what waits";
    broker.check_link(operation)?;
    let stream = streams::name(durable.stream());
    let consumer = broker.jetstream.get_consumer_from_stream(name(durable), stream).await;
    let consumer: JsConsumer<Config> = consumer.map_err(|error| unavailable(operation, error))?;
    let info = consumer.cached_info();
    Ok(info.num_pending + info.num_ack_pending as u64)
}

/// Edits behind `after`, oldest first.
pub(super) async fn replay_edits(
    broker: &Arc<Broker>,
    project: ProjectId,
    after: u64,
) -> Result<Vec<ReplayedEdit>, BusError> {
    let operation = "replaying edits";
    broker.check_link(operation)?;
    let wanted = Wanted {
        stream: streams::EDITS,
        subject: subject::of_project(subject::EDITS, project),
        from: DeliverPolicy::ByStartSequence { start_sequence: after.saturating_add(1) },
        headers_only: false,
    };
    let consumer = Ephemeral::start(broker, wanted).await;
    let consumer = consumer.map_err(|error| unavailable(operation, error))?;
    match timeout(CALL_TIMEOUT, fetch_edits(&consumer.consumer)).await {
        Ok(Ok(edits)) => Ok(edits),
        Ok(Err(error)) => Err(unavailable(operation, error)),
        Err(elapsed) => Err(unavailable(operation, elapsed)),
    }
}

async fn fetch_edits(consumer: &JsConsumer<Config>) -> Result<Vec<ReplayedEdit>, Cause> {
    let edit = |message: Message| {
        let sequence = message.info()?.stream_sequence;
        Ok(ReplayedEdit { sequence, payload: message.message.payload })
    };
    fetch(consumer, REPLAY_MAX).await?.into_iter().map(edit).collect()
}

/// The messages that wait for `consumer`, at most `count_max`.
pub(super) async fn fetch(
    consumer: &JsConsumer<Config>,
    count_max: usize,
) -> Result<Vec<Message>, Cause> {
    let pending = usize::try_from(consumer.cached_info().num_pending).unwrap_or(count_max);
    let count = pending.min(count_max);
    let mut fetched = Vec::with_capacity(count);
    while fetched.len() < count {
        let mut batch = consumer.fetch().max_messages(count - fetched.len()).messages().await?;
        let before = fetched.len();
        while let Some(message) = batch.next().await {
            fetched.push(message?);
        }
        if fetched.len() == before {
            break; // They were dropped from the stream meanwhile.
        }
    }
    Ok(fetched)
}

/// What one reader wants of a stream.
pub(super) struct Wanted {
    pub(super) stream: &'static str,
    pub(super) subject: String,
    pub(super) from: DeliverPolicy,
    /// Without payloads.
    pub(super) headers_only: bool,
}

/// A consumer for one reader, removed with the value.
pub(super) struct Ephemeral {
    pub(super) consumer: JsConsumer<Config>,
    broker: Arc<Broker>,
    stream: &'static str,
}

impl Ephemeral {
    /// Makes a consumer of what is wanted.
    pub(super) async fn start(broker: &Arc<Broker>, wanted: Wanted) -> Result<Self, ConsumerError> {
        let Wanted { stream, subject, from, headers_only } = wanted;
        let config = Config {
            deliver_policy: from,
            filter_subject: subject,
            headers_only,
            ack_policy: AckPolicy::None,
            inactive_threshold: REPLAY_INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..Config::default()
        };
        let consumer = broker.jetstream.create_consumer_on_stream(config, stream).await?;
        Ok(Self { consumer, broker: Arc::clone(broker), stream })
    }
}

impl Drop for Ephemeral {
    fn drop(&mut self) {
        let (jetstream, stream) = (self.broker.jetstream.clone(), self.stream);
        let name = self.consumer.cached_info().name.clone();
        self.broker.spawn(async move {
            // If it fails, the server removes the consumer itself, later.
            if let Err(error) = jetstream.delete_consumer_from_stream(name, stream).await {
                tracing::debug!(%error, "consumer not removed");
            }
        });
    }
}
