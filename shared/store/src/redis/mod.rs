//! The last hop of a variable and of an account in the distributed form: Redis, one for variables,
//! another for accounts.
//!
//! What must be atomic is a script in `scripts/`; Rust only writes its arguments and reads its
//! answer. A script reads all that it needs before its first write, so that a wrong type, full
//! memory or a replica refuses it whole. What is deliberately absent: nothing here expires, and no
//! call waits for a server to come back; the caller does.

mod accounts;
mod connection;
mod entry;
mod vars;

pub use self::accounts::RedisAccountStore;
pub use self::vars::RedisVarStore;
