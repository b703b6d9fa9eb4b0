//! The port for variables and devices.

use async_trait::async_trait;
use observer_wire::ProjectId;
use observer_wire::edit::{Document, Edit};
use observer_wire::event::GoneState;
use observer_wire::hello::About;

use crate::StoreError;

/// Where wanted and reported values are kept, and devices with them.
///
/// # Contract
///
/// - Edits are applied in the order of their revisions, each once: [`VarStore::apply_edit`].
/// - A value is replaced only by one with a newer [`Stamp`]: redelivery, two var-stores and an old
///   socket are harmless.
/// - Each call is atomic: another call sees all of it or nothing.
/// - Redis keeps what the original kept: the hash `<key>:vs` with the fields `<name>:type` and
///   `<name>:value`, the last writer of any device.
/// - Every adapter passes the suite in `tests/tests/it/vars.rs`, at the top of the workspace.
#[async_trait]
pub trait VarStore: Send + Sync + 'static {
    /// The wanted document and the place of its last edit in the edit log.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot answer.
    async fn document(&self, project: ProjectId) -> Result<StoredDocument, StoreError>;

    /// Applies an edit that stands in the edit log at `sequence`, if it is the next one.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the edit may or may not be applied; applying it again is safe.
    async fn apply_edit(&self, edit: &Edit, sequence: u64) -> Result<EditApplied, StoreError>;

    /// Stores what a device says about its values.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: may or may not be stored; storing it again is safe.
    async fn report(&self, report: &Report) -> Result<Reported, StoreError>;

    /// A device signed in, or says something else about itself, unless a newer socket of it did. Keeps
    /// at most `devices_max` devices of the project, and forgets those longest gone. Of a device that
    /// has an entry for each session (ids of two parts, a tab between them), sessions that are over
    /// are kept no more.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: may or may not be stored; storing it again is safe.
    async fn sign_in(
        &self,
        project: ProjectId,
        device: &Device,
        devices_max: usize,
    ) -> Result<Vec<String>, StoreError>;

    /// The socket of a sign-in ended. A device without a name of its own
    /// (`named` false) is kept among the last [`GONE_DEVICES_MAX`] of its kind; a session of which the
    /// device has a newer one that lives is kept no more.
    ///
    /// Returns the devices that are kept no more.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: may or may not be stored; storing it again is safe.
    async fn sign_out(
        &self,
        project: ProjectId,
        device: &str,
        ended: &Ended,
    ) -> Result<Vec<String>, StoreError>;

    /// Devices behind the id `after`, in the order of their ids, with their values: at most `limit`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot answer.
    async fn devices(
        &self,
        project: ProjectId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeviceValues>, StoreError>;

    /// Devices by id, with their values. Unknown ones are left out.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot answer.
    async fn devices_by_id(
        &self,
        project: ProjectId,
        ids: &[String],
    ) -> Result<Vec<DeviceValues>, StoreError>;

    /// The types last declared by any device, by name; `None` where nobody did.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot answer.
    async fn declared_types(
        &self,
        project: ProjectId,
        names: &[String],
    ) -> Result<Vec<Option<String>>, StoreError>;

    /// What the original's page gets at its start: the fields of `<key>:vs` and their values.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot answer.
    async fn last_values(&self, project: ProjectId) -> Result<Vec<LastValue>, StoreError>;

    /// Whether the store can be used now, and if not, why.
    ///
    /// # Errors
    ///
    /// [`StoreError`] for `/readyz`.
    async fn check(&self) -> Result<(), StoreError>;
}

/// Devices without a name of their own that are kept after their socket ended, per project.
///
/// Each socket of a game that says no name is a new device; a project would fill with them.
pub const GONE_DEVICES_MAX: usize = 32;

/// A document as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredDocument {
    /// The document.
    pub document: Document,
    /// Sequence of its last edit in the edit log; 0 when there was none.
    pub sequence: u64,
}

/// What became of an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditApplied {
    /// It is in force now.
    Now,
    /// It, or a later one, was in force already.
    Before,
    /// Edits before it are missing: apply those behind `sequence` first.
    Gap {
        /// Sequence of the last edit in force.
        sequence: u64,
    },
}

/// When a value was said: a later one replaces it, an earlier one does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Sign-in of the device, in microseconds of the gateway's clock.
    pub epoch: u64,
    /// Sequence on the socket.
    pub seq: u64,
}

/// What a device says in one line.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whose device.
    pub project: ProjectId,
    /// The device.
    pub device: String,
    /// Stamp of the line; the values of one line are taken in their order.
    pub stamp: Stamp,
    /// When the line arrived, in Unix milliseconds.
    pub at: i64,
    /// The line begins with a reset: values of the device that it does not name are forgotten.
    pub reset: bool,
    /// Values.
    pub values: Vec<ReportedValue>,
    /// Names that exist no more.
    pub withdrawn: Vec<String>,
    /// Variables kept of a device, at most; what comes past it is left out and counted.
    pub vars_max: usize,
}

/// A value on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedValue {
    /// The variable.
    pub name: String,
    /// Name of the type.
    pub kind: String,
    /// The value as the device sent it.
    pub value: String,
    /// The whole declaration as the game sent it: a JSON object.
    pub json: String,
    /// When the device said so, in Unix milliseconds.
    pub at: i64,
    /// The revision whose wanted value this is, and the time from edit to report in milliseconds.
    /// The first report of a revision stays: later ones say the same again.
    pub applied: Option<AppliedMark>,
}

/// A device was first seen with the wanted value of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedMark {
    /// The revision that set the wanted value.
    pub rev: u64,
    /// From the edit to the report, in milliseconds; `None` when the value was there before it.
    pub ms: Option<i64>,
}

/// What became of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// Names whose value was taken; the others were older than what is stored, or too many.
    pub taken: Vec<String>,
    /// Names that were left out, because the device has too many.
    pub too_many: usize,
}

/// The end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its sign-in.
    pub epoch: u64,
    /// When, in Unix milliseconds.
    pub at: i64,
    /// How.
    pub state: GoneState,
}

impl Ended {
    /// An end of which nobody said a word.
    #[must_use]
    pub fn lost(epoch: u64, at: i64) -> Self {
        Self { epoch, at, state: GoneState::Lost }
    }
}

/// A device and its socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Id of the entry: [`observer_wire::event::entry_id`].
    pub device: String,
    /// Whether the id came from a hello and outlives the socket.
    pub named: bool,
    /// What its hello said.
    pub about: About,
    /// The run of the game.
    pub session: String,
    /// Sign-in, in microseconds of the gateway's clock.
    pub epoch: u64,
    /// Sequence on the socket of what was said last.
    pub seq: u64,
    /// The game is in the background.
    pub background: bool,
    /// How its last socket went, while none is open.
    pub gone: GoneState,
    /// The gateway that holds the socket.
    pub gateway: String,
    /// Whether the socket is open, as far as it was said.
    pub online: bool,
    /// When it signed in or went, in Unix milliseconds.
    pub since: i64,
}

/// A device with its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceValues {
    /// The device.
    pub device: Device,
    /// Its values, by name.
    pub values: Vec<ReportedValue>,
}

/// The last value of any device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastValue {
    /// The variable.
    pub name: String,
    /// Name of the type.
    pub kind: String,
    /// The value.
    pub value: String,
}
