//! Settings of var-store.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

/// Settings of var-store: section `[var_store]`, or `OBSERVER_VAR_STORE__*` in the environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VarStoreConfig {
    /// Requests answered at once. Further ones wait on the bus, and time out there.
    pub requests_max: NonZeroUsize,
}

impl Default for VarStoreConfig {
    fn default() -> Self {
        Self { requests_max: NonZeroUsize::new(64).expect("64 is not zero") }
    }
}
