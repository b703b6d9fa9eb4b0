//! A bus to test: two handles to it, and a look at its dead letters from outside.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use observer_bus::Bus;
use observer_bus::config::{BusConfig, BusType, connect};
use observer_tests::servers::{NatsOptions, NatsServer};
use tempfile::TempDir;

/// Which adapter is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adapter {
    InProcess,
    Nats,
}

/// One bus, as two processes see it.
pub(crate) struct Rig {
    pub(crate) one: Arc<dyn Bus>,
    pub(crate) other: Arc<dyn Bus>,
    world: World,
}

enum World {
    InProcess(TempDir),
    Nats(NatsServer),
}

/// A dead letter, as somebody finds it who looks where they are kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dead {
    pub(crate) project: String,
    pub(crate) reason: String,
    pub(crate) payload: Vec<u8>,
}

impl Adapter {
    /// A bus with the default settings.
    pub(crate) async fn start(self) -> Rig {
        self.start_with(|_| {}).await
    }

    /// A bus with other settings.
    pub(crate) async fn start_with(self, change: impl FnOnce(&mut BusConfig)) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let mut config = BusConfig::default();
        change(&mut config);
        if self == Self::InProcess {
            let one = connect(&config, folder.path()).await.unwrap();
            return Rig { other: Arc::clone(&one), one, world: World::InProcess(folder) };
        }
        let server = NatsServer::start(NatsOptions::default()).await;
        (config.kind, config.url) = (BusType::Nats, server.url());
        let (one, other) =
            tokio::join!(connect(&config, folder.path()), connect(&config, folder.path()));
        Rig { one: one.unwrap(), other: other.unwrap(), world: World::Nats(server) }
    }
}

impl Rig {
    /// All dead letters, oldest first.
    pub(crate) async fn dead(&self) -> Vec<Dead> {
        match &self.world {
            World::InProcess(folder) => dead_in_file(folder),
            World::Nats(server) => super::nats::dead_in_stream(server).await,
        }
    }
}

fn dead_in_file(folder: &TempDir) -> Vec<Dead> {
    let text = std::fs::read_to_string(folder.path().join("dead.jsonl")).unwrap();
    let dead = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        Dead {
            project: line["project"].as_str().unwrap().to_owned(),
            reason: line["reason"].as_str().unwrap().to_owned(),
            payload: STANDARD.decode(line["payload"].as_str().unwrap()).unwrap(),
        }
    };
    text.lines().map(dead).collect()
}
