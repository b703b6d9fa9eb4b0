//! Events as gateways publish them, put on the bus by hand: with what no gateway lets through, and at times
//! that the test chooses.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use observer_bus::config::{BusConfig, BusType, connect};
use observer_bus::{Bus, Outgoing, Stream};
use observer_tests::eventually;
use observer_tests::stack::{Cluster, ClusterOptions};
use observer_wire::ProjectId;
use observer_wire::event::{self, LineHead, LineKind};

/// Time for everything on the bus to be settled. Longer than the bus waits before it gives away again what
/// a killed indexer had in hand.
const SETTLED_WITHIN: Duration = Duration::from_mins(2);

/// One line of a game.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) id: String,
    pub(crate) seq: u64,
    pub(crate) received: i64,
    pub(crate) again: bool,
    pub(crate) records: Vec<String>,
}

impl Line {
    fn push(&self, project: ProjectId, out: &mut Vec<u8>) {
        let head = LineHead {
            kind: LineKind::Logs,
            id: self.id.as_str().into(),
            key: project.as_str().parse().expect("a project's id is a key"),
            device: "device".into(),
            named: true,
            session: "session".into(),
            epoch: 1,
            seq: self.seq,
            received: self.received,
            mid: Some(self.id.as_str().into()),
            index: 0,
            count: u32::try_from(self.records.len()).expect("few"),
            rev: 0,
            again: self.again,
            odd: vec![].into(),
            len: 0,
        };
        event::push_line(out, head, &format!("[{}]", self.records.join(",")));
    }
}

/// A cluster, and its bus.
pub(crate) struct Rig {
    pub(crate) cluster: Cluster,
    bus: Arc<dyn Bus>,
    /// Events published so far.
    pub(crate) events: u64,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        let options = ClusterOptions {
            gateways: 1,
            log_indexers: 1,
            var_stores: 1,
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(options).await;
        let config =
            BusConfig { kind: BusType::Nats, url: cluster.nats.url(), ..BusConfig::default() };
        let bus = connect(&config, cluster.nats.folder()).await.unwrap();
        Self { cluster, bus, events: 0 }
    }

    /// A project of the api's.
    pub(crate) async fn project(&mut self) -> ProjectId {
        self.cluster.api().await.new_key().await.parse().unwrap()
    }

    /// Publishes lines as one event.
    pub(crate) async fn publish(&mut self, project: ProjectId, lines: &[&Line]) {
        let mut payload = Vec::new();
        event::start(&mut payload, project);
        for line in lines {
            line.push(project, &mut payload);
        }
        self.publish_bytes(project, payload).await;
    }

    /// Publishes what may be no event.
    pub(crate) async fn publish_bytes(&mut self, project: ProjectId, payload: Vec<u8>) {
        self.events += 1;
        let event = Outgoing {
            stream: Stream::Logs,
            project,
            id: format!("{project} {}", self.events),
            expected: None,
            payload: payload.into(),
        };
        self.bus.publish(event).await.unwrap();
    }

    /// Waits until nothing is left on the bus; returns how often events were delivered in all.
    pub(crate) async fn settled(&self) -> u64 {
        let client = async_nats::connect(self.cluster.nats.url()).await.unwrap();
        let stream = jetstream::new(client).get_stream("OBSERVER_LOGS").await.unwrap();
        eventually(SETTLED_WITHIN, "every event is settled", async || {
            let info = stream.consumer_info("observer-log-indexer").await.ok()?;
            let left = info.num_pending + info.num_ack_pending as u64;
            let delivered = info.delivered.consumer_sequence;
            (left == 0 && self.events <= info.delivered.stream_sequence).then_some(delivered)
        })
        .await
    }
}
