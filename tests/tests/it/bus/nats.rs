//! What the adapter for NATS promises besides.

use async_nats::jetstream;
use observer_tests::servers::NatsServer;

use super::rig::Dead;

async fn jetstream(server: &NatsServer) -> jetstream::Context {
    jetstream::new(async_nats::connect(server.url()).await.unwrap())
}

/// All messages in the stream of dead letters.
pub(crate) async fn dead_in_stream(server: &NatsServer) -> Vec<Dead> {
    let stream = jetstream(server).await.get_stream("OBSERVER_DEAD").await.unwrap();
    let count = stream.cached_info().state.messages;
    let mut dead = Vec::new();
    for sequence in 1..=count {
        let message = stream.get_raw_message(sequence).await.unwrap();
        dead.push(Dead {
            project: message.subject.rsplit('.').next().unwrap().to_owned(),
            reason: message.headers.get("Observer-Reason").unwrap().as_str().to_owned(),
            payload: message.payload.to_vec(),
        });
    }
    dead
}
