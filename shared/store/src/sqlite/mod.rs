//! The embedded adapters: one SQLite file a store, so that log volume never blocks an edit.
//!
//! The path of a write: a caller queues it with the [`writer`]; the writer's thread takes whatever
//! waits into one transaction and answers all after the commit. The path of a read: a [`readers`]
//! connection on a blocking thread, with a deadline.
//!
//! What it survives: a killed process and a power cut. Each database is in WAL mode with
//! `synchronous=FULL`, so `Ok` means that the disk said it is safe. Not a lost disk, and not two
//! processes: a lock file refuses the second.

mod accounts;
mod backup;
mod calls;
mod failure;
mod file;
mod inspect;
mod logs;
mod readers;
mod vars;
mod writer;

pub use accounts::SqliteAccountStore;
pub use backup::{BACKUP_MARK, back_up};
pub use logs::SqliteLogStore;
pub use vars::SqliteVarStore;
