//! A game, as a person with `nc` would play it.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Time for what must come. Generous: the machine may be busy with builds.
pub(crate) const WITHIN: Duration = Duration::from_secs(20);

/// What a game reads and writes.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

pub(crate) async fn tcp(address: SocketAddr) -> TcpStream {
    let tcp = timeout(WITHIN, TcpStream::connect(address)).await.unwrap().unwrap();
    tcp.set_nodelay(true).unwrap();
    tcp
}

pub(crate) struct Game {
    pub(crate) socket: BufReader<Box<dyn Duplex>>,
}

impl Game {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::on(tcp(address).await)
    }

    /// A game over anything that carries lines.
    pub(crate) fn on(stream: impl Duplex + 'static) -> Self {
        Self { socket: BufReader::new(Box::new(stream)) }
    }

    pub(crate) async fn sign_in(address: SocketAddr, key: &str) -> Self {
        let mut game = Self::connect(address).await;
        game.send(&format!("v:{key}\n")).await;
        assert_eq!(game.line().await, "OK");
        game
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        timeout(WITHIN, self.socket.write_all(bytes)).await.unwrap().unwrap();
    }

    /// The next line, without its newline.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(WITHIN, self.socket.read_line(&mut line)).await.expect("a line comes").unwrap();
        assert!(line.ends_with('\n'), "the socket closed after {line:?}");
        line.trim_end().to_owned()
    }

    /// The JSON of the next line, which is a callback.
    pub(crate) async fn callback(&mut self, key: &str) -> String {
        let line = self.line().await;
        let payload = line.strip_prefix(&format!("v:{key}:")).expect(&line);
        String::from_utf8(STANDARD.decode(payload).unwrap()).unwrap()
    }

    /// Whether all answers so far were read: an echo comes next.
    pub(crate) async fn hears_nothing_more(&mut self) {
        self.send("p:quiet\n").await;
        assert_eq!(self.line().await, "p:quiet");
    }

    /// The server closed; nothing more came.
    pub(crate) async fn is_closed(&mut self) {
        let mut rest = Vec::new();
        timeout(WITHIN, self.socket.read_to_end(&mut rest)).await.expect("it closes").unwrap();
        assert_eq!(rest.escape_ascii().to_string(), "");
    }
}

pub(crate) fn base64(json: &str) -> String {
    STANDARD.encode(json)
}

/// Whether a line says that the gateway stops, and a time within which games come back one by one.
pub(crate) fn is_draining(line: &str) -> bool {
    let rest = line.strip_prefix("ERR draining - ").unwrap_or_default();
    let retry = rest.split(' ').next().and_then(|retry| retry.parse::<u32>().ok());
    retry.is_some_and(|retry| (1_000..=9_000).contains(&retry))
}
