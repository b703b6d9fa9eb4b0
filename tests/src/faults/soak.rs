//! T41: steady load while connections come and go. What a process holds must not grow with time.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::killed::{gateway_addresses, small_cluster};
use super::{COUNTED_WITHIN, Load, Row};
use crate::device::below;
use crate::eventually;
use crate::game::{Game, LINE_WITHIN};
use crate::laws::Counts;
use crate::process::Process;
use crate::stack::Cluster;

/// Pause between two looks at the processes.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Games that are connected at the same time at most: past it the next waits, and comes later.
const CHURNING_MAX: usize = 500;

/// Files that a process may have open more than at the start once everybody who came is gone:
/// connections to servers, which libraries keep.
const LEFT_OPEN_MAX: f64 = 20.0;

/// What one process held.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its program.
    pub program: &'static str,
    /// Resident memory in KiB, one figure a look.
    pub rss_kib: Vec<f64>,
    /// Open files and sockets, one figure a look.
    pub files: Vec<f64>,
}

/// What a soak showed.
#[derive(Clone, Debug)]
pub struct Soak {
    /// The steady devices.
    pub row: Row,
    /// The counting law, over the steady devices and those who came and went.
    pub counts: Counts,
    /// Games that came, sent a line, had it acknowledged and went.
    pub came_and_went: u64,
    /// All processes of Observer.
    pub held: Vec<Held>,
}

impl Held {
    /// Mean resident memory of the last quarter over that of the quarter before, so that start and
    /// caches that fill are not taken for growth.
    #[must_use]
    pub fn growth(&self) -> f64 {
        growth(&self.rss_kib)
    }

    /// The same for open files.
    #[must_use]
    pub fn files_growth(&self) -> f64 {
        growth(&self.files)
    }
}

/// Keeps two gateways and what is behind them under load for `lasts`, while `arrivals_per_s` games a
/// second come and go.
///
/// # Panics
///
/// When a game that comes is not served, the devices are not, or sockets stay open that nobody holds.
pub async fn soak(lasts: Duration, arrivals_per_s: u32) -> Soak {
    let mut cluster = small_cluster().await;
    let api = cluster.api().await;
    let addresses = gateway_addresses(&mut cluster).await;
    let mut load = Load::start(&api, &addresses).await;
    let key: Arc<str> = api.new_key().await.into();
    let came_and_went = Arc::new(AtomicU64::new(0));
    let mut held: Vec<Held> = all(&mut cluster)
        .map(|process| Held { program: process.program(), rss_kib: vec![], files: vec![] })
        .collect();

    let mut games = JoinSet::new();
    let mut arrivals = interval(Duration::from_secs(1) / arrivals_per_s);
    arrivals.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut looks = interval(LOOK_EVERY);
    let until = Instant::now() + lasts;
    while Instant::now() < until {
        tokio::select! {
            _ = arrivals.tick(), if games.len() < CHURNING_MAX => {
                let address = addresses[below(addresses.len())];
                games.spawn(come_and_go(address, Arc::clone(&key), Arc::clone(&came_and_went)));
            }
            Some(ended) = games.join_next() => ended.expect("it does not panic"),
            _ = looks.tick() => {
                for (held, process) in held.iter_mut().zip(all(&mut cluster)) {
                    held.look(process.pid());
                }
            }
        }
    }
    while let Some(ended) = games.join_next().await {
        ended.expect("it does not panic");
    }
    load.healed().await;
    eventually(COUNTED_WITHIN, "sockets of those who went are closed", async || {
        let mut now = held.iter_mut().zip(all(&mut cluster));
        let closed = now.all(|(held, process)| {
            held.look(process.pid());
            held.files[held.files.len() - 1] <= held.files[0] + LEFT_OPEN_MAX
        });
        closed.then_some(())
    })
    .await;
    let row = load.judge("T41 soak", 1, &api).await;
    // Not in the row: there are records of those who came and went too.
    let counts = eventually(COUNTED_WITHIN, "the counters add up", async || {
        let mut processes: Vec<_> = all(&mut cluster).collect();
        let counts = Counts::of(&mut processes).await;
        counts.add_up().then_some(counts)
    })
    .await;
    Soak { row, counts, came_and_went: came_and_went.load(Ordering::Relaxed), held }
}

fn all(cluster: &mut Cluster) -> impl Iterator<Item = &mut Process> {
    let Cluster { gateways, log_indexers, var_stores, api, .. } = cluster;
    gateways.iter_mut().chain(log_indexers).chain(var_stores).chain([api])
}

/// One game: signs in, sends a line, waits for its answer, and goes; every other one without goodbye.
async fn come_and_go(address: SocketAddr, key: Arc<str>, came_and_went: Arc<AtomicU64>) {
    let mut game = Game::sign_in(address, &key).await.expect("it is served");
    let line = format!(r#"l:{key}:[{{"message":"passing by"}}]:1"#);
    game.send_line(&line).await.expect("the socket is open");
    let answer = game.read_line(LINE_WITHIN).await.expect("it is answered");
    assert_eq!(answer, "OK 1");
    let number = came_and_went.fetch_add(1, Ordering::Relaxed);
    if number.is_multiple_of(2) {
        game.send_line(&format!("d:{key}:bye")).await.ok(); // It goes either way.
        sleep(Duration::from_millis(5)).await;
    }
}

impl Held {
    fn look(&mut self, pid: u32) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = rss.and_then(|rss| rss.trim().trim_end_matches(" kB").parse::<f64>().ok());
        self.rss_kib.push(kib.expect("the process lives"));
        let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives").count();
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        self.files.push(files as f64);
    }
}

fn growth(figures: &[f64]) -> f64 {
    let quarter = figures.len() / 4;
    #[expect(clippy::cast_precision_loss, reason = "hundreds")]
    let mean = |figures: &[f64]| figures.iter().sum::<f64>() / figures.len() as f64;
    let (before, last) = figures[figures.len() - 2 * quarter..].split_at(quarter);
    mean(last) / mean(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_of_the_last_quarter_over_the_one_before() {
        let close = |growth: f64, to: f64| (growth - to).abs() < 1e-9;
        assert!(close(growth(&[1.0, 9.0, 5.0, 5.0, 4.0, 4.0, 6.0, 6.0]), 1.5));
        assert!(close(growth(&[0.0, 0.0, 7.0, 7.0]), 1.0));
    }
}
