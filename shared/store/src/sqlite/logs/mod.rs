//! Log records in `logs.db`.
//!
//! A record's place is its row id: arrival in milliseconds, and a counter within the millisecond.
//! So both the table and the search index stand in the order that pages have, newest first is a walk
//! backwards, and a time range is a range of row ids. Within a millisecond, pages are sorted by
//! sequence and id ([`search`]).
//!
//! What the record's JSON says (message, tag, time) is read from it again, not stored twice; project,
//! key, device and session are the same in many records, and are stored once a day and session
//! ([`append`]).

mod append;
mod field;
mod retention;
mod search;
#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;

use self::append::{Batch, Records};
use self::retention::Retention;
use super::failure::Failure;
use super::file::{self, Opened, Schema};
use super::inspect::Inspection;
use super::readers::Readers;
use super::writer::Writer;
use crate::StoreError;
use crate::config::StoreConfig;
use crate::logs::{LogPage, LogQuery, LogStore, NewRecord, Stored};

/// The search index is without content: a row is found by it and read from `records`. Its text is
/// normalised, so a word ends only at a space: `ascii` takes every other character as part of one.
/// Words that begin with `_` are ours ([`search::Mark`]); no normalised text holds that letter.
/// Segments are merged when nobody waits (`automerge` 0), or when there are 64 of a size.
pub(super) const SCHEMA: Schema = Schema {
    name: "logs",
    version: 1,
    create: "
        CREATE TABLE projects (
            project INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE
        ) STRICT;
        CREATE TABLE sources (
            source INTEGER PRIMARY KEY,
            day INTEGER NOT NULL,
            project INTEGER NOT NULL,
            key TEXT NOT NULL,
            device TEXT NOT NULL,
            session TEXT NOT NULL,
            UNIQUE (day, project, session, device, key)
        ) STRICT;
        CREATE TABLE records (
            place INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            project INTEGER NOT NULL,
            source INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            rev INTEGER NOT NULL,
            level INTEGER NOT NULL,
            json TEXT NOT NULL
        ) STRICT;
        CREATE INDEX records_by_project ON records (project);
        CREATE VIRTUAL TABLE words USING fts5 (
            text, content = '', contentless_delete = 1, tokenize = \"ascii tokenchars '_'\"
        );
        INSERT INTO words (words, rank) VALUES ('automerge', 0), ('crisismerge', 64);
    ",
    upgrades: &[],
};

/// Time a search may take. What is not found by then needs a narrower question.
const SEARCH_DEADLINE: Duration = Duration::from_secs(10);

/// [`LogStore`] in a file of this process.
#[derive(Debug)]
pub struct SqliteLogStore {
    readers: Readers,
    inspection: Inspection,
    writer: Writer<Batch>,
}

impl SqliteLogStore {
    /// Opens `logs.db`, and makes it when it is missing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when another process uses the file, or a later release made it.
    pub async fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let open = async {
            let Opened { path, db, lock, inspection } =
                file::open(&config.data_dir, &SCHEMA).await?;
            let sound = inspection.soundness().clone();
            let records = Records::new(Retention::new(config));
            let writer = Writer::start(SCHEMA.name, db, (lock, sound.clone()), records)?;
            Ok(Self { readers: Readers::new(path, sound), inspection, writer })
        };
        open.await.map_err(|failure: Failure| failure.of("open logs.db"))
    }
}

#[async_trait]
impl LogStore for SqliteLogStore {
    async fn append(&self, batch: &[NewRecord<'_>]) -> Result<Vec<Stored>, StoreError> {
        let (caller, answer) = oneshot::channel();
        let batch = Batch::new(batch, caller);
        let stored = self.writer.write(batch, answer).await;
        stored.map_err(|failure| failure.of("append records"))
    }

    async fn search(&self, query: &LogQuery) -> Result<LogPage, StoreError> {
        let query = query.clone();
        let page = self.readers.read(SEARCH_DEADLINE, move |db| search::search(db, &query)).await;
        page.map_err(|failure| failure.of("search records"))
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inspection.check().map_err(|failure| failure.of("check logs.db"))?;
        if self.writer.failure().is_none() {
            return Ok(());
        }
        // An empty batch is a real write: only a commit shows that a disk is well again.
        self.append(&[]).await.map(drop)
    }
}
