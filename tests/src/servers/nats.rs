//! nats-server with `JetStream` on files, in the version that Observer is made for, or one too old.

use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Launch, Server, free_port, tool};

/// Which nats-server to start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NatsVersion {
    /// The pinned release.
    #[default]
    Current,
    /// 2.9.10: the bus must refuse it.
    TooOld,
}

/// How to start a nats-server. The default has `JetStream` and no monitoring port.
#[derive(Clone, Debug, Default)]
pub struct NatsOptions {
    /// Which release.
    pub version: NatsVersion,
    /// Whether it has a monitoring port, as [`NatsServer::monitor_url`] then tells.
    pub monitoring: bool,
    /// Whether every message reaches the disk before it is acknowledged (`sync_interval: always`).
    pub sync_always: bool,
    /// Further arguments.
    pub args: Vec<String>,
}

/// A running nats-server.
#[derive(Debug)]
pub struct NatsServer {
    server: Server,
    monitor_port: Option<u16>,
}

impl NatsServer {
    /// Starts a nats-server and waits until it answers.
    ///
    /// # Panics
    ///
    /// When it is not on this machine, or not ready within 30 s.
    pub async fn start(options: NatsOptions) -> Self {
        let program = match options.version {
            NatsVersion::Current => tool("bin/nats-server"),
            NatsVersion::TooOld => tool("nats-2.9/nats-server"),
        };
        let monitor_port = options.monitoring.then(free_port);
        let ready_within = Duration::from_secs(30);
        let launch = Launch { name: "nats", program, ask: ping, ready_within };
        let server = Server::start(launch, |port, folder| {
            let mut args = vec!["-js".into(), "-sd".into(), folder.join("jetstream").into()];
            args.extend(["-a", "127.0.0.1", "-p", &port.to_string()].map(Into::into));
            if options.sync_always {
                let config = folder.join("nats.conf");
                let text = "jetstream { sync_interval: always }\n";
                std::fs::write(&config, text).expect("the folder was made for this server");
                args.extend(["-c".into(), config.into()]);
            }
            if let Some(port) = monitor_port {
                args.extend(["-m".into(), port.to_string().into()]);
            }
            args.extend(options.args.into_iter().map(Into::into));
            args
        });
        Self { server: server.await, monitor_port }
    }

    /// `nats://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// `http://127.0.0.1:<port>` of the monitoring port.
    ///
    /// # Panics
    ///
    /// When the server was started without one.
    #[must_use]
    pub fn monitor_url(&self) -> String {
        let port = self.monitor_port.expect("NatsOptions::monitoring is set");
        format!("http://127.0.0.1:{port}")
    }

    /// The JSON of the server's `INFO` line: version, limits, name.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn info(&self) -> io::Result<String> {
        let mut socket = BufReader::new(TcpStream::connect(self.address()).await?);
        read_info(&mut socket).await
    }
}

/// Three nats-servers that keep copies of each other's streams.
#[derive(Debug)]
pub struct NatsCluster {
    /// The servers, to be killed and restarted one by one.
    pub servers: Vec<NatsServer>,
}

impl NatsCluster {
    /// Starts three servers with monitoring; each syncs or not, as `sync_always` says of it. They need
    /// a moment more to choose who leads.
    ///
    /// # Panics
    ///
    /// When one does not come up.
    pub async fn start(sync_always: [bool; 3]) -> Self {
        let ports: Vec<u16> = sync_always.iter().map(|_| free_port()).collect();
        let routes: Vec<String> =
            ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let start = |number: usize| {
            let name = format!("server-{number}");
            let arguments =
                ["-n", &name, "--cluster_name", "test", "--cluster", &routes[number], "--routes"];
            let mut args: Vec<String> = arguments.iter().map(|arg| (*arg).to_owned()).collect();
            args.push(routes.join(","));
            let sync_always = sync_always[number];
            NatsServer::start(NatsOptions {
                monitoring: true,
                sync_always,
                args,
                ..NatsOptions::default()
            })
        };
        let (a, b, c) = tokio::join!(start(0), start(1), start(2));
        Self { servers: vec![a, b, c] }
    }

    /// Addresses of all servers, separated by commas.
    #[must_use]
    pub fn url(&self) -> String {
        self.servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",")
    }

    /// Monitoring addresses of all servers, separated by commas.
    #[must_use]
    pub fn monitor_url(&self) -> String {
        self.servers.iter().map(NatsServer::monitor_url).collect::<Vec<_>>().join(",")
    }
}

impl Deref for NatsServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for NatsServer {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

async fn read_info(socket: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    socket.read_line(&mut line).await?;
    let info = line.strip_prefix("INFO ").map(|info| info.trim_end().to_owned());
    info.ok_or_else(|| io::Error::other(format!("not an INFO line: {line:?}")))
}

fn ping(port: u16) -> BoxFuture<'static, io::Result<()>> {
    async move {
        let mut socket = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?);
        let info = read_info(&mut socket).await?;
        if !info.contains("\"jetstream\":true") {
            return Err(io::Error::other("JetStream is not up"));
        }
        socket.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n").await?;
        let mut line = String::new();
        socket.read_line(&mut line).await?;
        if line.trim_end() == "PONG" { Ok(()) } else { Err(io::Error::other(line)) }
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn current_server_tells_its_version() {
        let server = NatsServer::start(NatsOptions::default()).await;
        let info = server.info().await.unwrap();
        assert!(info.contains("\"version\":\"2.15."), "{info}");
    }

    #[tokio::test]
    async fn old_server_tells_its_version() {
        let options = NatsOptions { version: NatsVersion::TooOld, ..NatsOptions::default() };
        let info = NatsServer::start(options).await.info().await.unwrap();
        assert!(info.contains("\"version\":\"2.9.10\""), "{info}");
    }

    /// Sends `commands` and reads until a line starts with `until`.
    async fn talk(server: &NatsServer, commands: &str, until: &str) -> String {
        let mut socket = BufReader::new(TcpStream::connect(server.address()).await.unwrap());
        read_info(&mut socket).await.unwrap();
        let commands = format!("CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\n{commands}");
        socket.write_all(commands.as_bytes()).await.unwrap();
        loop {
            let mut line = String::new();
            socket.read_line(&mut line).await.unwrap();
            if line.starts_with(until) {
                return line;
            }
        }
    }

    #[tokio::test]
    async fn stream_survives_kill_and_restart_on_the_same_port() {
        let mut server = NatsServer::start(NatsOptions::default()).await;
        let port = server.port();
        let config = r#"{"name":"S","subjects":["s"],"storage":"file"}"#;
        let create = format!("PUB $JS.API.STREAM.CREATE.S answer {}\r\n{config}\r\n", config.len());
        assert!(talk(&server, &create, "{").await.contains("\"did_create\":true"));

        server.kill();
        assert!(TcpStream::connect(server.address()).await.is_err());
        server.restart().await;

        assert_eq!(server.port(), port);
        let found = talk(&server, "PUB $JS.API.STREAM.INFO.S answer 0\r\n\r\n", "{").await;
        assert!(found.contains("\"name\":\"S\""), "{found}");
    }

    #[tokio::test]
    async fn stopped_server_answers_again_after_cont() {
        let options = NatsOptions { monitoring: true, sync_always: true, ..NatsOptions::default() };
        let mut server = NatsServer::start(options).await;
        server.stop();
        let silent = tokio::time::timeout(Duration::from_millis(300), ping(server.port())).await;
        assert!(silent.is_err(), "a stopped server says nothing");
        server.cont();
        ping(server.port()).await.unwrap();
        let url = format!("{}/jsz", server.monitor_url());
        let jsz = reqwest::get(url).await.unwrap().text().await.unwrap();
        assert!(jsz.contains("\"sync_always\": true"), "{jsz}");
    }
}
