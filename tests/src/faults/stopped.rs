//! Processes that are asked to end (`SIGTERM`) while devices send.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::killed::{gateway_addresses, small_cluster};
use super::{Load, Row};
use crate::child::Signal;
use crate::device::FleetOptions;
use crate::game::{Game, LINE_WITHIN, to_base64};
use crate::stack::Embedded;

/// Time for a process to end: more than its own grace.
pub(super) const ENDS_WITHIN: Duration = Duration::from_secs(40);

/// Pause between two lines of all devices of a rolling restart.
const LINE_EVERY: Duration = Duration::from_millis(10);

/// What a rolling restart did.
#[derive(Clone, Debug)]
pub struct Rolling {
    /// What became of the lines.
    pub row: Row,
    /// Most devices that came back within one second, in percent of those who had to.
    pub burst_percent: usize,
}

/// T31: two gateways are restarted in turn, round after round.
///
/// # Panics
///
/// When one does not end with 0, or the devices do not come back to full service.
pub async fn rolling_restart(rounds: usize, devices: usize) -> Rolling {
    let mut cluster = small_cluster().await;
    let api = cluster.api().await;
    let addresses = gateway_addresses(&mut cluster).await;
    let many = |options: &mut FleetOptions| {
        options.devices = devices;
        options.pace = Some(LINE_EVERY * u32::try_from(devices).expect("a machine holds fewer"));
    };
    let mut load = Load::start_with(&api, &addresses, many).await;
    let mut burst_percent = 0;
    for _ in 0..rounds {
        for number in 0..cluster.gateways.len() {
            let begun = Instant::now();
            let code = cluster.gateways[number].terminate(ENDS_WITHIN).await;
            assert_eq!(code, Some(0), "{}", cluster.gateways[number].output());
            cluster.gateways[number].restart();
            load.addresses.set(&gateway_addresses(&mut cluster).await);
            load.healed().await;
            let returns = load.fleet.each(|kept| kept.sign_ins.clone());
            let returns = returns.into_iter().flatten().filter(|at| begun <= *at).collect();
            burst_percent = burst_percent.max(burst(returns));
        }
    }
    let row = load.judge("T31 rolling restart of two gateways", rounds, &api).await;
    Rolling { row, burst_percent }
}

/// Most of these that lie within one second, in percent.
fn burst(mut times: Vec<Instant>) -> usize {
    times.sort();
    let within = |first: usize| {
        let second = times[first] + Duration::from_secs(1);
        times[first..].partition_point(|at| *at < second)
    };
    let most = (0..times.len()).map(within).max();
    most.map_or(0, |most| most * 100 / times.len())
}

/// What a game heard whose line was not whole when its server was asked to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HalfLine {
    /// Answers before the socket ended.
    pub answers: Vec<String>,
    /// Exit code of the server.
    pub code: Option<i32>,
    /// Records of the line that are stored after a restart.
    pub stored: usize,
}

/// T32: all but the last bytes of a line are sent, the server is asked to end, and then the rest is
/// sent, or kept back.
///
/// # Panics
///
/// When the server does not end, or does not come up again.
pub async fn half_a_line_at_the_end(rest_comes: bool) -> HalfLine {
    let mut embedded = Embedded::start().await;
    let key = embedded.api().await.new_key().await;
    let mut game = Game::sign_in(embedded.game_address().await, &key).await.expect("it is up");
    // The answer to the first tells that the server has read what came with it.
    game.log_with_mid(&json!([{ "whole": true }]), "whole").await.expect("the socket is open");
    let line = format!("l:{key}:{}:half\n", to_base64(&json!([{ "whole": false }])));
    let (first, rest) = line.as_bytes().split_at(line.len() - 3);
    game.send(first).await.expect("the socket is open");
    assert_eq!(game.answer(LINE_WITHIN).await.expect("the socket is open"), "OK whole");
    embedded.process.signal(Signal::Term);
    if rest_comes {
        game.send(rest).await.ok(); // It may be closed by now.
    }
    let mut answers = Vec::new();
    while let Ok(line) = game.read_line(LINE_WITHIN).await {
        answers.push(line);
    }
    let code = embedded.process.wait(ENDS_WITHIN).await.code();
    embedded.process.restart();
    embedded.up().await;
    let found = embedded.api().await.logs(&key, "limit=1000").await.expect("the api is up");
    let items = found.json["items"].as_array().expect("a search answers with items");
    let stored = items.iter().filter(|item| item["whole"] == false).count();
    HalfLine { answers, code, stored }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_what_lies_within_one_second() {
        let begun = Instant::now();
        let at = |millis: &[u64]| {
            millis.iter().map(|millis| begun + Duration::from_millis(*millis)).collect()
        };
        assert_eq!(burst(at(&[])), 0);
        assert_eq!(burst(at(&[3000, 0, 1000, 2000])), 25);
        assert_eq!(burst(at(&[0, 999, 1500, 2500])), 50);
    }
}
