//! Third hop of a log line: deliveries from the bus become records in the log store.
//!
//! ```text
//! gateway ──> bus (logs) ──> log-indexer ──> log store
//! ```
//!
//! [`batch`] reads deliveries into records, [`settle`] stores them and settles each delivery by what
//! became of its records; [`watch`] counts what waits and what was buried. The indexer looks at no
//! socket and answers nobody: a game's `OK` is the bus's business.

mod batch;
mod config;
mod numbers;
mod settle;
mod watch;

pub use config::LogIndexerConfig;

use std::sync::Arc;

use observer_bus::{Bus, Durable};
use observer_chassis::{
    BoxError, Readiness, Shutdown, Tasks, connect_patiently, keep_checking, reason,
};
use observer_store::LogStore;

use numbers::Numbers;
use settle::Settler;

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
    let numbers = Arc::new(Numbers::new());
    let bus_check = readiness.check("bus");
    for _ in 0..config.workers.get() {
        let join = || bus.consume(Durable::LogIndexer);
        let Some(consumer) = connect_patiently(&bus_check, &shutdown, join).await else {
            break; // Asked to end while the bus is away.
        };
        let (store, numbers) = (Arc::clone(&store), Arc::clone(&numbers));
        let settler = Settler { store, numbers, shutdown: shutdown.clone() };
        tasks.spawn("log-indexer", async move {
            settler.run(consumer).await;
            Ok::<(), BoxError>(())
        });
    }
    tasks.spawn("count", {
        let (bus, shutdown) = (Arc::clone(&bus), shutdown.clone());
        async move {
            watch::count_until_shutdown(bus, numbers, shutdown).await;
            Ok::<(), BoxError>(())
        }
    });
    let check = readiness.check("log_store");
    tasks.spawn("log-store-check", {
        let shutdown = shutdown.clone();
        async move {
            let look = || async { store.check().await.map_err(|error| reason(&error)) };
            keep_checking(check, shutdown, look).await;
            Ok::<(), BoxError>(())
        }
    });
    tasks.spawn("bus-check", async move {
        keep_checking(bus_check, shutdown, || bus.check()).await;
        Ok::<(), BoxError>(())
    });
    tasks.finish().await?;
    Ok(())
}
