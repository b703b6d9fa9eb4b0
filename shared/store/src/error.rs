//! A store call failed as a whole: a kind to act on, a source to read.

/// Any error, for [`StoreError`]'s source.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the caller may do about a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The store cannot be reached or did not answer in time. Try again.
    Unavailable,
    /// The store asks for less. Try again, later.
    Throttled,
    /// Waiting will not help: credentials, version, schema. Somebody must act.
    Refused,
}

/// A store call failed as a whole. The kind says what to do, the source what happened.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed: {kind:?}")]
pub struct StoreError {
    operation: &'static str,
    kind: StoreErrorKind,
    #[source]
    source: BoxError,
}

impl StoreError {
    /// An error of `operation`.
    #[must_use]
    pub fn new(operation: &'static str, kind: StoreErrorKind, source: impl Into<BoxError>) -> Self {
        Self { operation, kind, source: source.into() }
    }

    /// What the caller may do.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}
