//! Which project a key opens: asked of api over the bus, remembered for a while, shared by all
//! workers. Nothing here answers a game.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use observer_bus::{Bus, REQUEST_TIMEOUT, Service};
use observer_wire::ask::{KeyAnswer, KeyAsk};
use observer_wire::{ApiKey, ProjectId};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::numbers::Numbers;

/// Time for which an answer is good: as long as a revoked key may go on at worst.
const GOOD_FOR: Duration = Duration::from_secs(30);

/// Keys that are remembered, each in about 100 bytes.
const KEYS_MAX: usize = 100_000;

/// Requests for keys under way at once. Further sign-ins wait for theirs, not longer than a request
/// may take.
const LOOKUPS_MAX: usize = 64;

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It opens this project.
    Opens(ProjectId),
    /// It was never registered.
    Unknown,
    /// Nobody can tell now.
    Busy,
}

/// The keys that this process knows.
pub(crate) struct Keys {
    bus: Arc<dyn Bus>,
    numbers: Arc<Numbers>,
    known: Mutex<HashMap<ApiKey, Known>>,
    flights: Mutex<HashMap<ApiKey, watch::Receiver<Option<Verdict>>>>,
    lookups: Semaphore,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    project: ProjectId,
    asked: Instant,
}

/// Ends a look-up for those who wait for it, also when it is dropped half done.
struct Flight<'k> {
    keys: &'k Keys,
    key: ApiKey,
    landed: watch::Sender<Option<Verdict>>,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        lock(&self.keys.flights).remove(&self.key);
    }
}

enum Turn<'k> {
    Mine(Flight<'k>),
    Theirs(watch::Receiver<Option<Verdict>>),
}

impl Keys {
    pub(crate) fn new(bus: Arc<dyn Bus>, numbers: Arc<Numbers>) -> Self {
        Self {
            bus,
            numbers,
            known: Mutex::default(),
            flights: Mutex::default(),
            lookups: Semaphore::new(LOOKUPS_MAX),
        }
    }

    /// The project of a key that was asked for lately.
    pub(crate) fn fresh(&self, key: ApiKey) -> Option<ProjectId> {
        let known = lock(&self.known).get(&key).copied()?;
        (known.asked.elapsed() < GOOD_FOR).then_some(known.project)
    }

    /// Asks for a key, or waits for whoever asks for the same one already.
    pub(crate) async fn look_up(&self, key: ApiKey) -> Verdict {
        if let Some(project) = self.fresh(key) {
            return Verdict::Opens(project);
        }
        match self.turn(key) {
            Turn::Mine(flight) => {
                let verdict = self.ask(key).await;
                flight.landed.send_replace(Some(verdict));
                verdict
            }
            Turn::Theirs(mut landed) => match landed.wait_for(Option::is_some).await {
                Ok(verdict) => verdict.unwrap_or(Verdict::Busy),
                Err(_) => Verdict::Busy, // Who asked was dropped with its socket.
            },
        }
    }

    fn turn(&self, key: ApiKey) -> Turn<'_> {
        let mut flights = lock(&self.flights);
        if let Some(landed) = flights.get(&key) {
            return Turn::Theirs(landed.clone());
        }
        let (landed, watched) = watch::channel(None);
        flights.insert(key, watched);
        Turn::Mine(Flight { keys: self, key, landed })
    }

    async fn ask(&self, key: ApiKey) -> Verdict {
        match self.request(key).await {
            Some(KeyAnswer { project: Some(project) }) => {
                self.remember(key, project);
                Verdict::Opens(project)
            }
            Some(KeyAnswer { project: None }) => {
                // Not remembered: a person registers and tries again at once.
                lock(&self.known).remove(&key);
                Verdict::Unknown
            }
            // While nobody answers, known keys stay good.
            None => match lock(&self.known).get(&key) {
                Some(known) => Verdict::Opens(known.project),
                None => Verdict::Busy,
            },
        }
    }

    /// The answer, or `None` when there is none.
    async fn request(&self, key: ApiKey) -> Option<KeyAnswer> {
        let permit = timeout(REQUEST_TIMEOUT, self.lookups.acquire()).await.ok()?;
        let _permit = permit.expect("the semaphore is never closed");
        self.numbers.keys_asked.increment(1);
        let ask = serde_json::to_vec(&KeyAsk { key }).expect("a plain struct always serialises");
        match self.bus.request(Service::Keys, Bytes::from(ask)).await {
            Ok(answer) => serde_json::from_slice(&answer)
                .inspect_err(|error| debug!(%error, "answer for a key cannot be read"))
                .ok(),
            Err(error) => {
                debug!(%error, "no answer for a key");
                None
            }
        }
    }

    fn remember(&self, key: ApiKey, project: ProjectId) {
        let mut known = lock(&self.known);
        if KEYS_MAX <= known.len() && !known.contains_key(&key) {
            known.retain(|_, known| known.asked.elapsed() < GOOD_FOR);
        }
        if KEYS_MAX <= known.len() && !known.contains_key(&key) {
            // All are fresh: any one goes, and is asked for again when needed.
            let any = known.keys().next().copied();
            any.map(|any| known.remove(&any));
        }
        known.insert(key, Known { project, asked: Instant::now() });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // No update is half done.
}
