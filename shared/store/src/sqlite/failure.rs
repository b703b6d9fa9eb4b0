//! What SQLite says, sorted by what a caller may do about it.

use rusqlite::ErrorCode;

use crate::{StoreError, StoreErrorKind};

/// Why a group of writes or a read failed. Each caller of the group gets a copy.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Failure {
    pub(super) kind: StoreErrorKind,
    text: String,
    damage: bool,
}

impl Failure {
    /// A failure that SQLite did not report.
    pub(super) fn new(kind: StoreErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), damage: false }
    }

    /// Whether SQLite found the file damaged.
    pub(super) fn is_damage(&self) -> bool {
        self.damage
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
        let damage = matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        );
        Self { kind, text, damage }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(StoreErrorKind::Unavailable, error.to_string())
    }
}
