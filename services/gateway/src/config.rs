//! Settings of the gateway. Bounds of lines, sockets and bytes are not here: see
//! [`observer_wire::Limits`].

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};

/// Settings of the gateway: section `[gateway]`, or `OBSERVER_GATEWAY__*` in the environment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Address that games connect to. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Threads that serve sockets, each with a runtime of its own; 0 is one a core.
    pub workers: usize,
    /// Messages that one worker may have under way on the bus. Further lines gather meanwhile.
    pub publishes_max: NonZeroUsize,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 6667)),
            workers: 0,
            // 4 MiB in messages of 16 KiB: more than the round trip to a broker holds.
            publishes_max: NonZeroUsize::new(256).expect("256 is not 0"),
        }
    }
}

impl GatewayConfig {
    /// The number of workers to start.
    pub(crate) fn worker_count(&self) -> usize {
        match self.workers {
            0 => available_parallelism().map_or(1, NonZeroUsize::get),
            count => count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_workers_means_one_a_core() {
        assert!(1 <= GatewayConfig::default().worker_count());
        assert_eq!(GatewayConfig { workers: 3, ..GatewayConfig::default() }.worker_count(), 3);
    }
}
