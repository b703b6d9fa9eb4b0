//! Whether a database can be believed. After a process that did not close it, the file is looked over
//! in the background, while it is used; and whatever finds damage at any time says so here. SQLite
//! needs no repair after a crash, so damage means that the disk lied: nothing more is written, and
//! nothing is repaired in silence.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::failure::Failure;
use super::file;
use crate::StoreErrorKind;

/// Steps of SQLite's machine between two looks at whether the store was dropped.
const STEPS_A_LOOK: i32 = 100_000;

/// What is known of a file. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Soundness(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: String,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// It was closed in order, or looked over since.
    Sound,
    /// The look is going on.
    Unknown,
    Damaged(Failure),
}

impl Soundness {
    fn new(path: &Path, state: State) -> Self {
        Self(Arc::new(Shared { file: path.display().to_string(), state: Mutex::new(state) }))
    }

    /// Says what is damaged; `Ok` also while the look is going on.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match &*self.0.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Sound | State::Unknown => Ok(()),
            State::Damaged(failure) => Err(failure.clone()),
        }
    }

    /// Whether the next start need not look the file over.
    pub(super) fn is_sound(&self) -> bool {
        matches!(*self.0.state.lock().unwrap_or_else(PoisonError::into_inner), State::Sound)
    }

    /// Remembers a failure that tells of damage, for good. Returns what callers get.
    pub(super) fn heed(&self, failure: Failure) -> Failure {
        if failure.is_damage() { self.damaged(&failure.to_string()) } else { failure }
    }

    fn damaged(&self, found: &str) -> Failure {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Damaged(failure) = &*state {
            return failure.clone();
        }
        let text = format!("{} is damaged, restore it or move it away: {found}", self.0.file);
        let failure = Failure::new(StoreErrorKind::Refused, text);
        tracing::error!(error = %failure, "database is damaged, nothing more is written to it");
        *state = State::Damaged(failure.clone());
        failure
    }

    fn looked_over(&self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Unknown) {
            *state = State::Sound;
        }
    }
}

/// The look over a file, until dropped.
#[derive(Debug)]
pub(super) struct Inspection {
    soundness: Soundness,
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
        let state = if unclean { State::Unknown } else { State::Sound };
        let (soundness, stopped) = (Soundness::new(&path, state), Arc::new(AtomicBool::new(false)));
        if unclean {
            let (soundness, stopped) = (soundness.clone(), Arc::clone(&stopped));
            // Not waited for: it ends by itself, or with the store.
            drop(tokio::task::spawn_blocking(move || run(&path, &soundness, &stopped)));
        }
        Self { soundness, stopped }
    }

    /// What is known so far, and will be.
    pub(super) fn soundness(&self) -> &Soundness {
        &self.soundness
    }

    /// Says what is damaged; `Ok` also while the look is going on.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.soundness.check()
    }
}

fn run(path: &Path, soundness: &Soundness, stopped: &Arc<AtomicBool>) {
    let file = path.display().to_string();
    tracing::info!(file, "database was not closed, looking it over");
    let seen = Arc::clone(stopped);
    let found = file::open_reader(path).and_then(|mut db| {
        db.progress_handler(STEPS_A_LOOK, Some(move || seen.load(Ordering::Relaxed)))?;
        look_over(&db)
    });
    match found {
        Err(_) if stopped.load(Ordering::Relaxed) => {}
        Ok(answer) if answer == "ok" => {
            soundness.looked_over();
            tracing::info!(file, "database is sound");
        }
        Ok(answer) => drop(soundness.damaged(&answer)),
        Err(failure) if failure.is_damage() => drop(soundness.heed(failure)),
        // Neither sound nor damaged: the next start looks again.
        Err(failure) => tracing::warn!(error = %failure, file, "database could not be looked over"),
    }
}

fn look_over(db: &Connection) -> Result<String, Failure> {
    Ok(db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?)
}
