//! Variables and devices in Redis, all keys of a project in the slot of the original's `<key>:vs`.
//!
//! | key | kind | holds |
//! | --- | --- | --- |
//! | `<key>:vs` | hash | `<name>:type`, `<name>:value`: the last value of any device, as the original |
//! | `{<key>:vs}:state` | hash | `revision`, `epoch`, `sequence` of the last edit in force |
//! | `{<key>:vs}:wanted` | hash | `["<scope>","<name>"]` to a wanted value |
//! | `{<key>:vs}:devices` | hash | device to its sign-in |
//! | `{<key>:vs}:ids` | sorted set | devices, all of score 0: sorted by id, for pages |
//! | `{<key>:vs}:online`, `:gone`, `:unnamed` | sorted sets | devices by time, to find the longest gone |
//! | `{<key>:vs}:removed` | set | devices that are kept no more and whose values are yet to be deleted |
//! | `{<key>:vs}:writers` | hash | name to the device whose value stands in `<key>:vs` |
//! | `{<key>:vs}:reported:<device in hex>` | hash | name to stamp, mark and value |
//! | `{<key>:vs}:withdrawn:<device in hex>` | hash | stamps of what is gone |
//!
//! Losing it is no loss: var-store plays edits and reports again from the bus. The client speaks to
//! one server (or the master behind a proxy); the keys are ready for a cluster, the client is not.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use async_trait::async_trait;
use observer_wire::ProjectId;
use observer_wire::edit::{Document, Edit, Wanted};
use redis::{Script, ScriptInvocation};

use super::connection::{Connection, Demands, Hidden, Setting};
use super::entry::{self, Unreadable};
use crate::vars::{
    Device, DeviceValues, EditApplied, Ended, GONE_DEVICES_MAX, LastValue, Report, Reported,
    ReportedValue, StoredDocument, VarStore,
};
use crate::{StoreError, StoreErrorKind};

/// Devices that are read in one round trip: at most 32 MiB of values, as a device has 1 MiB.
const DEVICES_A_TRIP: usize = 32;

/// Devices that one call forgets: more only wait after a limit was lowered, and go with later calls.
const VICTIMS_MAX: usize = 64;

/// Withdrawn names that are remembered of a device, so that an older line that comes again brings
/// none back. As many as a device may have values.
const WITHDRAWN_MAX: usize = 1_000;

/// Names of a project whose last value is kept, over all devices, as `limits.project_names_max`: the
/// original's page gets them all in one frame.
const LAST_NAMES_MAX: usize = 10_000;

static DOCUMENT: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/document.lua")));
static APPLY_EDIT: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/apply_edit.lua")));
static READ_DEVICES: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/read_devices.lua")));
static REPORT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/report.lua")));
static SIGN_IN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(include_str!("scripts/devices.lua"), include_str!("scripts/sign_in.lua")))
});
static SWEEP: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/sweep.lua")));
static SIGN_OUT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(include_str!("scripts/devices.lua"), include_str!("scripts/sign_out.lua")))
});

const DEMANDS: Demands = Demands {
    settings: &[Setting {
        name: "maxmemory-policy",
        // Nothing of ours expires, so the volatile ones take nothing of ours.
        good: &["noeviction", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"],
        why: "variables are deleted when memory is full",
    }],
    hidden: Hidden::Trusted,
};

/// Variables and devices in Redis.
pub struct RedisVarStore {
    connection: Connection,
}

impl RedisVarStore {
    /// Connects to `url`, as `redis://[user:password@]host[:port][/db]`.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Unavailable`] when the server does not answer: try again.
    /// [`StoreErrorKind::Refused`] when the address or the credentials are wrong.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Ok(Self { connection: Connection::open(url).await? })
    }

    /// Runs a script that may remove devices, then deletes the values of those it removed.
    async fn trimming(
        &self,
        operation: &'static str,
        keys: &Keys,
        call: &ScriptInvocation<'_>,
    ) -> Result<Vec<String>, StoreError> {
        let (removed, values_left): (Vec<String>, Vec<String>) =
            self.connection.script(operation, call).await?;
        if values_left.is_empty() {
            return Ok(removed);
        }
        let mut sweep = SWEEP.key(keys.key("removed"));
        for device in &values_left {
            sweep.key(keys.reported(device)).key(keys.withdrawn(device)).arg(device);
        }
        if let Err(error) = self.connection.script::<()>("sweep values", &sweep).await {
            // They are gone for everybody, and the next call that removes a device finds them.
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "values of removed devices are not deleted yet");
        }
        Ok(removed)
    }

    async fn ids_behind(
        &self,
        keys: &Keys,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let from = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
        let mut page = redis::cmd("ZRANGEBYLEX");
        page.arg(keys.key("ids")).arg(from).arg("+").arg("LIMIT").arg(0).arg(limit);
        self.connection.command("devices", &page).await
    }

    /// One round trip: the devices among `ids` that exist, with their values, at one moment.
    async fn read_devices(
        &self,
        keys: &Keys,
        ids: &[String],
    ) -> Result<Vec<DeviceValues>, StoreError> {
        let operation = "devices";
        let mut call = READ_DEVICES.key(keys.key("devices"));
        for id in ids {
            call.key(keys.reported(id)).arg(id);
        }
        let answers: Vec<(Option<String>, BTreeMap<String, String>)> =
            self.connection.script(operation, &call).await?;
        let mut found = Vec::with_capacity(ids.len());
        for (id, (text, values)) in ids.iter().zip(answers) {
            let Some(text) = text else { continue };
            let device = entry::read_device(id, &text).map_err(|e| refused(operation, e))?;
            let Some(device) = device else { continue };
            // The map has them in the order of names.
            let values = values.into_iter().map(|(name, text)| entry::read_value(name, &text));
            let values: Result<_, _> = values.collect();
            found.push(DeviceValues {
                device,
                values: values.map_err(|error| refused(operation, error))?,
            });
        }
        Ok(found)
    }
}

#[async_trait]
impl VarStore for RedisVarStore {
    async fn document(&self, project: ProjectId) -> Result<StoredDocument, StoreError> {
        let operation = "read document";
        let keys = Keys::of(project);
        let mut call = DOCUMENT.prepare_invoke();
        call.key(keys.key("state")).key(keys.key("wanted"));
        let (revision, epoch, sequence, values): (String, String, String, Vec<String>) =
            self.connection.script(operation, &call).await?;
        let mut wanted = values
            .iter()
            .map(|text| entry::read_wanted(text))
            .collect::<Result<Vec<Wanted>, _>>()
            .map_err(|error| refused(operation, error))?;
        wanted.sort_by(|left, right| (&left.name, &left.scope).cmp(&(&right.name, &right.scope)));
        let document = Document { revision: number(operation, &revision)?, epoch, wanted };
        Ok(StoredDocument { document, sequence: number(operation, &sequence)? })
    }

    async fn apply_edit(&self, edit: &Edit, sequence: u64) -> Result<EditApplied, StoreError> {
        let operation = "apply edit";
        let keys = Keys::of(edit.project);
        let mut call = APPLY_EDIT.prepare_invoke();
        call.key(keys.key("state")).key(keys.key("wanted"));
        // Revision 0 is no edit's: it is behind any document.
        call.arg(entry::padded(edit.rev.saturating_sub(1))).arg(entry::padded(edit.rev));
        call.arg(&edit.epoch).arg(entry::padded(sequence));
        for change in &edit.changes {
            call.arg(entry::wanted_field(&change.scope, &change.name));
            let wanted = change.set.as_ref().map(|set| Wanted {
                name: change.name.clone(),
                kind: set.kind.clone(),
                value: set.value.clone(),
                scope: change.scope.clone(),
                rev: edit.rev,
                at: edit.at,
                actor: edit.actor.clone(),
            });
            call.arg(wanted.as_ref().map(entry::wanted_json).unwrap_or_default());
        }
        let (outcome, sequence): (String, String) =
            self.connection.script(operation, &call).await?;
        match outcome.as_str() {
            "now" => Ok(EditApplied::Now),
            "before" => Ok(EditApplied::Before),
            "gap" => Ok(EditApplied::Gap { sequence: number(operation, &sequence)? }),
            _ => Err(refused(operation, Unreadable::new("outcome", outcome))),
        }
    }

    async fn report(&self, report: &Report) -> Result<Reported, StoreError> {
        let keys = Keys::of(report.project);
        let values = last_of_each_name(&report.values);
        let mut call = REPORT.prepare_invoke();
        call.key(keys.reported(&report.device)).key(keys.withdrawn(&report.device));
        for what in ["devices", "ids", "gone", "unnamed", "removed", "writers"] {
            call.key(keys.key(what));
        }
        call.key(keys.last_values());
        call.arg(&report.device).arg(entry::stamp_digits(report.stamp)).arg(report.at);
        call.arg(i32::from(report.reset)).arg(report.vars_max).arg(WITHDRAWN_MAX);
        call.arg(LAST_NAMES_MAX).arg(entry::unknown_device(report.at)).arg(values.len());
        for value in values {
            call.arg(&value.name).arg(&value.kind).arg(&value.value);
            call.arg(entry::applied_word(value.applied)).arg(entry::value_json(value));
        }
        call.arg(&report.withdrawn);
        let (too_many, taken) = self.connection.script("report", &call).await?;
        Ok(Reported { taken, too_many })
    }

    async fn sign_in(
        &self,
        project: ProjectId,
        device: &Device,
        devices_max: usize,
    ) -> Result<Vec<String>, StoreError> {
        let keys = Keys::of(project);
        let mut call = keys.devices_call(&SIGN_IN, &device.device);
        call.arg(devices_max.max(1)).arg(&device.device).arg(entry::padded(device.epoch));
        call.arg(entry::padded(device.seq));
        call.arg(i32::from(device.named)).arg(i32::from(device.online)).arg(device.since);
        call.arg(entry::device_json(device));
        self.trimming("sign in", &keys, &call).await
    }

    async fn sign_out(
        &self,
        project: ProjectId,
        device: &str,
        ended: &Ended,
    ) -> Result<Vec<String>, StoreError> {
        let keys = Keys::of(project);
        let mut call = keys.devices_call(&SIGN_OUT, device);
        call.arg(device).arg(entry::padded(ended.epoch)).arg(ended.at);
        call.arg(ended.state.name());
        self.trimming("sign out", &keys, &call).await
    }

    async fn devices(
        &self,
        project: ProjectId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeviceValues>, StoreError> {
        let keys = Keys::of(project);
        let mut after = after.map(str::to_owned);
        let mut found = Vec::new();
        // A device may go between the two round trips: a page is short only at the end of the list.
        while found.len() < limit {
            let trip = DEVICES_A_TRIP.min(limit - found.len());
            let ids = self.ids_behind(&keys, after.as_deref(), trip).await?;
            let Some(last) = ids.last() else { break };
            found.extend(self.read_devices(&keys, &ids).await?);
            after = Some(last.clone());
            if ids.len() < trip {
                break;
            }
        }
        Ok(found)
    }

    async fn devices_by_id(
        &self,
        project: ProjectId,
        ids: &[String],
    ) -> Result<Vec<DeviceValues>, StoreError> {
        let keys = Keys::of(project);
        let mut found = Vec::new();
        for ids in ids.chunks(DEVICES_A_TRIP) {
            found.extend(self.read_devices(&keys, ids).await?);
        }
        Ok(found)
    }

    async fn declared_types(
        &self,
        project: ProjectId,
        names: &[String],
    ) -> Result<Vec<Option<String>>, StoreError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = redis::cmd("HMGET");
        ask.arg(Keys::of(project).last_values());
        for name in names {
            ask.arg(format!("{name}:type"));
        }
        self.connection.command("declared types", &ask).await
    }

    async fn last_values(&self, project: ProjectId) -> Result<Vec<LastValue>, StoreError> {
        let mut ask = redis::cmd("HGETALL");
        ask.arg(Keys::of(project).last_values());
        let mut fields: BTreeMap<String, String> =
            self.connection.command("last values", &ask).await?;
        let names: Vec<String> = fields
            .keys()
            .filter_map(|field| field.strip_suffix(":value"))
            .map(Into::into)
            .collect();
        let values = names.into_iter().map(|name| LastValue {
            kind: fields.remove(&format!("{name}:type")).unwrap_or_default(),
            value: fields.remove(&format!("{name}:value")).unwrap_or_default(),
            name,
        });
        let mut values: Vec<_> = values.collect();
        values.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(values)
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.connection.check(&DEMANDS).await
    }
}

/// Names of a project's keys. Braces make Redis hash `<key>:vs` alone, so all are in its slot.
struct Keys {
    project: ProjectId,
}

impl Keys {
    fn of(project: ProjectId) -> Self {
        Self { project }
    }

    fn last_values(&self) -> String {
        format!("{}:vs", self.project)
    }

    fn key(&self, what: &str) -> String {
        format!("{{{}:vs}}:{what}", self.project)
    }

    fn reported(&self, device: &str) -> String {
        self.key(&format!("reported:{}", hex(device)))
    }

    fn withdrawn(&self, device: &str) -> String {
        self.key(&format!("withdrawn:{}", hex(device)))
    }

    /// A call of a script that begins with `devices.lua`, with what both have in common.
    fn devices_call(&self, script: &'static Script, device: &str) -> ScriptInvocation<'static> {
        let mut call = script.prepare_invoke();
        for what in ["devices", "ids", "online", "gone", "unnamed", "removed"] {
            call.key(self.key(what));
        }
        call.key(self.reported(device)).key(self.withdrawn(device));
        call.arg(GONE_DEVICES_MAX).arg(VICTIMS_MAX);
        call
    }
}

/// A device's id comes from a game and may hold anything; in the name of a key stand only digits.
fn hex(device: &str) -> String {
    device.bytes().fold(String::new(), |mut digits, byte| {
        write!(digits, "{byte:02x}").expect("writing into a String cannot fail");
        digits
    })
}

/// Values of one line are taken in their order, so the last of a name stands, in the first's place.
fn last_of_each_name(values: &[ReportedValue]) -> Vec<&ReportedValue> {
    let mut places = BTreeMap::new();
    let mut kept: Vec<&ReportedValue> = Vec::with_capacity(values.len());
    for value in values {
        let place = *places.entry(&value.name).or_insert(kept.len());
        if place == kept.len() {
            kept.push(value);
        } else {
            kept[place] = value;
        }
    }
    kept
}

/// A number that a script wrote; an empty text is 0.
fn number(operation: &'static str, digits: &str) -> Result<u64, StoreError> {
    if digits.is_empty() {
        return Ok(0);
    }
    digits.parse().map_err(|_| refused(operation, Unreadable::new("number", digits)))
}

/// What is stored is not ours to read.
fn refused(operation: &'static str, error: Unreadable) -> StoreError {
    StoreError::new(operation, StoreErrorKind::Refused, error)
}
