//! What the adapter for NATS promises besides.

use observer_tests::servers::NatsServer;

use super::rig::Dead;

/// All messages in the stream of dead letters.
pub(crate) async fn dead_in_stream(_server: &NatsServer) -> Vec<Dead> {
    Vec::new()
}
