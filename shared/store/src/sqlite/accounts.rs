//! Accounts and keys in `accounts.db`. Nothing can rebuild it: it belongs into every backup.

use std::time::Duration;

use async_trait::async_trait;
use observer_wire::{ApiKey, ProjectId};
use rusqlite::{Connection, OptionalExtension, params};

use super::calls::{Call, Calls};
use super::failure::Failure;
use super::file::{self, Opened, Schema};
use super::inspect::Inspection;
use super::readers::Readers;
use super::writer::Writer;
use crate::accounts::{AccountStore, Created, NewAccount};
use crate::config::StoreConfig;
use crate::{StoreError, StoreErrorKind};

pub(super) const SCHEMA: Schema = Schema {
    name: "accounts",
    version: 1,
    create: "
        CREATE TABLE accounts (
            email TEXT PRIMARY KEY,
            password_hash TEXT NOT NULL,
            project TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE keys (
            key TEXT PRIMARY KEY,
            project TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;
    ",
    upgrades: &[],
};

/// Time a look-up may take; it is one seek.
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// [`AccountStore`] in a file of this process.
#[derive(Debug)]
pub struct SqliteAccountStore {
    readers: Readers,
    inspection: Inspection,
    writer: Writer<Call<()>>,
}

impl SqliteAccountStore {
    /// Opens `accounts.db`, and makes it when it is missing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when another process uses the file, or a later release made it.
    pub async fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let open = async {
            let Opened { path, db, lock, inspection } =
                file::open(&config.data_dir, &SCHEMA).await?;
            let sound = inspection.soundness().clone();
            let writer = Writer::start(SCHEMA.name, db, (lock, sound.clone()), Calls(()))?;
            Ok(Self { readers: Readers::new(path, sound), inspection, writer })
        };
        open.await.map_err(|failure: Failure| failure.of("open accounts.db"))
    }
}

#[async_trait]
impl AccountStore for SqliteAccountStore {
    async fn create_account(&self, account: &NewAccount) -> Result<Created, StoreError> {
        let account = account.clone();
        let create = move |db: &Connection, (): &mut ()| create(db, &account);
        self.writer.call(create).await.map_err(|failure| failure.of("create account"))
    }

    async fn register_key(&self, key: ApiKey) -> Result<ProjectId, StoreError> {
        let register = move |db: &Connection, (): &mut ()| {
            add_key(db, key)?;
            let project = project_of(db, key)?;
            Ok(project.expect("the key was registered by now"))
        };
        self.writer.call(register).await.map_err(|failure| failure.of("register key"))
    }

    async fn project_of(&self, key: ApiKey) -> Result<Option<ProjectId>, StoreError> {
        let project = self.readers.read(READ_DEADLINE, move |db| project_of(db, key)).await;
        project.map_err(|failure| failure.of("look up key"))
    }

    async fn check(&self) -> Result<(), StoreError> {
        let checked = match self.inspection.check() {
            Ok(()) => self.writer.check().await,
            damaged => damaged,
        };
        checked.map_err(|failure| failure.of("check accounts.db"))
    }
}

fn create(db: &Connection, account: &NewAccount) -> Result<Created, Failure> {
    let known = "SELECT 1 FROM accounts WHERE email = ?1";
    if db.prepare_cached(known)?.exists([&account.email])? {
        return Ok(Created::EmailExists);
    }
    if !add_key(db, account.key)? {
        return Ok(Created::KeyExists);
    }
    let insert = "INSERT INTO accounts (email, password_hash, project) VALUES (?1, ?2, ?3)";
    let project = account.key.founds();
    db.prepare_cached(insert)?.execute(params![
        account.email,
        account.password_hash,
        project.as_str()
    ])?;
    Ok(Created::Now)
}

/// Whether the key is new.
fn add_key(db: &Connection, key: ApiKey) -> Result<bool, Failure> {
    let insert = "INSERT INTO keys (key, project) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    let added = db.prepare_cached(insert)?.execute([key.as_str(), key.founds().as_str()])?;
    Ok(added == 1)
}

fn project_of(db: &Connection, key: ApiKey) -> Result<Option<ProjectId>, Failure> {
    let find = "SELECT project FROM keys WHERE key = ?1";
    let project: Option<String> =
        db.prepare_cached(find)?.query_row([key.as_str()], |row| row.get(0)).optional()?;
    let damaged = |_| Failure::new(StoreErrorKind::Refused, "a project id in keys is damaged");
    project.map(|project| project.parse().map_err(damaged)).transpose()
}
