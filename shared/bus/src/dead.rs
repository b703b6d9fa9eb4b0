//! The port for dead letters: what could never be dealt with, kept with its reason until somebody
//! looks. Who buries, and why, is the consumers' business.

use async_trait::async_trait;
use bytes::Bytes;
use observer_wire::ProjectId;

use crate::{Bus, BusError, Outgoing, PublishError, Stream};

/// Letters that one [`DeadLetters::list`] returns at most.
pub const DEAD_PAGE_MAX: usize = 1_000;

/// What was buried, and the ways out: back into its stream, or away for good.
///
/// # Contract
///
/// - A letter is on the disk, as safe as the bus keeps events, before its event counts as settled.
/// - Each function demands the project; a letter of another one is as unknown as one that never was.
/// - A letter stays until it is dropped, whatever dies when.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// A project's letters behind `after`, oldest first, at most `limit` and [`DEAD_PAGE_MAX`].
    ///
    /// # Errors
    ///
    /// [`BusError`] when the bus cannot be reached.
    async fn list(
        &self,
        project: ProjectId,
        after: Option<u64>,
        limit: usize,
    ) -> Result<DeadPage, BusError>;

    /// A letter, with its payload; `None` when the project has none of this id.
    ///
    /// # Errors
    ///
    /// [`BusError`] when the bus cannot be reached.
    async fn get(&self, project: ProjectId, id: u64) -> Result<Option<DeadLetter>, BusError>;

    /// Drops a letter for good; false when the project has none of this id.
    ///
    /// # Errors
    ///
    /// [`BusError`]: it may be there still.
    async fn drop(&self, project: ProjectId, id: u64) -> Result<bool, BusError>;

    /// How many letters there are, of all projects, and how much room they take.
    ///
    /// # Errors
    ///
    /// [`BusError`] when the bus cannot be reached.
    async fn count(&self) -> Result<DeadCount, BusError>;
}

/// What was buried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadKind {
    /// A whole event.
    Event,
    /// One record of an event, written as an event of its own: what else it came with is settled.
    Record,
}

impl DeadKind {
    /// The name, in files, headers and answers. Never reworded.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Record => "record",
        }
    }

    /// The kind of that name; whatever else it says, a letter is an event.
    pub(crate) fn named(name: &str) -> Self {
        if name == Self::Record.name() { Self::Record } else { Self::Event }
    }
}

/// A letter without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadHead {
    /// Tells it from all others of this bus; grows.
    pub id: u64,
    /// Whose.
    pub project: ProjectId,
    /// Where it came from, and where a replay brings it back to.
    pub stream: Stream,
    /// What it is.
    pub kind: DeadKind,
    /// Why it was buried; may quote what a game sent.
    pub reason: String,
    /// When it was buried, in Unix milliseconds.
    pub at: i64,
    /// Bytes of the payload.
    pub size: usize,
}

/// A letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// What is known about it.
    pub head: DeadHead,
    /// The event.
    pub payload: Bytes,
}

/// Some of a project's letters, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadPage {
    /// The letters.
    pub letters: Vec<DeadHead>,
    /// Ask again behind this id; `None` when there are no more.
    pub next: Option<u64>,
}

/// How many letters there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadCount {
    /// Letters of all projects.
    pub letters: u64,
    /// Bytes that count against `bus.dead_bytes_max`.
    pub bytes: u64,
}

/// Why a letter was not replayed. It is kept in each case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The project has no such letter: it was replayed, dropped, or never was.
    #[error("no such dead letter")]
    Unknown,
    /// It is an edit. Its place in the order of edits is taken: make the edit again.
    #[error("an edit cannot be replayed, its place in the order of edits is taken")]
    IsEdit,
    /// Its stream did not take it, or nobody knows. Replay it again.
    #[error("the letter was not published again")]
    NotPublished(#[source] PublishError),
    /// The bus cannot be reached, or the letter could not be dropped. Replay it again: what comes
    /// twice is removed by record id.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// Publishes a letter into its stream again, and drops it once that is safe.
///
/// The event is the same byte for byte, so its records keep their ids: what was stored meanwhile is a
/// duplicate. Buried again, it is another letter.
///
/// # Errors
///
/// [`ReplayError`]; the letter is kept.
///
/// # Cancel safety
///
/// If dropped, the event may be published and the letter be there still; replaying it again is safe.
pub async fn replay_dead(bus: &dyn Bus, project: ProjectId, id: u64) -> Result<(), ReplayError> {
    let Some(letter) = bus.dead().get(project, id).await? else {
        return Err(ReplayError::Unknown);
    };
    let stream = letter.head.stream;
    if stream == Stream::Edits {
        return Err(ReplayError::IsEdit);
    }
    // Not the id of the buried event: the bus may know that one still, and would take this for it.
    let event_id = format!("dead-{project}-{id}");
    let payload = letter.payload;
    let event = Outgoing { stream, project, id: event_id, expected: None, payload };
    bus.publish(event).await.map_err(ReplayError::NotPublished)?;
    // Whether it is still there does not matter: two who replay it publish one event.
    bus.dead().drop(project, id).await?;
    Ok(())
}
