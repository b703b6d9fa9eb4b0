//! Appending: batches of a group go into the table in their order, then into the search index in
//! the order of their places, which is what it takes without writing a segment for each.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

use observer_wire::ProjectId;
use observer_wire::record::Level;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use super::retention::Retention;
use super::search;
use crate::logs::{NewRecord, Stored};
use crate::sqlite::failure::Failure;
use crate::sqlite::writer::Writes;

/// Bits of a place that count records of one millisecond.
const COUNTER_BITS: u32 = 20;

/// Records of one millisecond, at most; far more than a process can store in one.
const MILLISECOND_RECORDS_MAX: i64 = 1 << COUNTER_BITS;

/// First arrival that cannot be stored, in Unix milliseconds: in the year 2248.
const RECEIVED_END: i64 = i64::MAX >> COUNTER_BITS;

/// Projects, sources and milliseconds that are remembered; one is at most about 200 bytes.
const REMEMBERED_MAX: usize = 16_384;

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// First place of an arrival.
pub(super) fn first_place(received: i64) -> i64 {
    received.clamp(0, RECEIVED_END) << COUNTER_BITS
}

/// Arrival of a place.
pub(super) fn received(place: i64) -> i64 {
    place >> COUNTER_BITS
}

/// Day of an arrival, since 1970.
pub(super) fn day(received: i64) -> i64 {
    received / DAY_MS
}

/// A batch on its way to the writer's thread: all texts in one piece of memory.
#[derive(Debug)]
pub(super) struct Batch {
    texts: String,
    rows: Vec<Row>,
    stored: Vec<Stored>,
    caller: oneshot::Sender<Result<Vec<Stored>, Failure>>,
}

#[derive(Debug)]
struct Row {
    project: ProjectId,
    /// Ends of the texts, in the order in which [`Batch::new`] writes them.
    ends: [usize; 6],
    seq: u64,
    received: i64,
    rev: u64,
    level: Level,
}

/// The texts of a row.
struct Texts<'a> {
    id: &'a str,
    key: &'a str,
    device: &'a str,
    session: &'a str,
    text: &'a str,
    json: &'a str,
}

impl Batch {
    pub(super) fn new(
        records: &[NewRecord<'_>],
        caller: oneshot::Sender<Result<Vec<Stored>, Failure>>,
    ) -> Self {
        let size = |record: &NewRecord<'_>| {
            let NewRecord { id, key, device, session, text, json, .. } = record;
            id.len() + key.len() + device.len() + session.len() + text.len() + json.len()
        };
        let mut texts = String::with_capacity(records.iter().map(size).sum());
        let mut rows = Vec::with_capacity(records.len());
        for record in records {
            let NewRecord { id, key, device, session, text, json, .. } = record;
            let ends = [id, key, device, session, text, json].map(|part| {
                texts.push_str(part);
                texts.len()
            });
            rows.push(Row {
                project: record.project,
                ends,
                seq: record.seq,
                received: record.received,
                rev: record.rev,
                level: record.level,
            });
        }
        Self { texts, rows, stored: Vec::new(), caller }
    }

    fn texts(&self, index: usize) -> Texts<'_> {
        let start = index.checked_sub(1).map_or(0, |before| self.rows[before].ends[5]);
        let ends = self.rows[index].ends;
        let part = |range: Range<usize>| &self.texts[range];
        Texts {
            id: part(start..ends[0]),
            key: part(ends[0]..ends[1]),
            device: part(ends[1]..ends[2]),
            session: part(ends[2]..ends[3]),
            text: part(ends[3]..ends[4]),
            json: part(ends[4]..ends[5]),
        }
    }
}

/// What the writer remembers of the table, and its upkeep.
pub(super) struct Records {
    projects: HashMap<ProjectId, i64>,
    /// Who sent a record, by day, project, session, device and key.
    sources: HashMap<String, i64>,
    /// Next counter by millisecond.
    counters: HashMap<i64, i64>,
    /// Rows for the search index: place, batch, row.
    fresh: Vec<(i64, usize, usize)>,
    /// Room to write into.
    text: String,
    retention: Retention,
}

impl Writes for Records {
    type Work = Batch;

    fn weight(batch: &Batch) -> usize {
        batch.texts.len() + batch.rows.len() * size_of::<Row>()
    }

    fn run(&mut self, db: &Connection, group: &mut [Batch]) -> Result<(), Failure> {
        self.fresh.clear();
        self.bound();
        for (index, batch) in group.iter_mut().enumerate() {
            self.run_batch(db, index, batch)?;
        }
        self.index(db, group)
    }

    fn committed(&mut self) {
        self.retention.add(self.fresh.len());
    }

    fn rolled_back(&mut self) {
        self.projects.clear();
        self.sources.clear();
        self.counters.clear();
    }

    fn answer(batch: Batch, result: Result<(), Failure>) {
        // A caller that gave up does not want to know.
        drop(batch.caller.send(result.map(|()| batch.stored)));
    }

    fn upkeep(&mut self, db: &Connection, idle: bool) -> Result<Duration, Failure> {
        self.retention.upkeep(db, idle)
    }
}

impl Records {
    pub(super) fn new(retention: Retention) -> Self {
        Self {
            projects: HashMap::new(),
            sources: HashMap::new(),
            counters: HashMap::new(),
            fresh: Vec::new(),
            text: String::new(),
            retention,
        }
    }

    /// Forgets what is remembered when it is too much; a group adds little to it.
    fn bound(&mut self) {
        if REMEMBERED_MAX < self.projects.len() + self.sources.len() + self.counters.len() {
            self.projects.clear();
            self.sources.clear();
            self.counters.clear();
        }
    }

    fn run_batch(
        &mut self,
        db: &Connection,
        batch_index: usize,
        batch: &mut Batch,
    ) -> Result<(), Failure> {
        if batch.rows.is_empty() {
            // Somebody asks whether the disk takes a write.
            let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            db.pragma_update(None, "user_version", version)?;
        }
        let mut insert = db.prepare_cached(
            "INSERT INTO records (place, id, project, source, seq, rev, level, json)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (id) DO NOTHING",
        )?;
        let mut stored = std::mem::take(&mut batch.stored);
        stored.clear();
        for (index, row) in batch.rows.iter().enumerate() {
            let texts = batch.texts(index);
            if !(0..RECEIVED_END).contains(&row.received) {
                stored.push(Stored::Never(format!("arrival {} is no time", row.received)));
                continue;
            }
            let counter = self.counter(db, row.received)?;
            if MILLISECOND_RECORDS_MAX <= counter {
                stored.push(Stored::Never("too many records of one millisecond".into()));
                continue;
            }
            let place = first_place(row.received) + counter;
            let project = self.project(db, row.project)?;
            let source = self.source(db, project, row.received, &texts)?;
            let added = insert.execute(params![
                place,
                texts.id,
                project,
                source,
                row.seq.cast_signed(),
                row.rev.cast_signed(),
                row.level as i64,
                texts.json
            ])?;
            if added == 0 {
                stored.push(Stored::Duplicate);
                continue;
            }
            self.counters.insert(row.received, counter + 1);
            self.fresh.push((place, batch_index, index));
            stored.push(Stored::New);
        }
        batch.stored = stored;
        Ok(())
    }

    /// Writes the new rows of a group into the search index.
    fn index(&mut self, db: &Connection, group: &[Batch]) -> Result<(), Failure> {
        self.fresh.sort_unstable();
        let mut insert = db.prepare_cached("INSERT INTO words (rowid, text) VALUES (?1, ?2)")?;
        for &(place, batch, index) in &self.fresh {
            let row = &group[batch].rows[index];
            let texts = group[batch].texts(index);
            self.text.clear();
            self.text.push_str(texts.text);
            let project = self.projects[&row.project];
            for mark in search::marks(project, row.level, texts.device, texts.text, texts.json) {
                write!(self.text, " {mark}").expect("a String takes what is written");
            }
            insert.execute(params![place, self.text])?;
        }
        Ok(())
    }

    /// The counter of the next record of a millisecond.
    fn counter(&mut self, db: &Connection, received: i64) -> Result<i64, Failure> {
        if let Some(counter) = self.counters.get(&received) {
            return Ok(*counter);
        }
        let last = "SELECT max(place) FROM records WHERE ?1 <= place AND place < ?2";
        let bounds = [first_place(received), first_place(received + 1)];
        let last: Option<i64> =
            db.prepare_cached(last)?.query_row(bounds, |row| row.get(0)).optional()?.flatten();
        let counter = last.map_or(0, |last| last + 1 - bounds[0]);
        self.counters.insert(received, counter);
        Ok(counter)
    }

    fn project(&mut self, db: &Connection, name: ProjectId) -> Result<i64, Failure> {
        if let Some(project) = self.projects.get(&name) {
            return Ok(*project);
        }
        let insert = "INSERT INTO projects (name) VALUES (?1) ON CONFLICT DO NOTHING";
        db.prepare_cached(insert)?.execute([name.as_str()])?;
        let project = search::project(db, name)?.expect("the project was added by now");
        self.projects.insert(name, project);
        Ok(project)
    }

    fn source(
        &mut self,
        db: &Connection,
        project: i64,
        received: i64,
        texts: &Texts<'_>,
    ) -> Result<i64, Failure> {
        let Texts { session, device, key, .. } = texts;
        let day = day(received);
        self.text.clear();
        // Lengths keep apart what concatenation would join.
        let (first, second) = (session.len(), device.len());
        write!(self.text, "{day} {project} {first} {second} {session}{device}{key}")
            .expect("a String takes what is written");
        if let Some(known) = self.sources.get(&self.text) {
            return Ok(*known);
        }
        let values = params![day, project, session, device, key];
        let insert = "INSERT INTO sources (day, project, session, device, key)
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
        db.prepare_cached(insert)?.execute(values)?;
        let select = "SELECT source FROM sources
             WHERE day = ?1 AND project = ?2 AND session = ?3 AND device = ?4 AND key = ?5";
        let id: i64 = db.prepare_cached(select)?.query_row(values, |row| row.get(0))?;
        self.sources.insert(self.text.clone(), id);
        Ok(id)
    }
}
