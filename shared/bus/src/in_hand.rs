//! Keeping deliveries while a store takes its time. For every consumer alike: the pause belongs to the
//! time after which the bus gives a delivery to somebody else.

use std::pin::pin;
use std::time::Duration;

use tracing::warn;

use crate::Delivery;

/// Pause between two words to the bus that deliveries are in hand: well within the time after which it
/// gives them away (15 s on NATS).
const IN_PROGRESS_EVERY: Duration = Duration::from_secs(3);

/// Waits for `work`, and tells the bus meanwhile that `deliveries` are in hand.
///
/// A word that does not reach the bus costs a second delivery, which every consumer must bear anyway.
pub async fn in_hand<'d, T>(
    deliveries: impl Iterator<Item = &'d dyn Delivery> + Clone,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(IN_PROGRESS_EVERY) => {}
        }
        for delivery in deliveries.clone() {
            // What keeps one word from the bus keeps all: one warning for thousands of deliveries.
            if let Err(error) = delivery.in_progress().await {
                warn!(error = &error as &dyn std::error::Error, "bus was not told of work in hand");
                break;
            }
        }
    }
}
