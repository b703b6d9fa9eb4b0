//! First hop of a request: a socket is accepted and read as HTTP/1.1, both within bounds. What is
//! asked for is the router's business.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use observer_chassis::{BoxError, Shutdown};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, info, warn};

use crate::app::App;
use crate::idle::{Connection, Idle};
use crate::router;

/// Time for the head of a request, also the time a connection may wait for its next request. Slow
/// heads are how a few clients hold all connections.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes of a request's head at most: browsers send far fewer.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Pause after a failed accept; the usual cause, too many open files, needs time to pass.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The address of ours that a connection came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalIp(pub(crate) IpAddr);

/// Serves until shutdown is requested, then lets open connections finish, within the grace.
pub(crate) async fn serve(app: Arc<App>, listener: TcpListener) -> Result<(), BoxError> {
    let slots = Arc::new(Semaphore::new(app.config.connections_max.get()));
    let idle = Arc::new(Idle::default());
    let routes = router::routes(Arc::clone(&app));
    loop {
        let (slot, socket, peer) = tokio::select! {
            biased;
            () = app.shutdown.requested() => break,
            accepted = accept(&listener, &slots, &idle) => accepted,
        };
        let place = idle.enter();
        let displaced = place.displaced.clone();
        let connection = connection((routes.clone(), place), socket, peer, app.shutdown.clone());
        app.open.spawn(async move {
            displaced.run_until_cancelled(connection).await;
            drop(slot);
        });
    }
    drop(listener); // New pages are refused at once, while open requests finish.
    app.open.close();
    info!(open = app.open.len(), "api is draining");
    Ok(app.shutdown.drain(app.open.wait()).await?)
}

/// Waits for a free slot, then for a client. Never gives up: one bad accept must not end the api.
/// While there is no slot, whoever has none under way makes room.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    idle: &Idle,
) -> (OwnedSemaphorePermit, TcpStream, SocketAddr) {
    let slot = loop {
        tokio::select! {
            biased;
            slot = Arc::clone(slots).acquire_owned() => {
                break slot.expect("the semaphore is never closed");
            }
            () = idle.make_room() => {}
        }
    };
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => return (slot, socket, peer),
            Err(error) => warn!(%error, "accept failed"),
        }
        tokio::time::sleep(ACCEPT_RETRY).await;
    }
}

async fn connection(
    (routes, place): (Router, Arc<Connection>),
    socket: TcpStream,
    peer: SocketAddr,
    shutdown: Shutdown,
) {
    // Without delay: a frame of the live stream is worth a packet. Failing only costs latency.
    socket.set_nodelay(true).ok();
    let local = match socket.local_addr() {
        Ok(local) => LocalIp(local.ip().to_canonical()),
        Err(error) => return debug!(%peer, %error, "connection was gone when it was accepted"),
    };
    let routes = TowerToHyperService::new(routes.layer(Extension(local)));
    let service = service_fn(move |request| {
        place.works();
        let (answered, place) = (routes.call(request), Arc::clone(&place));
        async move {
            let answer = answered.await;
            place.waits();
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        debug!(%peer, %error, "connection ended with an error");
    }
}
