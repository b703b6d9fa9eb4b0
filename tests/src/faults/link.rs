//! The network between the services and the broker misbehaves; no process dies, so that all counters are
//! there.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::killed::gateway_addresses;
use super::still::{Silence, silence};
use super::{Load, Row, random_moment};
use crate::device::below;
use crate::eventually;
use crate::faultproxy::{FaultProxy, Faults, Flow};
use crate::process::Process;
use crate::servers::NatsOptions;
use crate::stack::{Cluster, ClusterOptions, Link};

/// Within this time after full service, a fault strikes.
const STRIKES_WITHIN: Duration = Duration::from_millis(500);

/// Bytes after which a connection to the broker is cut, at most: within its handshake, a message or an
/// acknowledgement.
const CUT_BYTES_MAX: usize = 32 * 1024;

/// Time for which the broker's answers are lost: longer than one attempt to publish.
const ANSWERS_LOST_FOR: Duration = Duration::from_secs(4);

/// Time for which a flapping network is there, and for which it is not.
const FLAP: Duration = Duration::from_secs(1);

/// Time for consumers that nobody needs to be gone.
const CONSUMERS_GO_WITHIN: Duration = Duration::from_mins(1);

/// T08: connections between gateways and broker are reset, and cut in the middle of a message.
///
/// # Panics
///
/// When the devices do not come back to full service.
pub async fn broken_broker_link(cycles: usize) -> Row {
    let mut rig = Rig::start(Link::Gateways).await;
    for cycle in 0..cycles {
        let cut = Flow { cut_after: Some(1 + below(CUT_BYTES_MAX) as u64), ..Flow::default() };
        match cycle % 3 {
            0 => {}
            1 => rig.link().set(Faults { up: cut, ..Faults::default() }),
            _ => rig.link().set(Faults { down: cut, ..Faults::default() }),
        }
        random_moment(STRIKES_WITHIN).await;
        rig.link().reset();
        random_moment(STRIKES_WITHIN).await;
        rig.link().heal();
        rig.load.healed().await;
    }
    rig.judge("T08 gateway to broker reset and cut", cycles).await
}

/// T05: nothing passes between gateways and broker for a time.
///
/// # Panics
///
/// When a line is acknowledged meanwhile, or the devices do not come back to full service.
pub async fn broker_link_is_a_black_hole(cycles: usize, lasts: Duration) -> Silence {
    let mut rig = Rig::start(Link::Gateways).await;
    let mut noticed = Some(Duration::ZERO);
    for _ in 0..cycles {
        rig.link().set(Faults::blackhole());
        let this_time = silence(&rig.load, &mut rig.cluster.gateways[0], lasts).await;
        noticed = noticed.zip(this_time).map(|(longest, this)| longest.max(this));
        rig.link().heal();
        rig.load.healed().await;
    }
    Silence { row: rig.judge("T05 gateway to broker a black hole", cycles).await, noticed }
}

/// T06: the broker hears the gateways, and what it answers is lost for 4 s: it comes late, or never.
///
/// # Panics
///
/// When the devices do not come back to full service.
pub async fn acknowledgements_are_lost(cycles: usize) -> Row {
    let mut rig = Rig::start(Link::Gateways).await;
    for cycle in 0..cycles {
        random_moment(STRIKES_WITHIN).await;
        rig.link().set(Faults::answers_lost());
        sleep(ANSWERS_LOST_FOR).await;
        if cycle % 2 == 1 {
            rig.link().reset();
        }
        rig.link().heal();
        rig.load.healed().await;
    }
    rig.judge("T06 PubAcks lost for 4 s", cycles).await
}

/// T07: between all services and the broker the network is there for a second and away for one, in turn.
///
/// # Panics
///
/// When the devices do not come back to full service, or a consumer is left over.
pub async fn broker_link_flaps(flaps: usize) -> Row {
    let mut rig = Rig::start(Link::All).await;
    let consumers = consumers(&rig.cluster).await.expect("the broker tells");
    for flap in 0..flaps {
        rig.link().set(Faults::blackhole());
        sleep(FLAP).await;
        if flap % 3 == 2 {
            rig.link().reset(); // The others come through late.
        }
        rig.link().heal();
        sleep(FLAP).await;
    }
    rig.load.healed().await;
    eventually(CONSUMERS_GO_WITHIN, "no consumer is left over", async || {
        self::consumers(&rig.cluster).await.filter(|now| *now == consumers)
    })
    .await;
    rig.judge("T07 network to the broker flaps", flaps).await
}

/// How many consumers the broker has.
async fn consumers(cluster: &Cluster) -> Option<u64> {
    let answer = reqwest::get(format!("{}/jsz", cluster.nats.monitor_url())).await.ok()?;
    let told: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
    told["consumers"].as_u64()
}

/// A cluster whose way to the broker leads through a proxy.
struct Rig {
    cluster: Cluster,
    load: Load,
}

impl Rig {
    async fn start(link: Link) -> Self {
        let options = ClusterOptions {
            log_indexers: 1,
            var_stores: 1,
            link,
            nats: NatsOptions { monitoring: true, ..NatsOptions::default() },
            ..ClusterOptions::default()
        };
        let mut cluster = Cluster::start(options).await;
        let api = cluster.api().await;
        let addresses = gateway_addresses(&mut cluster).await;
        let load = Load::start(&api, &addresses).await;
        Self { cluster, load }
    }

    fn link(&self) -> &FaultProxy {
        self.cluster.link.as_ref().expect("it was asked for")
    }

    async fn judge(mut self, name: &'static str, cycles: usize) -> Row {
        let api = self.cluster.api().await;
        let Cluster { gateways, log_indexers, .. } = &mut self.cluster;
        let mut processes: Vec<&mut Process> = gateways.iter_mut().chain(log_indexers).collect();
        self.load.judge_and_count((name, cycles), &api, &mut processes).await
    }
}
