//! Which gateways are alive. A device is online while its socket was not said to have ended and the
//! gateway that holds it announces itself: a gateway that was killed takes its devices with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use observer_bus::{Heard, Listener};
use observer_chassis::{BoxError, Shutdown};
use observer_store::vars::Device;
use observer_wire::ask::GatewayAlive;
use tracing::warn;

use crate::Context;

/// Silence after which a gateway counts as gone: three announcements, which come every 5 s.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Gateways remembered at most; far more than any deployment has.
const GATEWAYS_MAX: usize = 10_000;

/// The gateways that were heard of lately.
#[derive(Default)]
pub(crate) struct Presence {
    heard: Mutex<HashMap<String, Instant>>,
}

impl Presence {
    /// A gateway gave a sign of life.
    pub(crate) fn heard_of(&self, gateway: &str) {
        let now = Instant::now();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = heard.get_mut(gateway) {
            *last = now;
            return;
        }
        if heard.len() >= GATEWAYS_MAX {
            heard.retain(|_, last| now.duration_since(*last) < SILENCE_MAX);
        }
        if heard.len() < GATEWAYS_MAX {
            heard.insert(gateway.to_owned(), now);
        }
    }

    /// Whether the device can be reached, as far as anybody can tell.
    pub(crate) fn is_online(&self, device: &Device) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = heard.get(&device.gateway).is_some_and(|last| last.elapsed() < SILENCE_MAX);
        device.online && alive
    }
}

/// Listens to announcements until shutdown is requested.
pub(crate) async fn keep(
    context: Arc<Context>,
    mut gateways: Box<dyn Listener>,
    shutdown: Shutdown,
) -> Result<(), BoxError> {
    loop {
        let heard = tokio::select! {
            () = shutdown.requested() => return Ok(()),
            heard = gateways.next() => heard,
        };
        match heard {
            // Announcements that were lost come again.
            Heard::Resync => {}
            Heard::Message(payload) => match serde_json::from_slice::<GatewayAlive>(&payload) {
                Ok(alive) => context.presence.heard_of(&alive.gateway),
                Err(error) => warn!(%error, "announcement of a gateway is not readable"),
            },
        }
    }
}
