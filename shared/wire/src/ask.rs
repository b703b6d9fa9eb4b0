//! What services ask each other over the bus, as JSON: keys of api, variables of var-store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::edit::{Document, Scope, Wanted};
use crate::key::{ApiKey, ProjectId};
use crate::sending::Sending;

/// Asked of api by a gateway: may this key sign in?
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyAsk {
    /// The key of a `v:` line.
    pub key: ApiKey,
}

/// Answer to [`KeyAsk`]. Whoever cannot tell answers nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyAnswer {
    /// The project that the key opens; `None` when it was never registered.
    pub project: Option<ProjectId>,
}

/// Asked of var-store.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VarsAsk {
    /// The wanted document, for devices that sign in.
    Document {
        /// Of which project.
        project: ProjectId,
    },
    /// Devices with their values and receipts, a page at a time; the first page has the document.
    Snapshot {
        /// Of which project.
        project: ProjectId,
        /// Only what is behind this place.
        after: Option<Place>,
    },
    /// An operator's edit, to be checked and committed.
    Edit(EditAsk),
}

/// An edit as asked for, not checked yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EditAsk {
    /// The project.
    pub project: ProjectId,
    /// Id of the request.
    pub edit_id: String,
    /// Who asks.
    pub actor: String,
    /// Why, in the operator's words.
    pub note: Option<String>,
    /// The edit is only good on top of exactly this revision.
    pub if_revision: Option<u64>,
    /// What shall change.
    pub edits: Vec<EditInput>,
    /// What the original's page sent.
    pub raw: Option<Box<RawValue>>,
}

/// One change as asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditInput {
    /// The variable.
    pub name: String,
    /// Name of the type; the declared one when missing.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The value as text; `None` with `unset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// For whom.
    #[serde(default)]
    pub scope: Scope,
    /// Back to the build's default.
    #[serde(default)]
    pub unset: bool,
}

/// Answer of var-store.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VarsAnswer {
    /// To [`VarsAsk::Document`].
    Document(Document),
    /// To [`VarsAsk::Snapshot`].
    Snapshot(Snapshot),
    /// The edit is committed.
    Edited {
        /// The revision that it made.
        revision: u64,
    },
    /// The revision is not `if_revision` any more. Nothing was changed.
    Conflict {
        /// The revision in force.
        revision: u64,
        /// Values set since then.
        changed: Vec<Wanted>,
    },
    /// The edit cannot be accepted, whenever it is sent. Nothing was changed.
    Refused {
        /// A stable name of the reason.
        code: String,
        /// The field of the request that is to blame, as `edits[0].value`.
        field: String,
        /// A sentence for people.
        words: String,
    },
    /// Not possible now, or not known whether it was done: look before sending it again.
    Busy {
        /// A sentence for people.
        words: String,
    },
}

/// A page of a project's devices.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// The wanted document; on the first page only.
    pub document: Option<Document>,
    /// Devices in the order of their ids.
    pub devices: Vec<DeviceView>,
    /// Ask again behind this place; `None` on the last page.
    pub next: Option<Place>,
}

/// Where a page of a snapshot ended. A device with many values is cut: its parts bear the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The last device of the page.
    pub device: String,
    /// The last of its values, when more of them follow.
    pub name: Option<String>,
}

/// A device as people see it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DeviceView {
    /// Its id.
    pub device: String,
    /// What people call it.
    pub name: Option<String>,
    /// Whether its socket is open, as far as the gateways say.
    pub online: bool,
    /// When it signed in or went, in Unix milliseconds.
    pub since: i64,
    /// The run of the game.
    pub session: String,
    /// Revision in force on the device, as it said; 0 when it never did.
    pub rev: u64,
    /// Its values; in a live message, only those that changed.
    pub reported: Vec<ReportedView>,
    /// What became of wanted values, by name; in a live message, only those that changed.
    pub states: BTreeMap<String, ReceiptView>,
}

/// A value on a device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportedView {
    /// The variable.
    pub name: String,
    /// Name of the type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The value as text, as the device sent it.
    pub value: String,
    /// When the device said so, in Unix milliseconds of the gateway's clock.
    pub at: i64,
    /// The whole declaration as the game sent it.
    pub json: Box<RawValue>,
}

/// What became of a wanted value on a device. Never a guess: see the states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptState {
    /// Edited, and no word of the device yet.
    Pending,
    /// The device says that it has the value.
    Applied,
    /// The device has spoken since the edit, and says that it has another value.
    Adjusted,
    /// The device has not declared the variable.
    Waiting,
    /// The device is gone; it gets the value when it comes back.
    Offline,
    /// The device is there and has said nothing in time.
    NoReceipt,
}

/// A receipt as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptView {
    /// What became of it.
    pub state: ReceiptState,
    /// From the edit to the device's word, in milliseconds, when known.
    pub ms: Option<i64>,
    /// The revision that set the wanted value.
    pub rev: u64,
}

/// Broadcast to viewers when values, receipts or the document changed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LiveVars {
    /// The document, when it changed.
    pub document: Option<Document>,
    /// Devices with what changed.
    pub devices: Vec<DeviceView>,
}

/// Broadcast to viewers when devices came or went.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LiveDevices {
    /// Devices as they are now, without values.
    pub devices: Vec<DeviceView>,
    /// Ids that are no longer kept.
    pub removed: Vec<String>,
}

/// Broadcast to all gateways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Control {
    /// A session of a device signed in: older sockets of it are to be closed.
    SignedIn {
        /// Of which project.
        project: ProjectId,
        /// The device of the hello.
        device: String,
        /// The session of the hello.
        session: String,
        /// When it signed in, in microseconds of its gateway's clock.
        epoch: u64,
    },
    /// Games are told what to send.
    Send {
        /// Of which project.
        project: ProjectId,
        /// Only this device; all when missing.
        device: Option<String>,
        /// What.
        sending: Sending,
    },
}

/// Broadcast by each gateway every few seconds: devices that it holds are online.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GatewayAlive {
    /// The gateway's id, fresh at each start.
    pub gateway: String,
}
