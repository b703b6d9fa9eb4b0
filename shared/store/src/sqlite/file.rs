//! A database file: locked against a second process, opened, brought to its schema.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::failure::Failure;
use super::inspect::{Inspection, Soundness};
use crate::StoreErrorKind;

/// Time that a process which is just ending has to give up the file.
const LOCK_WAIT: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 5_000 });

/// Pause between two attempts to lock.
const LOCK_EVERY: Duration = Duration::from_millis(50);

/// Statements that a connection keeps prepared; there are fewer.
const STATEMENTS_MAX: usize = 64;

/// A store's file and its schema.
#[derive(Debug)]
pub(super) struct Schema {
    /// Name of the store: `<name>.db`, `<name>.lock`.
    pub(super) name: &'static str,
    /// Version of the schema, kept as `user_version`.
    pub(super) version: i64,
    /// Statements that make it, in an empty file.
    pub(super) create: &'static str,
    /// Statements that bring a file of version 1 to 2, of 2 to 3, and so on.
    pub(super) upgrades: &'static [&'static str],
}

/// The right to a database file, until dropped.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    /// The process that held the file before did not close it.
    unclean: bool,
}

impl Lock {
    /// Locks `<name>.lock`, and marks the database as open.
    async fn take(folder: &Path, name: &str) -> Result<Self, Failure> {
        make_folder(folder)?;
        let path = folder.join(format!("{name}.lock"));
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let mut file = options.open(&path).map_err(|error| at(&path, &error))?;
        let until = tokio::time::Instant::now() + LOCK_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(at(&path, &error)),
                Err(TryLockError::WouldBlock) if tokio::time::Instant::now() < until => {
                    tokio::time::sleep(LOCK_EVERY).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let text = format!(
                        "{} is locked: another process uses this data folder",
                        path.display()
                    );
                    return Err(Failure::new(StoreErrorKind::Refused, text));
                }
            }
        }
        let mut mark = Vec::new();
        file.read_to_end(&mut mark)?;
        if mark.is_empty() {
            file.write_all(b"open\n").map_err(|error| at(&path, &error))?;
            file.sync_all()?;
            sync_folder(folder)?;
        }
        Ok(Self { file, unclean: !mark.is_empty() })
    }

    /// Says that the database was closed in order. Without it the next start looks the file over, as
    /// it must when nobody has yet seen that it is `sound`.
    pub(super) fn closed(&self, sound: &Soundness) {
        if !sound.is_sound() {
            return;
        }
        // If it fails, the next start looks the file over in vain, and that is all.
        drop(self.file.set_len(0));
    }
}

fn at(path: &Path, error: &std::io::Error) -> Failure {
    let full = error.kind() == std::io::ErrorKind::StorageFull;
    let kind = if full { StoreErrorKind::Throttled } else { StoreErrorKind::Unavailable };
    Failure::new(kind, format!("{}: {error}", path.display()))
}

/// Makes a folder and those above it; the new names survive a power cut.
fn make_folder(folder: &Path) -> Result<(), Failure> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.is_dir()).collect();
    std::fs::create_dir_all(folder).map_err(|error| at(folder, &error))?;
    for made in missing {
        sync_parent(made)?;
    }
    // Whoever made it before us may have died before it was synced.
    sync_parent(folder)
}

/// Syncs the folder that `path` stands in; the one of a bare name is the current one.
fn sync_parent(path: &Path) -> Result<(), Failure> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_folder(Path::new(".")),
        Some(parent) => sync_folder(parent),
        None => Ok(()),
    }
}

/// A new name survives a power cut once its folder is synced. Where folders cannot be opened
/// (Windows), that is not needed; a parent that we may not read is somebody else's, and was there.
pub(super) fn sync_folder(folder: &Path) -> Result<(), Failure> {
    match File::open(folder) {
        Ok(open) => open.sync_all().map_err(|error| at(folder, &error)),
        Err(_) => Ok(()),
    }
}

/// A database that was opened for writing.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) db: Connection,
    pub(super) lock: Lock,
    pub(super) inspection: Inspection,
}

/// Locks and opens a store's database in `folder`, and makes it when it is missing.
pub(super) async fn open(folder: &Path, schema: &Schema) -> Result<Opened, Failure> {
    let lock = Lock::take(folder, schema.name).await?;
    let path = folder.join(format!("{}.db", schema.name));
    let inspection = Inspection::start(path.clone(), lock.unclean);
    let db = open_writer(&path, schema).map_err(|failure| inspection.soundness().heed(failure))?;
    Ok(Opened { path, db, lock, inspection })
}

/// Opens the one connection that writes, and makes the schema in a new file.
fn open_writer(path: &Path, schema: &Schema) -> Result<Connection, Failure> {
    let db = Connection::open(path)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    db.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 4000;
         PRAGMA journal_size_limit = 67108864;
         PRAGMA cache_size = -65536;
         PRAGMA temp_store = MEMORY;",
    )?;
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == 0 {
        let (create, version) = (schema.create, schema.version);
        db.execute_batch(&format!("BEGIN;{create};PRAGMA user_version = {version};COMMIT;"))?;
    } else if (1..schema.version).contains(&version) {
        let done = usize::try_from(version - 1).unwrap_or_default();
        let upgrades = schema.upgrades[done..].join(";");
        let version = schema.version;
        db.execute_batch(&format!("BEGIN;{upgrades};PRAGMA user_version = {version};COMMIT;"))?;
    } else if version != schema.version {
        return Err(other_version(path, schema, version));
    }
    Ok(db)
}

/// The failure to understand a file of another release.
pub(super) fn other_version(path: &Path, schema: &Schema, version: i64) -> Failure {
    let text = format!(
        "{} has schema version {version}, and this release knows version {}: use the release that \
         wrote it, or a later one",
        path.display(),
        schema.version,
    );
    Failure::new(StoreErrorKind::Refused, text)
}

/// Opens a connection that only reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    db.execute_batch("PRAGMA cache_size = -8192; PRAGMA temp_store = MEMORY;")?;
    db.busy_timeout(Duration::from_secs(1))?;
    Ok(db)
}
