//! After a process that did not close its database: the file is looked over in the background, while
//! it is used. SQLite needs no repair after a crash, so damage means that the disk lied.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::failure::Failure;
use super::file;
use crate::StoreErrorKind;

/// Steps of SQLite's machine between two looks at whether the store was dropped.
const STEPS_A_LOOK: i32 = 100_000;

/// What was found, and the end of the search for it.
#[derive(Debug)]
pub(super) struct Inspection {
    damage: Arc<Mutex<Option<Failure>>>,
    stopped: Arc<AtomicBool>,
}

impl Drop for Inspection {
    fn drop(&mut self) {
        // A blocking task that goes on would hold up the end of the process.
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl Inspection {
    /// Looks the file at `path` over, if the last process did not close it.
    pub(super) fn start(path: PathBuf, unclean: bool) -> Self {
        let inspection = Self { damage: Arc::default(), stopped: Arc::default() };
        if unclean {
            let (damage, stopped) =
                (Arc::clone(&inspection.damage), Arc::clone(&inspection.stopped));
            // Not waited for: it ends by itself, or with the store.
            drop(tokio::task::spawn_blocking(move || run(&path, &damage, &stopped)));
        }
        inspection
    }

    /// Says what is damaged; `Ok` also while the look is going on.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }
}

fn run(path: &Path, damage: &Mutex<Option<Failure>>, stopped: &Arc<AtomicBool>) {
    let file = path.display().to_string();
    tracing::info!(file, "database was not closed, looking it over");
    let seen = Arc::clone(stopped);
    let found = file::open_reader(path).and_then(|mut db| {
        db.progress_handler(STEPS_A_LOOK, Some(move || seen.load(Ordering::Relaxed)))?;
        look_over(&db)
    });
    let found = match found {
        Err(_) if stopped.load(Ordering::Relaxed) => return,
        Ok(answer) if answer == "ok" => {
            tracing::info!(file, "database is sound");
            return;
        }
        Ok(answer) => answer,
        Err(failure) => failure.to_string(),
    };
    let text = format!("{file} is damaged, restore it or move it away: {found}");
    let failure = Failure::new(StoreErrorKind::Refused, text);
    tracing::error!(error = %failure, "database is damaged");
    *damage.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
}

fn look_over(db: &Connection) -> Result<String, Failure> {
    Ok(db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?)
}
