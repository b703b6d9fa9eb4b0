//! What all gateways are told, from the bus to every worker: a session that signed in anywhere, and
//! what games shall send. Nothing depends on it having arrived.

use std::sync::Arc;
use std::time::Duration;

use observer_bus::{Heard, Topic};
use observer_chassis::Backoff;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::edits::Push;
use crate::shared::Shared;

/// Pauses between tries to listen.
const LISTEN_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Listens until it is dropped.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let mut backoff = Backoff::new(LISTEN_PAUSE.0, LISTEN_PAUSE.1);
    loop {
        match shared.bus.listen(Topic::Control).await {
            Ok(mut listener) => loop {
                let Heard::Message(bytes) = listener.next().await else { continue };
                match serde_json::from_slice(&bytes) {
                    Ok(control) => shared.push(Push::Control(Arc::new(control))),
                    // A later release may say more.
                    Err(error) => warn!(%error, "control message cannot be read"),
                }
            },
            Err(error) => debug!(%error, "control messages are not heard yet"),
        }
        sleep(backoff.next_delay()).await;
    }
}
