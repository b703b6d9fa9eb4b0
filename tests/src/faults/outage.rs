//! Elasticsearch is away for long, while devices send: stopped, hung, or with a full disk. Games are answered
//! all the same, what they sent waits on the bus, and is stored faster than it comes once the server is back.

use std::fmt;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::killed::gateway_addresses;
use super::{Load, Row};
use crate::eventually;
use crate::laws::Counts;
use crate::process::settings;
use crate::servers::{Elasticsearch, ElasticsearchOptions};
use crate::stack::{Cluster, ClusterOptions};

/// How Elasticsearch is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Its process is killed and started again.
    Stopped,
    /// Its process stands still: connections stay, nothing answers.
    Hung,
    /// Its disk is past the flood stage, so that it blocks all indices (`cluster_block`).
    DiskFull,
}

/// What an outage did.
#[derive(Clone, Debug)]
pub struct Drained {
    /// The laws and the counters.
    pub row: Row,
    /// Seconds that it lasted.
    pub seconds: f64,
    /// Records a second that games had acknowledged meanwhile.
    pub ingest: f64,
    /// Records that waited at its end.
    pub backlog: u64,
    /// Records a second that were stored from its end until nothing waited.
    pub drain: f64,
}

impl Drained {
    /// How much faster records were stored than they came.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.drain / self.ingest
    }
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, seconds, ingest, backlog, drain } = self;
        write!(
            f,
            "{row} away {seconds:.0} s, {ingest:.0} records/s came, {backlog} waited, {drain:.0} records/s \
             were stored then: {:.1} times",
            self.ratio()
        )
    }
}

/// Records of a line: five hundred a second from all devices.
const LINE_RECORDS: usize = 5;

/// Time for what waits to be stored.
const DRAINED_WITHIN: Duration = Duration::from_mins(5);

/// Time for Elasticsearch to see that its disk is full, or that it is not any more: it looks each ten
/// seconds, and sets and lifts blocks one look later.
const BLOCKED_WITHIN: Duration = Duration::from_mins(2);

/// Part of a second of records that may be on the way when nothing waits any more.
const ON_THE_WAY: f64 = 0.5;

/// T11: Elasticsearch is away for so long.
///
/// # Panics
///
/// When games are not answered meanwhile, or what waits is not stored.
pub async fn elasticsearch_is_away(outage: Outage, length: Duration) -> Drained {
    let mut node = Elasticsearch::start(options()).await;
    let options = ClusterOptions {
        gateways: 1,
        log_indexers: 1,
        var_stores: 1,
        settings: settings(&[("OBSERVER_STORE__LOGS__URL", node.url())]),
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start(options).await;
    let (api, addresses) = (cluster.api().await, gateway_addresses(&mut cluster).await);
    let mut load =
        Load::start_with(&api, &addresses, |fleet| fleet.line_records = LINE_RECORDS).await;
    eventually(DRAINED_WITHIN, "the day's index is there", async || {
        (0 < counts(&mut cluster).await.stored).then_some(())
    })
    .await;

    take_away(&mut node, outage).await;
    let (start, since) = (counts(&mut cluster).await, Instant::now());
    sleep(length).await;
    load.healed().await; // Served while it is away.
    let (seconds, end) = (since.elapsed().as_secs_f64(), counts(&mut cluster).await);
    give_back(&mut node, outage).await;

    let since = Instant::now();
    let back = counts(&mut cluster).await;
    let ingest = per_second(end.accepted - start.accepted, seconds);
    let left = |counts: &Counts| counts.accepted.saturating_sub(counts.stored + counts.duplicate);
    let drained = eventually(DRAINED_WITHIN, "nothing waits any more", async || {
        let now = counts(&mut cluster).await;
        (per_second(left(&now), ingest) < ON_THE_WAY).then_some(now)
    })
    .await;
    let drain = per_second(drained.stored - back.stored, since.elapsed().as_secs_f64());

    load.healed().await;
    let (gateways, indexers) = (&mut cluster.gateways, &mut cluster.log_indexers);
    let mut processes: Vec<_> = gateways.iter_mut().chain(indexers).collect();
    let row = load.judge_and_count((name(outage), 1), &api, &mut processes).await;
    Drained { row, seconds, ingest, backlog: left(&back), drain }
}

fn name(outage: Outage) -> &'static str {
    match outage {
        Outage::Stopped => "T11 Elasticsearch stopped",
        Outage::Hung => "T11 Elasticsearch hangs",
        Outage::DiskFull => "T11 Elasticsearch with a full disk",
    }
}

async fn counts(cluster: &mut Cluster) -> Counts {
    let (gateways, indexers) = (&mut cluster.gateways, &mut cluster.log_indexers);
    let mut processes: Vec<_> = gateways.iter_mut().chain(indexers).collect();
    Counts::of(&mut processes).await
}

#[expect(clippy::cast_precision_loss, reason = "a rate to be printed")]
fn per_second(records: u64, seconds: f64) -> f64 {
    records as f64 / seconds
}

fn options() -> ElasticsearchOptions {
    // As often as it can be told to look at its disk.
    ElasticsearchOptions { settings: vec!["cluster.info.update.interval=10s".to_owned()] }
}

async fn take_away(node: &mut Elasticsearch, outage: Outage) {
    match outage {
        Outage::Stopped => node.kill(),
        Outage::Hung => node.stop(),
        Outage::DiskFull => {
            // More free room is wanted than any disk has.
            watermarks(node, "100000gb").await;
            blocked(node, true).await;
        }
    }
}

async fn give_back(node: &mut Elasticsearch, outage: Outage) {
    match outage {
        Outage::Stopped => node.restart().await,
        Outage::Hung => node.cont(),
        Outage::DiskFull => {
            watermarks(node, "1b").await;
            blocked(node, false).await;
        }
    }
}

/// Sets all watermarks of the disk, which tests do without, to so much free room.
async fn watermarks(node: &Elasticsearch, free: &str) {
    let name = |stage| format!("cluster.routing.allocation.disk.watermark.{stage}");
    let settings = json!({ "persistent": {
        "cluster.routing.allocation.disk.threshold_enabled": true,
        name("low"): free,
        name("high"): free,
        name("flood_stage"): free,
    }});
    let url = format!("{}/_cluster/settings", node.url());
    let client = reqwest::Client::builder().no_proxy().build();
    let client = client.expect("plain HTTP needs nothing that could be missing");
    let answer = client.put(url).json(&settings).send().await.expect("the node is up");
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
}

/// Waits until the node has blocked the indices of logs, or none of them.
async fn blocked(node: &Elasticsearch, wanted: bool) {
    let path = "observer-logs-*/_settings/index.blocks.read_only_allow_delete?flat_settings";
    let url = format!("{}/{path}", node.url());
    eventually(BLOCKED_WITHIN, "indices are blocked or free", async || {
        let text = reqwest::get(&url).await.ok()?.text().await.ok()?;
        (text.contains("\"true\"") == wanted).then_some(())
    })
    .await;
}
