//! Servers that are gone under load and at the start, in any order; a start with a large backlog; and
//! the embedded form told to end under load.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::killed::gateway_addresses;
use super::{Load, Row, random_moment};
use crate::device::{AHEAD_LINES_MAX, below};
use crate::eventually;
use crate::faultproxy::FaultProxy;
use crate::game::LINE_WITHIN;
use crate::http::Api;
use crate::process::{Process, settings};
use crate::servers::{Elasticsearch, free_port};
use crate::stack::{Cluster, ClusterOptions, Embedded};

/// Time for full service once a server is back. Its own start is not in it.
pub const RETURN_WITHIN: Duration = Duration::from_secs(10);

/// Time for a process to say that a server is gone: a look each five seconds, and a time-out.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

/// Time for a process to be ready again. Above the promise, which the row tells: the machine may be
/// busy with builds.
const READY_WITHIN: Duration = Duration::from_mins(1);

/// Time for a process to end once it is asked to.
const ENDED_WITHIN: Duration = Duration::from_secs(40);

/// A server that services depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Away {
    Nats,
    Vars,
    Accounts,
    /// Shared with other tests, so it is cut off instead.
    Elasticsearch,
}

const ALL: [Away; 4] = [Away::Nats, Away::Vars, Away::Accounts, Away::Elasticsearch];

/// A cluster whose Elasticsearch can be cut off.
struct Cut {
    cluster: Cluster,
    elasticsearch: FaultProxy,
    target: SocketAddr,
}

impl Cut {
    async fn start() -> Self {
        let shared = Elasticsearch::shared().await;
        let target: SocketAddr = shared.address().parse().expect("an address and a port");
        let elasticsearch = FaultProxy::start(target).await;
        let url = format!("http://{}", elasticsearch.address());
        let options = ClusterOptions {
            gateways: 1,
            log_indexers: 1,
            var_stores: 1,
            settings: settings(&[("OBSERVER_STORE__LOGS__URL", url)]),
            ..ClusterOptions::default()
        };
        let mut cluster = Cluster::start(options).await;
        for process in processes(&mut cluster, None) {
            ready(process, READY_WITHIN).await;
        }
        Self { cluster, elasticsearch, target }
    }

    fn take_away(&mut self, away: Away) {
        match away {
            Away::Nats => self.cluster.nats.kill(),
            Away::Vars => self.cluster.vars.kill(),
            Away::Accounts => self.cluster.accounts.kill(),
            Away::Elasticsearch => {
                self.elasticsearch.set_target(SocketAddr::from(([127, 0, 0, 1], free_port())));
                self.elasticsearch.reset();
            }
        }
    }

    async fn give_back(&mut self, away: Away) {
        match away {
            Away::Nats => self.cluster.nats.restart().await,
            Away::Vars => self.cluster.vars.restart().await,
            Away::Accounts => self.cluster.accounts.restart().await,
            Away::Elasticsearch => self.elasticsearch.set_target(self.target),
        }
    }
}

/// Processes that need a server; all of them for `None`.
fn processes(cluster: &mut Cluster, of: Option<Away>) -> Vec<&mut Process> {
    let Cluster { gateways, log_indexers, var_stores, api, .. } = cluster;
    match of {
        Some(Away::Vars) => var_stores.iter_mut().collect(),
        Some(Away::Accounts) => vec![api],
        Some(Away::Elasticsearch) => log_indexers.iter_mut().chain([api]).collect(),
        Some(Away::Nats) | None => {
            gateways.iter_mut().chain(log_indexers).chain(var_stores).chain([api]).collect()
        }
    }
}

/// What `/readyz` of a process says: nothing when it is ready, else its text.
async fn readyz(process: &mut Process) -> Option<Result<(), String>> {
    let admin = Api::new(process.address("admin").await);
    let answer = admin.get("/readyz").await.ok()?;
    Some(if answer.status == 200 { Ok(()) } else { Err(answer.text) })
}

async fn ready(process: &mut Process, within: Duration) {
    let program = process.program();
    let what = format!("{program} is ready");
    eventually(within, &what, async || readyz(process).await?.ok()).await;
}

/// Waits until a process says what it lacks; it must run on.
async fn not_ready(process: &mut Process) {
    let what = format!("{} says what is gone", process.program());
    eventually(TOLD_WITHIN, &what, async || {
        let report = readyz(process).await?.err()?;
        let report: serde_json::Value = serde_json::from_str(&report).ok()?;
        let mut checks = report["checks"].as_object()?.values();
        checks.any(|check| check["ok"] == false && check["reason"] != "starting").then_some(())
    })
    .await;
}

/// Each server is taken away under load and given back, in an order of chance; then all are taken
/// away, the services are started, and the servers come back one by one.
///
/// # Panics
///
/// When a process ends, does not say what it lacks, or does not get well.
pub async fn servers_are_gone(rounds: usize) -> Row {
    let mut cut = Cut::start().await;
    let api = cut.cluster.api().await;
    let addresses = gateway_addresses(&mut cut.cluster).await;
    let mut load = Load::start(&api, &addresses).await;
    for _ in 0..rounds {
        for away in shuffled() {
            random_moment(Duration::from_secs(1)).await;
            cut.take_away(away);
            for process in processes(&mut cut.cluster, Some(away)) {
                not_ready(process).await;
            }
            cut.give_back(away).await;
            all_well(&mut cut, &mut load).await;
        }
        for process in processes(&mut cut.cluster, None) {
            process.kill();
        }
        for away in ALL {
            cut.take_away(away);
        }
        for process in processes(&mut cut.cluster, None) {
            process.restart();
        }
        for process in processes(&mut cut.cluster, None) {
            not_ready(process).await;
        }
        for away in shuffled() {
            cut.give_back(away).await;
        }
        let since = Instant::now();
        load.addresses.set(&gateway_addresses(&mut cut.cluster).await);
        all_well(&mut cut, &mut load).await;
        load.full_service = load.full_service.max(since.elapsed());
    }
    let api = cut.cluster.api().await;
    load.judge("servers gone and back", rounds, &api).await
}

/// Waits until every process is ready and every device is served.
async fn all_well(cut: &mut Cut, load: &mut Load) {
    let since = Instant::now();
    load.healed().await;
    for process in processes(&mut cut.cluster, None) {
        ready(process, READY_WITHIN).await;
    }
    load.full_service = load.full_service.max(since.elapsed());
}

fn shuffled() -> [Away; 4] {
    let mut all = ALL;
    for last in (1..all.len()).rev() {
        all.swap(last, below(last + 1));
    }
    all
}

/// What a start on a large backlog did.
#[derive(Clone, Copy, Debug)]
pub struct BacklogStart {
    /// Records that waited.
    pub records: usize,
    /// Time until the log-indexer was ready.
    pub ready: Duration,
    /// Time until every record was stored.
    pub stored: Duration,
}

/// Records of a line that fills a backlog.
const LINE_RECORDS: usize = 100;

/// A log-indexer starts while as many lines of a hundred records wait in the stream.
///
/// # Panics
///
/// When it is not ready, or a record is lost.
pub async fn start_with_a_backlog(lines: usize) -> BacklogStart {
    let options =
        ClusterOptions { gateways: 1, log_indexers: 1, var_stores: 1, ..ClusterOptions::default() };
    let mut cluster = Cluster::start(options).await;
    let api = cluster.api().await;
    let key = api.new_key().await;
    cluster.log_indexers[0].kill();
    let mut game = cluster.game(0, &key).await;
    let record = serde_json::json!({ "message": "waits", "level": "info" });
    let records = serde_json::Value::Array(vec![record; LINE_RECORDS]);
    for line in 0..lines + AHEAD_LINES_MAX {
        if line < lines {
            game.log_with_mid(&records, &line.to_string()).await.expect("the gateway listens");
        }
        if AHEAD_LINES_MAX <= line {
            let answer = game.answer(LINE_WITHIN).await.expect("every line is answered");
            assert!(answer.starts_with("OK "), "{answer}");
        }
    }
    let since = Instant::now();
    cluster.log_indexers[0].restart();
    ready(&mut cluster.log_indexers[0], READY_WITHIN).await;
    let is_ready = since.elapsed();
    let all = lines * LINE_RECORDS;
    let elasticsearch = cluster.elasticsearch.url();
    let url = format!("{elasticsearch}/logs-{key}/_count");
    eventually(Duration::from_mins(5), "the backlog is stored", async || {
        let answer = reqwest::get(&url).await.ok()?.text().await.ok()?;
        let answer: serde_json::Value = serde_json::from_str(&answer).ok()?;
        let count = answer["count"].as_u64()?;
        assert!(count <= all as u64, "{count} records of {all}");
        (count == all as u64).then_some(())
    })
    .await;
    BacklogStart { records: all, ready: is_ready, stored: since.elapsed() }
}

/// The embedded form is asked to end under load, again and again.
///
/// # Panics
///
/// When it does not end with 0: what was in flight must be finished.
pub async fn embedded_is_terminated(cycles: usize) -> Row {
    let mut embedded = Embedded::start().await;
    let mut load = Load::start(&embedded.api().await, &[embedded.game_address().await]).await;
    for _ in 0..cycles {
        random_moment(Duration::from_secs(1)).await;
        let code = embedded.process.terminate(ENDED_WITHIN).await;
        assert_eq!(code, Some(0), "{}", embedded.process.output());
        embedded.process.restart();
        embedded.up().await;
        load.addresses.set(&[embedded.game_address().await]);
        load.healed().await;
    }
    load.judge("embedded SIGTERM", cycles, &embedded.api().await).await
}
