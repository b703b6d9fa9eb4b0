//! The ways in which a game's lines travel, from the game's side.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::game::{Duplex, Game, WITHIN, tcp};

/// Bytes on their way between a game and its WebSocket.
const PIPE_BYTES: usize = 64 * 1024;

/// How a game connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Plain,
    Tls,
    Web,
    WebTls,
}

impl Transport {
    pub(crate) const ALL: [Self; 4] = [Self::Plain, Self::Tls, Self::Web, Self::WebTls];
}

/// Where a game connects, how, and what it trusts.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) transport: Transport,
    pub(crate) address: SocketAddr,
    pub(crate) certificate: PathBuf,
}

pub(crate) type WebSocket = WebSocketStream<Box<dyn Duplex>>;

impl Target {
    /// A game that has sent nothing yet.
    pub(crate) async fn connect(&self) -> Game {
        match self.transport {
            Transport::Plain => Game::connect(self.address).await,
            Transport::Tls => Game::on(self.tls(&[&version::TLS13]).await.unwrap()),
            Transport::Web | Transport::WebTls => Game::on(piped(self.web_socket().await)),
        }
    }

    pub(crate) async fn sign_in(&self, key: &str) -> Game {
        let mut game = self.connect().await;
        game.send(&format!("v:{key}\n")).await;
        assert_eq!(game.line().await, "OK", "{:?}", self.transport);
        game
    }

    /// A TLS connection that trusts the certificate which is in the file now.
    pub(crate) async fn tls(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.certificate).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "localhost".try_into().unwrap();
        let tcp = tcp(self.address).await;
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        timeout(WITHIN, connecting).await.unwrap()
    }

    /// A WebSocket that has sent nothing yet.
    pub(crate) async fn web_socket(&self) -> WebSocket {
        let beneath: Box<dyn Duplex> = match self.transport {
            Transport::WebTls => Box::new(self.tls(&[&version::TLS13]).await.unwrap()),
            Transport::Plain | Transport::Tls | Transport::Web => Box::new(tcp(self.address).await),
        };
        let upgrading = client_async("ws://localhost/device", beneath);
        timeout(WITHIN, upgrading).await.unwrap().unwrap().0
    }
}

/// Carries lines in both directions: what is written at once goes out in one text frame.
fn piped(socket: WebSocket) -> DuplexStream {
    let (ours, theirs) = duplex(PIPE_BYTES);
    let (mut from_game, mut to_game) = split(theirs);
    let (mut sink, mut stream) = socket.split();
    let sending = async move {
        let mut bytes = vec![0; PIPE_BYTES];
        let mut line = Vec::new();
        while let Ok(count @ 1..) = from_game.read(&mut bytes).await {
            line.extend_from_slice(&bytes[..count]);
            let Some(end) = line.iter().rposition(|byte| *byte == b'\n') else { continue };
            let rest = line.split_off(end + 1);
            let text = String::from_utf8(std::mem::replace(&mut line, rest)).unwrap();
            if sink.send(Message::text(text)).await.is_err() {
                return;
            }
        }
        sink.close().await.ok();
    };
    let receiving = async move {
        while let Some(Ok(message)) = stream.next().await {
            if let Message::Text(text) = message {
                assert!(text.ends_with('\n'), "whole lines: {text}");
                if to_game.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
        to_game.shutdown().await.ok();
    };
    tokio::spawn(sending);
    tokio::spawn(receiving);
    ours
}

/// Makes a certificate for `localhost` and writes it with its key, `key.pem` first.
pub(crate) fn write_certificate(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
}
