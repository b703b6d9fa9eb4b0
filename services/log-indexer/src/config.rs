//! Settings of the log indexer.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

/// Settings of the log indexer: section `[log_indexer]`, or `OBSERVER_LOG_INDEXER__*` in the
/// environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogIndexerConfig {
    /// Batches in work at once. More than one keeps a slow store busy; with the bus in process, one
    /// keeps live lines in their order.
    pub workers: NonZeroUsize,
}

impl Default for LogIndexerConfig {
    fn default() -> Self {
        Self { workers: NonZeroUsize::MIN }
    }
}
