//! Accounts and keys in a Redis of their own: a single server, not a cluster, because the keys of
//! the original (`<key>`, `tokens`, `emails`) do not share a slot.
//!
//! Nothing can rebuild it, so what is written must be on the disk before it is answered:
//! [`AccountStore::check`] refuses a server that is set to less. It works there all the same.

use std::sync::LazyLock;

use async_trait::async_trait;
use observer_wire::{ApiKey, ProjectId};
use redis::Script;

use super::connection::{Connection, Demands, Hidden, Setting};
use crate::accounts::{AccountStore, Created, NewAccount};
use crate::{StoreError, StoreErrorKind};

static CREATE_ACCOUNT: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/create_account.lua")));

/// All registered keys: a set, as the original had it.
const TOKENS: &str = "tokens";

/// All addresses that have an account: a set, as the original had it.
const EMAILS: &str = "emails";

const DEMANDS: Demands = Demands {
    settings: &[
        Setting {
            name: "appendonly",
            good: &["yes"],
            why: "accounts are written to no disk otherwise",
        },
        Setting {
            name: "appendfsync",
            good: &["always"],
            why: "a power cut loses accounts that people were told they have",
        },
        Setting {
            name: "maxmemory-policy",
            good: &["noeviction"],
            why: "accounts are deleted when memory is full",
        },
    ],
    hidden: Hidden::Refused,
};

/// Accounts, projects and keys in one Redis server. Not for a cluster.
pub struct RedisAccountStore {
    connection: Connection,
}

impl RedisAccountStore {
    /// Connects to `url`, as `redis://[user:password@]host[:port][/db]`.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Unavailable`] when the server does not answer: try again.
    /// [`StoreErrorKind::Refused`] when the address or the credentials are wrong.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Ok(Self { connection: Connection::open(url).await? })
    }
}

#[async_trait]
impl AccountStore for RedisAccountStore {
    async fn create_account(&self, account: &NewAccount) -> Result<Created, StoreError> {
        let operation = "create account";
        let mut call = CREATE_ACCOUNT.prepare_invoke();
        call.key(account.key.as_str()).key(TOKENS).key(EMAILS);
        call.arg(account.key.as_str()).arg(&account.email).arg(&account.password_hash);
        match self.connection.script_once::<String>(operation, &call).await?.as_str() {
            "now" => Ok(Created::Now),
            "email" => Ok(Created::EmailExists),
            "key" => Ok(Created::KeyExists),
            other => Err(StoreError::new(operation, StoreErrorKind::Refused, other.to_owned())),
        }
    }

    async fn register_key(&self, key: ApiKey) -> Result<ProjectId, StoreError> {
        let mut add = redis::cmd("SADD");
        add.arg(TOKENS).arg(key.as_str());
        self.connection.command::<u64>("register key", &add).await?;
        Ok(key.founds())
    }

    async fn project_of(&self, key: ApiKey) -> Result<Option<ProjectId>, StoreError> {
        let mut ask = redis::cmd("SISMEMBER");
        ask.arg(TOKENS).arg(key.as_str());
        let known: bool = self.connection.command("project of key", &ask).await?;
        Ok(known.then(|| key.founds()))
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.connection.check(&DEMANDS).await
    }
}
