//! Settings of the log indexer.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

/// Settings of the log indexer: section `[log_indexer]`, or `OBSERVER_LOG_INDEXER__*` in the
/// environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogIndexerConfig {
    /// Batches in work at once. While one waits for the store, the next is read.
    pub workers: NonZeroUsize,
}

impl Default for LogIndexerConfig {
    fn default() -> Self {
        Self { workers: NonZeroUsize::new(2).expect("two is not zero") }
    }
}
