//! Where logs, variables and accounts are kept: three ports, two adapters each.
//!
//! | port | embedded | distributed |
//! | --- | --- | --- |
//! | [`LogStore`] | [`sqlite`] | [`elastic`] |
//! | [`VarStore`] | [`sqlite`] | [`redis`] |
//! | [`AccountStore`] | [`sqlite`] | [`redis`] |
//!
//! Each port's doc comment is its contract; each adapter passes the port's conformance suite, in
//! `tests/tests/it/` at the top of the workspace, against the real server. What is deliberately absent: stores know no bus and decide
//! nothing; what an edit or a receipt means is var-store's business.

pub mod accounts;
pub mod config;
pub mod elastic;
mod error;
pub mod logs;
pub mod redis;
pub mod sqlite;
pub mod vars;

pub use accounts::AccountStore;
pub use config::{StoreConfig, connect_accounts, connect_logs, connect_vars};
pub use error::{BoxError, StoreError, StoreErrorKind};
pub use logs::LogStore;
pub use vars::VarStore;
