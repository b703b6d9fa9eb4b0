//! The servers that Observer stands on, as real processes: nats-server, redis-server, Elasticsearch.
//!
//! Each has a free loopback port and a temporary folder, is asked until it answers, and is gone with
//! its value. A server that is not on this machine fails the test, it never skips it.

mod elasticsearch;
pub mod fake_bulk;
mod nats;
mod redis;

use std::ffi::OsString;
use std::hash::{BuildHasher, RandomState};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

pub use self::elasticsearch::{Elasticsearch, ElasticsearchOptions};
pub use self::fake_bulk::FakeBulk;
pub use self::nats::{NatsCluster, NatsOptions, NatsServer, NatsVersion};
pub use self::redis::{Fsync, RedisOptions, RedisServer};
use crate::child::{GuardedChild, Signal, folder};

/// Ports that tests use: below those that the system gives to outgoing connections, so that none of
/// these takes the port of a server that is down for a restart.
const PORTS: std::ops::Range<u16> = 14_000..32_000;

/// Time a server has for one answer while it starts.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Pause between two questions to a server that starts.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// A question that shows a server to be ready.
type Ask = fn(u16) -> futures_util::future::BoxFuture<'static, std::io::Result<()>>;

/// A server process: what to start, where it listens, how to tell that it is ready.
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    program: PathBuf,
    args: Vec<OsString>,
    port: u16,
    ask: Ask,
    ready_within: Duration,
    child: GuardedChild,
}

/// What a server needs to be started.
struct Launch {
    name: &'static str,
    program: PathBuf,
    ask: Ask,
    ready_within: Duration,
}

impl Server {
    /// Starts the server and waits until it answers. `args` are made from port and folder.
    async fn start(launch: Launch, args: impl FnOnce(u16, &Path) -> Vec<OsString>) -> Self {
        let Launch { name, program, ask, ready_within } = launch;
        let (port, folder) = (free_port(), folder(name));
        let args = args(port, folder.path());
        let child = GuardedChild::spawn(name, command(&program, &args), folder);
        let mut server = Self { name, program, args, port, ask, ready_within, child };
        server.ready().await;
        server
    }

    /// Port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:<port>`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The same, to connect to.
    #[must_use]
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Process id of the running server.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Folder with the server's files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.child.folder()
    }

    /// All that the server printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.child.output()
    }

    /// Kills the server at once (`SIGKILL`). Its files stay for [`Server::restart`].
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Stops the server in its tracks (`SIGSTOP`): sockets stay open, nothing answers.
    pub fn stop(&mut self) {
        self.child.signal(Signal::Stop);
    }

    /// Lets a stopped server go on (`SIGCONT`).
    pub fn cont(&mut self) {
        self.child.signal(Signal::Cont);
    }

    /// Starts the server again, on the same port and files, and waits until it answers. A server that
    /// still runs is killed first.
    ///
    /// # Panics
    ///
    /// When it does not answer in time; with the end of its output.
    pub async fn restart(&mut self) {
        self.child.respawn(command(&self.program, &self.args));
        self.ready().await;
    }

    async fn ready(&mut self) {
        let until = Instant::now() + self.ready_within;
        let (name, port, ask) = (self.name, self.port, self.ask);
        loop {
            let error = match timeout(ANSWER_WITHIN, ask(port)).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            let ended = self.child.ended();
            let over = ended.is_some() || until <= Instant::now();
            let tail = || self.child.output_tail();
            assert!(!over, "{name} on port {port} is not ready: {error}, {ended:?}\n{}", tail());
            sleep(ASK_EVERY).await;
        }
    }
}

fn command(program: &Path, args: &[OsString]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env("OBSERVER_TOOLS_DIR", tools());
    command
}

/// A port on which nothing listens. Within a test process, no port comes twice.
///
/// # Panics
///
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    static FIRST: OnceLock<u16> = OnceLock::new();
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // A random place to start at, so that test processes side by side rarely meet.
    let first = FIRST.get_or_init(|| {
        let random = RandomState::new().hash_one(std::process::id()) % u64::from(count);
        u16::try_from(random).expect("less than a u16, by the remainder")
    });
    let mut candidates = (0..count).map(|_| {
        let step = GIVEN.fetch_add(1, Ordering::Relaxed) % count;
        PORTS.start + (first + step) % count
    });
    let free = candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("some port of eighteen thousand is free")
}

/// The folder that `scripts/fetch-test-servers` fills.
fn tools() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "tests have no settings of chassis")]
    let chosen = std::env::var("OBSERVER_TOOLS_DIR");
    chosen.map_or_else(|_| repository().join(".tools"), PathBuf::from)
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is a folder of the repository")
}

/// A program below the tools folder.
fn tool(path: &str) -> PathBuf {
    let program = tools().join(path);
    let there = program.is_file();
    assert!(there, "{} is missing: run scripts/fetch-test-servers", program.display());
    program
}
