//! What SQLite says, sorted by what a caller may do about it.

use rusqlite::ErrorCode;

use crate::{StoreError, StoreErrorKind};

/// Why a group of writes or a read failed. Each caller of the group gets a copy.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Failure {
    pub(super) kind: StoreErrorKind,
    text: String,
}

impl Failure {
    /// A failure that SQLite did not report.
    pub(super) fn new(kind: StoreErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// The failure as the answer to `operation`.
    pub(super) fn of(self, operation: &'static str) -> StoreError {
        let kind = self.kind;
        StoreError::new(operation, kind, self)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        let kind = match error.sqlite_error_code() {
            // Retention or a person makes room.
            Some(ErrorCode::DiskFull) => StoreErrorKind::Throttled,
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OperationInterrupted
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied,
            ) => StoreErrorKind::Unavailable,
            Some(_) | None => StoreErrorKind::Refused,
        };
        let text = if kind == StoreErrorKind::Throttled {
            format!("the disk is full: {error}")
        } else {
            error.to_string()
        };
        Self { kind, text }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self { kind: StoreErrorKind::Unavailable, text: error.to_string() }
    }
}
