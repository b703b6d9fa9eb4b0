//! Thousands of sockets that send a byte now and then, and games that are served all the while.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::abuse::{Abuse, Figure, mib, percentile};
use crate::device::Certificate;
use crate::game::{Game, LINE_WITHIN};
use crate::http::Api;
use crate::stack::Embedded;
use crate::usage::resident_bytes;

/// Pause between two bytes.
const BYTE_EVERY: Duration = Duration::from_secs(10);

/// Pause between two normal games.
const GAME_EVERY: Duration = Duration::from_millis(50);

/// Connections that are being made at once.
const CONNECTING_MAX: usize = 100;

/// Time past a deadline for the other end to see that it is closed: the machine may be busy.
const SEEN_WITHIN_SECS: f64 = 5.0;

/// What a slow socket begins and never ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    /// A line.
    Line,
    /// A TLS handshake.
    Tls,
    /// The head of a request for `/device`.
    Upgrade,
    /// The head of a request to the api.
    Request,
}

impl Begun {
    const ALL: [Self; 4] = [Self::Line, Self::Tls, Self::Upgrade, Self::Request];

    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Line => b"l:0123456789ab:[{\"message\":\"slow\"",
            // A record of 512 bytes that holds a client's hello.
            Self::Tls => &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 7, 7, 7, 7, 7, 7, 7, 7, 7],
            Self::Upgrade => b"GET /device HTTP/1.1\r\nHost: x\r\n",
            Self::Request => b"GET /alive HTTP/1.1\r\nHost: x\r\n",
        }
    }

    /// What is measured, and when it must be over, in seconds.
    fn deadline(self) -> (&'static str, f64) {
        match self {
            Self::Line => ("s, last line closed", 30.0),
            Self::Tls => ("s, last TLS handshake closed", 10.0),
            Self::Upgrade => ("s, last upgrade closed", 10.0),
            Self::Request => ("s, last request closed", 15.0),
        }
    }
}

/// T22: `sockets` begin a line, a handshake or a request, and send a byte each 10 s.
///
/// # Panics
///
/// When the product does not start, or a normal game is refused meanwhile.
pub async fn slowloris(sockets: usize) -> Abuse {
    let certificate = Certificate::new();
    let paths = [certificate.cert(), certificate.key()].map(|path| path.display().to_string());
    let many = (4 * sockets).to_string();
    let mut embedded = Embedded::start_with(
        &["serve"],
        &[
            ("OBSERVER_LIMITS__ADDRESS_SOCKETS_MAX", &many),
            ("OBSERVER_LIMITS__ADDRESS_HANDSHAKES_S_MAX", &many),
            ("OBSERVER_GATEWAY__TLS_CERT", &paths[0]),
            ("OBSERVER_GATEWAY__TLS_KEY", &paths[1]),
        ],
    )
    .await;
    let api = embedded.api().await;
    let key = api.new_key().await;
    let process = &mut embedded.process;
    let pid = process.pid();
    let game = process.address("gateway").await;
    let (tls, web) = (process.address("gateway_tls").await, process.address("gateway_ws").await);
    let before = resident_bytes(pid);
    let watch = Watch::start(pid, game, (api.clone(), key));

    let mut slow = JoinSet::new();
    for number in 0..sockets {
        let begun = Begun::ALL[number % Begun::ALL.len()];
        let address = match begun {
            Begun::Line => game,
            Begun::Tls => tls,
            Begun::Upgrade => web,
            Begun::Request => api.address(),
        };
        slow.spawn(async move { (begun, drip(address, begun.bytes()).await) });
        if number % CONNECTING_MAX == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    }
    let mut last = Begun::ALL.map(|_| Duration::ZERO);
    while let Some(ended) = slow.join_next().await {
        let (begun, open) = ended.expect("a slow socket does not panic");
        let last = &mut last[begun as usize];
        *last = (*last).max(open);
    }
    let Watched { mut games, mut requests, most } = watch.end().await;
    let deadlines = Begun::ALL.into_iter().zip(last).map(|(begun, last)| {
        let (what, secs) = begun.deadline();
        Figure::at_most(what, last.as_secs_f64(), secs + SEEN_WITHIN_SECS)
    });
    let bound = 64.0 + mib(40 * 1024) * f64::from(u32::try_from(sockets).unwrap_or(u32::MAX));
    let mut figures: Vec<_> = deadlines.collect();
    figures.extend([
        Figure::told("games meanwhile", f64::from(u32::try_from(games.len()).unwrap_or(0))),
        Figure::at_most("game's p99 ms, connect to OK", percentile(&mut games, 99), 200.0),
        Figure::at_most("page's p99 ms", percentile(&mut requests, 99), 200.0),
        Figure::at_most("MiB grown", mib(most.saturating_sub(before)), bound),
    ]);
    Abuse { name: "T22 slowloris", size: format!("{sockets} sockets"), figures }
}

/// Sends a byte now and then, until the other end closes; returns how long it was open.
async fn drip(address: SocketAddr, bytes: &[u8]) -> Duration {
    let began = Instant::now();
    let Ok(mut socket) = TcpStream::connect(address).await else { return began.elapsed() };
    for byte in bytes {
        if socket.write_all(&[*byte]).await.is_err() {
            break;
        }
        let mut answer = [0; 256];
        let closed = async {
            // Last words come before the end.
            while socket.read(&mut answer).await.is_ok_and(|count| count > 0) {}
        };
        if timeout(BYTE_EVERY, closed).await.is_ok() {
            break;
        }
    }
    began.elapsed()
}

/// Normal games and page requests while something goes on, and the memory of the process.
struct Watch {
    over: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
    tasks: JoinSet<(Vec<Duration>, Vec<Duration>)>,
}

struct Watched {
    games: Vec<Duration>,
    requests: Vec<Duration>,
    most: u64,
}

impl Watch {
    fn start(pid: u32, address: SocketAddr, (api, key): (Api, String)) -> Self {
        let (over, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        let (ends, grows) = (Arc::clone(&over), Arc::clone(&most));
        tasks.spawn(async move {
            let (mut games, mut requests) = (Vec::new(), Vec::new());
            while !ends.load(Ordering::Relaxed) {
                let began = Instant::now();
                play(address, &key, games.len()).await;
                games.push(began.elapsed());
                let began = Instant::now();
                let answer = api.get("/alive").await.expect("the page is served");
                assert_eq!(answer.status, 200, "{}", answer.text);
                requests.push(began.elapsed());
                grows.fetch_max(resident_bytes(pid), Ordering::Relaxed);
                sleep(GAME_EVERY).await;
            }
            (games, requests)
        });
        Self { over, most, tasks }
    }

    async fn end(mut self) -> Watched {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.tasks.join_next().await.expect("there is one");
        let (games, requests) = ended.expect("a normal game is served");
        Watched { games, requests, most: self.most.load(Ordering::Relaxed) }
    }
}

/// A game that connects, signs in and has a line stored.
async fn play(address: SocketAddr, key: &str, number: usize) {
    let mut game = Game::sign_in(address, key).await.expect("a normal game signs in");
    let (record, mid) = (json!([{ "message": "normal" }]), number.to_string());
    game.log_with_mid(&record, &mid).await.expect("it is connected");
    let answer = game.answer(LINE_WITHIN).await.expect("a normal line is answered");
    assert_eq!(answer, format!("OK {mid}"));
}
