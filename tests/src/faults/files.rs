//! A gateway that may have few files open, and more games than that.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::time::{Instant, sleep};

use super::abuse::{Abuse, Figure, percentile};
use crate::eventually;
use crate::game::{Game, LINE_WITHIN};
use crate::http::Api;
use crate::stack::{Cluster, ClusterOptions};
use crate::usage::cpu;

/// Time for which health is asked for and time is measured, while no more games may come.
const FULL_FOR: Duration = Duration::from_secs(5);

/// Pause between two questions about health.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Time for a game to be served once others left.
const SERVED_WITHIN: Duration = Duration::from_mins(1);

/// T37: the gateway may have `files` files open, and twice as many games connect; then half leave.
///
/// # Panics
///
/// When health is not told meanwhile, or nobody is served after it.
pub async fn files_run_out(files: u64) -> Abuse {
    let one = ClusterOptions { gateways: 1, log_indexers: 1, var_stores: 1, ..Default::default() };
    let mut cluster = Cluster::start(one).await;
    let key = cluster.api().await.new_key().await;
    let gateway = &mut cluster.gateways[0];
    let (address, admin) = (gateway.address("gateway").await, gateway.address("admin").await);
    let pid = gateway.pid();
    let few = Rlimit { current: Some(files), maximum: Some(files) };
    let raw = Pid::from_raw(i32::try_from(pid).expect("a process id of Linux"));
    prlimit(raw, Resource::Nofile, few).expect("it is our own process");

    let mut games = Vec::new();
    let mut refused = 0;
    for _ in 0..2 * files {
        match greet(address).await {
            Some(game) => games.push(game),
            None => refused += 1,
        }
    }
    assert!(refused > 0 && !games.is_empty(), "{refused} refused, {} served", games.len());

    let (began, before) = (Instant::now(), cpu(pid));
    let mut times = Vec::new();
    let (health, knocking) = (Api::new(admin), knock(address));
    tokio::pin!(knocking);
    while began.elapsed() < FULL_FOR {
        let asked = Instant::now();
        let answer = tokio::select! {
            answer = health.get("/livez") => answer.expect("health is told"),
            never = &mut knocking => match never {},
        };
        assert_eq!(answer.status, 200, "{}", answer.text);
        times.push(asked.elapsed());
        sleep(ASK_EVERY).await;
    }
    let busy =
        cpu(pid).saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;

    let served = games.len();
    games.truncate(served / 2);
    let left = Instant::now();
    eventually(SERVED_WITHIN, "a game is served again", async || {
        Game::sign_in(address, &key).await.ok()
    })
    .await;
    let again = left.elapsed().as_secs_f64();
    for mut game in games {
        game.send_line("p:still").await.expect("its socket is open");
        assert_eq!(game.read_line(LINE_WITHIN).await.expect("it is served"), "p:still");
    }
    Abuse {
        name: "T37 files run out",
        size: format!("{files} files"),
        figures: vec![
            Figure::told("games served", f64::from(u32::try_from(served).unwrap_or(u32::MAX))),
            Figure::told("refused", f64::from(refused)),
            Figure::at_most("health p99 ms", percentile(&mut times, 99), 1000.0),
            Figure::at_most("CPU %", busy, 20.0),
            Figure::at_most("s until accepted again", again, 5.0),
        ],
    }
}

/// A game that is served; `None` when it is closed instead.
async fn greet(address: SocketAddr) -> Option<Game> {
    let mut game = Game::connect(address).await.ok()?;
    game.send_line("p:1").await.ok()?;
    (game.read_line(LINE_WITHIN).await.ok()? == "p:1").then_some(game)
}

/// Connects again and again, as games do that are refused.
async fn knock(address: SocketAddr) -> std::convert::Infallible {
    loop {
        drop(Game::connect(address).await);
        sleep(ASK_EVERY / 10).await;
    }
}
