//! A running gateway, its bus, and what tests wait for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use observer_chassis::{DrainTimeout, Readiness, Shutdown};
use observer_gateway::{Certificate, GatewayConfig, Listeners, Ports, run};
use observer_wire::Limits;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::fake_bus::FakeBus;
use crate::game::{Game, WITHIN};
use crate::transport::{Target, Transport, write_certificate};

pub(crate) const KEY: &str = "0123456789ab";
pub(crate) const OTHER_KEY: &str = "ba9876543210";

/// Time that a gateway has to end.
const GRACE: Duration = Duration::from_secs(10);

pub(crate) struct Rig {
    pub(crate) address: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) web: SocketAddr,
    /// Where `cert.pem` and `key.pem` are.
    pub(crate) folder: TempDir,
    pub(crate) bus: Arc<FakeBus>,
    pub(crate) shutdown: Shutdown,
    pub(crate) readiness: Readiness,
    running: JoinHandle<Result<(), DrainTimeout>>,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default(), GRACE).await
    }

    pub(crate) async fn with_limits(limits: Limits) -> Self {
        Self::with(limits, GRACE).await
    }

    pub(crate) async fn with(limits: Limits, grace: Duration) -> Self {
        let config = GatewayConfig { workers: 2, ..GatewayConfig::default() };
        Self::with_config(config, limits, grace).await
    }

    pub(crate) async fn with_config(
        config: GatewayConfig,
        limits: Limits,
        grace: Duration,
    ) -> Self {
        let bus = FakeBus::new();
        bus.register(KEY);
        bus.register(OTHER_KEY);
        let folder = tempfile::tempdir().unwrap();
        write_certificate(folder.path());
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
        let certificate = Some(Certificate::read(&cert, &key).unwrap());
        let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tls = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let [address, tls_at, web_at] =
            [&plain, &tls, &web].map(|listener| listener.local_addr().unwrap());
        let listeners = Listeners { plain, tls: Some(tls), web: Some(web), certificate };
        let shutdown = Shutdown::new(grace);
        let readiness = Readiness::new("test");
        let ports = Ports { bus: Arc::<FakeBus>::clone(&bus), readiness: readiness.clone() };
        let running = tokio::spawn(run(config, limits, listeners, ports, shutdown.clone()));
        let rig =
            Self { address, tls: tls_at, web: web_at, folder, bus, shutdown, readiness, running };
        eventually("the gateway listens to edits", || rig.bus.is_listened_to()).await;
        rig
    }

    pub(crate) async fn game(&self) -> Game {
        Game::sign_in(self.address, KEY).await
    }

    /// Where games connect over `transport`, and what they trust.
    pub(crate) fn target(&self, transport: Transport) -> Target {
        let address = match transport {
            Transport::Plain => self.address,
            Transport::Tls => self.tls,
            Transport::Web | Transport::WebTls => self.web,
        };
        Target { transport, address, certificate: self.folder.path().join("cert.pem") }
    }

    /// Stops the gateway, and fails if it did not end in order.
    pub(crate) async fn stop(self) {
        self.shutdown.request();
        assert_eq!(self.ended().await, Ok(()));
    }

    /// How the gateway ended.
    pub(crate) async fn ended(self) -> Result<(), DrainTimeout> {
        timeout(WITHIN + GRACE, self.running).await.expect("it ends").expect("it does not panic")
    }
}

/// Waits for something that must become true.
pub(crate) async fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let looking = async {
        while !is_true() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(WITHIN, looking).await.is_ok(), "did not happen: {what}");
}
