//! `make bench`: acknowledged lines a second and CPU a line, through both forms of the product, with
//! a bare reader beside them.
//!
//! The load: a line is 10 records of about 109 bytes (1,091 bytes of JSON, 1,456 of base64) with a
//! message id. Shape S1 is 1,000 connections that write one line at a time, S2 is 100 connections that
//! write 16. What counts is what was acknowledged, never what was sent. The three targets take turns,
//! so that a machine whose speed drifts is fair to all of them; medians are printed, minima and maxima
//! beside them. CPU is user and system time of the process that holds the sockets, over acknowledged
//! lines.
//!
//! The bare reader does the least that can be done: it counts newlines and answers each with the same
//! few bytes. A bare JetStream publisher writes as many lines into the same stream as the server takes.
//! What a line costs in memory is measured by itself.

#![expect(clippy::print_stdout, reason = "a table is what this program is for")]

mod line;
mod publisher;

use std::io;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use observer_tests::game::to_base64;
use observer_tests::http::Api;
use observer_tests::process::{Process, Settings, settings};
use observer_tests::servers::{NatsOptions, NatsServer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Measured time of one run. Long against the kernel's clock tick of 10 ms.
const RUN: Duration = Duration::from_secs(3);

/// Time before the measurement begins, for connections and caches.
const WARM_UP: Duration = Duration::from_millis(700);

/// Rounds in which each target has one run of each shape.
const ROUNDS: usize = 5;

/// Lines that a connection sends ahead of their answers: what the protocol allows.
const AHEAD: usize = 32;

/// Records in a line.
const RECORDS: u64 = 10;

/// A shape of load.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    connections: usize,
    /// Lines in one write.
    lines: usize,
    /// Lines ahead of their answers.
    ahead: usize,
}

const SHAPES: [Shape; 2] = [
    Shape { name: "S1", connections: 1000, lines: 1, ahead: 1 },
    Shape { name: "S2", connections: 100, lines: 16, ahead: AHEAD },
];

/// What one run measured.
#[derive(Clone, Copy)]
struct Figures {
    lines_a_second: f64,
    cpu_us_a_line: f64,
}

fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("line") {
        line::print_table();
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if std::env::args().nth(1).as_deref() == Some("bare-reader") {
        return Ok(runtime.block_on(bare_reader())?);
    }
    runtime.block_on(compare())?;
    println!();
    line::print_table();
    Ok(())
}

/// A target: where it listens, and the process whose CPU counts.
struct Target {
    name: &'static str,
    address: SocketAddr,
    pid: u32,
    key: String,
}

async fn compare() -> anyhow::Result<()> {
    let bare = BareReader::start()?;
    let (embedded, embedded_key) = start_embedded().await;
    let (nats, _api, gateway, nats_key) = start_nats().await;
    let mut embedded = embedded;
    let mut gateway = gateway;
    let targets = [
        Target {
            name: "bare reader",
            address: bare.address,
            pid: bare.child.id(),
            key: nats_key.clone(),
        },
        Target {
            name: "embedded (whole process)",
            address: embedded.address("gateway").await,
            pid: embedded.pid(),
            key: embedded_key,
        },
        Target {
            name: "gateway into NATS",
            address: gateway.address("gateway").await,
            pid: gateway.pid(),
            key: nats_key.clone(),
        },
    ];
    println!(
        "| shape | target | lines/s | records/s | CPU us a line | min-max lines/s | min-max CPU |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for shape in SHAPES {
        let mut figures = [const { Vec::new() }; 3];
        let mut published = Vec::new();
        for _ in 0..ROUNDS {
            for (target, figures) in targets.iter().zip(&mut figures) {
                figures.push(run(target, shape).await?);
            }
            published.push(publisher::run(nats.address().parse()?, &nats_key).await?);
        }
        for (target, figures) in targets.iter().zip(&figures) {
            print_row(shape, target, figures);
        }
        published.sort_by(f64::total_cmp);
        println!(
            "| {} | bare publisher into NATS | {:.0} | | | {:.0}-{:.0} | |",
            shape.name,
            published[ROUNDS / 2],
            published[0],
            published[ROUNDS - 1]
        );
    }
    Ok(())
}

fn print_row(shape: Shape, target: &Target, figures: &[Figures]) {
    let sorted = |of: fn(&Figures) -> f64| {
        let mut all: Vec<f64> = figures.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let lines = sorted(|figures| figures.lines_a_second);
    let cpu = sorted(|figures| figures.cpu_us_a_line);
    let (median, last) = (figures.len() / 2, figures.len() - 1);
    #[expect(clippy::cast_precision_loss, reason = "ten")]
    let records = lines[median] * RECORDS as f64;
    println!(
        "| {} | {} | {:.0} | {records:.0} | {:.2} | {:.0}-{:.0} | {:.2}-{:.2} |",
        shape.name,
        target.name,
        lines[median],
        cpu[median],
        lines[0],
        lines[last],
        cpu[0],
        cpu[last],
    );
}

async fn run(target: &Target, shape: Shape) -> anyhow::Result<Figures> {
    let acknowledged = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut connections = JoinSet::new();
    for number in 0..shape.connections {
        let (address, key) = (target.address, target.key.clone());
        let (acknowledged, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
        connections.spawn(async move {
            let sender = Sender { shape, number, acknowledged, stop };
            sender.send(address, &key).await
        });
    }
    tokio::time::sleep(WARM_UP).await;
    let (before, cpu_before, begun) =
        (acknowledged.load(Ordering::Relaxed), cpu(target.pid)?, Instant::now());
    tokio::time::sleep(RUN).await;
    let lines = acknowledged.load(Ordering::Relaxed) - before;
    let (seconds, cpu) =
        (begun.elapsed().as_secs_f64(), cpu(target.pid)?.saturating_sub(cpu_before));
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = connections.join_next().await {
        ended??;
    }
    anyhow::ensure!(lines > 0, "{} acknowledged nothing", target.name);
    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    let lines = lines as f64;
    Ok(Figures { lines_a_second: lines / seconds, cpu_us_a_line: cpu.as_secs_f64() * 1e6 / lines })
}

/// One connection.
struct Sender {
    shape: Shape,
    number: usize,
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Sender {
    async fn send(self, address: SocketAddr, key: &str) -> io::Result<()> {
        let mut socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        socket.write_all(format!("v:{key}\n").as_bytes()).await?;
        let mut answers = vec![0; 4096];
        let signed_in = socket.read(&mut answers).await?;
        if !answers[..signed_in].starts_with(b"OK") {
            return Err(io::Error::other("the sign-in was refused"));
        }
        let payload = to_base64(&json!(records(self.number)));
        let (mut unanswered, mut sent) = (0, 0_u64);
        let mut lines = Vec::new();
        let run = std::process::id();
        let stamp = unique();
        while !self.stop.load(Ordering::Relaxed) || unanswered > 0 {
            let go_on = !self.stop.load(Ordering::Relaxed);
            while go_on && unanswered + self.shape.lines <= self.shape.ahead {
                lines.clear();
                for _ in 0..self.shape.lines {
                    sent += 1;
                    let line = format!("l:{key}:{payload}:{run}-{stamp}-{}-{sent}\n", self.number);
                    lines.extend_from_slice(line.as_bytes());
                }
                socket.write_all(&lines).await?;
                unanswered += self.shape.lines;
            }
            let read = socket.read(&mut answers).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(error) = find_error(&answers[..read]) {
                return Err(io::Error::other(error));
            }
            let answered = memchr::memchr_iter(b'\n', &answers[..read]).count();
            unanswered = unanswered.saturating_sub(answered);
            self.acknowledged.fetch_add(answered as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A number that no earlier run of this program's connections had.
fn unique() -> u64 {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    RUNS.fetch_add(1, Ordering::Relaxed)
}

fn find_error(answers: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(answers);
    text.lines().find(|line| line.starts_with("ERR")).map(str::to_owned)
}

/// Ten records of about 109 bytes, as games send them.
fn records(number: usize) -> Vec<serde_json::Value> {
    (0..RECORDS)
        .map(|record| {
            json!({
                "message": format!("player {number:04} took damage from goblin"),
                "level": "info",
                "tag": "combat",
                "hp": 90 - record,
                "timestamp": 1_700_000_000_000_u64 + record,
            })
        })
        .collect()
}

/// User and system time of a process so far.
fn cpu(pid: u32) -> io::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold spaces; the fields behind it hold none.
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    let (Some(user), Some(system)) = (ticks(11), ticks(12)) else {
        return Err(io::Error::other("the system does not tell the time of processes"));
    };
    // Linux counts 100 ticks a second on every architecture we run on.
    Ok(Duration::from_millis((user + system) * 10))
}

/// Settings of every program under load: far from the bounds that protect a real one.
fn load_settings() -> Settings {
    settings(&[
        ("OBSERVER_GATEWAY__LISTEN", "127.0.0.1:0"),
        ("OBSERVER_API__LISTEN", "127.0.0.1:0"),
        ("OBSERVER_ADMIN__LISTEN", "127.0.0.1:0"),
        ("OBSERVER_API__OPEN_KEYS", "true"),
        ("OBSERVER_LIMITS__ADDRESS_SOCKETS_MAX", "5000"),
        ("OBSERVER_LIMITS__KEY_SOCKETS_MAX", "5000"),
        ("OBSERVER_STORE__DATA_DIR", "data"),
    ])
}

async fn start_embedded() -> (Process, String) {
    let mut process = Process::start("observer", &["serve"], load_settings());
    process.address("gateway").await;
    let key = Api::new(process.address("api").await).new_key().await;
    (process, key)
}

/// A gateway into a file stream that nobody reads, with room for all that is sent; the api answers
/// for keys.
async fn start_nats() -> (NatsServer, Process, Process, String) {
    let nats = NatsServer::start(NatsOptions::default()).await;
    let mut all = load_settings();
    all.extend(settings(&[
        ("OBSERVER_BUS__TYPE", "nats"),
        ("OBSERVER_BUS__URL", &nats.url()),
        ("OBSERVER_BUS__LOGS_BYTES_MAX", "17179869184"),
        ("OBSERVER_BUS__LOGS_PROJECT_MESSAGES_MAX", "100000000"),
    ]));
    let mut api = Process::start("observer-api", &[], all.clone());
    let key = Api::new(api.address("api").await).new_key().await;
    let mut gateway = Process::start("observer-gateway", &[], all);
    gateway.address("gateway").await;
    (nats, api, gateway, key)
}

/// The yardstick, as a process of its own so that its CPU can be told.
struct BareReader {
    child: Child,
    address: SocketAddr,
}

impl BareReader {
    fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.arg("bare-reader").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut address = String::new();
        let stdout = child.stdout.take().expect("it was piped");
        io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut address)?;
        Ok(Self { child, address: address.trim().parse()? })
    }
}

impl Drop for BareReader {
    fn drop(&mut self) {
        self.child.kill().ok(); // It may have ended with an error of its own, which was seen.
        self.child.wait().ok();
    }
}

/// Counts newlines and answers each with `OK`.
async fn bare_reader() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let mut sockets = JoinSet::new();
    loop {
        let (mut socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        sockets.spawn(async move {
            let mut bytes = vec![0; 64 * 1024];
            let mut answer = Vec::new();
            loop {
                let Ok(read @ 1..) = socket.read(&mut bytes).await else { return };
                answer.clear();
                for _ in memchr::memchr_iter(b'\n', &bytes[..read]) {
                    answer.extend_from_slice(b"OK 12345-1234-123-12345\n");
                }
                if socket.write_all(&answer).await.is_err() {
                    return;
                }
            }
        });
    }
}
