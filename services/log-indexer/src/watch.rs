//! What waits on the bus, and what was buried: counted now and then, and told. Nothing is settled here.

use std::sync::Arc;
use std::time::Duration;

use observer_bus::{Bus, BusError, Durable};
use observer_chassis::{Shutdown, reason};
use tracing::{debug, warn};

use crate::numbers::{Numbers, gauged};

/// Pause between two counts: each is two questions to the broker.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Counts until shutdown is requested. Letters that came are worth a warning, not a process that is
/// not ready: everything else goes on.
pub(crate) async fn count_until_shutdown(
    bus: Arc<dyn Bus>,
    numbers: Arc<Numbers>,
    shutdown: Shutdown,
) {
    let mut known = 0;
    loop {
        match count(bus.as_ref(), &numbers).await {
            Ok(letters) => {
                if known < letters {
                    warn!(letters, "dead letters wait: see observer dead-letters list <key>");
                }
                known = letters;
            }
            // The check of the bus says so already.
            Err(error) => debug!(error = %reason(&error), "backlog and dead letters not counted"),
        }
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(COUNT_EVERY) => {}
        }
    }
}

async fn count(bus: &dyn Bus, numbers: &Numbers) -> Result<u64, BusError> {
    numbers.backlog_events.set(gauged(bus.backlog(Durable::LogIndexer).await?));
    let dead = bus.dead().count().await?;
    numbers.dead_letters.set(gauged(dead.letters));
    numbers.dead_letters_bytes.set(gauged(dead.bytes));
    Ok(dead.letters)
}
