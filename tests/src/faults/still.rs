//! The broker stands still (`SIGSTOP`) while devices send: sockets stay open, nothing answers.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};

use super::killed::{gateway_addresses, small_cluster};
use super::stopped::ENDS_WITHIN;
use super::{Load, Row};
use crate::child::Signal;
use crate::eventually;
use crate::game::{Game, LINE_WITHIN};
use crate::http::Api;
use crate::laws::sum;
use crate::process::Process;

/// Time for answers that were under way when the broker stopped to reach their devices.
const ANSWERS_ARRIVE_WITHIN: Duration = Duration::from_secs(2);

/// Pause between two looks at a gateway.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Time for an ordinary thing to happen on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// What a broker that does not answer did.
#[derive(Clone, Debug)]
pub struct Silence {
    /// What became of the lines.
    pub row: Row,
    /// Longest time until a gateway said that it is not ready; `None` when the broker was back before.
    pub noticed: Option<Duration>,
}

/// T05: nats-server stands still for a time, and goes on.
///
/// # Panics
///
/// When a line is acknowledged meanwhile, or the devices do not come back to full service.
pub async fn nats_stands_still(cycles: usize, lasts: Duration) -> Silence {
    let mut cluster = small_cluster().await;
    let api = cluster.api().await;
    let addresses = gateway_addresses(&mut cluster).await;
    let mut load = Load::start(&api, &addresses).await;
    let mut noticed = Some(Duration::ZERO);
    for _ in 0..cycles {
        cluster.nats.stop();
        let this_time = silence(&load, &mut cluster.gateways[0], lasts).await;
        noticed = noticed.zip(this_time).map(|(longest, this)| longest.max(this));
        cluster.nats.cont();
        load.healed().await;
    }
    let gateways = cluster.gateways.iter_mut();
    let mut processes: Vec<&mut Process> = gateways.chain(&mut cluster.log_indexers).collect();
    let what = ("T05 nats-server SIGSTOP", cycles);
    Silence { row: load.judge_and_count(what, &api, &mut processes).await, noticed }
}

/// Lets the broker be silent for a time; returns when a gateway said so.
///
/// # Panics
///
/// When a line is acknowledged meanwhile.
pub(super) async fn silence(
    load: &Load,
    gateway: &mut Process,
    lasts: Duration,
) -> Option<Duration> {
    let begun = Instant::now();
    let admin = Api::new(gateway.address("admin").await);
    sleep(ANSWERS_ARRIVE_WITHIN).await;
    let acknowledged = load.fleet.acknowledged();
    let mut noticed = None;
    while noticed.is_none() && begun.elapsed() < lasts {
        let answer = admin.get("/readyz").await;
        noticed = answer.ok().filter(|answer| answer.status != 200).map(|_| begun.elapsed());
        sleep(LOOK_EVERY).await;
    }
    sleep_until(begun + lasts).await;
    assert_eq!(load.fleet.acknowledged(), acknowledged, "acknowledged without the broker");
    noticed
}

/// What a game heard whose line had no acknowledgement of the broker when its gateway was asked to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingLine {
    /// Answers before the socket ended.
    pub answers: Vec<String>,
    /// Exit code of the gateway.
    pub code: Option<i32>,
    /// Records of the line that are stored in the end.
    pub stored: usize,
}

/// T32: a line is published, the broker stands still, the gateway is asked to end; the broker goes on
/// then, or only when the gateway is gone.
///
/// # Panics
///
/// When the gateway does not end.
pub async fn acknowledgement_pending_at_the_end(broker_comes_back: bool) -> PendingLine {
    let mut cluster = small_cluster().await;
    let key = cluster.api().await.new_key().await;
    let mut game = cluster.game(0, &key).await;
    let admin = Api::new(cluster.gateways[0].address("admin").await);
    cluster.nats.stop();
    game.log_with_mid(&json!([{ "pending": true }]), "pending").await.expect("the socket is open");
    eventually(SOON, "the gateway has read the line", async || {
        let metrics = admin.get("/metrics").await.ok()?.text;
        (sum(&metrics, "observer_lines_in_total") == 2).then_some(()) // The first signed in.
    })
    .await;
    let address = cluster.gateways[0].address("gateway").await;
    cluster.gateways[0].signal(Signal::Term);
    eventually(SOON, "the gateway takes no more games", async || {
        TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
    if broker_comes_back {
        cluster.nats.cont();
    }
    let mut answers = Vec::new();
    while let Ok(line) = game.read_line(LINE_WITHIN).await {
        answers.push(line);
    }
    let code = cluster.gateways[0].wait(ENDS_WITHIN).await.code();
    cluster.nats.cont();
    // Another line, accepted later: where it is, the first one would be too.
    let other = cluster.gateways[1].address("gateway").await;
    let api = cluster.api().await;
    let stored = eventually(SOON * 2, "a later line is stored", async || {
        let mut game = Game::sign_in(other, &key).await.ok()?;
        game.log_with_mid(&json!([{ "pending": false }]), "later").await.ok()?;
        game.answer(LINE_WITHIN).await.ok()?;
        let found = api.logs(&key, "limit=1000").await.ok()?;
        let items = found.json["items"].as_array()?;
        let count = |pending| items.iter().filter(|item| item["pending"] == pending).count();
        (count(false) == 1).then(|| count(true))
    })
    .await;
    PendingLine { answers, code, stored }
}

/// What a storm of unanswered publishes did to a gateway's memory.
#[derive(Clone, Debug)]
pub struct Storm {
    /// What became of the lines.
    pub row: Row,
    /// Resident memory when the storm had begun, in KiB.
    pub before_kib: u64,
    /// Resident memory at its end, in KiB.
    pub after_kib: u64,
}

/// Time for what a storm needs at once, and keeps: buffers, and requests up to the breaker's bound.
#[cfg(target_os = "linux")]
const STORM_BEGINS_WITHIN: Duration = Duration::from_secs(10);

/// T40: the broker stands still for long, while devices send again and again.
///
/// # Panics
///
/// When the devices do not come back to full service.
#[cfg(target_os = "linux")]
pub async fn acknowledgements_time_out(lasts: Duration) -> Storm {
    let mut cluster = small_cluster().await;
    let api = cluster.api().await;
    let addresses = gateway_addresses(&mut cluster).await;
    let mut load = Load::start(&api, &addresses).await;
    let until = Instant::now() + lasts;
    cluster.nats.stop();
    sleep(STORM_BEGINS_WITHIN).await;
    let before_kib = cluster.gateways[0].resident_kib();
    sleep_until(until).await;
    let after_kib = cluster.gateways[0].resident_kib();
    cluster.nats.cont();
    load.healed().await;
    let gateways = cluster.gateways.iter_mut();
    let mut processes: Vec<&mut Process> = gateways.chain(&mut cluster.log_indexers).collect();
    let what = ("T40 PubAcks time out", 1);
    let row = load.judge_and_count(what, &api, &mut processes).await;
    Storm { row, before_kib, after_kib }
}
