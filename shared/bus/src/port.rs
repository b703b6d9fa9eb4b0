//! The port: verbs, promises and errors that both adapters share.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use observer_wire::ProjectId;

use crate::DeadLetters;

/// How services reach each other.
///
/// # Contract
///
/// - `publish` returns `Ok` only when the event is safe: durable on the broker, or settled by its
///   consumer in process. An event published twice with one id within two minutes is one event, and
///   the second publisher is told so: [`Published::known`].
/// - A delivery is settled exactly once. Dropped unsettled, it comes again.
/// - Each event published to [`Stream::Logs`] or [`Stream::Edits`] reaches live listeners, after it
///   is safe and without a service doing it.
/// - `broadcast` and `listen` are lossy, and say so: [`Heard::Resync`].
/// - Every adapter passes the suite in `tests/tests/it/bus.rs`, at the top of the workspace.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Publishes an event and waits until it is safe.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; its kind says whether the event may have been taken.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the event may or may not be taken; publishing it again with its id is safe.
    async fn publish(&self, event: Outgoing) -> Result<Published, PublishError>;

    /// Joins the consumers that share the work of `durable`.
    ///
    /// # Errors
    ///
    /// [`BusError`] when the bus cannot be reached.
    async fn consume(&self, durable: Durable) -> Result<Box<dyn Consumer>, BusError>;

    /// Tells whoever listens now. Nobody may.
    ///
    /// # Errors
    ///
    /// [`BusError`] when the bus cannot be reached. `Ok` promises nothing.
    async fn broadcast(&self, topic: Topic, payload: Bytes) -> Result<(), BusError>;

    /// Listens to what is said from now on. Returns once the subscription is in force.
    ///
    /// # Errors
    ///
    /// [`BusError`] when the bus cannot be reached.
    async fn listen(&self, topic: Topic) -> Result<Box<dyn Listener>, BusError>;

    /// Listens to a project's log events, from `cursor` where one is given: either nothing between
    /// the cursor and now is missing ([`Resume::Resumed`]), or the caller must start anew.
    ///
    /// # Errors
    ///
    /// [`BusError`] when the bus cannot be reached.
    async fn listen_from(
        &self,
        project: ProjectId,
        cursor: Option<&Cursor>,
    ) -> Result<LiveLogs, BusError>;

    /// Edits of a project behind sequence `after`, oldest first, at most [`REPLAY_MAX`]; for repair.
    ///
    /// In process there is nothing to repair: the consumer's store is the only copy.
    ///
    /// # Errors
    ///
    /// [`BusError`] when the bus cannot be reached.
    async fn replay_edits(
        &self,
        project: ProjectId,
        after: u64,
    ) -> Result<Vec<ReplayedEdit>, BusError>;

    /// Asks any process that serves `service`, and waits for its answer.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; after a timeout the request may have been carried out.
    async fn request(&self, service: Service, payload: Bytes) -> Result<Bytes, RequestError>;

    /// Joins the processes that answer `service`.
    ///
    /// # Errors
    ///
    /// [`BusError`] when the bus cannot be reached.
    async fn serve(&self, service: Service) -> Result<Box<dyn Requests>, BusError>;

    /// What could never be dealt with.
    fn dead(&self) -> &dyn DeadLetters;

    /// Events that wait for `durable`, delivered or not.
    ///
    /// # Errors
    ///
    /// [`BusError`] when the bus cannot be reached.
    async fn backlog(&self, durable: Durable) -> Result<u64, BusError>;

    /// How full `stream` is for one more event of `project`, in percent; `None` while nobody knows,
    /// which is not 0. Asks nobody, but looks at what was heard within seconds.
    ///
    /// Logs: the larger of what waits for the log indexer and of what waits of this project, against
    /// what may. Vars: what var-store has not consumed; past 100, what it never saw is lost. Edits
    /// have no reader that could be behind for long: `None`.
    fn fullness(&self, stream: Stream, project: ProjectId) -> Option<u8>;

    /// Whether the bus can be used now, and if not, why.
    ///
    /// # Errors
    ///
    /// A sentence for `/readyz`.
    async fn check(&self) -> Result<(), String>;
}

/// Edits that one [`Bus::replay_edits`] returns at most; ask again behind the last.
pub const REPLAY_MAX: usize = 256;

/// Largest payload of an event, a broadcast, a request or an answer, in bytes.
///
/// The broker's own default is 1 MiB; headers need some of it.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024 - 16 * 1024;

/// Time a publish may take before it counts as unknown.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Time a request may take before the caller is told that nobody answered.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// What an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Log lines, for the log indexer.
    Logs,
    /// Reported values, sign-ins and ends of sockets, for var-store.
    Vars,
    /// Accepted edits. Their order is the truth about wanted values.
    Edits,
}

impl Stream {
    /// The name, in dead letters, their subjects and answers. Never reworded.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Vars => "vars",
            Self::Edits => "edits",
        }
    }
}

/// An event to be published.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where to.
    pub stream: Stream,
    /// Whose.
    pub project: ProjectId,
    /// Recognises the event when it is published again. Made by us, never by a game.
    pub id: String,
    /// Edits only: publish only if this is the sequence of the project's last edit, 0 for none.
    /// In process the first expectation since the start is believed: the store knows better.
    pub expected: Option<u64>,
    /// The event.
    pub payload: Bytes,
}

/// An event is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its sequence in the stream: grows, with gaps.
    pub sequence: u64,
    /// An earlier call had published it. Where an attempt of this call had no answer, that attempt is
    /// taken for the one that did; whoever calls again after [`PublishError::Timeout`] must do so too.
    pub known: bool,
}

/// Why an event was not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Not taken: the stream is full, for all or for this project. Try again later.
    #[error("stream is full")]
    Full,
    /// Not taken: the bus cannot be reached. Try again later.
    #[error("bus cannot be reached")]
    Unavailable,
    /// Unknown: no answer in time. Publish it again with the same id.
    #[error("no answer in {PUBLISH_TIMEOUT:?}")]
    Timeout,
    /// Not taken: the project's last event has another sequence.
    #[error("the last sequence is {last}, not the expected one")]
    Unexpected {
        /// Sequence of the project's last event.
        last: u64,
    },
    /// Not taken, and never will be: the payload is larger than [`PAYLOAD_BYTES_MAX`].
    #[error("payload of {bytes} bytes is too large")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not taken, and waiting does not help: the bus refused it. Somebody must act.
    #[error("bus refused the event: {0}")]
    Refused(String),
}

/// Who shares the work of a stream. The name is the same in all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durable {
    /// Log indexers take from [`Stream::Logs`].
    LogIndexer,
    /// Var-stores take from [`Stream::Vars`].
    VarStore,
    /// Var-stores take from [`Stream::Edits`], so that an edit is applied even if the process that
    /// committed it dies.
    EditApplier,
}

impl Durable {
    /// The stream that is consumed.
    #[must_use]
    pub fn stream(self) -> Stream {
        match self {
            Self::LogIndexer => Stream::Logs,
            Self::VarStore => Stream::Vars,
            Self::EditApplier => Stream::Edits,
        }
    }
}

/// Deliveries, one after the other.
#[async_trait]
pub trait Consumer: Send {
    /// Waits for the next delivery. Never gives up: while the bus is away, it waits.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost when dropped.
    async fn next(&mut self) -> Box<dyn Delivery>;

    /// A delivery that is here already.
    fn try_next(&mut self) -> Option<Box<dyn Delivery>>;
}

/// An event that wants to be settled, exactly once. Dropped unsettled, it comes again.
#[async_trait]
pub trait Delivery: Send + Sync {
    /// Whose event.
    fn project(&self) -> ProjectId;
    /// The event.
    fn payload(&self) -> &Bytes;
    /// Sequence in the stream.
    fn sequence(&self) -> u64;
    /// How often the event was delivered, this time counted.
    fn attempt(&self) -> u64;
    /// The event was dealt with.
    ///
    /// # Errors
    ///
    /// [`BusError`]: it may come again.
    async fn ack(self: Box<Self>) -> Result<(), BusError>;
    /// The event shall come again, after `delay`.
    ///
    /// # Errors
    ///
    /// [`BusError`]: it comes again anyway, later.
    async fn retry(self: Box<Self>, delay: Duration) -> Result<(), BusError>;
    /// The event can never be dealt with: it is kept among the dead with `reason`.
    ///
    /// # Errors
    ///
    /// [`BusError`]: it comes again.
    async fn bury(self: Box<Self>, reason: &str) -> Result<(), BusError>;
    /// Work goes on: the event shall not be given to somebody else yet. Said again and again while
    /// nothing is settled, it may have the bus refuse new events ([`PublishError::Full`]).
    ///
    /// # Errors
    ///
    /// [`BusError`]: it may come again.
    async fn in_progress(&self) -> Result<(), BusError>;
    /// Keeps `payload`, one record of the event written as an event of its own, among the dead with
    /// `reason`; the delivery itself is still to be settled. Returns when the dead letter is safe.
    ///
    /// # Errors
    ///
    /// [`BusError`]: nothing is known to be kept.
    async fn bury_part(&self, payload: Bytes, reason: &str) -> Result<(), BusError>;
}

/// What is broadcast, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Accepted edits of all projects, as they are published; listened to, never broadcast.
    Edits,
    /// Values and receipts of a project, for viewers.
    LiveVars(ProjectId),
    /// Devices of a project coming and going, for viewers.
    LiveDevices(ProjectId),
    /// Gateways that are alive.
    Gateways,
    /// What all gateways are told: [`observer_wire::ask::Control`].
    Control,
}

/// What a listener gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A message.
    Message(Bytes),
    /// Messages were lost, none can say how many: ask for the whole state.
    Resync,
}

/// A subscription. Dropped, it ends.
#[async_trait]
pub trait Listener: Send {
    /// Waits for the next message. Never gives up: while the bus is away, it waits, and then says
    /// [`Heard::Resync`].
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost when dropped.
    async fn next(&mut self) -> Heard;
}

/// Position among a project's live log events. Opaque outside the adapters; safe in an URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub String);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a subscription continues where the cursor stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// No cursor was given.
    Fresh,
    /// Every event behind the cursor follows.
    Resumed,
    /// Events behind the cursor may be missing: fetch what was before.
    Reset,
}

/// A subscription to live log events.
pub struct LiveLogs {
    /// How it begins.
    pub resume: Resume,
    /// Where it begins.
    pub cursor: Cursor,
    /// What follows.
    pub events: Box<dyn LogListener>,
}

/// What a listener to log events gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeardLog {
    /// An event, and where it stands.
    Event(Bytes, Cursor),
    /// Events before the next one were lost to this listener.
    Lost {
        /// How many events, when known.
        events: Option<u64>,
    },
}

/// A subscription to live log events. Dropped, it ends.
#[async_trait]
pub trait LogListener: Send {
    /// Waits for the next event. Never gives up.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost when dropped.
    async fn next(&mut self) -> HeardLog;
}

/// An edit from the edit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayedEdit {
    /// Its sequence.
    pub sequence: u64,
    /// The edit.
    pub payload: Bytes,
}

/// Who answers requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Keys, answered by api.
    Keys,
    /// Variables, answered by var-store.
    Vars,
}

/// Requests, one after the other.
#[async_trait]
pub trait Requests: Send {
    /// Waits for the next request. Never gives up.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost when dropped.
    async fn next(&mut self) -> Request;
}

/// A request and the way back to who asked.
pub struct Request {
    /// What is asked.
    pub payload: Bytes,
    /// Takes the answer; dropped, the asker gets none.
    pub reply: Box<dyn Reply>,
}

/// The way back to who asked.
#[async_trait]
pub trait Reply: Send {
    /// Answers. Who asked may have given up.
    async fn send(self: Box<Self>, payload: Bytes);
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Nobody serves this now. Not carried out; try again later.
    #[error("nobody answers for {0:?} now")]
    Nobody(Service),
    /// Unknown: no answer in time.
    #[error("no answer from {0:?} in {REQUEST_TIMEOUT:?}")]
    Timeout(Service),
    /// Not sent: the bus cannot be reached. Try again later.
    #[error("bus cannot be reached")]
    Unavailable,
    /// Not sent, and never will be: larger than [`PAYLOAD_BYTES_MAX`].
    #[error("request of {bytes} bytes is too large")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// A call to the bus failed. The kind says what to do, the source what happened.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed: {kind:?}")]
pub struct BusError {
    /// What was being done.
    pub operation: &'static str,
    /// What the caller may do.
    pub kind: BusErrorKind,
    /// What happened.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What the caller may do about a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusErrorKind {
    /// The bus cannot be reached or did not answer in time. Try again.
    Unavailable,
    /// Waiting will not help: version, configuration, credentials. Somebody must act.
    Refused,
}
