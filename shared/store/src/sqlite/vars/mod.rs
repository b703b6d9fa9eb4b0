//! Variables and devices in `vars.db`.

mod devices;
mod documents;
mod reports;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use observer_wire::ProjectId;
use observer_wire::edit::Edit;
use rusqlite::Connection;

use self::documents::Documents;
use super::backup::BACKUP_MARK;
use super::calls::{Call, Calls, State};
use super::failure::Failure;
use super::file::{self, Opened, Schema};
use super::inspect::Inspection;
use super::readers::Readers;
use super::writer::Writer;
use crate::StoreError;
use crate::config::StoreConfig;
use crate::vars::{
    Device, DeviceValues, EditApplied, Ended, LastValue, Report, Reported, StoredDocument, VarStore,
};

pub(super) const SCHEMA: Schema = Schema {
    name: "vars",
    version: 2,
    create: "
        CREATE TABLE documents (
            project TEXT PRIMARY KEY,
            epoch TEXT NOT NULL,
            revision INTEGER NOT NULL,
            sequence INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE wanted (
            project TEXT NOT NULL,
            name TEXT NOT NULL,
            scope TEXT NOT NULL,
            kind TEXT NOT NULL,
            value TEXT NOT NULL,
            rev INTEGER NOT NULL,
            at INTEGER NOT NULL,
            actor TEXT NOT NULL,
            PRIMARY KEY (project, name, scope)
        ) STRICT;
        -- Every edit, whole, as JSON: who, when, what, why.
        CREATE TABLE edits (
            project TEXT NOT NULL,
            sequence INTEGER NOT NULL,
            edit TEXT NOT NULL,
            PRIMARY KEY (project, sequence)
        ) STRICT;
        -- Of a device that is not `known`, only the end of a socket was told; it is shown to nobody.
        -- A device is online while `ended`, its last sign-in known to be over, is before `epoch`.
        -- What is older than its last reset is not taken. `about` is what its hello said, as JSON.
        CREATE TABLE devices (
            project TEXT NOT NULL,
            device TEXT NOT NULL,
            known INTEGER NOT NULL,
            named INTEGER NOT NULL,
            session TEXT NOT NULL,
            epoch INTEGER NOT NULL,
            ended INTEGER NOT NULL,
            gateway TEXT NOT NULL,
            since INTEGER NOT NULL,
            reset_epoch INTEGER NOT NULL,
            reset_seq INTEGER NOT NULL,
            seq INTEGER NOT NULL DEFAULT 0,
            about TEXT NOT NULL DEFAULT '{}',
            background INTEGER NOT NULL DEFAULT 0,
            gone TEXT NOT NULL DEFAULT 'lost',
            PRIMARY KEY (project, device)
        ) STRICT, WITHOUT ROWID;
        -- A withdrawn name stays with its stamp (`gone`), so that an older report cannot revive it.
        CREATE TABLE reported (
            project TEXT NOT NULL,
            device TEXT NOT NULL,
            name TEXT NOT NULL,
            gone INTEGER NOT NULL,
            kind TEXT NOT NULL,
            value TEXT NOT NULL,
            json TEXT NOT NULL,
            at INTEGER NOT NULL,
            applied_rev INTEGER,
            applied_ms INTEGER,
            epoch INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            PRIMARY KEY (project, device, name)
        ) STRICT;
        CREATE TABLE last_values (
            project TEXT NOT NULL,
            name TEXT NOT NULL,
            device TEXT NOT NULL,
            kind TEXT NOT NULL,
            value TEXT NOT NULL,
            PRIMARY KEY (project, name)
        ) STRICT;
    ",
    upgrades: &["
        ALTER TABLE devices DROP COLUMN name;
        ALTER TABLE devices ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE devices ADD COLUMN about TEXT NOT NULL DEFAULT '{}';
        ALTER TABLE devices ADD COLUMN background INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE devices ADD COLUMN gone TEXT NOT NULL DEFAULT 'lost'
    "],
};

/// Time a read may take; the largest is a page of devices.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// [`VarStore`] in a file of this process.
#[derive(Debug)]
pub struct SqliteVarStore {
    readers: Readers,
    inspection: Inspection,
    writer: Writer<Call<Written>>,
    documents: Arc<Documents>,
}

/// What the writer remembers: documents of the open transaction, to be shown after its commit.
struct Written {
    documents: Arc<Documents>,
    waiting: Vec<(ProjectId, StoredDocument)>,
}

impl State for Written {
    fn committed(&mut self) {
        for (project, document) in self.waiting.drain(..) {
            self.documents.set(project, document);
        }
    }

    fn rolled_back(&mut self) {
        self.waiting.clear();
    }
}

impl SqliteVarStore {
    /// Opens `vars.db`, and makes it when it is missing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when another process uses the file, or a later release made it.
    pub async fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let open = async {
            let Opened { path, db, lock, inspection } =
                file::open(&config.data_dir, &SCHEMA).await?;
            let sound = inspection.soundness().clone();
            restored(&config.data_dir, &db)?;
            let documents = Arc::new(Documents::default());
            let written = Written { documents: Arc::clone(&documents), waiting: Vec::new() };
            let writer = Writer::start(SCHEMA.name, db, (lock, sound.clone()), Calls(written))?;
            Ok(Self { readers: Readers::new(path, sound), inspection, writer, documents })
        };
        open.await.map_err(|failure: Failure| failure.of("open vars.db"))
    }

    async fn read<A: Send + 'static>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&Connection) -> Result<A, Failure> + Send + 'static,
    ) -> Result<A, StoreError> {
        let answer = self.readers.read(READ_DEADLINE, read).await;
        answer.map_err(|failure| failure.of(operation))
    }
}

#[async_trait]
impl VarStore for SqliteVarStore {
    async fn document(&self, project: ProjectId) -> Result<StoredDocument, StoreError> {
        if let Some(document) = self.documents.get(project) {
            return Ok(document);
        }
        // In the writer's order, so that what is remembered is never older than what is stored.
        let load = move |db: &Connection, written: &mut Written| {
            let document = documents::load(db, project)?;
            written.waiting.push((project, document.clone()));
            Ok(document)
        };
        self.writer.call(load).await.map_err(|failure| failure.of("read document"))
    }

    async fn apply_edit(&self, edit: &Edit, sequence: u64) -> Result<EditApplied, StoreError> {
        let edit = edit.clone();
        let apply = move |db: &Connection, written: &mut Written| {
            // An edit before it in this transaction counts.
            let waiting =
                written.waiting.iter().rev().find(|(project, _)| *project == edit.project);
            let before = waiting.map(|(_, document)| document.clone());
            let before = before.or_else(|| written.documents.get(edit.project));
            let mut document = match before {
                Some(document) => document,
                None => documents::load(db, edit.project)?,
            };
            let applied = documents::apply(db, &mut document, &edit, sequence)?;
            written.waiting.push((edit.project, document));
            Ok(applied)
        };
        self.writer.call(apply).await.map_err(|failure| failure.of("apply edit"))
    }

    async fn report(&self, report: &Report) -> Result<Reported, StoreError> {
        let report = report.clone();
        let store = move |db: &Connection, _: &mut Written| reports::store(db, &report);
        self.writer.call(store).await.map_err(|failure| failure.of("store report"))
    }

    async fn sign_in(
        &self,
        project: ProjectId,
        device: &Device,
        devices_max: usize,
    ) -> Result<Vec<String>, StoreError> {
        let device = device.clone();
        let sign_in = move |db: &Connection, _: &mut Written| {
            devices::sign_in(db, project, &device, devices_max)
        };
        self.writer.call(sign_in).await.map_err(|failure| failure.of("store sign-in"))
    }

    async fn sign_out(
        &self,
        project: ProjectId,
        device: &str,
        ended: &Ended,
    ) -> Result<Vec<String>, StoreError> {
        let (device, ended) = (device.to_owned(), *ended);
        let sign_out =
            move |db: &Connection, _: &mut Written| devices::sign_out(db, project, &device, &ended);
        self.writer.call(sign_out).await.map_err(|failure| failure.of("store sign-out"))
    }

    async fn devices(
        &self,
        project: ProjectId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeviceValues>, StoreError> {
        let after = after.map(str::to_owned);
        let list = move |db: &Connection| devices::list(db, project, after.as_deref(), limit);
        self.read("list devices", list).await
    }

    async fn devices_by_id(
        &self,
        project: ProjectId,
        ids: &[String],
    ) -> Result<Vec<DeviceValues>, StoreError> {
        let ids = ids.to_vec();
        self.read("read devices", move |db| devices::by_id(db, project, &ids)).await
    }

    async fn declared_types(
        &self,
        project: ProjectId,
        names: &[String],
    ) -> Result<Vec<Option<String>>, StoreError> {
        let names = names.to_vec();
        self.read("read declared types", move |db| reports::kinds(db, project, &names)).await
    }

    async fn last_values(&self, project: ProjectId) -> Result<Vec<LastValue>, StoreError> {
        self.read("read last values", move |db| reports::last_values(db, project)).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        let checked = match self.inspection.check() {
            Ok(()) => self.writer.check().await,
            damaged => damaged,
        };
        checked.map_err(|failure| failure.of("check vars.db"))
    }
}

/// On the first start on a backup, gives every project a new epoch: its revisions may have been given
/// away already for what came after the backup, and devices must not compare them.
fn restored(folder: &Path, db: &Connection) -> Result<(), Failure> {
    let mark = folder.join(BACKUP_MARK);
    if !mark.exists() {
        return Ok(());
    }
    db.execute("UPDATE documents SET epoch = lower(hex(randomblob(4)))", [])?;
    // Should it come to stay, the next start makes another epoch, which does no harm.
    std::fs::remove_file(&mark)?;
    file::sync_folder(folder)?;
    tracing::info!(
        "this folder is a backup: devices get the whole wanted document of each project"
    );
    Ok(())
}

/// A counter as SQLite keeps it. Ours are clocks in microseconds and sequences: far below the bound.
fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A counter that [`to_sql`] made.
fn from_sql(number: i64) -> u64 {
    number.cast_unsigned()
}

/// A bound as SQLite takes it.
fn bound(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
