//! A game on a plain TCP socket: what a person with `nc` could type, and no more.
//!
//! It neither retries nor hides anything: a lost socket is an error that the test sees.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Time a game waits for a line that must come. Generous: the machine may be busy with builds.
pub const LINE_WITHIN: Duration = Duration::from_secs(30);

/// Most lines put aside while the game waits for another one. A test that meets it waits for the
/// wrong thing.
const ASIDE_LINES_MAX: usize = 10_000;

/// A game's socket.
#[derive(Debug)]
pub struct Game {
    socket: BufReader<TcpStream>,
    key: String,
    /// Bytes of a line whose end has not come.
    started: Vec<u8>,
    /// Lines that came while another kind was waited for.
    aside: VecDeque<String>,
}

impl Game {
    /// Connects, and sends nothing.
    ///
    /// # Errors
    ///
    /// When nobody listens.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let (key, aside) = (String::new(), VecDeque::new());
        Ok(Self { socket: BufReader::new(socket), key, started: Vec::new(), aside })
    }

    /// Connects and signs in with `v:<key>`.
    ///
    /// # Errors
    ///
    /// When the answer is not `OK`.
    pub async fn sign_in(address: SocketAddr, key: &str) -> io::Result<Self> {
        let mut game = Self::connect(address).await?;
        key.clone_into(&mut game.key);
        game.send_line(&format!("v:{key}")).await?;
        let answer = game.read_line(LINE_WITHIN).await?;
        if answer == "OK" { Ok(game) } else { Err(io::Error::other(answer)) }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    ///
    /// When the socket is closed.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// Sends a line; the newline is added.
    ///
    /// # Errors
    ///
    /// When the socket is closed.
    pub async fn send_line(&mut self, line: &str) -> io::Result<()> {
        self.send(format!("{line}\n").as_bytes()).await
    }

    /// Sends records in one line, in base64 as the original's clients did.
    ///
    /// # Errors
    ///
    /// When the socket is closed.
    pub async fn log(&mut self, records: &Value) -> io::Result<()> {
        let line = format!("l:{}:{}", self.key, to_base64(records));
        self.send_line(&line).await
    }

    /// Sends records in one line that asks for an acknowledgement.
    ///
    /// # Errors
    ///
    /// When the socket is closed.
    pub async fn log_with_mid(&mut self, records: &Value, mid: &str) -> io::Result<()> {
        let line = format!("l:{}:{}:{mid}", self.key, to_base64(records));
        self.send_line(&line).await
    }

    /// Sends one variable.
    ///
    /// # Errors
    ///
    /// When the socket is closed.
    pub async fn var(&mut self, name: &str, r#type: &str, value: &str) -> io::Result<()> {
        self.vars(&json!([{ "name": name, "type": r#type, "value": value }])).await
    }

    /// Sends variables in one line.
    ///
    /// # Errors
    ///
    /// When the socket is closed.
    pub async fn vars(&mut self, vars: &Value) -> io::Result<()> {
        let line = format!("i:{}:{}", self.key, to_base64(vars));
        self.send_line(&line).await
    }

    /// The next line, whatever it is, without its newline.
    ///
    /// # Errors
    ///
    /// `TimedOut` when none came within `deadline`; `UnexpectedEof` when the server closed.
    ///
    /// # Cancel safety
    ///
    /// What was read of a line is kept for the next call.
    pub async fn read_line(&mut self, deadline: Duration) -> io::Result<String> {
        if let Some(line) = self.aside.pop_front() {
            return Ok(line);
        }
        self.receive_line(deadline).await
    }

    /// The next `OK …` or `ERR …`; callbacks that come before it are put aside.
    ///
    /// # Errors
    ///
    /// As [`Game::read_line`].
    pub async fn answer(&mut self, deadline: Duration) -> io::Result<String> {
        self.wait_for(deadline, |line| line.starts_with("OK") || line.starts_with("ERR")).await
    }

    /// The JSON of the next `v:<key>:…`; answers that come before it are put aside.
    ///
    /// # Errors
    ///
    /// As [`Game::read_line`], and when the payload is not JSON.
    pub async fn callback(&mut self, deadline: Duration) -> io::Result<Value> {
        let start = format!("v:{}:", self.key);
        let line = self.wait_for(deadline, |line| line.starts_with(&start)).await?;
        from_payload(&line[start.len()..])
    }

    /// Whether the server closes the socket within `deadline`. Lines that come before are kept.
    ///
    /// # Errors
    ///
    /// `TimedOut` when it stays open.
    pub async fn closed(&mut self, deadline: Duration) -> io::Result<()> {
        let until = tokio::time::Instant::now() + deadline;
        loop {
            match self.receive_line(until - tokio::time::Instant::now()).await {
                Ok(line) => self.put_aside(line),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
                Err(_) => return Ok(()),
            }
        }
    }

    async fn wait_for(
        &mut self,
        deadline: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> io::Result<String> {
        let known = self.aside.iter().position(|line| wanted(line));
        if let Some(line) = known.and_then(|at| self.aside.remove(at)) {
            return Ok(line);
        }
        let until = tokio::time::Instant::now() + deadline;
        loop {
            let line = self.receive_line(until - tokio::time::Instant::now()).await?;
            if wanted(&line) {
                return Ok(line);
            }
            self.put_aside(line);
        }
    }

    async fn receive_line(&mut self, deadline: Duration) -> io::Result<String> {
        let read = self.socket.read_until(b'\n', &mut self.started);
        tokio::time::timeout(deadline, read).await??;
        if self.started.pop() != Some(b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = std::mem::take(&mut self.started);
        String::from_utf8(line).map_err(io::Error::other)
    }

    fn put_aside(&mut self, line: String) {
        assert!(self.aside.len() < ASIDE_LINES_MAX, "too many other lines, last: {line}");
        self.aside.push_back(line);
    }
}

/// Base64 of the JSON: a payload as the original's clients wrote it.
#[must_use]
pub fn to_base64(payload: &Value) -> String {
    STANDARD.encode(payload.to_string())
}

/// JSON from a payload in base64, or as it is when it starts with `[` or `{`.
///
/// # Errors
///
/// When it is neither.
pub fn from_payload(payload: &str) -> io::Result<Value> {
    if payload.starts_with(['[', '{']) {
        return Ok(serde_json::from_str(payload)?);
    }
    let bytes = STANDARD.decode(payload).map_err(io::Error::other)?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A game signed in to a server that answers the sign-in and sends `bytes`, and that server's end.
    async fn game(bytes: &str) -> (Game, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(format!("OK\n{bytes}").as_bytes()).await.unwrap();
            socket
        };
        let (game, server) = tokio::join!(Game::sign_in(address, "0123456789ab"), server);
        (game.unwrap(), server)
    }

    #[tokio::test]
    async fn callbacks_and_answers_do_not_swallow_each_other() {
        let callback = to_base64(&json!([{ "name": "a" }]));
        let (mut game, _server) = game(&format!("v:0123456789ab:{callback}\nOK m1\n")).await;
        assert_eq!(game.answer(LINE_WITHIN).await.unwrap(), "OK m1");
        assert_eq!(game.callback(LINE_WITHIN).await.unwrap(), json!([{ "name": "a" }]));
    }

    #[tokio::test]
    async fn half_a_line_is_kept_past_the_deadline() {
        let (mut game, mut server) = game("OK m").await;
        let error = game.read_line(Duration::from_millis(100)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        server.write_all(b"2\n").await.unwrap();
        assert_eq!(game.read_line(LINE_WITHIN).await.unwrap(), "OK m2");
    }

    #[tokio::test]
    async fn closed_socket_is_told() {
        let (mut game, server) = game("ERR idle - 0 bye\n").await;
        drop(server);
        game.closed(LINE_WITHIN).await.unwrap();
        assert_eq!(game.read_line(LINE_WITHIN).await.unwrap(), "ERR idle - 0 bye");
    }
}
