//! The connection: made once, kept by the client library, and watched, since what was lost while it
//! was down nobody else tells.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, Request, RequestErrorKind, ServerAddr,
};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::breaker::Breaker;
use super::fullness::Fullness;
use super::{refused, unavailable};
use crate::config::BusConfig;
use crate::{BusError, PAYLOAD_BYTES_MAX};

/// Oldest release that does what the streams need: republishing with time stamps, and refusing
/// unknown settings.
const VERSION_MIN: (u32, u32) = (2, 10);

/// Time for the first connection. A process that cannot reach its broker says so, and tries again.
const FIRST_CONNECTION_TIMEOUT: Duration = Duration::from_secs(4);

/// Pause between two attempts at the first connection.
const FIRST_CONNECTION_RETRY: Duration = Duration::from_millis(200);

/// Time for one attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Silence after which the server is asked whether it is there. Two unanswered: reconnect. With the
/// pause between two looks at the connection, what is lost is told within 15 s.
const PING_INTERVAL: Duration = Duration::from_secs(3);

/// Longest pause between attempts to reconnect, before jitter.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Messages that wait in the client library for one subscription at most. Ours are emptied at once
/// into mailboxes and deliveries, which are bounded by bytes.
const SUBSCRIPTION_CAPACITY: usize = 4_096;

/// Commands that wait in the client library for the connection at most.
const CLIENT_CAPACITY: usize = 2_048;

/// Publishes and requests of this process that wait for an answer at most.
const IN_FLIGHT_MAX: usize = 4_096;

/// Headers and protocol that a message needs besides its payload, in bytes; generous.
const HEADERS_BYTES_MAX: usize = 8 * 1024;

/// Time for one call to `JetStream`, or for a round trip.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A subject to which nobody listens: asking there is a round trip and nothing more.
const ROUND_TRIP: &str = "observer.control.nobody";

/// The connection and what belongs to it.
pub(super) struct Broker {
    pub(super) client: Client,
    pub(super) jetstream: Context,
    pub(super) link: watch::Receiver<Link>,
    pub(super) in_flight: Semaphore,
    pub(super) breaker: Breaker,
    pub(super) fullness: Fullness,
    /// Short tasks that outlive their caller: giving back deliveries, deleting consumers.
    pub(super) tasks: TaskTracker,
    /// Cancelled when the bus is dropped.
    pub(super) closed: CancellationToken,
    runtime: Handle,
    _closes: DropGuard,
}

/// How the connection is, and what happened to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) connected: bool,
    pub(super) since: Instant,
    /// Counts what may have cost messages: connections, and subscriptions that ran over.
    pub(super) losses: u64,
}

impl Broker {
    /// Connects; fails after [`FIRST_CONNECTION_TIMEOUT`].
    pub(super) async fn connect(config: &BusConfig) -> Result<Self, BusError> {
        let operation = "connecting to NATS";
        let first = Link { connected: false, since: Instant::now(), losses: 0 };
        let (link_sender, mut link) = watch::channel(first);
        let link_sender = Arc::new(link_sender);
        let servers: Result<Vec<ServerAddr>, _> =
            config.url.split(',').map(|url| url.trim().parse()).collect();
        let servers = servers.map_err(|error| refused(operation, error))?;

        let until = Instant::now() + FIRST_CONNECTION_TIMEOUT;
        let client = loop {
            let attempt = options(Arc::clone(&link_sender)).connect(&servers[..]);
            let error = match timeout_at(until, attempt).await {
                Ok(Ok(client)) => break client,
                Ok(Err(error)) if is_final(error.kind()) => {
                    return Err(refused(operation, format!("{}: {error}", names(&servers))));
                }
                Ok(Err(error)) => error.to_string(),
                Err(elapsed) => elapsed.to_string(),
            };
            if until < Instant::now() + FIRST_CONNECTION_RETRY {
                return Err(unavailable(operation, format!("{}: {error}", names(&servers))));
            }
            sleep(FIRST_CONNECTION_RETRY).await;
        };
        // Told by another task; a listener would take it for a reconnection if it came later.
        let told = timeout_at(until, link.wait_for(|link| link.connected)).await;
        told.map_err(|elapsed| unavailable(operation, elapsed))?.ok();
        check_server(&client).map_err(|complaint| refused(operation, complaint))?;

        let jetstream = ContextBuilder::new()
            .timeout(CALL_TIMEOUT)
            .ack_timeout(CALL_TIMEOUT)
            .max_ack_inflight(IN_FLIGHT_MAX)
            .backpressure_on_inflight(false)
            .build(client.clone());
        let closed = CancellationToken::new();
        Ok(Self {
            client,
            jetstream,
            link,
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
            breaker: Breaker::default(),
            fullness: Fullness::new(config),
            tasks: TaskTracker::new(),
            _closes: closed.clone().drop_guard(),
            closed,
            runtime: Handle::current(),
        })
    }

    /// Runs a short task, also when the caller is being dropped.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// Returns when all that was sent before has reached the server. Flushing the client would only
    /// say that it has left this process.
    pub(super) async fn round_trip(&self, operation: &'static str) -> Result<(), BusError> {
        self.check_link(operation)?;
        let request = Request::new().timeout(Some(CALL_TIMEOUT));
        match self.client.send_request(ROUND_TRIP, request).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(()),
            Err(error) => Err(unavailable(operation, error)),
        }
    }

    /// Fails when there is no connection: a call would only wait for one.
    pub(super) fn check_link(&self, operation: &'static str) -> Result<(), BusError> {
        if self.link.borrow().connected {
            return Ok(());
        }
        Err(unavailable(operation, "not connected"))
    }

    /// Whether there is a connection, to a server that is new enough.
    pub(super) fn check(&self) -> Result<(), String> {
        let link = *self.link.borrow();
        if !link.connected {
            return Err(format!("not connected to NATS for {} s", link.since.elapsed().as_secs()));
        }
        check_server(&self.client)
    }
}

fn options(link: Arc<watch::Sender<Link>>) -> ConnectOptions {
    ConnectOptions::new()
        .name("observer")
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(CALL_TIMEOUT))
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .client_capacity(CLIENT_CAPACITY)
        .max_reconnects(None)
        .reconnect_delay_callback(reconnect_pause)
        .event_callback(move |event| {
            note(&link, &event);
            std::future::ready(())
        })
}

/// What an event says about the link.
fn note(link: &watch::Sender<Link>, event: &Event) {
    match event {
        Event::Connected => link.send_modify(|link| {
            *link = Link { connected: true, since: Instant::now(), losses: link.losses + 1 };
        }),
        Event::Disconnected | Event::Closed => {
            tracing::warn!("connection to NATS lost");
            link.send_modify(|link| {
                *link = Link { connected: false, since: Instant::now(), losses: link.losses };
            });
        }
        Event::SlowConsumer(_) => {
            tracing::warn!("a subscription ran over, its listeners start anew");
            link.send_modify(|link| link.losses += 1);
        }
        Event::LameDuckMode => tracing::info!("NATS server is about to stop"),
        Event::ServerError(error) => tracing::warn!(%error, "NATS server complains"),
        Event::ClientError(error) => tracing::warn!(%error, "NATS client complains"),
        Event::Draining => {}
    }
}

/// Grows from 50 ms; a random half of it, so that not all processes come back in one moment.
fn reconnect_pause(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(10);
    let most = RECONNECT_PAUSE_MAX.min(Duration::from_millis(50) * 2_u32.pow(doublings));
    let mut random = [0; 1];
    getrandom::fill(&mut random).ok(); // Without, all come at once: bad, not wrong.
    most / 2 + most / 2 * u32::from(random[0]) / 255
}

/// Addresses without what else stands in an URL: there may be a password.
fn names(servers: &[ServerAddr]) -> String {
    let names = servers.iter().map(|server| format!("{}:{}", server.host(), server.port()));
    names.collect::<Vec<_>>().join(", ")
}

/// Whether trying again cannot help.
fn is_final(kind: ConnectErrorKind) -> bool {
    match kind {
        ConnectErrorKind::ServerParse
        | ConnectErrorKind::Authentication
        | ConnectErrorKind::AuthorizationViolation
        | ConnectErrorKind::Tls => true,
        ConnectErrorKind::Dns
        | ConnectErrorKind::TimedOut
        | ConnectErrorKind::Io
        | ConnectErrorKind::MaxReconnects => false,
    }
}

fn check_server(client: &Client) -> Result<(), String> {
    let info = client.server_info();
    let server = format!("nats-server {} at {}:{}", info.version, info.host, info.port);
    if version(&info.version).is_none_or(|version| version < VERSION_MIN) {
        let (major, minor) = VERSION_MIN;
        return Err(format!("{server} is too old: Observer needs {major}.{minor} or newer"));
    }
    let needed = PAYLOAD_BYTES_MAX + HEADERS_BYTES_MAX;
    if info.max_payload < needed {
        let most = info.max_payload;
        return Err(format!("{server} takes {most} bytes (max_payload): Observer needs {needed}"));
    }
    Ok(())
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(version("2.9.10").unwrap() < VERSION_MIN);
        assert!(VERSION_MIN <= version("2.10.0-RC.1").unwrap());
        assert!(VERSION_MIN <= version("3.0.0").unwrap());
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn pause_grows_to_its_bound_and_is_never_none() {
        for attempts in [0, 1, 5, 1_000, usize::MAX] {
            let pause = reconnect_pause(attempts);
            assert!(Duration::from_millis(25) <= pause && pause <= RECONNECT_PAUSE_MAX);
        }
    }
}
