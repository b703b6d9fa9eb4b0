//! How a device's lines travel: as they are, in TLS, in a WebSocket, or in both.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use tempfile::TempDir;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex,
    split,
};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Bytes on their way between a device and its TLS or WebSocket.
const PIPE_BYTES: usize = 64 * 1024;

/// How lines travel.
#[derive(Clone, Debug, Default)]
pub enum Transport {
    /// As they are.
    #[default]
    Plain,
    /// In TLS, with a server that this trusts.
    Tls(Trust),
    /// In text frames of a WebSocket at `/device`.
    Web,
    /// In text frames of a WebSocket, in TLS.
    WebTls(Trust),
}

/// Where a device connects, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where.
    pub address: SocketAddr,
    /// How.
    pub transport: Transport,
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { address, transport: Transport::Plain }
    }
}

/// A certificate that a device takes for the server's.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

/// A certificate for `localhost` with its key, in files that live as long as this.
#[derive(Debug)]
pub struct Certificate {
    folder: TempDir,
}

impl Certificate {
    /// Makes one.
    ///
    /// # Panics
    ///
    /// When the system has no randomness, or no room for the files.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        let made = made.expect("localhost is a name");
        let write = |name: &str, text: String| {
            std::fs::write(folder.path().join(name), text).expect("room for a small file");
        };
        write("cert.pem", made.cert.pem());
        write("key.pem", made.signing_key.serialize_pem());
        Self { folder }
    }

    /// PEM file with the certificate.
    #[must_use]
    pub fn cert(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// PEM file with its key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// Trust in it.
    ///
    /// # Panics
    ///
    /// When somebody changed the file into something else.
    #[must_use]
    pub fn trust(&self) -> Trust {
        Trust::in_file(&self.cert()).expect("the file holds the certificate")
    }
}

impl Default for Certificate {
    fn default() -> Self {
        Self::new()
    }
}

impl Trust {
    fn in_file(path: &Path) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        let cert = CertificateDer::from_pem_file(path).map_err(io::Error::other)?;
        roots.add(cert).map_err(io::Error::other)?;
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }
}

/// What a device reads and writes, whatever is beneath.
pub(super) struct Connection {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    /// What carries bytes between them and the socket; dropped, it ends.
    pub(super) carriers: JoinSet<()>,
}

/// Lines from the server.
pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// Lines to the server.
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

impl Connection {
    /// Connects, and does what the transport wants before lines.
    pub(super) async fn open(target: &Target) -> io::Result<Self> {
        let tcp = TcpStream::connect(target.address).await?;
        tcp.set_nodelay(true)?;
        match &target.transport {
            Transport::Plain => Ok(Self::of(tcp, JoinSet::new())),
            Transport::Tls(trust) => {
                let (ours, mut theirs) = duplex(PIPE_BYTES);
                let mut tls = encrypt(trust, tcp).await?;
                let mut carriers = JoinSet::new();
                carriers.spawn(async move {
                    // However it ends, the device sees the end.
                    copy_bidirectional(&mut theirs, &mut tls).await.ok();
                });
                Ok(Self::of(ours, carriers))
            }
            Transport::Web => Self::web(tcp).await,
            Transport::WebTls(trust) => Self::web(encrypt(trust, tcp).await?).await,
        }
    }

    fn of(stream: impl AsyncRead + AsyncWrite + Send + 'static, carriers: JoinSet<()>) -> Self {
        let (reader, writer) = split(stream);
        Self { reader: Box::new(reader), writer: Box::new(writer), carriers }
    }

    async fn web<S>(beneath: S) -> io::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let upgraded = client_async("ws://localhost/device", beneath).await;
        let (socket, _) = upgraded.map_err(io::Error::other)?;
        let (ours, theirs) = duplex(PIPE_BYTES);
        let mut carriers = JoinSet::new();
        carriers.spawn(carry(socket, theirs));
        Ok(Self::of(ours, carriers))
    }
}

async fn encrypt(
    trust: &Trust,
    tcp: TcpStream,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = "localhost".try_into().map_err(io::Error::other)?;
    TlsConnector::from(Arc::clone(&trust.0)).connect(name, tcp).await
}

/// Carries lines until either side ends: whole lines out, in one frame what was written at once.
async fn carry<S>(socket: WebSocketStream<S>, device: DuplexStream)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (mut sink, mut stream) = socket.split();
    let (mut from_device, mut to_device) = split(device);
    let sending = async {
        let mut bytes = vec![0; PIPE_BYTES];
        let mut started = Vec::new();
        while let Ok(count @ 1..) = from_device.read(&mut bytes).await {
            started.extend_from_slice(&bytes[..count]);
            let Some(end) = started.iter().rposition(|byte| *byte == b'\n') else { continue };
            let rest = started.split_off(end + 1);
            let lines = std::mem::replace(&mut started, rest);
            let text = String::from_utf8(lines).expect("a device's lines are UTF-8");
            if sink.send(Message::text(text)).await.is_err() {
                return;
            }
        }
    };
    let receiving = async {
        while let Some(Ok(message)) = stream.next().await {
            if let Message::Text(text) = message
                && to_device.write_all(text.as_bytes()).await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        () = sending => {}
        () = receiving => {}
    }
}
