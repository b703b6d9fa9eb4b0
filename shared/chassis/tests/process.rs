//! A whole process on the chassis, seen from outside: `examples/service.rs`, started for real.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test ends where the unexpected happens")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// `cargo test` builds examples beside the tests.
fn example() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.set_file_name("examples");
    path.push("service");
    assert!(path.exists(), "{} is not built: cargo build --examples", path.display());
    path
}

/// The example with free ports and JSON log lines, and no environment but this.
fn command(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(example());
    command
        .env_clear()
        .env("OBSERVER_EXAMPLE__LISTEN", "127.0.0.1:0")
        .env("OBSERVER_ADMIN__LISTEN", "127.0.0.1:0")
        .env("OBSERVER_LOG__FORMAT", "json")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a process that ends by itself: its exit code, stdout and stderr.
fn outcome(variables: &[(&str, &str)], args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command(variables).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A running example. Killed when dropped, so that a failed test leaves nothing behind.
struct Service {
    process: Child,
    log: BufReader<ChildStdout>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.process.kill().ok(); // It may have ended, as it should.
        self.process.wait().ok();
    }
}

impl Service {
    fn start(variables: &[(&str, &str)]) -> Self {
        let mut process = command(variables).spawn().unwrap();
        let log = BufReader::new(process.stdout.take().unwrap());
        Self { process, log }
    }

    /// Reads log lines up to the one with this text.
    fn line(&mut self, text: &str) -> Value {
        let mut line = String::new();
        while self.log.read_line(&mut line).unwrap() != 0 {
            let json: Value = serde_json::from_str(&line).unwrap();
            if json["fields"]["message"] == text {
                return json;
            }
            line.clear();
        }
        panic!("the log ended before {text:?}");
    }

    /// The address that the log names for `what`.
    fn listening(&mut self, what: &str) -> SocketAddr {
        loop {
            let fields = self.line("listening")["fields"].take();
            if fields["what"] == what {
                return fields["address"].as_str().unwrap().parse().unwrap();
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn exit_code(mut self) -> i32 {
        self.process.wait().unwrap().code().expect("it ends by itself, not of the signal")
    }

    fn stderr(&mut self) -> String {
        let mut text = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

/// Status and body of the answer.
fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nhost: admin\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn process_lives_from_listening_to_exit_0() {
    for signal in ["TERM", "INT"] {
        let mut service = Service::start(&[]);
        let admin = service.listening("admin");
        let address = service.listening("example");

        let ready = get(admin, "/readyz");
        assert_eq!(ready.0, "HTTP/1.1 200 OK");
        let metrics = get(admin, "/metrics").1;
        assert!(metrics.contains("observer_build_info{service=\"example\""), "{metrics}");

        let client = TcpStream::connect(address).unwrap();
        service.line("client is here");
        service.signal(signal);
        let requested = service.line("shutdown requested");
        assert_eq!(requested["fields"]["signal"], format!("SIG{signal}"));
        let draining = get(admin, "/readyz");
        assert_eq!(draining.0, "HTTP/1.1 503 Service Unavailable");

        drop(client);
        assert_eq!(service.exit_code(), 0);
    }
}

#[test]
fn second_signal_ends_the_process_at_once_with_exit_1() {
    let mut service = Service::start(&[("OBSERVER_EXAMPLE__SHUTDOWN_GRACE_SECS", "600")]);
    let _client = TcpStream::connect(service.listening("example")).unwrap();
    service.line("client is here");
    service.signal("TERM");
    service.line("shutdown requested");
    service.signal("INT");
    let text = "error: work was still open when shutdown was requested a second time\n";
    assert_eq!(service.stderr(), text);
    assert_eq!(service.exit_code(), 1);
}

#[test]
fn work_past_the_grace_is_cut_off_with_exit_1() {
    let mut service = Service::start(&[("OBSERVER_EXAMPLE__SHUTDOWN_GRACE_SECS", "1")]);
    let _client = TcpStream::connect(service.listening("example")).unwrap();
    service.line("client is here");
    let asked = Instant::now();
    service.signal("TERM");
    let text = "error: work was still open 1 s after shutdown was requested\n";
    assert_eq!(service.stderr(), text);
    assert!(Duration::from_secs(1) <= asked.elapsed());
    assert_eq!(service.exit_code(), 1);
}

#[test]
fn bad_configuration_is_exit_64_and_one_line() {
    let (code, stdout, stderr) = outcome(&[("OBSERVER_EXAMPLE__LISTEN", "nowhere")], &[]);
    assert_eq!((code, stdout.as_str()), (64, ""));
    assert_eq!(
        stderr,
        "error: setting `example.listen` from environment variable OBSERVER_EXAMPLE__LISTEN is \
         \"nowhere\": expected an address with its port, like 127.0.0.1:8080\n"
    );
    assert_eq!(outcome(&[], &["--log.level", "inof"]).0, 64);
    assert_eq!(outcome(&[], &["--config", "/missing"]).0, 64);
    assert_eq!(outcome(&[], &["--example.shutdown_grace_secs=0", "--check-config"]).0, 64);
}

#[test]
fn wrong_usage_is_exit_2() {
    assert_eq!(outcome(&[], &["--listen"]).0, 2);
    assert_eq!(outcome(&[], &["--set", "example.listen"]).0, 2);
}

#[test]
fn taken_port_is_exit_1_and_names_the_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, stderr) = outcome(&[], &["--example.listen", &address]);
    assert_eq!(code, 1);
    let first = format!("error: cannot listen on {address} for example\n  because: ");
    assert!(stderr.starts_with(&first), "{stderr}");
}

#[test]
fn checked_configuration_is_printed_with_its_sources() {
    let (code, stdout, stderr) = outcome(
        &[("OBSERVER_OTHER__LISTEN", "ignored")],
        &["--check-config", "--log.level", "warn,observer_chassis=debug"],
    );
    assert_eq!((code, stderr.as_str()), (0, ""));
    let admin = "environment variable OBSERVER_ADMIN__LISTEN";
    let example = "environment variable OBSERVER_EXAMPLE__LISTEN";
    let log = "environment variable OBSERVER_LOG__FORMAT";
    let expected = [
        format!("admin.listen = \"127.0.0.1:0\"  # {admin}\n"),
        format!("example.listen = \"127.0.0.1:0\"  # {example}\n"),
        "example.shutdown_grace_secs = 10  # default\n".to_owned(),
        format!("log.format = \"json\"  # {log}\n"),
        "log.level = \"warn,observer_chassis=debug\"  # flag --log.level\n".to_owned(),
    ];
    assert_eq!(stdout, expected.concat());
}

#[test]
fn log_as_text_has_no_colours_when_no_terminal_reads_it() {
    let mut process = command(&[("OBSERVER_LOG__FORMAT", "text")]).spawn().unwrap();
    let mut line = String::new();
    let mut log = BufReader::new(process.stdout.take().unwrap());
    while !line.contains("listening") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "the log ended");
    }
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(line.contains("listening what=\"admin\" address=127.0.0.1:"), "{line}");
    assert!(!line.contains('\x1b'), "{line:?}");
}
