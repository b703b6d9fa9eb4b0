//! The port for accounts, projects and keys.

use async_trait::async_trait;
use observer_wire::{ApiKey, ProjectId};

use crate::StoreError;

/// Where accounts and keys are kept. Nothing can rebuild it: it belongs into every backup.
///
/// # Contract
///
/// - What a call returned `Ok` for survives a crash of this process and of the store.
/// - Each call is atomic.
/// - Redis keeps what the original kept: the hash `<key>` with `email` and `password`, the sets
///   `tokens` and `emails`.
/// - Every adapter passes the suite in `tests/tests/it/accounts.rs`, at the top of the workspace.
#[async_trait]
pub trait AccountStore: Send + Sync + 'static {
    /// Makes an account and registers `key` as its project's first.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot answer.
    async fn create_account(&self, account: &NewAccount) -> Result<Created, StoreError>;

    /// Registers a key as a project's first; one that is registered already stays as it is.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot answer.
    async fn register_key(&self, key: ApiKey) -> Result<ProjectId, StoreError>;

    /// The project that a key opens; `None` when it was never registered.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot answer.
    async fn project_of(&self, key: ApiKey) -> Result<Option<ProjectId>, StoreError>;

    /// Whether the store can be used now, and if not, why.
    ///
    /// # Errors
    ///
    /// [`StoreError`] for `/readyz`.
    async fn check(&self) -> Result<(), StoreError>;
}

/// An account to be made.
#[derive(Clone)]
pub struct NewAccount {
    /// Address, lower-cased by the caller.
    pub email: String,
    /// Hash of the password, as a PHC string.
    pub password_hash: String,
    /// First key of the account's project.
    pub key: ApiKey,
}

/// What became of a new account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It exists now.
    Now,
    /// The address has an account already. Nothing was changed.
    EmailExists,
    /// The key is registered already. Nothing was changed.
    KeyExists,
}
