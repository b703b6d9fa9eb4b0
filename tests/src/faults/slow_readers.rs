//! A game, and a viewer, that stop reading while much is sent to them.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::abuse::{Abuse, Figure, mib, percentile};
use crate::eventually;
use crate::game::{Game, LINE_WITHIN};
use crate::http::Api;
use crate::stack::Embedded;
use crate::usage::resident_bytes;
use crate::ws::WebSocket;

/// What the kernel keeps for whoever does not read, as far as it lets itself be told.
const RECEIVE_BYTES: u32 = 4 * 1024;

/// Time for a slow reader to be closed.
const CLOSED_WITHIN_SECS: f64 = 10.0;

/// Time after which this gives up.
const GIVE_UP_AFTER: Duration = Duration::from_mins(1);

/// Growth of memory that one slow reader may cost, whatever is sent.
const GROWN_MIB_MAX: f64 = 64.0;

/// Bytes of one value, and values in one edit.
const VALUE_BYTES: usize = 15 * 1024;
const VALUES: usize = 7;

/// T24, callbacks: a game stops reading while values change as fast as they can.
///
/// # Panics
///
/// When it is not closed, or another game misses a change.
pub async fn game_does_not_read() -> Abuse {
    let mut embedded = Embedded::start().await;
    let (address, api) = (embedded.game_address().await, embedded.api().await);
    let metrics = Api::new(embedded.process.address("admin").await);
    let (key, pid) = (api.new_key().await, embedded.process.pid());
    let mut other = Game::sign_in(address, &key).await.expect("the key is registered");
    let _slow = sign_in_and_stop(address, &key).await;
    let (began, before) = (Instant::now(), resident_bytes(pid));
    let (mut most, mut times) = (0, Vec::new());
    let closed = "observer_sockets_closed_total{reason=\"slow_reader\"}";
    for edit in 1_u64.. {
        let changed = Instant::now();
        let answer = api.edit(&key, &large_edit(edit)).await.expect("the api is up");
        assert_eq!(answer.status, 200, "{}", answer.text);
        let pushed = other.callback(LINE_WITHIN).await.expect("the other game is told");
        assert_eq!(pushed[0]["value"], large_value(edit), "it misses nothing");
        times.push(changed.elapsed());
        most = most.max(resident_bytes(pid));
        if number(&metrics, closed).await >= 1.0 {
            break;
        }
        assert!(began.elapsed() < GIVE_UP_AFTER, "not closed after {edit} edits");
    }
    let secs = began.elapsed().as_secs_f64();
    Abuse {
        name: "T24 a game that does not read",
        size: format!("{} edits of {} KiB", times.len(), VALUES * VALUE_BYTES / 1024),
        figures: vec![
            Figure::at_most("s until closed", secs, CLOSED_WITHIN_SECS),
            Figure::told("other game's p99 ms, edit to callback", percentile(&mut times, 99)),
            Figure::at_most("MiB grown", mib(most.saturating_sub(before)), GROWN_MIB_MAX),
        ],
    }
}

fn large_value(edit: u64) -> String {
    format!("{edit}-{}", "x".repeat(VALUE_BYTES))
}

fn large_edit(edit: u64) -> Value {
    let value = large_value(edit);
    let edits: Vec<_> = (0..VALUES)
        .map(|name| json!({ "name": format!("v{name}"), "type": "string", "value": value }))
        .collect();
    json!({ "edits": edits })
}

async fn connect_small(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(RECEIVE_BYTES).expect("a small buffer");
    socket.connect(address).await.expect("somebody listens")
}

async fn sign_in_and_stop(address: SocketAddr, key: &str) -> TcpStream {
    let mut socket = connect_small(address).await;
    socket.write_all(format!("v:{key}\n").as_bytes()).await.expect("it is connected");
    let mut answer = [0; 3];
    socket.read_exact(&mut answer).await.expect("it is answered");
    assert_eq!(&answer, b"OK\n");
    socket
}

/// Bytes of the message of one record that viewers get.
const MESSAGE_BYTES: usize = 32 * 1024;

/// Pause between two such records: more than a viewer's network takes, less than one that reads can.
const RECORD_EVERY: Duration = Duration::from_millis(20);

/// Number of open live streams.
const VIEWERS: &str = "observer_viewers{route=\"stream\"}";

/// Pause between two last records.
const LAST_EVERY: Duration = Duration::from_millis(500);

/// Records before the measurement: what the process keeps for viewers that come back is full then.
const RECORDS_BEFORE: usize = 2_500;

/// T24, page: a viewer of the live stream stops reading while a game logs.
///
/// # Panics
///
/// When it is not closed, or the game is refused.
pub async fn viewer_does_not_read() -> Abuse {
    let mut embedded = Embedded::start().await;
    let (address, api) = (embedded.game_address().await, embedded.api().await);
    let metrics = Api::new(embedded.process.address("admin").await);
    let (key, pid) = (api.new_key().await, embedded.process.pid());
    let path = format!("/api/v1/projects/{key}/stream");
    let mut other = WebSocket::open(&api.ws_url(&path)).await.expect("a viewer is let in");
    let mut reading = JoinSet::new();
    reading.spawn(async move { seen_until_last(&mut other).await });
    let mut game = Game::sign_in(address, &key).await.expect("the key is registered");
    let mut alone = Vec::new();
    for _ in 0..RECORDS_BEFORE {
        alone.push(log(&mut game, alone.len()).await);
    }
    let _slow = watch_and_stop(api.address(), &path).await;
    eventually(LINE_WITHIN, "both viewers are counted", async || {
        (number(&metrics, VIEWERS).await >= 2.0).then_some(())
    })
    .await;
    let (began, before) = (Instant::now(), resident_bytes(pid));
    let (mut most, mut beside, mut closed) = (0, Vec::new(), None);
    let mut pace = interval(RECORD_EVERY);
    while closed.is_none() {
        pace.tick().await;
        beside.push(log(&mut game, RECORDS_BEFORE + beside.len()).await);
        most = most.max(resident_bytes(pid));
        let viewers = number(&metrics, VIEWERS).await;
        closed = (viewers <= 1.0).then(|| began.elapsed());
        assert!(began.elapsed() < GIVE_UP_AFTER, "not closed after {} records", beside.len());
    }
    let (seen, lasts) = until_seen(&mut game, reading).await;
    let (sent, told) = (alone.len() + beside.len(), seen.shown + seen.missed);
    assert!((sent..=sent + lasts).contains(&told), "shown or counted: {told} of {sent}");
    let secs = closed.unwrap_or_default().as_secs_f64();
    Abuse {
        name: "T24 a viewer that does not read",
        size: format!("{} records of {} KiB", beside.len(), MESSAGE_BYTES / 1024),
        figures: vec![
            Figure::at_most("s until closed", secs, CLOSED_WITHIN_SECS),
            Figure::told("game's p99 ms to OK, before", percentile(&mut alone, 99)),
            Figure::told("meanwhile", percentile(&mut beside, 99)),
            Figure::at_most("MiB grown", mib(most.saturating_sub(before)), GROWN_MIB_MAX),
        ],
    }
}

/// Logs a last record until the viewer has seen one: whoever was slow may miss it as well.
async fn until_seen(game: &mut Game, mut reading: JoinSet<Seen>) -> (Seen, usize) {
    for lasts in 1_u32.. {
        let mid = format!("last-{lasts}");
        game.log_with_mid(&json!([{ "message": "last" }]), &mid).await.expect("it is connected");
        let seen = tokio::time::timeout(LAST_EVERY, reading.join_next()).await;
        if let Ok(Some(seen)) = seen {
            return (seen.expect("the other viewer reads to the end"), lasts as usize);
        }
        assert!(LAST_EVERY * lasts < GIVE_UP_AFTER, "the other viewer sees nothing any more");
    }
    unreachable!("one of many is the last")
}

/// Has a record stored; how long that took.
async fn log(game: &mut Game, number: usize) -> Duration {
    let sent = Instant::now();
    let record = json!([{ "message": "x".repeat(MESSAGE_BYTES) }]);
    let mid = number.to_string();
    game.log_with_mid(&record, &mid).await.expect("it is connected");
    let answer = game.answer(LINE_WITHIN).await.expect("its lines are answered");
    assert_eq!(answer, format!("OK {mid}"));
    sent.elapsed()
}

/// Opens a live stream, reads the answer to the upgrade, and nothing more.
async fn watch_and_stop(address: SocketAddr, path: &str) -> TcpStream {
    let mut socket = connect_small(address).await;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("it is connected");
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).await.expect("it is answered");
    assert_eq!(&answer, b"HTTP/1.1 101");
    socket
}

/// What a viewer that reads saw.
#[derive(Default)]
struct Seen {
    shown: usize,
    missed: usize,
}

/// Records before the last, as a viewer that reads sees them.
async fn seen_until_last(viewer: &mut WebSocket) -> Seen {
    let mut seen = Seen::default();
    loop {
        let frame = viewer.next_json(GIVE_UP_AFTER).await;
        if frame["type"] == "gap" {
            let count = frame["count"].as_u64().and_then(|count| usize::try_from(count).ok());
            seen.missed += count.expect("a gap in process has a count");
        }
        for item in frame["items"].as_array().into_iter().flatten() {
            if item["message"] == "last" {
                return seen;
            }
            seen.shown += 1;
        }
    }
}

/// A number of `/metrics`; 0 while it is not there.
async fn number(metrics: &Api, name: &str) -> f64 {
    let answer = metrics.get("/metrics").await.expect("the admin port answers");
    let line = answer.text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
}
