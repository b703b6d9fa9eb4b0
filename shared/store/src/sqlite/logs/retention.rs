//! Upkeep of the records: the oldest go, by age and by size, in small steps between writes; free
//! pages go back to the disk; and the search index is merged while nobody waits.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, params};

use super::append::{day, first_place, received};
use crate::config::StoreConfig;
use crate::sqlite::failure::Failure;
use crate::sqlite::writer::UPKEEP_PAUSE;

/// Records that go in one transaction, at least: some tens of milliseconds in which writes wait.
const STEP_RECORDS: i64 = 2_000;

/// Halvings of a step at most: a step of one record is the smallest.
const HALVINGS_MAX: u32 = 11;

/// Records that go for each that came, while there are too many: the size falls under any load.
const FORGOTTEN_PER_NEW: i64 = 2;

/// Free pages that are given back in one step.
const VACUUM_PAGES: i64 = 1_000;

/// Free pages that are kept for what comes next.
const FREE_PAGES_KEPT: i64 = 2_000;

/// Pages that one step of a merge writes, at least.
const MERGE_PAGES: i64 = 200;

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// When records are forgotten, and how far that has come.
pub(super) struct Retention {
    days: u32,
    bytes_max: u64,
    /// When ages are looked at again. Sizes are cheap to look at, each time.
    ages_at: Instant,
    /// When the WAL is folded into the file again.
    fold_at: Instant,
    /// Records stored since the last step.
    fresh: i64,
    /// Records went, and not all that belongs to them.
    tidy: bool,
    /// How often a step was halved. A full disk has no room for what a large step writes before it
    /// frees anything.
    halvings: u32,
}

/// Sizes of the file.
struct Pages {
    bytes: u64,
    all: u64,
    free: u64,
}

impl Retention {
    pub(super) fn new(config: &StoreConfig) -> Self {
        Self {
            days: config.retention_days,
            bytes_max: config.retention_bytes_max,
            ages_at: Instant::now(),
            fold_at: Instant::now(),
            fresh: 0,
            tidy: false,
            halvings: 0,
        }
    }

    /// Records were stored.
    pub(super) fn add(&mut self, records: usize) {
        self.fresh = self.fresh.saturating_add(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// Does one step, a smaller one after each that failed. Returns when the next is due; zero when
    /// there is more to do.
    pub(super) fn upkeep(&mut self, db: &Connection, idle: bool) -> Result<Duration, Failure> {
        let done = self.step(db, idle);
        self.halvings = match &done {
            Ok(_) => self.halvings.saturating_sub(1),
            Err(_) => HALVINGS_MAX.min(self.halvings + 1),
        };
        done
    }

    fn step(&mut self, db: &Connection, idle: bool) -> Result<Duration, Failure> {
        let fresh = std::mem::take(&mut self.fresh);
        let whole = STEP_RECORDS.max(fresh.saturating_mul(FORGOTTEN_PER_NEW));
        let step = (whole >> self.halvings).max(1);
        let pages = pages(db)?;
        let used = (pages.all - pages.free) * pages.bytes;
        if self.bytes_max < used {
            // What was forgotten gives its room in the search index back only when that is merged:
            // without it, more would go than has to. But under load the bound is what counts.
            // And a merge writes all anew before it frees what was: not on a full disk.
            let far = self.bytes_max + self.bytes_max / 10 < used || 0 < self.halvings;
            let merged = !far && merge(db, MERGE_PAGES.max(fresh))?;
            if merged || self.forget(db, i64::MAX, step)? {
                return Ok(Duration::ZERO);
            }
        }
        if self.ages_at <= Instant::now() {
            if self.forget(db, self.oldest_kept(), step)? {
                return Ok(Duration::ZERO);
            }
            self.ages_at = Instant::now() + UPKEEP_PAUSE;
        }
        if self.tidy {
            forget_sources(db)?;
            self.tidy = false;
        }
        let file_too_large = self.bytes_max < pages.all * pages.bytes;
        if 0 < pages.free
            && (file_too_large || idle && FREE_PAGES_KEPT.cast_unsigned() < pages.free)
        {
            db.execute_batch(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
            return Ok(Duration::ZERO);
        }
        if idle && merge(db, MERGE_PAGES)? {
            return Ok(Duration::ZERO);
        }
        if idle && self.fold_at <= Instant::now() {
            // Only then does the file itself get smaller. Readers in its way are no error.
            db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            self.fold_at = Instant::now() + UPKEEP_PAUSE;
        }
        Ok(UPKEEP_PAUSE)
    }

    /// First place of what is young enough.
    fn oldest_kept(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        first_place(now.saturating_sub(i64::from(self.days) * DAY_MS))
    }

    /// Forgets the oldest records before the place `end`, at most `step`. Whether there were any.
    fn forget(&mut self, db: &Connection, end: i64, step: i64) -> Result<bool, Failure> {
        let oldest = "SELECT place FROM records WHERE place < ?1 ORDER BY place LIMIT ?2";
        let places: Vec<i64> = db
            .prepare_cached(oldest)?
            .query_map(params![end, step], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let Some(last) = places.last() else {
            return Ok(false);
        };
        db.execute_batch("BEGIN IMMEDIATE")?;
        // Records first: what the search index writes to forget them finds their pages free.
        db.prepare_cached("DELETE FROM records WHERE place <= ?1")?.execute([last])?;
        let mut delete = db.prepare_cached("DELETE FROM words WHERE rowid = ?1")?;
        for place in &places {
            delete.execute([place])?;
        }
        db.execute_batch("COMMIT")?;
        self.tidy = true;
        Ok(true)
    }
}

/// Forgets sources of days that have no records any more.
fn forget_sources(db: &Connection) -> Result<(), Failure> {
    let oldest: Option<i64> =
        db.query_row("SELECT min(place) FROM records", [], |row| row.get(0))?;
    if let Some(oldest) = oldest {
        db.execute("DELETE FROM sources WHERE day < ?1", [day(received(oldest))])?;
    }
    Ok(())
}

fn pages(db: &Connection) -> Result<Pages, Failure> {
    let pragma = |name: &str| -> rusqlite::Result<u64> {
        let count: i64 = db.prepare_cached(name)?.query_row([], |row| row.get(0))?;
        Ok(count.cast_unsigned())
    };
    Ok(Pages {
        bytes: pragma("PRAGMA page_size")?,
        all: pragma("PRAGMA page_count")?,
        free: pragma("PRAGMA freelist_count")?,
    })
}

/// Merges a little of the search index. Whether there was something to merge.
fn merge(db: &Connection, pages: i64) -> Result<bool, Failure> {
    let changes = || -> rusqlite::Result<i64> {
        db.prepare_cached("SELECT total_changes()")?.query_row([], |row| row.get(0))
    };
    let before = changes()?;
    db.prepare_cached("INSERT INTO words (words, rank) VALUES ('merge', ?1)")?.execute([pages])?;
    // The command itself counts as one change.
    Ok(before + 1 < changes()?)
}
