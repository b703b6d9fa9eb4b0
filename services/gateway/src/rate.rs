//! How much a second a key and an address may send: buckets that fill with time. A line takes from
//! its key's, before anything is done for it; a connection from its address's, before even that.
//!
//! What is counted here is this gateway's alone: a key on two gateways may have twice as much.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use observer_wire::limits::RATE_BURST_SECS;
use observer_wire::{ApiKey, Code, Limits, Refusal};
use tokio::time::Instant;

use crate::listener::accept::Transport;

/// Keys whose rates are remembered, each in about 200 bytes.
const KEYS_MAX: usize = 20_000;

/// Addresses whose rates are remembered, each in about 200 bytes.
const ADDRESSES_MAX: usize = 20_000;

/// Entries with sockets that are passed over to find one without, when one must go. Past it any goes:
/// a bound is a bound.
const PASSED_OVER_MAX: usize = 16;

/// Shortest time that a game is told to wait: whoever floods is looked at ten times a second, not
/// for every line.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// Longest time for which a socket is not read because its line came too early.
const REST_MAX: Duration = Duration::from_secs(1);

const NANOS: u64 = 1_000_000_000;

/// What a bucket holds, in nanoseconds of its rate.
const BURST_NANOS: u64 = RATE_BURST_SECS as u64 * NANOS;

/// Whom connections come from: an IPv4 address, or the /64 network of an IPv6 address, of which one
/// host has as many addresses as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address(IpAddr);

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            v4 @ IpAddr::V4(_) => v4,
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        })
    }
}

/// What a key used.
#[derive(Debug, Default)]
pub(crate) struct KeyRates {
    lines: Bucket,
    bytes: Bucket,
    connects: Bucket,
}

/// What an address used.
#[derive(Debug, Default)]
pub(crate) struct AddressRates {
    connects: Bucket,
    handshakes: Bucket,
    lines: Bucket,
}

/// More than a rate allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooFast {
    /// What is not allowed, and by which setting.
    words: &'static str,
    /// After this time it is, unless others of the same key or address were faster.
    retry: Duration,
}

impl TooFast {
    /// How a game is told.
    pub(crate) fn refusal(&self, code: Code) -> Refusal {
        // Rounded up: what comes after it is not too early.
        let ms = self.retry.as_nanos().div_ceil(1_000_000);
        Refusal::new(code, self.words).retry_after(u32::try_from(ms).unwrap_or(u32::MAX))
    }

    /// Time for which the socket is not read.
    pub(crate) fn rest(&self) -> Duration {
        self.retry.min(REST_MAX)
    }
}

/// When a bucket is full again, on the gateway's clock. Nothing is locked: taking is one atomic.
#[derive(Debug, Default)]
struct Bucket {
    full_at: AtomicU64,
}

impl Bucket {
    /// Nanoseconds until `cost` is there; 0 when it is.
    fn lacks(&self, now: u64, cost: u64) -> u64 {
        let full_at = self.full_at.load(Ordering::Relaxed).max(now);
        full_at.saturating_add(cost).saturating_sub(now + BURST_NANOS)
    }

    fn take(&self, now: u64, cost: u64) {
        let later = |full_at: u64| Some(full_at.max(now).saturating_add(cost));
        // It always succeeds: `later` never says no.
        self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later).ok();
    }
}

/// A rate.
#[derive(Clone, Copy, Debug)]
struct PerSecond(u64);

impl PerSecond {
    /// `limits.<name>` is never 0.
    fn new(max: usize) -> Self {
        Self(max.max(1) as u64)
    }

    /// Nanoseconds in which `count` come at this rate.
    fn cost(self, count: usize) -> u64 {
        (count as u64).saturating_mul(NANOS) / self.0
    }
}

/// Takes from all buckets, or from none: so that the time told is true for all of them.
///
/// Two workers that take at the same moment may both get the last of it: a line each, no more.
fn take<const N: usize>(
    now: u64,
    wanted: [(&Bucket, u64, &'static str); N],
) -> Result<(), TooFast> {
    let lacking = wanted
        .iter()
        .map(|(bucket, cost, words)| (bucket.lacks(now, *cost), *words))
        .max_by_key(|(lacks, _)| *lacks);
    if let Some((lacks @ 1.., words)) = lacking {
        return Err(TooFast { words, retry: Duration::from_nanos(lacks).max(RETRY_MIN) });
    }
    for (bucket, cost, _) in wanted {
        bucket.take(now, cost);
    }
    Ok(())
}

/// What everybody used, and may use.
#[derive(Debug)]
pub(crate) struct Rates {
    began: Instant,
    keys: Table<ApiKey, KeyRates>,
    addresses: Table<Address, AddressRates>,
    key_lines: PerSecond,
    key_bytes: PerSecond,
    key_connects: PerSecond,
    address_connects: PerSecond,
    address_handshakes: PerSecond,
    address_lines: PerSecond,
}

impl Rates {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            began: Instant::now(),
            keys: Table::new(KEYS_MAX),
            addresses: Table::new(ADDRESSES_MAX),
            key_lines: PerSecond::new(limits.key_lines_s_max),
            key_bytes: PerSecond::new(limits.key_bytes_s_max),
            key_connects: PerSecond::new(limits.key_connects_s_max),
            address_connects: PerSecond::new(limits.address_connects_s_max),
            address_handshakes: PerSecond::new(limits.address_handshakes_s_max),
            address_lines: PerSecond::new(limits.address_lines_s_max),
        }
    }

    /// A connection came.
    pub(crate) fn connect(
        &self,
        address: Address,
        transport: Transport,
    ) -> Result<Arc<AddressRates>, TooFast> {
        let rates = self.addresses.of(address);
        let words = "your address connects too often (limits.address_connects_s_max)";
        let connect = (&rates.connects, self.address_connects.cost(1), words);
        if transport == Transport::Plain {
            take(self.now(), [connect])?;
        } else {
            let words = "your address connects too often (limits.address_handshakes_s_max)";
            let handshake = (&rates.handshakes, self.address_handshakes.cost(1), words);
            take(self.now(), [connect, handshake])?;
        }
        Ok(rates)
    }

    /// A socket signs in.
    pub(crate) fn sign_in(&self, key: ApiKey) -> Result<Arc<KeyRates>, TooFast> {
        let rates = self.keys.of(key);
        let words = "the key signs in too often (limits.key_connects_s_max)";
        take(self.now(), [(&rates.connects, self.key_connects.cost(1), words)])?;
        Ok(rates)
    }

    /// A line came on a socket that is signed in.
    pub(crate) fn line_of_key(&self, rates: &KeyRates, bytes: usize) -> Result<(), TooFast> {
        let words = "the key sends more lines a second than it may (limits.key_lines_s_max)";
        let line = (&rates.lines, self.key_lines.cost(1), words);
        let words = "the key sends more bytes a second than it may (limits.key_bytes_s_max)";
        let bytes = (&rates.bytes, self.key_bytes.cost(bytes), words);
        take(self.now(), [line, bytes])
    }

    /// A line came on a socket that is not.
    pub(crate) fn line_of_address(&self, rates: &AddressRates) -> Result<(), TooFast> {
        let words = "your address sends too many lines without a sign-in \
            (limits.address_lines_s_max)";
        take(self.now(), [(&rates.lines, self.address_lines.cost(1), words)])
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).expect("no gateway runs for 500 years")
    }
}

/// What each `K` used; bounded. Who was silent longest is forgotten first, and those with sockets
/// last.
#[derive(Debug)]
struct Table<K, R> {
    max: usize,
    entries: Mutex<Entries<K, R>>,
}

#[derive(Debug)]
struct Entries<K, R> {
    by_owner: HashMap<K, (u64, Arc<R>)>,
    /// By when they connected last.
    by_age: BTreeMap<u64, K>,
    next: u64,
}

impl<K: Copy + Eq + Hash, R: Default> Table<K, R> {
    fn new(max: usize) -> Self {
        let entries = Entries { by_owner: HashMap::new(), by_age: BTreeMap::new(), next: 0 };
        Self { max, entries: Mutex::new(entries) }
    }

    /// What `owner` used.
    fn of(&self, owner: K) -> Arc<R> {
        let mut entries = self.lock();
        let rates = if let Some((number, rates)) = entries.by_owner.remove(&owner) {
            entries.by_age.remove(&number);
            rates
        } else {
            if self.max <= entries.by_owner.len() {
                entries.forget_one();
            }
            Arc::default()
        };
        entries.add(owner, Arc::clone(&rates));
        rates
    }

    fn lock(&self) -> MutexGuard<'_, Entries<K, R>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner) // The worst is one forgotten.
    }
}

impl<K: Copy + Eq + Hash, R> Entries<K, R> {
    fn add(&mut self, owner: K, rates: Arc<R>) {
        let number = self.next;
        self.next += 1;
        self.by_age.insert(number, owner);
        self.by_owner.insert(owner, (number, rates));
    }

    fn forget_one(&mut self) {
        for passed_over in 0.. {
            let Some((_, owner)) = self.by_age.pop_first() else { return };
            let Some((_, rates)) = self.by_owner.remove(&owner) else { return };
            if Arc::strong_count(&rates) == 1 || passed_over == PASSED_OVER_MAX {
                return;
            }
            self.add(owner, rates); // It has sockets.
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn key(number: u64) -> ApiKey {
        format!("{number:012x}").parse().unwrap()
    }

    fn rates(set: impl Fn(&mut Limits)) -> Rates {
        let mut limits = Limits::default();
        set(&mut limits);
        Rates::new(&limits)
    }

    fn retry_ms(too_fast: TooFast) -> u32 {
        too_fast.refusal(Code::Rate).retry_ms.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_may_send_its_lines_of_two_seconds_at_once_and_not_one_more() {
        let rates = rates(|limits| limits.key_lines_s_max = 5);
        let of_key = rates.sign_in(key(1)).unwrap();
        for _ in 0..10 {
            assert_eq!(rates.line_of_key(&of_key, 100), Ok(()));
        }
        let refused = rates.line_of_key(&of_key, 100).unwrap_err();
        assert_eq!(retry_ms(refused), 200);
        let other = rates.sign_in(key(2)).unwrap();
        assert_eq!(rates.line_of_key(&other, 100), Ok(()), "each key has its own");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_sent_after_the_time_told_is_accepted_whichever_rate_it_met() {
        let rates = rates(|limits| {
            (limits.key_lines_s_max, limits.key_bytes_s_max) = (3, 1_000);
            limits.line_bytes_max = 2_000;
        });
        let of_key = rates.sign_in(key(1)).unwrap();
        let mut refused = 0;
        for bytes in [1, 1, 700, 1_300, 2_000, 1, 1, 1, 1, 1, 1, 2_000, 999, 1, 2_000] {
            if let Err(too_fast) = rates.line_of_key(&of_key, bytes) {
                refused += 1;
                advance(Duration::from_millis(retry_ms(too_fast).into())).await;
                assert_eq!(rates.line_of_key(&of_key, bytes), Ok(()), "{bytes} bytes");
            }
        }
        assert!(refused > 5, "{refused} met a rate");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_taken_to_the_last_and_not_one_more() {
        let rates = rates(|limits| limits.key_bytes_s_max = 1_000);
        let of_key = rates.sign_in(key(1)).unwrap();
        assert_eq!(rates.line_of_key(&of_key, 1_500), Ok(()));
        let refused = rates.line_of_key(&of_key, 501).unwrap_err();
        assert!(refused.refusal(Code::Rate).words.contains("key_bytes_s_max"));
        assert_eq!(rates.line_of_key(&of_key, 500), Ok(()), "what was refused took nothing");
        assert_eq!(retry_ms(rates.line_of_key(&of_key, 500).unwrap_err()), 500);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_over_a_long_time() {
        let rates = rates(|limits| limits.key_lines_s_max = 1_000);
        let of_key = rates.sign_in(key(1)).unwrap();
        let mut accepted = 0;
        for _ in 0..5_000 {
            advance(Duration::from_millis(2)).await;
            accepted += (0..10).filter(|_| rates.line_of_key(&of_key, 1).is_ok()).count();
        }
        // Ten seconds, and the two that were saved up.
        assert!((11_990..=12_010).contains(&accepted), "{accepted}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_told_is_at_least_long_enough_to_cost_little_and_a_rest_at_most_a_second() {
        let rates = rates(|limits| {
            (limits.key_lines_s_max, limits.key_bytes_s_max) = (1_000, 1_000);
        });
        let of_key = rates.sign_in(key(1)).unwrap();
        let too_fast = (0..3_000).find_map(|_| rates.line_of_key(&of_key, 0).err()).unwrap();
        assert_eq!((retry_ms(too_fast), too_fast.rest()), (100, RETRY_MIN));
        advance(Duration::from_secs(10)).await;
        rates.line_of_key(&of_key, 2_000).unwrap();
        let too_fast = rates.line_of_key(&of_key, 2_000).unwrap_err();
        assert_eq!((retry_ms(too_fast), too_fast.rest()), (2_000, REST_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_of_an_address_are_counted_and_handshakes_besides() {
        let rates = rates(|limits| {
            (limits.address_connects_s_max, limits.address_handshakes_s_max) = (3, 2);
        });
        let address = Address::from(IpAddr::from([10, 0, 0, 1]));
        for _ in 0..4 {
            assert!(rates.connect(address, Transport::Tls).is_ok());
        }
        let refused = rates.connect(address, Transport::Web).unwrap_err();
        assert!(refused.words.contains("address_handshakes_s_max"));
        for _ in 0..2 {
            assert!(rates.connect(address, Transport::Plain).is_ok(), "without a handshake");
        }
        let refused = rates.connect(address, Transport::Plain).unwrap_err();
        assert!(refused.words.contains("address_connects_s_max"));
        advance(Duration::from_millis(retry_ms(refused).into())).await;
        assert!(rates.connect(address, Transport::Plain).is_ok());
        assert!(rates.connect(Address::from(IpAddr::from([10, 0, 0, 2])), Transport::Tls).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn sign_ins_of_a_key_and_lines_before_a_sign_in_are_counted() {
        let rates = rates(|limits| {
            (limits.key_connects_s_max, limits.address_lines_s_max) = (1, 2);
        });
        assert!(rates.sign_in(key(1)).is_ok() && rates.sign_in(key(1)).is_ok());
        let refused = rates.sign_in(key(1)).unwrap_err();
        assert_eq!(retry_ms(refused), 1_000);
        let of_address = rates.connect(IpAddr::from([10, 0, 0, 1]).into(), Transport::Plain);
        let of_address = of_address.unwrap();
        assert!((0..4).all(|_| rates.line_of_address(&of_address).is_ok()));
        assert_eq!(retry_ms(rates.line_of_address(&of_address).unwrap_err()), 500);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let of = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::2"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn at_the_bound_who_connected_longest_ago_is_forgotten_but_nobody_with_sockets() {
        let table: Table<u64, KeyRates> = Table::new(3);
        let held = table.of(0);
        let first = Arc::downgrade(&table.of(1));
        let second = Arc::downgrade(&table.of(2));
        table.of(1);
        assert!(second.upgrade().is_some(), "at the bound nobody goes");
        table.of(3);
        assert!(second.upgrade().is_none() && first.upgrade().is_some());
        assert!(Arc::ptr_eq(&held, &table.of(0)), "it has a socket");
        assert_eq!(table.lock().by_owner.len(), 3);
        assert_eq!(table.lock().by_age.len(), 3);
    }

    #[test]
    fn a_bound_is_kept_also_when_all_have_sockets() {
        let table: Table<usize, KeyRates> = Table::new(PASSED_OVER_MAX + 2);
        let held: Vec<_> = (0..PASSED_OVER_MAX + 5).map(|owner| table.of(owner)).collect();
        assert_eq!(table.lock().by_owner.len(), PASSED_OVER_MAX + 2);
        assert_eq!(table.lock().by_age.len(), PASSED_OVER_MAX + 2);
        drop(held);
    }
}
