//! The gateway: games' sockets in, lines onto the bus; edits off the bus, to every socket of their
//! key.
//!
//! Files in the order of a line's path, one hop each:
//!
//! 1. [`listener`]: a game connects; each address has a bounded number of sockets, and of connections a
//!    second ([`rate`]).
//! 2. [`worker`]: one thread and one runtime a core; a socket stays where it was handed to.
//! 3. [`session`]: bytes become lines, and waiting bytes are written; one task a socket. What it
//!    reads and writes is a [`stream`]: TCP, TLS or a WebSocket.
//! 4. [`sign_in`]: `v:`, with [`keys`] and [`documents`]; [`level2`]: `h:` and what comes with it.
//! 5. [`accept_line`]: a line is checked and appended to its project's batch, unless its key sends more
//!    than it may a second ([`rate`]), or the bus fills and it weighs little ([`shed`]), or too much
//!    waits already ([`budget`]).
//! 6. [`batch`]: lines of a project gather into one message, which is published.
//! 7. [`settle`]: what became of the message becomes each line's answer, through [`outbox`].
//!
//! And of an edit: [`edits`] hears it, [`registry`] knows the project's sockets. [`control`] hears
//! what else all gateways are told.
//!
//! A gateway keeps nothing: it knows sockets, the bus and what it was told through it. It uses no
//! store, and any gateway may die; its games come back on another one.

mod accept_line;
mod batch;
mod budget;
mod config;
mod control;
mod deadline;
mod documents;
mod edits;
mod keys;
mod level2;
mod listener;
mod numbers;
mod outbox;
mod pause;
mod presence;
mod rate;
mod registry;
mod session;
mod settle;
mod shared;
mod shed;
mod sign_in;
mod slots;
mod socket;
mod spread;
mod stream;
mod worker;

use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use observer_bus::Bus;
use observer_chassis::{DrainTimeout, Readiness, Shutdown, keep_checking};
use observer_wire::Limits;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::info;

pub use config::GatewayConfig;
pub use listener::certificate::{Certificate, CertificateError};

use shared::Shared;
use worker::Workers;

/// Time that lines which were cut off have to be answered, once the grace is over.
const CUT_WITHIN: Duration = Duration::from_secs(1);

/// What a gateway works with besides its listener.
pub struct Ports {
    /// The way to all other services.
    pub bus: Arc<dyn Bus>,
    /// Where it says whether it can work: checks `bus` and `edits`.
    pub readiness: Readiness,
}

/// Where games connect.
#[derive(Debug)]
pub struct Listeners {
    /// Lines as they are.
    pub plain: TcpListener,
    /// Lines in TLS.
    pub tls: Option<TcpListener>,
    /// Lines in WebSockets: `/device`.
    pub web: Option<TcpListener>,
    /// What TLS shows. Without it nothing is encrypted.
    pub certificate: Option<Certificate>,
}

impl Listeners {
    /// Opens what the settings name, each with `bind`, which is given its name in the log.
    ///
    /// # Errors
    ///
    /// What `bind` returned, or that the certificate cannot be used.
    pub async fn open<E: From<CertificateError>>(
        config: &GatewayConfig,
        bind: impl AsyncFn(&'static str, SocketAddr) -> Result<TcpListener, E>,
    ) -> Result<Self, E> {
        let certificate = match (&config.tls_cert, &config.tls_key) {
            (Some(cert), Some(key)) => Some(Certificate::read(cert, key)?),
            _ => None,
        };
        let plain = bind("gateway", config.listen).await?;
        let tls = match certificate {
            Some(_) => Some(bind("gateway_tls", config.tls_listen).await?),
            None => None,
        };
        let web = Some(bind("gateway_ws", config.ws_listen).await?);
        Ok(Self { plain, tls, web, certificate })
    }
}

/// Serves games until shutdown is requested; then answers what is under way and closes.
///
/// # Errors
///
/// [`DrainTimeout`] when lines were still under way at the end of the grace. Their games were told
/// `timeout`, or nothing, and send them again.
///
/// # Panics
///
/// When the system gives no thread for a worker, or a worker panicked: a bug of ours.
pub async fn run(
    config: GatewayConfig,
    limits: Limits,
    mut listeners: Listeners,
    ports: Ports,
    shutdown: Shutdown,
) -> Result<(), DrainTimeout> {
    let Ports { bus, readiness } = ports;
    let certificate = listeners.certificate.take().map(Arc::new);
    let shared = Arc::new(Shared::new(config, limits, bus, certificate));
    let mut background = in_background(&shared, &readiness, &shutdown);
    let stop = async {
        tokio::select! {
            () = shutdown.requested() => {}
            // Without edits or signs of life a gateway is of no use: it ends, loudly.
            Some(Err(ended)) = background.join_next() => resume_unwind(ended.into_panic()),
        }
    };
    let mut workers = Workers::start(&shared);
    listener::accept::accept_until(stop, listeners, &shared, &workers).await;

    info!(sockets = shared.numbers.sockets_open(), "draining");
    workers.drain();
    let drained = shutdown.drain(workers.ended()).await;
    shared.cut.cancel();
    if drained.is_err() {
        // Workers that do not even answer in time end with the process.
        timeout(CUT_WITHIN, workers.ended()).await.ok();
    }
    shared.gaps.give_up(&shared.numbers);
    shared.ended.cancel();
    background.shutdown().await;
    drained
}

/// Starts what goes on beside the sockets, until it is dropped.
fn in_background(shared: &Arc<Shared>, readiness: &Readiness, shutdown: &Shutdown) -> JoinSet<()> {
    let mut background = JoinSet::new();
    background.spawn(edits::follow(Arc::clone(shared), readiness.check("edits")));
    background.spawn(edits::reconcile_when_asked(Arc::clone(shared)));
    background.spawn(control::follow(Arc::clone(shared)));
    background.spawn(presence::announce(Arc::clone(shared)));
    if let Some(certificate) = &shared.certificate {
        let certificate = Arc::clone(certificate);
        background.spawn(listener::certificate::follow(certificate, readiness.check("tls")));
    }
    let bus = Arc::clone(&shared.bus);
    background.spawn(keep_checking(readiness.check("bus"), shutdown.clone(), move || {
        let bus = Arc::clone(&bus);
        async move { bus.check().await }
    }));
    background
}
