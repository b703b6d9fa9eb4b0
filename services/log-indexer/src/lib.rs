//! Third hop of a log line: deliveries from the bus become records in the log store.
//!
//! ```text
//! gateway ──> bus (logs) ──> log-indexer ──> log store
//! ```
//!
//! [`batch`] reads deliveries into records, [`settle`] stores them and settles each delivery by what
//! became of its records. The indexer looks at no socket and answers nobody: a game's `OK` is the
//! bus's business.

mod batch;
mod config;
mod settle;

pub use config::LogIndexerConfig;

use std::sync::Arc;
use std::time::Duration;

use observer_bus::{Bus, Durable};
use observer_chassis::{BoxError, Check, Readiness, Shutdown, Tasks, reason};
use observer_store::LogStore;

/// Pause between two looks at the store for `/readyz`.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Stores log records until shutdown is requested, then finishes what it has in hand.
///
/// # Errors
///
/// When a worker failed, or batches were cut off at the deadline: the bus delivers them again.
pub async fn run(
    config: LogIndexerConfig,
    bus: Arc<dyn Bus>,
    store: Arc<dyn LogStore>,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), BoxError> {
    let tasks = Tasks::new(shutdown.clone());
    for _ in 0..config.workers.get() {
        let consumer = bus.consume(Durable::LogIndexer).await?;
        let (store, shutdown) = (Arc::clone(&store), shutdown.clone());
        tasks.spawn("log-indexer", async move {
            settle::store_until_shutdown(consumer, store, shutdown).await;
            Ok::<(), BoxError>(())
        });
    }
    let check = readiness.check("log_store");
    tasks.spawn("log-store-check", watch_store(store, check, shutdown.clone()));
    tasks.finish().await?;
    Ok(())
}

async fn watch_store(
    store: Arc<dyn LogStore>,
    check: Check,
    shutdown: Shutdown,
) -> Result<(), BoxError> {
    loop {
        match store.check().await {
            Ok(()) => check.ok(),
            Err(error) => check.not_ok(reason(&error)),
        }
        tokio::select! {
            () = shutdown.requested() => return Ok(()),
            () = tokio::time::sleep(CHECK_EVERY) => {}
        }
    }
}
