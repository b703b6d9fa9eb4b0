//! More than can be stored or kept: a broker that is full, games that send without an end, and ten
//! thousand of them at twice what the stores take.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::{COUNTED_WITHIN, LOOK_EVERY, Load, Row};
use crate::device::below;
use crate::eventually;
use crate::faultproxy::{FaultProxy, Faults, Flow};
use crate::game::{Game, LINE_WITHIN};
use crate::http::Api;
use crate::laws::Counts;
use crate::process::{Settings, settings};
use crate::servers::{Elasticsearch, free_port};
use crate::stack::{Cluster, ClusterOptions, Embedded};

/// Bytes of log events that may wait on the broker that gets full.
const BROKER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Text of a line that fills the broker, in bytes.
const FILLING_BYTES: usize = 128 * 1024;

/// Time for the gateway to hear how full the broker is, for a line to be answered, and for the like.
const HEARD_WITHIN: Duration = Duration::from_secs(30);

/// Memory that a gateway may have besides its sockets and its budget, in KiB.
const GATEWAY_KIB_MAX: u64 = 64 * 1024;

/// Memory that a socket may cost a gateway, in KiB.
const SOCKET_KIB_MAX: u64 = 40;

/// Memory of a process now, in KiB.
///
/// # Panics
///
/// When the process is gone.
pub(super) fn rss_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = rss.and_then(|rss| rss.trim().trim_end_matches(" kB").parse().ok());
    kib.expect("the process lives")
}

/// A cluster of one of each, whose logs go to Elasticsearch through a proxy.
pub(super) struct Throttled {
    pub(super) cluster: Cluster,
    pub(super) elasticsearch: FaultProxy,
    target: SocketAddr,
}

impl Throttled {
    pub(super) async fn start(further: Settings) -> Self {
        let shared = Elasticsearch::shared().await;
        let target: SocketAddr = shared.address().parse().expect("an address and a port");
        let elasticsearch = FaultProxy::start(target).await;
        let url = format!("http://{}", elasticsearch.address());
        let mut all = settings(&[("OBSERVER_STORE__LOGS__URL", url)]);
        all.extend(further);
        let options = ClusterOptions {
            gateways: 1,
            log_indexers: 1,
            var_stores: 1,
            settings: all,
            ..ClusterOptions::default()
        };
        Self { cluster: Cluster::start(options).await, elasticsearch, target }
    }

    fn take_store_away(&self) {
        self.elasticsearch.set_target(SocketAddr::from(([127, 0, 0, 1], free_port())));
        self.elasticsearch.reset();
    }

    fn give_store_back(&self) {
        self.elasticsearch.set_target(self.target);
    }
}

/// A game that knows which of its lines were acknowledged.
struct Teller {
    game: Game,
    key: String,
    sent: usize,
    acknowledged: BTreeSet<usize>,
}

impl Teller {
    async fn start(address: SocketAddr, api: &Api) -> Self {
        let key = api.new_key().await;
        let game = Game::sign_in(address, &key).await.expect("it is served");
        Self { game, key, sent: 0, acknowledged: BTreeSet::new() }
    }

    /// Sends a record of `level` with so much text; returns the code of its answer.
    async fn tell(&mut self, level: &str, text_bytes: usize) -> String {
        let number = self.sent;
        self.sent += 1;
        let record = json!({ "level": level, "n": number, "text": "x".repeat(text_bytes) });
        let line = format!("l:{}:[{record}]:n{number}", self.key);
        self.game.send_line(&line).await.expect("the socket is open");
        let answer = self.game.read_line(LINE_WITHIN).await.expect("it is answered");
        if answer == format!("OK n{number}") {
            self.acknowledged.insert(number);
            return "OK".into();
        }
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// Sends until a line of `level` is answered so.
    async fn until(&mut self, level: &str, code: &str) {
        let what = format!("{level} is {code}");
        eventually(HEARD_WITHIN, &what, async || (self.tell(level, 0).await == code).then_some(()))
            .await;
    }

    /// Waits until all that was acknowledged is stored, and a gap record if some was shed.
    async fn is_stored(&self, api: &Api, with_gap: bool) {
        eventually(COUNTED_WITHIN, "all that was acknowledged is stored", async || {
            let records = all_records(api, &self.key).await?;
            let numbers = records.iter().filter_map(|record| record["n"].as_u64());
            let stored: BTreeSet<_> = numbers.filter_map(|n| usize::try_from(n).ok()).collect();
            let gap = records.iter().any(|record| record["kind"] == "gap");
            (self.acknowledged.is_subset(&stored) && gap >= with_gap).then_some(())
        })
        .await;
    }
}

async fn all_records(api: &Api, key: &str) -> Option<Vec<Value>> {
    let (mut records, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.logs(key, &format!("limit=50{cursor}")).await.ok()?;
        records.extend(page.json["items"].as_array()?.iter().cloned());
        match page.json["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Some(records),
        }
    }
}

/// T16: the store is away until the broker has no room for logs any more; then it comes back. What is
/// worth least goes first, and nothing that was acknowledged is lost.
///
/// # Panics
///
/// When lines are given up in another order, one that was acknowledged is not stored, or a loss is not
/// told.
pub async fn broker_is_full(cycles: usize) -> Row {
    let further = settings(&[("OBSERVER_BUS__LOGS_BYTES_MAX", BROKER_BYTES_MAX)]);
    let mut throttled = Throttled::start(further).await;
    let api = throttled.cluster.api().await;
    let address = throttled.cluster.gateways[0].address("gateway").await;
    let mut load = Load::start(&api, &[address]).await;
    let mut filling = Teller::start(address, &api).await;
    let mut telling = Teller::start(address, &api).await;
    for _ in 0..cycles {
        throttled.take_store_away();
        fill(&mut filling, &mut telling).await;
        throttled.give_store_back();
        load.healed().await;
        // Room for everything again, so that the next time begins alike.
        telling.until("debug", "OK").await;
    }
    filling.is_stored(&api, false).await;
    telling.is_stored(&api, true).await;
    load.judge("T16 broker full", cycles, &api).await
}

/// Fills the broker in three steps, and looks at what is given up after each.
async fn fill(filling: &mut Teller, telling: &mut Teller) {
    let parts = |percent: usize| BROKER_BYTES_MAX / FILLING_BYTES * percent / 100;
    assert_eq!(telling.tell("debug", 0).await, "OK");
    for _ in 0..parts(66) {
        assert_eq!(filling.tell("error", FILLING_BYTES).await, "OK");
    }
    telling.until("debug", "shed").await;
    assert_eq!(telling.tell("info", 0).await, "OK", "debug goes first");
    for _ in 0..parts(22) {
        assert_eq!(filling.tell("error", FILLING_BYTES).await, "OK");
    }
    telling.until("info", "shed").await;
    assert_eq!(telling.tell("error", 0).await, "OK", "errors go last");
    loop {
        match &*filling.tell("error", FILLING_BYTES).await {
            "OK" => {}
            "busy" => break,
            other => panic!("a full broker is {other}"),
        }
    }
}

/// What a flood did to the process.
#[derive(Clone, Debug)]
pub struct Flood {
    /// Which flood.
    pub name: &'static str,
    /// Lines or bytes that were to be sent, and how many were taken off our hands.
    pub sent: (u64, u64),
    /// Answers, by their code.
    pub answers: BTreeMap<String, u64>,
    /// Memory of the process before, and the most that was seen, in KiB.
    pub rss_kib: (u64, u64),
}

impl Flood {
    /// How much the process grew, in KiB.
    #[must_use]
    pub fn growth_kib(&self) -> u64 {
        self.rss_kib.1.saturating_sub(self.rss_kib.0)
    }
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, sent: (wanted, sent), answers, rss_kib: (before, most) } = self;
        write!(
            f,
            "| {name} | {sent} of {wanted} sent | {answers:?} | {before} KiB, then {most} KiB |"
        )
    }
}

/// T23: a game sends `bytes` without a newline, signed in or not.
///
/// # Panics
///
/// When the connection is not closed.
pub async fn line_without_an_end(bytes: u64, signed_in: bool) -> Flood {
    let mut embedded = Embedded::start().await;
    let address = embedded.game_address().await;
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    let mut heard = Vec::new();
    if signed_in {
        let key = embedded.api().await.new_key().await;
        socket.write_all(format!("v:{key}\n").as_bytes()).await.expect("it is open");
        let mut answer = [0; 3];
        let read = timeout(LINE_WITHIN, socket.read_exact(&mut answer)).await;
        read.expect("it is answered").expect("it is open");
    }
    let pid = embedded.process.pid();
    let (before, mut most, mut sent) = (rss_kib(pid), 0, 0);
    let (mut from, mut to) = socket.split();
    let chunk = vec![b'x'; 64 * 1024];
    let writing = async {
        while sent < bytes && to.write_all(&chunk).await.is_ok() {
            sent += chunk.len() as u64;
            most = rss_kib(pid).max(most);
        }
        to.shutdown().await.ok();
    };
    // The last words may be taken back by the reset that follows: bytes of ours were not read.
    let ((), read) = tokio::join!(writing, timeout(HEARD_WITHIN, from.read_to_end(&mut heard)));
    read.expect("it is closed").ok();
    let answers = codes(&String::from_utf8_lossy(&heard));
    let rss_kib = (before, most.max(rss_kib(pid)));
    Flood { name: "T23 line without an end", sent: (bytes, sent), answers, rss_kib }
}

/// Tiny lines that may wait for their answers: fewer than fill what the gateway keeps for a game to read.
const TINY_AHEAD_MAX: u64 = 4_000;

/// T23: a game sends `count` tiny lines as fast as they are answered.
///
/// # Panics
///
/// When one is not answered.
pub async fn tiny_lines(count: u64) -> Flood {
    let mut embedded = Embedded::start().await;
    let address = embedded.game_address().await;
    let key = embedded.api().await.new_key().await;
    let pid = embedded.process.pid();
    let mut game = Game::sign_in(address, &key).await.expect("it is served");
    let (before, mut most, mut answers) = (rss_kib(pid), 0, BTreeMap::new());
    let thousand = b"x\n".repeat(1000);
    for sent in (0..count).step_by(1000) {
        game.send(&thousand).await.expect("it is open");
        let answered: u64 = answers.values().sum();
        for _ in 0..(sent + 1000 - answered).saturating_sub(TINY_AHEAD_MAX) {
            hear(&mut game, &mut answers).await;
        }
        most = rss_kib(pid).max(most);
    }
    while answers.values().sum::<u64>() < count {
        hear(&mut game, &mut answers).await;
    }
    let rss_kib = (before, most.max(rss_kib(pid)));
    Flood { name: "T23 tiny lines", sent: (count, count), answers, rss_kib }
}

async fn hear(game: &mut Game, answers: &mut BTreeMap<String, u64>) {
    let answer = game.read_line(LINE_WITHIN).await.expect("each is answered");
    for (code, count) in codes(&answer) {
        *answers.entry(code).or_default() += count;
    }
}

/// Counts answers by their code.
fn codes(heard: &str) -> BTreeMap<String, u64> {
    let mut codes = BTreeMap::new();
    for line in heard.lines() {
        let mut words = line.split(' ');
        let first = words.next().unwrap_or_default();
        let code = if first == "ERR" { words.next().unwrap_or_default() } else { first };
        *codes.entry(code.to_owned()).or_default() += 1;
    }
    codes
}

/// A crowd of games.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Sockets, each of a game.
    pub sockets: usize,
    /// Time for which they send.
    pub lasts: Duration,
    /// Bytes a second that reach the log store.
    pub store_bytes_s: u32,
    /// Text of a record, in bytes.
    pub record_bytes: usize,
    /// How many times what the store takes they send.
    pub overload: f64,
    /// `limits.waiting_bytes_max` of the gateway.
    pub budget_bytes: u64,
}

/// What a crowd did.
#[derive(Clone, Debug)]
pub struct Crowded {
    /// Sockets that signed in.
    pub sockets: usize,
    /// Lines that the store took a second, before the crowd; and that the crowd sent.
    pub lines_s: (f64, f64),
    /// Answers, by their code.
    pub answers: BTreeMap<String, u64>,
    /// Most memory of the gateway that was seen, and what it may have, in KiB.
    pub rss_kib: (u64, u64),
    /// Time from the end of the crowd to full service.
    pub full_service: Duration,
    /// The counting law, once all is stored.
    pub counts: Counts,
}

impl fmt::Display for Crowded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sockets, lines_s: (taken, sent), answers, rss_kib: (most, may), .. } = self;
        let seconds = self.full_service.as_secs_f32();
        write!(
            f,
            "| T38 crowd | {sockets} sockets | store takes {taken:.0}, sent {sent:.0} lines/s | \
             {answers:?} | {most} of {may} KiB | {seconds:.1} s |"
        )
    }
}

/// Bytes of log events that may wait on the broker in front of the crowd: full within a minute or two.
const CROWD_BROKER_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Sockets of one project in the crowd.
const PROJECT_SOCKETS: usize = 1_000;

/// Games that find out what the store takes, each as fast as it is answered.
const FINDING_OUT: usize = 256;

/// Time for which they do, after as long to get going.
const FOUND_OUT_IN: Duration = Duration::from_secs(10);

/// Time for the backlog to be stored once the store is as fast as it can.
const STORED_WITHIN: Duration = Duration::from_mins(10);

/// Connections of the crowd that are made at once.
const CONNECTING_MAX: usize = 200;

/// T38: a crowd sends more than the store takes, for a time.
///
/// # Panics
///
/// When a game is not let in or thrown out, the gateway has more memory than it may, or the counters do
/// not add up in the end.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub async fn crowd_at_twice_the_load(crowd: Crowd) -> Crowded {
    let further = settings(&[
        ("OBSERVER_BUS__LOGS_BYTES_MAX", CROWD_BROKER_BYTES_MAX),
        ("OBSERVER_LIMITS__WAITING_BYTES_MAX", crowd.budget_bytes),
        ("OBSERVER_LIMITS__ADDRESS_SOCKETS_MAX", 2 * crowd.sockets as u64),
    ]);
    let mut throttled = Throttled::start(further).await;
    throttled.limit_store(Some(crowd.store_bytes_s));
    let api = throttled.cluster.api().await;
    let address = throttled.cluster.gateways[0].address("gateway").await;
    let taken = found_out(&mut throttled, &api, address, crowd).await;

    let sending = Sending {
        address,
        pace: Duration::from_secs_f64(crowd.sockets as f64 / (crowd.overload * taken)),
        line: format!(r#"[{{"level":"info","text":"{}"}}]"#, "x".repeat(crowd.record_bytes)),
        told: Arc::default(),
    };
    let mut keys = Vec::new();
    for _ in 0..crowd.sockets.div_ceil(PROJECT_SOCKETS) {
        keys.push(api.new_key().await);
    }
    let mut games = sending.let_in(&keys, crowd.sockets).await;
    let sockets = games.len();
    let pid = throttled.cluster.gateways[0].pid();
    let (mut most, began) = (0, Instant::now());
    let sent_before = sending.told.sent.load(Ordering::Relaxed);
    while began.elapsed() < crowd.lasts {
        sleep(LOOK_EVERY).await;
        most = rss_kib(pid).max(most);
        if let Some(ended) = games.try_join_next() {
            ended.expect("no game of the crowd is thrown out");
        }
    }
    let sent = sending.told.sent.load(Ordering::Relaxed) - sent_before;
    games.shutdown().await;
    let may = GATEWAY_KIB_MAX + SOCKET_KIB_MAX * sockets as u64 + crowd.budget_bytes / 1024;
    assert!(most <= may, "the gateway had {most} KiB of {may}");

    throttled.limit_store(None);
    let healed = Instant::now();
    let mut teller = Teller::start(address, &api).await;
    eventually(STORED_WITHIN, "lines of all levels are taken", async || {
        (teller.tell("debug", 0).await == "OK").then_some(())
    })
    .await;
    let full_service = healed.elapsed();
    let counts = eventually(STORED_WITHIN, "the counters add up", async || {
        let Cluster { gateways, log_indexers, .. } = &mut throttled.cluster;
        let mut processes: Vec<_> = gateways.iter_mut().chain(log_indexers).collect();
        Some(Counts::of(&mut processes).await).filter(Counts::add_up)
    })
    .await;
    let lines_s = (taken, sent as f64 / crowd.lasts.as_secs_f64());
    let answers = sending.told.answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Crowded { sockets, lines_s, answers, rss_kib: (most, may), full_service, counts }
}

/// Lines of the crowd's kind that the store takes a second, while more than that come.
///
/// # Panics
///
/// When no more than that came: then it is not known what the store takes.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
async fn found_out(throttled: &mut Throttled, api: &Api, address: SocketAddr, crowd: Crowd) -> f64 {
    let (mut games, told) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
    for _ in 0..FINDING_OUT {
        let (mut teller, told) = (Teller::start(address, api).await, Arc::clone(&told));
        games.spawn(async move {
            loop {
                teller.tell("error", crowd.record_bytes).await;
                told.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    sleep(FOUND_OUT_IN).await;
    let (before, told_before) = (throttled.stored().await, told.load(Ordering::Relaxed));
    sleep(FOUND_OUT_IN).await;
    let stored = throttled.stored().await - before;
    let came = told.load(Ordering::Relaxed) - told_before;
    games.shutdown().await;
    assert!(stored > 0 && stored * 3 / 2 < came, "{came} lines came, {stored} were stored");
    stored as f64 / FOUND_OUT_IN.as_secs_f64()
}

impl Throttled {
    fn limit_store(&self, bytes_a_second: Option<u32>) {
        let up = Flow { bytes_a_second, ..Flow::default() };
        self.elasticsearch.set(Faults { up, ..Faults::default() });
    }

    /// Records that the store took from the log-indexer. Some it had already: of a request that was
    /// answered too late and sent again.
    async fn stored(&mut self) -> u64 {
        let mut indexers: Vec<_> = self.cluster.log_indexers.iter_mut().collect();
        let counts = Counts::of(&mut indexers).await;
        counts.stored + counts.duplicate
    }
}

/// How a game of the crowd sends, and what it tells.
#[derive(Clone)]
struct Sending {
    address: SocketAddr,
    pace: Duration,
    line: String,
    told: Arc<Told>,
}

/// What all games of the crowd tell.
#[derive(Default)]
struct Told {
    sent: AtomicU64,
    answers: Mutex<BTreeMap<String, u64>>,
}

impl Sending {
    /// Lets so many games in; each sends from then on.
    async fn let_in(&self, keys: &[String], sockets: usize) -> JoinSet<()> {
        let (mut games, mut coming) = (JoinSet::new(), JoinSet::new());
        for number in 0..sockets {
            if CONNECTING_MAX <= coming.len() {
                let came = coming.join_next().await.expect("some are coming");
                games.spawn(self.clone().sends(came.expect("it is let in")));
            }
            let (address, key) = (self.address, keys[number % keys.len()].clone());
            coming.spawn(async move {
                let mut socket = TcpStream::connect(address).await.expect("it listens");
                socket.write_all(format!("v:{key}\n").as_bytes()).await.expect("it is open");
                let mut answer = [0; 3];
                let read = timeout(HEARD_WITHIN, socket.read_exact(&mut answer)).await;
                read.expect("it is let in in time").expect("it is open");
                assert_eq!(&answer, b"OK\n");
                (socket, key)
            });
        }
        while let Some(came) = coming.join_next().await {
            games.spawn(self.clone().sends(came.expect("it is let in")));
        }
        games
    }

    /// Sends at its pace, whatever it is answered, for as long as it may.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    async fn sends(self, (socket, key): (TcpStream, String)) {
        let (from, mut to) = socket.into_split();
        let mut answers = BufReader::with_capacity(512, from).lines();
        // Not all at the same moment.
        let first = Instant::now() + self.pace.mul_f64(below(1000) as f64 / 1000.0);
        let mut ticks = interval_at(first, self.pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for number in 0_u64.. {
            loop {
                tokio::select! {
                    _ = ticks.tick() => break,
                    answer = answers.next_line() => {
                        let answer = answer.expect("it is open").expect("it is not closed");
                        self.told.hear(&answer);
                    }
                }
            }
            let line = format!("l:{key}:{}:n{number}\n", self.line);
            to.write_all(line.as_bytes()).await.expect("it is open");
            self.told.sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Told {
    fn hear(&self, answer: &str) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        for (code, count) in codes(answer) {
            *answers.entry(code).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_their_code() {
        let counted = codes("OK\nOK m1\nERR busy m2 1000 wait\nERR shed - - gone\n");
        let expected = [("OK", 2), ("busy", 1), ("shed", 1)];
        assert_eq!(counted, expected.map(|(code, count)| (code.to_owned(), count)).into());
    }

    #[test]
    fn a_flood_is_a_line_of_the_table() {
        let answers = BTreeMap::from([("line_too_long".to_owned(), 1)]);
        let flood = Flood { name: "T00", sent: (9, 7), answers, rss_kib: (100, 130) };
        assert_eq!(flood.growth_kib(), 30);
        let row = r#"| T00 | 7 of 9 sent | {"line_too_long": 1} | 100 KiB, then 130 KiB |"#;
        assert_eq!(flood.to_string(), row);
    }
}
