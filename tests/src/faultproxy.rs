//! A small TCP proxy that does to a connection what networks do: delay, stall, cut, slice, reset.
//!
//! Its faults are switched while it runs and reach open connections at once. A stall is a network that
//! drops packets: bytes wait and come late, as TCP sends them again; only a reset loses them for good.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::device::below;
use crate::servers::free_port;

/// Bytes of one direction of a connection that the proxy holds at most: then it does not read, and the
/// sender's window fills as it would on a real network.
const HELD_BYTES_MAX: usize = 256 * 1024;

/// Largest piece when a direction is sliced.
const SLICE_BYTES_MAX: usize = 7;

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Time that each byte is under way.
    pub latency: Duration,
    /// Nothing passes until this is over.
    pub stalled: bool,
    /// Bytes come in pieces of 1 to 7.
    pub sliced: bool,
    /// Most bytes a second.
    pub bytes_a_second: Option<u32>,
    /// The connection is reset once so many bytes of it have passed this way.
    pub cut_after: Option<u64>,
    /// Time for which the end of one side is kept from the other.
    pub close_delay: Duration,
}

/// What happens to connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Bytes from the client to the server.
    pub up: Flow,
    /// Bytes from the server to the client.
    pub down: Flow,
    /// New connections are closed at once.
    pub refuses: bool,
}

impl Faults {
    /// Nothing passes in either direction: a broken network.
    #[must_use]
    pub fn blackhole() -> Self {
        let stalled = Flow { stalled: true, ..Flow::default() };
        Self { up: stalled, down: stalled, refuses: false }
    }

    /// The server hears everything, the client nothing.
    #[must_use]
    pub fn answers_lost() -> Self {
        Self { down: Flow { stalled: true, ..Flow::default() }, ..Self::default() }
    }
}

/// What the connections look at.
#[derive(Clone, Copy, Debug)]
struct Orders {
    target: SocketAddr,
    faults: Faults,
    /// Connections of an older generation are reset.
    generation: u64,
}

/// A running proxy. Dropped, it is gone with its connections.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    accepted: Arc<AtomicU64>,
    _accepting: JoinSet<()>,
}

impl FaultProxy {
    /// Listens on a free port and passes everything on to `target`.
    ///
    /// # Panics
    ///
    /// When the port is taken in the same moment.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", free_port())).await;
        let listener = listener.expect("the port was free a moment ago");
        let address = listener.local_addr().expect("it is bound");
        let orders = Orders { target, faults: Faults::default(), generation: 0 };
        let (orders, heard) = watch::channel(orders);
        let accepted = Arc::new(AtomicU64::new(0));
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, heard, Arc::clone(&accepted)));
        Self { address, orders, accepted, _accepting: accepting }
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces all faults, for connections that are open too.
    pub fn set(&self, faults: Faults) {
        self.orders.send_modify(|orders| orders.faults = faults);
    }

    /// No faults any more. What waited comes through.
    pub fn heal(&self) {
        self.set(Faults::default());
    }

    /// Where new connections are passed on to.
    pub fn set_target(&self, target: SocketAddr) {
        self.orders.send_modify(|orders| orders.target = target);
    }

    /// Resets every open connection at both ends. What waited is lost.
    pub fn reset(&self) {
        self.orders.send_modify(|orders| orders.generation += 1);
    }

    /// Connections that were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, orders: watch::Receiver<Orders>, accepted: Arc<AtomicU64>) {
    let mut connections = JoinSet::new(); // They end with the proxy.
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let now = *orders.borrow();
        if now.faults.refuses {
            client.set_zero_linger().ok();
            continue;
        }
        accepted.fetch_add(1, Ordering::Relaxed);
        connections.spawn(pass(client, now, orders.clone()));
    }
}

/// Passes bytes both ways until both sides have ended, or the connection is reset.
async fn pass(client: TcpStream, begun: Orders, orders: watch::Receiver<Orders>) {
    let Ok(server) = TcpStream::connect(begun.target).await else {
        client.set_zero_linger().ok();
        return;
    };
    for socket in [&client, &server] {
        socket.set_nodelay(true).ok();
    }
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let up = Pump::new(client_read, server_write, orders.clone(), |faults| faults.up);
    let down = Pump::new(server_read, client_write, orders.clone(), |faults| faults.down);
    let mut resets = orders;
    tokio::select! {
        // Errors end both directions: what is dropped is reset.
        _ = async { tokio::try_join!(up.run(), down.run()) } => {}
        _ = resets.wait_for(|orders| orders.generation != begun.generation) => {}
    }
}

/// One direction of a connection.
struct Pump {
    from: OwnedReadHalf,
    /// Taken once its end is told.
    to: Option<OwnedWriteHalf>,
    orders: watch::Receiver<Orders>,
    of: fn(Faults) -> Flow,
    held: VecDeque<(Instant, Vec<u8>)>,
    held_bytes: usize,
    passed_bytes: u64,
    /// When the sender ended.
    ended: Option<Instant>,
    /// When the bytes that passed are within their rate.
    paid_at: Instant,
}

impl Pump {
    fn new(
        from: OwnedReadHalf,
        to: OwnedWriteHalf,
        orders: watch::Receiver<Orders>,
        of: fn(Faults) -> Flow,
    ) -> Self {
        let (held, held_bytes, passed_bytes) = (VecDeque::new(), 0, 0);
        let paid_at = Instant::now();
        Self {
            from,
            to: Some(to),
            orders,
            of,
            held,
            held_bytes,
            passed_bytes,
            ended: None,
            paid_at,
        }
    }

    fn flow(&self) -> Flow {
        (self.of)(self.orders.borrow().faults)
    }

    async fn run(mut self) -> io::Result<()> {
        let mut chunk = vec![0; 16 * 1024];
        loop {
            let flow = self.flow();
            let next = self.held.front().map(|(read_at, _)| *read_at + flow.latency);
            let next = next
                .map(|at| at.max(self.paid_at))
                .or_else(|| self.ended.map(|ended| ended + flow.latency + flow.close_delay));
            let due = async {
                match next.filter(|_| !flow.stalled) {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let room = self.ended.is_none() && self.held_bytes < HELD_BYTES_MAX;
            tokio::select! {
                read = self.from.read(&mut chunk), if room => match read? {
                    0 => self.ended = Some(Instant::now()),
                    count => {
                        self.held.push_back((Instant::now(), chunk[..count].to_vec()));
                        self.held_bytes += count;
                    }
                },
                () = due => if self.held.is_empty() {
                    let mut to = self.to.take().expect("the end comes once");
                    return to.shutdown().await;
                } else {
                    self.write(flow).await?;
                },
                told = self.orders.changed() => if told.is_err() {
                    return Err(io::ErrorKind::ConnectionReset.into()); // The proxy is gone.
                },
            }
        }
    }

    /// Writes what was read first, or a piece of it.
    async fn write(&mut self, flow: Flow) -> io::Result<()> {
        let Some((read_at, mut bytes)) = self.held.pop_front() else { return Ok(()) };
        let mut count = bytes.len();
        if flow.sliced {
            count = count.min(1 + below(SLICE_BYTES_MAX));
        }
        if let Some(cut_after) = flow.cut_after {
            let left = cut_after.saturating_sub(self.passed_bytes);
            count = count.min(usize::try_from(left).unwrap_or(usize::MAX));
        }
        let rest = bytes.split_off(count);
        let to = self.to.as_mut().expect("nothing is read past the end");
        to.write_all(&bytes).await?;
        self.held_bytes -= count;
        self.passed_bytes += count as u64;
        if flow.cut_after.is_some_and(|cut_after| cut_after <= self.passed_bytes) {
            sleep(Duration::from_millis(1)).await; // What was written leaves before the reset.
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if let Some(rate) = flow.bytes_a_second {
            let cost = Duration::from_secs(count as u64) / rate.max(1);
            self.paid_at = self.paid_at.max(Instant::now()) + cost;
        }
        if !rest.is_empty() {
            self.held.push_front((read_at, rest));
        }
        Ok(())
    }
}

impl Drop for Pump {
    /// A direction that did not end by itself is reset, not closed as if nothing more had to come.
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            to.as_ref().set_zero_linger().ok(); // A socket that is gone needs none.
            to.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    /// A client, its server, and the proxy between them.
    async fn rig(faults: Faults) -> (TcpStream, TcpStream, FaultProxy) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = FaultProxy::start(listener.local_addr().unwrap()).await;
        proxy.set(faults);
        let client = TcpStream::connect(proxy.address()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (client, server, proxy)
    }

    fn up(flow: Flow) -> Faults {
        Faults { up: flow, ..Faults::default() }
    }

    async fn read(socket: &mut TcpStream, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        tokio::time::timeout(SOON, socket.read_exact(&mut bytes)).await.unwrap().unwrap();
        bytes
    }

    /// Whether nothing can be read for a while.
    async fn is_quiet(socket: &mut TcpStream) -> bool {
        let read = tokio::time::timeout(Duration::from_millis(200), socket.read_u8());
        read.await.is_err()
    }

    /// How the next read of a socket that gets no bytes ends.
    async fn end(socket: &mut TcpStream) -> io::Result<usize> {
        tokio::time::timeout(SOON, socket.read(&mut [0; 8])).await.unwrap()
    }

    #[tokio::test]
    async fn bytes_and_ends_pass_both_ways() {
        let (mut client, mut server, proxy) = rig(Faults::default()).await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read(&mut server, 8).await, b"question");
        assert_eq!(end(&mut server).await.unwrap(), 0);
        server.write_all(b"answer").await.unwrap();
        assert_eq!(read(&mut client, 6).await, b"answer");
        assert_eq!(proxy.accepted(), 1);
    }

    #[tokio::test]
    async fn a_blackhole_holds_what_it_swallows_until_it_is_healed() {
        let (mut client, mut server, proxy) = rig(Faults::blackhole()).await;
        client.write_all(b"late").await.unwrap();
        assert!(is_quiet(&mut server).await);
        proxy.heal();
        assert_eq!(read(&mut server, 4).await, b"late");
    }

    #[tokio::test]
    async fn lost_answers_leave_the_way_up_open_and_a_reset_takes_them_for_good() {
        let (mut client, mut server, proxy) = rig(Faults::answers_lost()).await;
        client.write_all(b"up").await.unwrap();
        assert_eq!(read(&mut server, 2).await, b"up");
        server.write_all(b"down").await.unwrap();
        assert!(is_quiet(&mut client).await);
        proxy.reset();
        assert_eq!(end(&mut client).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(end(&mut server).await.is_err());
    }

    #[tokio::test]
    async fn a_connection_is_cut_after_so_many_bytes() {
        let (mut client, mut server, _proxy) =
            rig(up(Flow { cut_after: Some(5), ..Flow::default() })).await;
        client.write_all(b"0123456789").await.unwrap();
        assert_eq!(read(&mut server, 5).await, b"01234");
        assert!(end(&mut server).await.is_err());
        assert!(end(&mut client).await.is_err());
    }

    #[tokio::test]
    async fn slices_arrive_in_order_and_whole() {
        let (mut client, mut server, _proxy) =
            rig(up(Flow { sliced: true, ..Flow::default() })).await;
        let bytes: Vec<u8> = (0..=255).collect();
        client.write_all(&bytes).await.unwrap();
        assert_eq!(read(&mut server, 256).await, bytes);
    }

    #[tokio::test]
    async fn latency_rate_and_a_slow_close_take_their_time() {
        let flow = Flow {
            latency: Duration::from_millis(50),
            bytes_a_second: Some(100),
            sliced: true,
            close_delay: Duration::from_millis(200),
            ..Flow::default()
        };
        let begun = Instant::now();
        let (mut client, mut server, _proxy) = rig(up(flow)).await;
        client.write_all(&[7; 30]).await.unwrap();
        client.shutdown().await.unwrap();
        read(&mut server, 1).await;
        assert!(Duration::from_millis(50) <= begun.elapsed());
        read(&mut server, 29).await;
        // All but the last piece are paid for.
        assert!(Duration::from_millis(10 * (30 - 7)) <= begun.elapsed());
        assert_eq!(end(&mut server).await.unwrap(), 0);
        assert!(Duration::from_millis(250) <= begun.elapsed());
    }

    #[tokio::test]
    async fn a_refusing_proxy_closes_new_connections_only() {
        let (mut client, mut server, proxy) = rig(Faults::default()).await;
        proxy.set(Faults { refuses: true, ..Faults::default() });
        let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(matches!(end(&mut refused).await, Ok(0) | Err(_)));
        client.write_all(b"x").await.unwrap();
        assert_eq!(read(&mut server, 1).await, b"x");
    }
}
