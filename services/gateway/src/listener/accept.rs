//! Connections become sockets of a worker, in turn. Accepting never gives up: one bad accept must
//! not end the gateway, and too many open files pass.

use std::future::{Future, pending};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use observer_chassis::files_max;
use observer_wire::{Code, Refusal, answer};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::Listeners;
use crate::rate::{Address, AddressRates};
use crate::shared::Shared;
use crate::slots::Slot;
use crate::worker::Workers;

/// Pause after a failed accept; the usual cause, too many open files, needs time to pass.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Files that are left to all but games' sockets: the bus, probes of the admin port, stores of the
/// embedded form. Where the system allows so few that this would be most, a half is.
const FILES_KEPT: usize = 128;

/// Silence after which the system asks whether the other end still exists. A signed-in game may be
/// silent for hours, and its network may forget it in minutes.
const KEEPALIVE_AFTER: Duration = Duration::from_mins(1);

/// Pause between such questions; after a few without an answer the socket ends.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);

/// How lines travel on the connections of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// As they are.
    Plain,
    /// In TLS.
    Tls,
    /// In a WebSocket, in TLS or not.
    Web,
}

/// A connection on its way to a worker.
pub(crate) struct Handed {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) transport: Transport,
    pub(crate) welcome: Welcome,
    /// It is one of the connections that are open.
    pub(crate) open: Slot<()>,
}

/// What a connection is given. Either is given back when the socket ends.
pub(crate) enum Welcome {
    /// It is served.
    Served(Slot<Address>, Arc<AddressRates>),
    /// Its address has too many sockets, or connects too often: it is told so, and closed.
    Refused(OwnedSemaphorePermit, Refusal),
}

/// Accepts until `stop`; then the listener is dropped, so that new games go elsewhere at once.
pub(crate) async fn accept_until(
    stop: impl Future<Output = ()>,
    listeners: Listeners,
    shared: &Arc<Shared>,
    workers: &Workers,
) {
    let Listeners { plain, tls, web, certificate: _ } = listeners;
    let plain = accept_all(Transport::Plain, plain, shared, workers);
    let tls = accept_some(Transport::Tls, tls, shared, workers);
    let web = accept_some(Transport::Web, web, shared, workers);
    // One of the others ends when a worker did, which is found when that is waited for.
    tokio::select! {
        biased;
        () = stop => {}
        () = plain => {}
        () = tls => {}
        () = web => {}
    }
}

async fn accept_some(
    transport: Transport,
    listener: Option<TcpListener>,
    shared: &Arc<Shared>,
    workers: &Workers,
) {
    match listener {
        Some(listener) => accept_all(transport, listener, shared, workers).await,
        None => pending().await,
    }
}

/// Accepts until a worker ended.
async fn accept_all(
    transport: Transport,
    listener: TcpListener,
    shared: &Arc<Shared>,
    workers: &Workers,
) {
    loop {
        let (stream, peer) = accept(&listener, shared).await;
        let Some(handed) = prepare(stream, peer, transport, shared) else { continue };
        if workers.hand(handed).await.is_err() {
            return;
        }
    }
}

async fn accept(listener: &TcpListener, shared: &Shared) -> (TcpStream, SocketAddr) {
    let mut failed = false;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                shared.numbers.accept_failed.increment(1);
                if !failed {
                    warn!(%error, "accept failed, trying on"); // Once, not ten times a second.
                }
                failed = true;
            }
        }
        sleep(ACCEPT_RETRY).await;
    }
}

/// Sets the socket up; `None` when it is gone already, or one of too many.
fn prepare(
    stream: TcpStream,
    peer: SocketAddr,
    transport: Transport,
    shared: &Shared,
) -> Option<Handed> {
    let Some(open) = take_file(shared) else {
        shared.numbers.connects_without_file.increment(1);
        dismiss(stream, transport);
        return None;
    };
    let welcome = welcome(peer.ip().into(), transport, shared)?;
    match set_up(stream) {
        Ok(stream) => Some(Handed { stream, transport, welcome, open }),
        Err(error) => {
            debug!(%error, "socket was gone before it was served");
            None
        }
    }
}

/// Says why, where that is one try, and closes: there is no file to wait with.
fn dismiss(stream: TcpStream, transport: Transport) {
    if transport != Transport::Plain {
        return;
    }
    let words = "the gateway has as many sockets as the system lets it have";
    let refusal = Refusal::new(Code::TooManySockets, words);
    let mut line = Vec::new();
    answer::write_error(&mut line, &refusal, None, None);
    let written = stream.into_std().and_then(|mut stream| stream.write(&line));
    debug!(?written, "connection was closed at once: too few files may be open");
}

/// Takes one of the files that games may have open; none when too few would be left.
///
/// Accepting until the system has none would close the admin port too, and everything else that
/// must open something to go on.
fn take_file(shared: &Shared) -> Option<Slot<()>> {
    shared.open_sockets.take_below(sockets_max(files_max()), ())
}

/// Sockets of games, where this many files may be open.
fn sockets_max(files_max: usize) -> usize {
    files_max - FILES_KEPT.min(files_max / 2)
}

/// What a connection from `address` is given; `None` when it is closed at once.
fn welcome(address: Address, transport: Transport, shared: &Shared) -> Option<Welcome> {
    let rates = match shared.rates.connect(address, transport) {
        Ok(rates) => rates,
        Err(too_fast) => {
            shared.numbers.address_connects_refused.increment(1);
            // Other transports have no words before a handshake, which is what it may not have.
            let speaks = transport == Transport::Plain;
            let refused = || refused(too_fast.refusal(Code::TooManySockets), shared);
            return speaks.then(refused).flatten();
        }
    };
    let Some(slot) = shared.address_slots.take(address) else {
        let words = "your address has as many sockets as it may (limits.address_sockets_max)";
        return refused(Refusal::new(Code::TooManySockets, words), shared);
    };
    Some(Welcome::Served(slot, rates))
}

fn refused(refusal: Refusal, shared: &Shared) -> Option<Welcome> {
    let permit = Arc::clone(&shared.refused_sockets).try_acquire_owned().ok()?;
    Some(Welcome::Refused(permit, refusal))
}

fn set_up(stream: TcpStream) -> io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?; // Answers are small and waited for.
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    stream.into_std() // It leaves this runtime: a worker takes it into its own.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_are_kept_from_games_but_never_more_than_half() {
        for (files, sockets) in [(64, 32), (256, 128), (257, 129), (20_000, 19_872), (0, 0)] {
            assert_eq!(sockets_max(files), sockets, "{files} files");
        }
    }
}
