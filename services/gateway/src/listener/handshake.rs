//! What a connection does before it is a socket with lines: TLS, and the upgrade to a WebSocket. Both
//! are bounded in time, in number and in bytes, as nobody knows yet who is there.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::accept::Transport;
use super::upgrade;
use crate::numbers::NotGreeted;
use crate::shared::Shared;
use crate::stream::{Raw, Stream};
use crate::worker::Worker;

/// First byte of a TLS connection: the type of a handshake record. No HTTP request begins so.
const TLS_FIRST_BYTE: u8 = 0x16;

/// Does what the transport wants before lines. `None` when the connection did not get there.
pub(crate) async fn greet(worker: &Worker, tcp: TcpStream, transport: Transport) -> Option<Stream> {
    let shared = &worker.shared;
    let place = shared.handshakes.enter();
    let within = Duration::from_secs(shared.limits.handshake_secs_max);
    let greeted = tokio::select! {
        greeted = timeout(within, greet_in_time(shared, tcp, transport)) => {
            greeted.unwrap_or(Err(NotGreeted::Late))
        }
        () = place.displaced.cancelled() => Err(NotGreeted::Displaced),
        () = worker.drain_requested.cancelled() => return None,
    };
    match greeted {
        Ok(stream) => Some(stream),
        Err(why) => {
            shared.numbers.not_greeted(why);
            debug!(why = why.name(), "connection was not greeted");
            None
        }
    }
}

async fn greet_in_time(
    shared: &Shared,
    tcp: TcpStream,
    transport: Transport,
) -> Result<Stream, NotGreeted> {
    match transport {
        Transport::Plain => Ok(Stream::Raw(Raw::Plain(tcp))),
        Transport::Tls => Ok(Stream::Raw(encrypt(shared, tcp).await?)),
        Transport::Web => {
            let raw = if shared.certificate.is_some() && begins_with_tls(&tcp).await {
                encrypt(shared, tcp).await?
            } else if shared.config.web_may_be_plain() {
                Raw::Plain(tcp)
            } else {
                upgrade::refuse_plain(Raw::Plain(tcp)).await;
                return Err(NotGreeted::Http);
            };
            let web = upgrade::upgrade(raw, &shared.limits).await.ok_or(NotGreeted::Http)?;
            Ok(Stream::Web(Box::new(web)))
        }
    }
}

async fn encrypt(shared: &Shared, tcp: TcpStream) -> Result<Raw, NotGreeted> {
    // Without a certificate nothing listens for TLS.
    let certificate = shared.certificate.as_ref().ok_or(NotGreeted::Tls)?;
    let acceptor = TlsAcceptor::from(certificate.current());
    let tls = acceptor.accept(tcp).await.map_err(|_| NotGreeted::Tls)?;
    Ok(Raw::Tls(Box::new(tls)))
}

/// Waits for the first byte, and leaves it where it is.
async fn begins_with_tls(tcp: &TcpStream) -> bool {
    let mut first = [0];
    tcp.peek(&mut first).await.is_ok_and(|count| count == 1 && first[0] == TLS_FIRST_BYTE)
}

/// Handshakes under way in this process. When there are too many the oldest ends: whoever means it
/// is done in milliseconds, and need not wait for those who never will be.
#[derive(Debug)]
pub(crate) struct Handshakes {
    max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    by_age: BTreeMap<u64, CancellationToken>,
}

/// One handshake, over when this is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    handshakes: &'a Handshakes,
    number: u64,
    /// A newer one took the place.
    displaced: CancellationToken,
}

impl Handshakes {
    /// At most `max` at once.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, open: Mutex::default() }
    }

    fn enter(&self) -> Place<'_> {
        let displaced = CancellationToken::new();
        let mut open = self.lock();
        if self.max <= open.by_age.len()
            && let Some((_, oldest)) = open.by_age.pop_first()
        {
            oldest.cancel();
        }
        let number = open.next;
        open.next += 1;
        open.by_age.insert(number, displaced.clone());
        Place { handshakes: self, number, displaced }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner) // No update is half done.
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.handshakes.lock().by_age.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_handshake_ends_when_there_is_one_too_many() {
        let handshakes = Handshakes::new(2);
        let [first, second] = [handshakes.enter(), handshakes.enter()];
        assert!(!first.displaced.is_cancelled());
        let third = handshakes.enter();
        assert!(first.displaced.is_cancelled());
        drop((first, third));
        let _fourth = handshakes.enter();
        assert!(!second.displaced.is_cancelled(), "a place that became free is taken first");
        assert_eq!(handshakes.lock().by_age.len(), 2);
    }
}
