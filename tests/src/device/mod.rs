//! A device as a good SDK plays it, and a fleet of them: it never forgets a line before its outcome.
//!
//! Unlike [`crate::game`], it comes back by itself: what was not answered is sent again, in order and
//! with the same message ids, after pauses with jitter that obey the server's `retry_ms`. What it
//! attempted, what was acknowledged and what became of the rest stays in its [`Kept`], which
//! [`crate::laws`] compares with what is stored.

mod fleet;
mod kept;
mod session;
mod transport;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

pub use fleet::{Fleet, FleetOptions};
pub use kept::{Fate, Kept};
pub use transport::{Certificate, Target, Transport, Trust};

use session::{End, Session};
use transport::Connection;

/// Most lines without an answer: what the protocol allows.
pub const AHEAD_LINES_MAX: usize = 32;

/// Pauses before a device connects again, doubling, each a random part of itself. Shorter than a game's,
/// so that a test sees the server's time to full service, not the device's patience.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Time for a connection to be made, with all that its transport wants.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// How a device signs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// `v:<key>`, as the original's clients did.
    #[default]
    One,
    /// `h:<key>:<json>`: it says who it is, and keeps the secret that it is given.
    Two,
}

/// Who a device writes for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Key that it signs in with.
    pub key: String,
    /// Text in each of its records, which must never be seen in another project.
    pub canary: String,
}

impl Project {
    /// A project with a canary of its own.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self { key: key.to_owned(), canary: format!("canary-{key}") }
    }
}

/// How a device behaves.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// Name, unique in its project.
    pub name: String,
    /// Who it writes for.
    pub project: Project,
    /// How it signs in.
    pub level: Level,
    /// Records of a line.
    pub line_records: usize,
    /// Pause between two lines; `None` is as fast as answers come.
    pub pace: Option<Duration>,
    /// Most lines without an answer.
    pub ahead_lines_max: usize,
}

/// Where devices connect. Changed while they run, when a server comes back elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Addresses(Arc<Mutex<Vec<Target>>>);

impl Addresses {
    /// Addresses that devices choose from at random, for each connection anew. A bare address is plain
    /// TCP.
    #[must_use]
    pub fn new<T: Clone + Into<Target>>(addresses: &[T]) -> Self {
        let new = Self::default();
        new.set(addresses);
        new
    }

    /// Replaces all of them, for connections to come.
    pub fn set<T: Clone + Into<Target>>(&self, addresses: &[T]) {
        *self.lock() = addresses.iter().cloned().map(Into::into).collect();
    }

    pub(crate) fn choose(&self) -> Option<Target> {
        let addresses = self.lock();
        (!addresses.is_empty()).then(|| addresses[below(addresses.len())].clone())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Target>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a device is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Send new lines.
    Sending,
    /// No new lines: send again what was not answered, and end once there is nothing left.
    Settling,
}

/// A device's life, over all its sockets.
struct Device {
    options: DeviceOptions,
    addresses: Addresses,
    phase: watch::Receiver<Phase>,
    kept: Arc<Mutex<Kept>>,
    /// Unique to this life, the start of every message id.
    boot: String,
    /// What the server gave it at its first hello.
    secret: Option<String>,
    /// When the last new line was made.
    last_line_at: Option<Instant>,
}

impl Device {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A device that panicked fails the test by itself.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing is left to do.
    fn is_done(&self) -> bool {
        *self.phase.borrow() == Phase::Settling && self.kept().unknown().is_empty()
    }

    /// Sends until it is told to settle and everything has an outcome.
    async fn run(mut self) {
        let mut failures = 0;
        while !self.is_done() {
            let asked = if let Some(connection) = self.connect().await {
                let (end, signed_in) = Session::new(&mut self, connection).run().await;
                failures = if signed_in { 0 } else { failures + 1 };
                match end {
                    End::Done => return,
                    End::Lost(asked) => asked,
                }
            } else {
                failures += 1;
                None
            };
            let pause = asked.map_or_else(|| pause_after(failures), jittered);
            self.kept().pauses += 1;
            tokio::time::sleep(pause).await;
        }
    }

    async fn connect(&self) -> Option<Connection> {
        let target = self.addresses.choose()?;
        timeout(CONNECT_WITHIN, Connection::open(&target)).await.ok()?.ok()
    }
}

/// A random part of a pause that doubles with each failure.
fn pause_after(failures: u32) -> Duration {
    let most = PAUSES.1.min(PAUSES.0 * 2_u32.pow(failures.min(10)));
    most * u32::try_from(below(1000)).unwrap_or_default() / 1000
}

/// What the server asked for, and up to a tenth more: not all at once.
fn jittered(asked: Duration) -> Duration {
    asked + asked * u32::try_from(below(100)).unwrap_or_default() / 1000
}

/// A random number below `bound`.
pub(crate) fn below(bound: usize) -> usize {
    let random = RandomState::new().hash_one(0);
    usize::try_from(random % bound as u64).expect("less than a usize, by the remainder")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound() {
        for failures in [0, 1, 5, 1000] {
            assert!(pause_after(failures) <= PAUSES.1);
        }
        assert!(pause_after(0) <= PAUSES.0);
    }

    #[test]
    fn the_server_is_obeyed_with_a_spread() {
        let asked = Duration::from_secs(30);
        let pauses: Vec<_> = (0..50).map(|_| jittered(asked)).collect();
        assert!(pauses.iter().all(|pause| (asked..=asked * 11 / 10).contains(pause)));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}
