//! Connections that only read: few, each on a blocking thread while it is used, each read with a
//! deadline that SQLite itself asks about.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::failure::Failure;
use super::file;
use super::inspect::Soundness;
use crate::StoreErrorKind;

/// Reads at once. More would only share the same disk and cores.
const READERS_MAX: usize = 4;

/// Steps of SQLite's machine between two looks at the clock: some tens of microseconds.
const STEPS_A_LOOK: i32 = 4_000;

/// Connections to one database.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    soundness: Soundness,
    free: Arc<Mutex<Vec<Connection>>>,
    places: Arc<Semaphore>,
}

/// Tells a read that its caller gave up.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Readers {
    /// Readers of the database at `path`; connections are opened as they are needed.
    pub(super) fn new(path: PathBuf, soundness: Soundness) -> Self {
        let places = Arc::new(Semaphore::new(READERS_MAX));
        Self { path, soundness, free: Arc::default(), places }
    }

    /// Runs `read` in one snapshot of the database, at most until `deadline` has passed.
    ///
    /// # Cancel safety
    ///
    /// Safe: a read whose caller is gone ends within milliseconds.
    pub(super) async fn read<A: Send + 'static>(
        &self,
        deadline: Duration,
        read: impl FnOnce(&Connection) -> Result<A, Failure> + Send + 'static,
    ) -> Result<A, Failure> {
        let until = Instant::now() + deadline;
        let place = timeout(deadline, Arc::clone(&self.places).acquire_owned()).await;
        let place = place.map_err(|_| late(deadline))?.expect("the semaphore is never closed");
        let cancelled = Arc::new(AtomicBool::new(false));
        let guard = CancelOnDrop(Arc::clone(&cancelled));
        let (path, free) = (self.path.clone(), Arc::clone(&self.free));
        let reading = tokio::task::spawn_blocking(move || {
            let _place = place;
            let kept = free.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut db = match kept {
                Some(db) => db,
                None => file::open_reader(&path)?,
            };
            let over = move || until <= Instant::now() || cancelled.load(Ordering::Relaxed);
            db.progress_handler(STEPS_A_LOOK, Some(over))?;
            let result = in_snapshot(&db, read);
            db.progress_handler(0, None::<fn() -> bool>)?;
            if result.is_ok() || until <= Instant::now() {
                free.lock().unwrap_or_else(PoisonError::into_inner).push(db);
            } // Else the connection is closed: a disk that is well again gets a new one.
            result
        });
        let result = reading.await;
        drop(guard);
        let result = result.map_err(|error| {
            Failure::new(StoreErrorKind::Unavailable, format!("the read ended: {error}"))
        })?;
        match result {
            Err(_) if until <= Instant::now() => Err(late(deadline)),
            result => result.map_err(|failure| self.soundness.heed(failure)),
        }
    }
}

fn in_snapshot<A>(
    db: &Connection,
    read: impl FnOnce(&Connection) -> Result<A, Failure>,
) -> Result<A, Failure> {
    let snapshot = db.unchecked_transaction()?;
    let answer = read(&snapshot)?;
    snapshot.finish()?;
    Ok(answer)
}

fn late(deadline: Duration) -> Failure {
    Failure::new(StoreErrorKind::Unavailable, format!("no answer in {deadline:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::inspect::Inspection;

    /// Counts for ever.
    fn endless(db: &Connection) -> Result<i64, Failure> {
        let count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
             SELECT count(*) FROM n";
        Ok(db.query_row(count, [], |row| row.get(0))?)
    }

    fn readers(folder: &tempfile::TempDir) -> Readers {
        let path = folder.path().join("x.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE x (y)").unwrap();
        let inspection = Inspection::start(path.clone(), false);
        Readers::new(path, inspection.soundness().clone())
    }

    #[tokio::test]
    async fn a_read_ends_at_its_deadline_and_the_next_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let readers = readers(&folder);
        let late = readers.read(Duration::from_millis(50), endless).await.unwrap_err();
        assert_eq!(late.kind, StoreErrorKind::Unavailable);
        let one = |db: &Connection| Ok(db.query_row("SELECT 1", [], |row| row.get::<_, i64>(0))?);
        assert_eq!(readers.read(Duration::from_secs(10), one).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn reads_whose_callers_are_gone_give_their_places_back() {
        let folder = tempfile::tempdir().unwrap();
        let readers = readers(&folder);
        for _ in 0..READERS_MAX * 2 {
            let read = readers.read(Duration::from_mins(1), endless);
            assert!(timeout(Duration::from_millis(20), read).await.is_err());
        }
        let one = |db: &Connection| Ok(db.query_row("SELECT 1", [], |row| row.get::<_, i64>(0))?);
        assert_eq!(readers.read(Duration::from_secs(10), one).await.unwrap(), 1);
    }
}
