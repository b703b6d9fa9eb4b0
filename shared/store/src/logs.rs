//! The port for log records.

use async_trait::async_trait;
use observer_wire::ProjectId;
use observer_wire::record::Level;
use observer_wire::text::Term;

use crate::StoreError;

/// Where log records are kept and searched.
///
/// # Contract
///
/// - `append` is idempotent by [`NewRecord::id`]: the bus redelivers, and that is normal. The record
///   that was stored first stays, with its stamp.
/// - A record reported [`Stored::New`] survives a crash of this process and of the store, and is
///   found by `search` within two seconds.
/// - What a game sends, odd field names and forged ones included, never loses a record, never makes
///   it visible in another project, and comes back byte for byte as [`LogHit::json`].
/// - Every adapter passes the suite in `tests/tests/it/logs.rs`, at the top of the workspace.
#[async_trait]
pub trait LogStore: Send + Sync + 'static {
    /// Stores `batch`; the answer has one entry a record, in order.
    ///
    /// # Errors
    ///
    /// Only when nothing is known of any record. Then the whole batch may be sent again.
    ///
    /// # Cancel safety
    ///
    /// If dropped, each record may or may not be durable; sending it again is safe.
    async fn append(&self, batch: &[NewRecord<'_>]) -> Result<Vec<Stored>, StoreError>;

    /// Finds records of a project, newest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot answer.
    async fn search(&self, query: &LogQuery) -> Result<LogPage, StoreError>;

    /// Whether the store can be used now, and if not, why.
    ///
    /// # Errors
    ///
    /// [`StoreError`] for `/readyz`.
    async fn check(&self) -> Result<(), StoreError>;
}

/// A record to be stored.
#[derive(Clone, Debug)]
pub struct NewRecord<'a> {
    /// The record's id: [`observer_wire::ids`].
    pub id: &'a str,
    /// Whose.
    pub project: ProjectId,
    /// The key it came with.
    pub key: &'a str,
    /// The device.
    pub device: &'a str,
    /// The run of the game.
    pub session: &'a str,
    /// Sequence on its socket.
    pub seq: u64,
    /// Arrival at the gateway, in Unix milliseconds.
    pub received: i64,
    /// Variable revision in force, 0 when unknown.
    pub rev: u64,
    /// Severity.
    pub level: Level,
    /// `message`, when it is text.
    pub message: Option<&'a str>,
    /// `tag`, when it is text.
    pub tag: Option<&'a str>,
    /// `timestamp`, in Unix milliseconds.
    pub time: Option<i64>,
    /// Normalised text of all values: [`observer_wire::record::read`].
    pub text: &'a str,
    /// The record as the game sent it: a JSON object.
    pub json: &'a str,
    /// A top-level name of it could be mistaken for ours: [`observer_wire::records`].
    pub odd: bool,
    /// The record may have been stored on the day before.
    pub again: bool,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is stored.
    New,
    /// It had been stored before.
    Duplicate,
    /// The store did not take it now; send it again.
    Later,
    /// The store will never take it. The words say why.
    Never(String),
}

/// What to find.
#[derive(Clone, Debug)]
pub struct LogQuery {
    /// Whose records.
    pub project: ProjectId,
    /// Conditions, all of which must hold: [`observer_wire::text::parse_query`].
    pub terms: Vec<Term>,
    /// Received at this time or later, in Unix milliseconds.
    pub since: Option<i64>,
    /// Received before this time, in Unix milliseconds.
    pub until: Option<i64>,
    /// At least this severe.
    pub level: Option<Level>,
    /// Of this device.
    pub device: Option<String>,
    /// Records of a page, at most [`PAGE_MAX`].
    pub limit: usize,
    /// Only what is older than this position.
    pub before: Option<Position>,
}

/// Most records of a page.
pub const PAGE_MAX: usize = 1_000;

/// Where a record stands in the order of all: by arrival, sequence, id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Arrival, in Unix milliseconds.
    pub received: i64,
    /// Sequence on its socket.
    pub seq: u64,
    /// The record's id.
    pub id: String,
}

/// A page of records, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogPage {
    /// The records.
    pub hits: Vec<LogHit>,
    /// Ask again before this position; `None` when there are no more.
    pub next: Option<Position>,
}

/// A record that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct LogHit {
    /// Where it stands; holds arrival, sequence and id.
    pub position: Position,
    /// The key it came with.
    pub key: String,
    /// The device.
    pub device: String,
    /// The run of the game.
    pub session: String,
    /// Variable revision in force.
    pub rev: u64,
    /// Severity.
    pub level: Level,
    /// `message`, when it is text.
    pub message: Option<String>,
    /// `tag`, when it is text.
    pub tag: Option<String>,
    /// `timestamp`, in Unix milliseconds.
    pub time: Option<i64>,
    /// The record as the game sent it.
    pub json: String,
}
