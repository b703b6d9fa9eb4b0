//! redis-server with an append-only file and no eviction, as Observer asks for it.

use std::io;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Launch, Server};

/// When the append-only file reaches the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// Once a second: enough for variables, which the bus repairs.
    #[default]
    EverySecond,
    /// With every write: what accounts need.
    Always,
}

/// How to start a redis-server.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// When writes reach the disk.
    pub fsync: Fsync,
    /// Further arguments, such as `--maxmemory-policy` and another policy. They win over ours.
    pub args: Vec<String>,
}

/// A running redis-server.
#[derive(Debug)]
pub struct RedisServer(Server);

impl RedisServer {
    /// Starts a redis-server and waits until it answers.
    ///
    /// # Panics
    ///
    /// When it is not on this machine, or not ready within 30 s.
    pub async fn start(options: RedisOptions) -> Self {
        let fsync = match options.fsync {
            Fsync::EverySecond => "everysec",
            Fsync::Always => "always",
        };
        let program = PathBuf::from("redis-server");
        let there = std::process::Command::new(&program).arg("--version").output();
        assert!(there.is_ok(), "redis-server is missing: run scripts/fetch-test-servers");
        let ready_within = Duration::from_secs(30);
        let launch = Launch { name: "redis", program, ask: ping, ready_within };
        let server = Server::start(launch, |port, folder| {
            let port = port.to_string();
            let folder = folder.to_string_lossy();
            let mut args = vec!["--bind", "127.0.0.1", "--port", &port, "--dir", &folder];
            args.extend(["--save", "", "--appendonly", "yes", "--appendfsync", fsync]);
            args.extend(["--maxmemory-policy", "noeviction"]);
            args.extend(options.args.iter().map(String::as_str));
            args.into_iter().map(Into::into).collect()
        });
        Self(server.await)
    }

    /// `redis://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }
}

impl Deref for RedisServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl DerefMut for RedisServer {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.0
    }
}

/// One command in the inline form; the first line of the answer.
async fn ask(port: u16, command: &str) -> io::Result<String> {
    let mut socket = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?);
    socket.write_all(format!("{command}\r\n").as_bytes()).await?;
    let mut line = String::new();
    socket.read_line(&mut line).await?;
    Ok(line.trim_end().to_owned())
}

fn ping(port: u16) -> BoxFuture<'static, io::Result<()>> {
    async move {
        // `-LOADING` while it reads its file.
        let answer = ask(port, "PING").await?;
        if answer == "+PONG" { Ok(()) } else { Err(io::Error::other(answer)) }
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn write_survives_kill_and_restart_on_the_same_port() {
        let options = RedisOptions { fsync: Fsync::Always, ..RedisOptions::default() };
        let mut server = RedisServer::start(options).await;
        assert_eq!(ask(server.port(), "SET kept 1").await.unwrap(), "+OK");
        server.kill();
        server.restart().await;
        assert_eq!(ask(server.port(), "INCR kept").await.unwrap(), ":2");
    }

    #[tokio::test]
    async fn own_arguments_win() {
        let args = vec!["--maxmemory-policy".to_owned(), "allkeys-lru".to_owned()];
        let server = RedisServer::start(RedisOptions { args, ..RedisOptions::default() }).await;
        let script =
            "EVAL \"return redis.call('INFO','memory'):match('maxmemory_policy:(%S+)')\" 0";
        let mut socket = BufReader::new(TcpStream::connect(server.address()).await.unwrap());
        socket.write_all(format!("{script}\r\n").as_bytes()).await.unwrap();
        let (mut length, mut policy) = (String::new(), String::new());
        socket.read_line(&mut length).await.unwrap();
        socket.read_line(&mut policy).await.unwrap();
        assert_eq!(policy.trim_end(), "allkeys-lru");
    }
}
