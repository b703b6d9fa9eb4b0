//! One project sends far more than it may; a quiet one must not feel it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::abuse::{Abuse, Figure, percentile};
use crate::game::{Game, LINE_WITHIN};
use crate::http::Api;
use crate::stack::Embedded;
use crate::ws::WebSocket;

/// Lines a second that a key may send.
const QUOTA_LINES: usize = 100;

/// How many times its quota the noisy project tries to send.
const TIMES_QUOTA: usize = 100;

/// Its sockets. Each tries to send the quota every second.
const NOISY_SOCKETS: usize = TIMES_QUOTA;

/// How often a noisy socket sends a part of that.
const SHOUTS_A_SECOND: usize = 10;

/// Pause between two lines of the quiet project: longer than the shortest time between two frames of
/// the live stream, so that each line is shown at once.
const QUIET_EVERY: Duration = Duration::from_millis(150);

/// T26: rounds of a quiet project alone, and beside a noisy one.
///
/// # Panics
///
/// When the quiet project is refused anything, or the noisy one is refused nothing.
pub async fn noisy_neighbour(rounds: usize, lines: usize) -> Abuse {
    let quota = QUOTA_LINES.to_string();
    let settings = [("OBSERVER_LIMITS__KEY_LINES_S_MAX", quota.as_str())];
    let mut embedded = Embedded::start_with(&["serve"], &settings).await;
    let (address, api) = (embedded.game_address().await, embedded.api().await);
    let (quiet_key, noisy_key) = (api.new_key().await, api.new_key().await);
    let mut quiet = Quiet::start(address, &api, &quiet_key).await;
    let (mut alone, mut beside) = (Times::default(), Times::default());
    let mut heard = Heard::default();
    let mut noise_for = Duration::ZERO;
    for _ in 0..rounds {
        quiet.send(lines, &mut alone).await;
        let noise = Noise::start(address, &noisy_key);
        let began = Instant::now();
        quiet.send(lines, &mut beside).await;
        noise_for += began.elapsed();
        heard.add(&noise.end().await);
    }
    assert!(heard.refused > 0, "the noisy project was refused nothing: {heard:?}");
    let secs = noise_for.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "lines of a test")]
    let a_second = |lines: u64| (lines as f64 / secs).round();
    let ratio = |beside: &mut [Duration], alone: &mut [Duration], hundredths| {
        percentile(beside, hundredths) / percentile(alone, hundredths)
    };
    Abuse {
        name: "T26 a noisy neighbour",
        size: format!("{rounds} rounds of {lines} quiet lines"),
        figures: vec![
            Figure::told("noisy lines/s sent", a_second(heard.sent)),
            Figure::told("OK", a_second(heard.accepted)),
            Figure::told("refused", a_second(heard.refused)),
            Figure::told("alone: p99 ms to OK", percentile(&mut alone.to_ok, 99)),
            Figure::told("to live", percentile(&mut alone.to_live, 99)),
            Figure::told("beside: p99 ms to OK", percentile(&mut beside.to_ok, 99)),
            Figure::told("to live", percentile(&mut beside.to_live, 99)),
            Figure::at_most("ratio to OK", ratio(&mut beside.to_ok, &mut alone.to_ok, 99), 2.0),
            Figure::at_most(
                "ratio to live",
                ratio(&mut beside.to_live, &mut alone.to_live, 99),
                2.0,
            ),
        ],
    }
}

/// How long the quiet project's lines took.
#[derive(Default)]
struct Times {
    to_ok: Vec<Duration>,
    to_live: Vec<Duration>,
}

/// The quiet project: a game, and a viewer of its log.
struct Quiet {
    game: Game,
    viewer: WebSocket,
    sent: usize,
}

impl Quiet {
    async fn start(address: SocketAddr, api: &Api, key: &str) -> Self {
        let url = api.ws_url(&format!("/api/v1/projects/{key}/stream"));
        let mut viewer = WebSocket::open(&url).await.expect("a viewer is let in");
        viewer.next_of_type("hello", LINE_WITHIN).await;
        let game = Game::sign_in(address, key).await.expect("the key is registered");
        Self { game, viewer, sent: 0 }
    }

    /// Sends lines at its pace. Each must be answered `OK`, and shown.
    async fn send(&mut self, lines: usize, times: &mut Times) {
        let mut pace = interval(QUIET_EVERY);
        for _ in 0..lines {
            pace.tick().await;
            let mid = self.sent.to_string();
            self.sent += 1;
            let began = Instant::now();
            let record = json!([{ "message": mid }]);
            self.game.log_with_mid(&record, &mid).await.expect("the quiet game is connected");
            let answered = async {
                let answer = self.game.answer(LINE_WITHIN).await.expect("it is answered");
                assert_eq!(answer, format!("OK {mid}"), "nothing of the quiet game is refused");
                began.elapsed()
            };
            let shown = async {
                let frame = self.viewer.next_of_type("logs", LINE_WITHIN).await;
                assert_eq!(frame["items"][0]["message"], mid, "{frame}");
                began.elapsed()
            };
            let (to_ok, to_live) = tokio::join!(answered, shown);
            times.to_ok.push(to_ok);
            times.to_live.push(to_live);
        }
    }
}

/// Lines of the noisy project.
#[derive(Clone, Debug, Default)]
struct Heard {
    sent: u64,
    accepted: u64,
    refused: u64,
}

impl Heard {
    fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.refused += other.refused;
    }
}

/// The noisy project.
struct Noise {
    heard: Arc<Mutex<Heard>>,
    sockets: JoinSet<()>,
}

impl Noise {
    fn start(address: SocketAddr, key: &str) -> Self {
        let mut noise = Self { heard: Arc::default(), sockets: JoinSet::new() };
        for number in 0..NOISY_SOCKETS {
            let (key, heard) = (key.to_owned(), Arc::clone(&noise.heard));
            noise.sockets.spawn(shout(address, (key, number), heard));
        }
        noise
    }

    async fn end(mut self) -> Heard {
        self.sockets.shutdown().await;
        lock(&self.heard).clone()
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends the quota every second, whatever is answered, until it is dropped.
async fn shout(address: SocketAddr, (key, number): (String, usize), heard: Arc<Mutex<Heard>>) {
    let mut socket = TcpStream::connect(address).await.expect("the gateway listens");
    socket.write_all(format!("v:{key}\n").as_bytes()).await.expect("it is connected");
    let some = QUOTA_LINES / SHOUTS_A_SECOND;
    // Every line is another one, as the stores would take it for the same.
    let began = UNIX_EPOCH;
    let lines = |shout: u128| -> String {
        let line = |at| format!("l:{key}:[{{\"message\":\"noise\"}}]:n{number}-{shout}-{at}\n");
        (0..some).map(line).collect::<Vec<_>>().concat()
    };
    let (reader, mut writer) = socket.split();
    let write = async {
        let mut pace = interval(Duration::from_millis(1000 / SHOUTS_A_SECOND as u64));
        while writer
            .write_all(lines(began.elapsed().unwrap_or_default().as_nanos()).as_bytes())
            .await
            .is_ok()
        {
            lock(&heard).sent += some as u64;
            pace.tick().await;
        }
    };
    let read = async {
        let mut answers = BufReader::new(reader).lines();
        while let Ok(Some(answer)) = answers.next_line().await {
            lock(&heard).accepted += u64::from(answer.starts_with("OK n"));
            lock(&heard).refused += u64::from(answer.starts_with("ERR rate n"));
        }
    };
    tokio::join!(write, read);
}
