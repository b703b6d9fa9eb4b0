//! A copy of the databases while they are used, by this process or another: each as it was at one
//! moment after the call, so that whatever was acknowledged before it is there.
//!
//! Snapshots of all are taken first, accounts last: no record is copied without its project. Then
//! pages are copied at half the pace of the disk at most. What is written meanwhile stays in the log
//! of the database until the copy is done; nobody waits for it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::failure::Failure;
use super::file::{self, Schema};
use super::{accounts, logs, vars};
use crate::{StoreError, StoreErrorKind};

/// Pages copied between two pauses: a megabyte.
const STEP_PAGES: i32 = 256;

/// Longest pause between two steps, whatever the disk says.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// In a folder, it says that the folder was made by a backup and not started on since.
pub const BACKUP_MARK: &str = "backup.json";

/// A database under copy: one snapshot, held until the copy is done.
struct Snapshot {
    schema: &'static Schema,
    db: Connection,
}

/// Copies the databases of `from` into the folder `to`, which is there and has none. Each copy is
/// looked over before it is believed. Returns their size in bytes. Blocks for as
/// long as that takes.
///
/// # Errors
///
/// [`StoreError`]: nothing in `to` can be used. `Refused` when a database is missing, damaged, or of
/// another release.
pub fn back_up(from: &Path, to: &Path) -> Result<u64, StoreError> {
    let schemas = [&logs::SCHEMA, &vars::SCHEMA, &accounts::SCHEMA];
    let copy = || -> Result<u64, Failure> {
        let mut snapshots = Vec::with_capacity(schemas.len());
        for schema in schemas {
            snapshots.push(Snapshot::take(from, schema)?);
        }
        let mut bytes = 0;
        for snapshot in snapshots {
            bytes += snapshot.copy(to)?;
        }
        file::sync_folder(to)?;
        Ok(bytes)
    };
    copy().map_err(|failure| failure.of("back up databases"))
}

impl Snapshot {
    fn take(folder: &Path, schema: &'static Schema) -> Result<Self, Failure> {
        let path = database(folder, schema);
        // Not read-only: to share a database with its writer is to write into the shared index.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&path, flags).map_err(|error| {
            let text = format!("{}: {error}", path.display());
            Failure::new(Failure::from(error).kind, text)
        })?;
        db.busy_timeout(Duration::from_secs(5))?;
        db.execute_batch("BEGIN")?;
        let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version != schema.version {
            return Err(file::other_version(&path, schema, version));
        }
        Ok(Self { schema, db })
    }

    /// Copies the snapshot; returns its size in bytes.
    fn copy(self, folder: &Path) -> Result<u64, Failure> {
        let path = database(folder, self.schema);
        let mut copy = Connection::open(&path)?;
        copy.execute_batch("PRAGMA synchronous = FULL")?;
        let backup = Backup::new(&self.db, &mut copy)?;
        loop {
            let began = Instant::now();
            match backup.step(STEP_PAGES)? {
                StepResult::Done => break,
                StepResult::More | StepResult::Busy | StepResult::Locked | _ => {
                    pause(began.elapsed().min(PAUSE_MAX));
                }
            }
        }
        drop(backup);
        let found: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            let text = format!("the copy of {} is damaged: {found}", path.display());
            return Err(Failure::new(StoreErrorKind::Refused, text));
        }
        let size = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
        let bytes: i64 = copy.query_row(size, [], |row| row.get(0))?;
        copy.close().map_err(|(_, error)| Failure::from(error))?;
        Ok(bytes.cast_unsigned())
    }
}

#[expect(clippy::disallowed_methods, reason = "the caller knows that this blocks its thread")]
fn pause(pause: Duration) {
    std::thread::sleep(pause);
}

fn database(folder: &Path, schema: &Schema) -> PathBuf {
    folder.join(format!("{}.db", schema.name))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use observer_wire::ApiKey;
    use observer_wire::edit::{Change, EDIT_VERSION, Edit, Scope, TypedValue};

    use super::*;
    use crate::config::StoreConfig;
    use crate::sqlite::{SqliteAccountStore, SqliteLogStore, SqliteVarStore};
    use crate::{AccountStore as _, VarStore as _};

    fn config(folder: &Path) -> StoreConfig {
        StoreConfig { data_dir: folder.into(), ..StoreConfig::default() }
    }

    fn key(number: u64) -> ApiKey {
        format!("{number:012}").parse().unwrap()
    }

    fn edit(rev: u64) -> Edit {
        let set = Some(TypedValue { kind: "integer".into(), value: rev.to_string() });
        Edit {
            v: EDIT_VERSION,
            project: key(0).founds(),
            epoch: "epoch000".into(),
            rev,
            edit_id: rev.to_string(),
            actor: "test".into(),
            at: 0,
            note: None,
            changes: vec![Change { name: "speed".into(), scope: Scope::All, set }],
            raw: None,
        }
    }

    async fn make(folder: &Path) -> (SqliteVarStore, SqliteAccountStore) {
        drop(SqliteLogStore::open(&config(folder)).await.unwrap());
        let vars = SqliteVarStore::open(&config(folder)).await.unwrap();
        (vars, SqliteAccountStore::open(&config(folder)).await.unwrap())
    }

    #[tokio::test]
    async fn what_was_acknowledged_before_is_copied_while_more_is_written() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (vars, accounts) = make(from.path()).await;
        let accounts = Arc::new(accounts);
        for number in 0..50 {
            accounts.register_key(key(number)).await.unwrap();
        }
        vars.apply_edit(&edit(1), 1).await.unwrap();
        let (source, target) = (from.path().to_owned(), to.path().to_owned());
        let copying = tokio::task::spawn_blocking(move || back_up(&source, &target));
        for number in 50..100 {
            accounts.register_key(key(number)).await.unwrap();
        }
        assert!(copying.await.unwrap().unwrap() > 0);

        let copy = SqliteAccountStore::open(&config(to.path())).await.unwrap();
        for number in 0..50 {
            assert!(copy.project_of(key(number)).await.unwrap().is_some(), "{number}");
        }
        let copy = SqliteVarStore::open(&config(to.path())).await.unwrap();
        assert_eq!(copy.document(key(0).founds()).await.unwrap().document.revision, 1);
    }

    #[tokio::test]
    async fn each_start_on_a_backup_makes_a_new_epoch_and_an_ordinary_start_none() {
        let folder = tempfile::tempdir().unwrap();
        let (vars, _) = make(folder.path()).await;
        vars.apply_edit(&edit(1), 1).await.unwrap();
        drop(vars);
        let mut epochs = std::collections::BTreeSet::from(["epoch000".to_owned()]);
        for restored in [true, false, true] {
            if restored {
                std::fs::write(folder.path().join(BACKUP_MARK), "{}").unwrap();
            }
            let vars = SqliteVarStore::open(&config(folder.path())).await.unwrap();
            assert!(!folder.path().join(BACKUP_MARK).exists());
            let document = vars.document(key(0).founds()).await.unwrap().document;
            assert_eq!((document.revision, document.epoch.len()), (1, 8));
            assert_eq!(epochs.insert(document.epoch), restored);
        }
    }

    #[tokio::test]
    async fn a_folder_without_databases_is_no_source() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let refused = back_up(from.path(), to.path()).unwrap_err();
        let why = std::error::Error::source(&refused).unwrap().to_string();
        assert!(why.contains("logs.db"), "{why}");
    }
}
