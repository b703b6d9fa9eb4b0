//! Processes that are killed (`SIGKILL`) while devices send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::values::Values;
use super::{Load, Row, random_moment};
use crate::device::{Certificate, Target, Transport, below};
use crate::stack::{Cluster, ClusterOptions, Embedded};

/// Within this time after full service, a kill strikes.
pub(super) const STRIKES_WITHIN: Duration = Duration::from_secs(3);

/// `observer serve` is killed and started again on its files.
///
/// # Panics
///
/// When it does not come back to full service.
pub async fn embedded_is_killed(cycles: usize) -> Row {
    let mut embedded = Embedded::start().await;
    let mut load = Load::start(&embedded.api().await, &[embedded.game_address().await]).await;
    for _ in 0..cycles {
        random_moment(STRIKES_WITHIN).await;
        embedded.process.kill();
        embedded.process.restart();
        embedded.up().await;
        load.addresses.set(&[embedded.game_address().await]);
        load.healed().await;
    }
    load.judge("embedded SIGKILL", cycles, &embedded.api().await).await
}

/// `observer serve` is killed and started again while each connection is of another transport, chosen at
/// random: what is sent again after a kill mostly comes another way.
///
/// # Panics
///
/// When it does not come back to full service.
pub async fn embedded_is_killed_on_every_transport(cycles: usize) -> Row {
    let certificate = Certificate::new();
    let [cert, key] =
        [certificate.cert(), certificate.key()].map(|path| path.display().to_string());
    let settings = [("OBSERVER_GATEWAY__TLS_CERT", &*cert), ("OBSERVER_GATEWAY__TLS_KEY", &*key)];
    let mut embedded = Embedded::start_with(&["serve"], &settings).await;
    let targets = every_transport(&mut embedded, &certificate).await;
    let mut load = Load::start(&embedded.api().await, &targets).await;
    for _ in 0..cycles {
        random_moment(STRIKES_WITHIN).await;
        embedded.process.kill();
        embedded.process.restart();
        embedded.up().await;
        load.addresses.set(&every_transport(&mut embedded, &certificate).await);
        load.healed().await;
    }
    load.judge("embedded SIGKILL, every transport", cycles, &embedded.api().await).await
}

async fn every_transport(embedded: &mut Embedded, certificate: &Certificate) -> Vec<Target> {
    let (tls, web) = ("gateway_tls", "gateway_ws");
    let trust = || certificate.trust();
    let mut targets = vec![Target::from(embedded.game_address().await)];
    for (what, transport) in
        [(tls, Transport::Tls(trust())), (web, Transport::Web), (web, Transport::WebTls(trust()))]
    {
        targets.push(Target { address: embedded.process.address(what).await, transport });
    }
    targets
}

/// T01: one of two gateways is killed and started again, at random.
///
/// # Panics
///
/// When the devices do not come back to full service.
pub async fn gateway_is_killed(cycles: usize) -> Row {
    let mut cluster = small_cluster().await;
    let api = cluster.api().await;
    let addresses = gateway_addresses(&mut cluster).await;
    let mut load = Load::start(&api, &addresses).await;
    for _ in 0..cycles {
        random_moment(STRIKES_WITHIN).await;
        let number = below(cluster.gateways.len());
        cluster.gateways[number].kill();
        cluster.gateways[number].restart();
        load.addresses.set(&gateway_addresses(&mut cluster).await);
        load.healed().await;
    }
    load.judge("T01 gateway SIGKILL", cycles, &api).await
}

/// T02: nats-server is killed and started again on its files.
///
/// # Panics
///
/// When the devices do not come back to full service.
pub async fn nats_is_killed(cycles: usize) -> Row {
    let mut cluster = small_cluster().await;
    let api = cluster.api().await;
    let addresses = gateway_addresses(&mut cluster).await;
    let mut load = Load::start(&api, &addresses).await;
    for _ in 0..cycles {
        random_moment(STRIKES_WITHIN).await;
        cluster.nats.kill();
        cluster.nats.restart().await;
        load.healed().await;
    }
    load.judge("T02 nats-server SIGKILL", cycles, &api).await
}

/// The log-indexer is killed and started again, with what it has in hand.
///
/// # Panics
///
/// When it does not come back.
pub async fn log_indexer_is_killed(cycles: usize) -> Row {
    let mut cluster = small_cluster().await;
    let api = cluster.api().await;
    let addresses = gateway_addresses(&mut cluster).await;
    let mut load = Load::start(&api, &addresses).await;
    for _ in 0..cycles {
        random_moment(STRIKES_WITHIN).await;
        cluster.log_indexers[0].kill();
        cluster.log_indexers[0].restart();
        cluster.log_indexers[0].address("admin").await;
        load.healed().await;
    }
    load.judge("log-indexer SIGKILL", cycles, &api).await
}

/// Var-store is killed and started again while values are reported and edited.
///
/// # Panics
///
/// When it does not come back.
pub async fn var_store_is_killed(cycles: usize) -> Row {
    let mut cluster = small_cluster().await;
    let api = cluster.api().await;
    let addresses = gateway_addresses(&mut cluster).await;
    let mut load = Load::start(&api, &addresses).await;
    let values = Values::start(&api, &load.addresses).await;
    for _ in 0..cycles {
        random_moment(STRIKES_WITHIN).await;
        cluster.var_stores[0].kill();
        cluster.var_stores[0].restart();
        let since = Instant::now();
        values.healed().await;
        load.healed().await;
        load.full_service = load.full_service.max(since.elapsed());
    }
    load.judge_with("var-store SIGKILL", cycles, &api, values).await
}

/// The gateways, nats-server, the log-indexer and var-store are killed in one moment, and started again
/// in an order of chance.
///
/// # Panics
///
/// When they do not come back to full service.
pub async fn all_are_killed(cycles: usize) -> Row {
    let mut cluster = small_cluster().await;
    let api = cluster.api().await;
    let addresses = gateway_addresses(&mut cluster).await;
    let mut load = Load::start(&api, &addresses).await;
    let values = Values::start(&api, &load.addresses).await;
    for _ in 0..cycles {
        random_moment(STRIKES_WITHIN).await;
        cluster.nats.kill();
        let Cluster { gateways, log_indexers, var_stores, nats, .. } = &mut cluster;
        let mut services: Vec<_> =
            gateways.iter_mut().chain(log_indexers).chain(var_stores).collect();
        for service in &mut services {
            service.kill();
        }
        // Those before the broker are started while it is away.
        let before = below(services.len() + 1);
        for service in &mut services[..before] {
            service.restart();
        }
        nats.restart().await;
        for service in &mut services[before..] {
            service.restart();
        }
        load.addresses.set(&gateway_addresses(&mut cluster).await);
        let since = Instant::now();
        load.healed().await;
        values.healed().await;
        load.full_service = load.full_service.max(since.elapsed());
    }
    load.judge_with("all services and nats-server SIGKILL", cycles, &api, values).await
}

/// Two gateways, and one of what else is needed.
pub(super) async fn small_cluster() -> Cluster {
    let options = ClusterOptions { log_indexers: 1, var_stores: 1, ..ClusterOptions::default() };
    Cluster::start(options).await
}

pub(super) async fn gateway_addresses(cluster: &mut Cluster) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for gateway in &mut cluster.gateways {
        addresses.push(gateway.address("gateway").await);
    }
    addresses
}
