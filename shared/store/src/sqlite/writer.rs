//! The one thread that writes to a database. It takes whatever waits into one transaction (group
//! commit: the disk's sync is what a commit costs), and answers after the commit, never before.
//!
//! When nothing else waits it commits at once: a lone write waits for nobody.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::failure::Failure;
use super::file::Lock;
use super::inspect::Soundness;
use crate::StoreErrorKind;

/// Writes that wait for the thread. What comes past it waits for a place.
const WAITING_MAX: usize = 256;

/// Weight of a group, in bytes: one transaction stays within the page cache and a few hundred
/// milliseconds.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Time a caller waits for its answer. A disk that hangs longer counts as away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Silence after which the thread looks after its database.
const IDLE_AFTER: Duration = Duration::from_millis(100);

/// Time after which it looks after its database although there is no silence.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// Longest time between two looks after the database.
pub(super) const UPKEEP_PAUSE: Duration = Duration::from_mins(1);

/// What a database does with the writes of a group.
pub(super) trait Writes: Send + 'static {
    /// A write, with what its caller will get.
    type Work: Send;

    /// Size of a write, in bytes.
    fn weight(work: &Self::Work) -> usize;

    /// Carries out the writes inside a transaction that is open. May be called again after a
    /// rollback.
    fn run(&mut self, db: &Connection, group: &mut [Self::Work]) -> Result<(), Failure>;

    /// What was run is safe.
    fn committed(&mut self) {}

    /// What was run is undone: whatever is remembered of the database may be wrong.
    fn rolled_back(&mut self);

    /// Gives the caller its answer.
    fn answer(work: Self::Work, result: Result<(), Failure>);

    /// Looks after the database for a moment, outside a transaction; `idle` when nobody waits for it.
    /// Returns when to come again at the latest; zero when there is more to do.
    fn upkeep(&mut self, _db: &Connection, _idle: bool) -> Result<Duration, Failure> {
        Ok(UPKEEP_PAUSE)
    }
}

/// Handle to the thread; dropping it waits for what was queued, and closes the database.
#[derive(Debug)]
pub(super) struct Writer<T> {
    queue: Option<SyncSender<Waiting<T>>>,
    places: Arc<Semaphore>,
    health: Arc<Health>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Waiting<T> {
    work: T,
    /// Given back with the answer: the queue is as long as there are places.
    place: OwnedSemaphorePermit,
}

/// The last failure, until a commit succeeds.
#[derive(Debug, Default)]
struct Health(Mutex<Option<Failure>>);

impl Health {
    fn set(&self, failure: Option<Failure>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    fn get(&self) -> Option<Failure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<T: Send + 'static> Writer<T> {
    /// Starts the thread. The lock is held until the database is closed.
    pub(super) fn start<W: Writes<Work = T>>(
        name: &str,
        db: Connection,
        (lock, soundness): (Lock, Soundness),
        writes: W,
    ) -> Result<Self, Failure> {
        let (queue, waiting) = sync_channel(WAITING_MAX);
        let health = Arc::new(Health::default());
        let now = Instant::now();
        let desk = Desk {
            db,
            soundness,
            writes,
            health: Arc::clone(&health),
            upkeep_at: now + IDLE_AFTER,
            upkeep_before: now,
            upkeep_hurries: false,
        };
        let thread = std::thread::Builder::new()
            .name(format!("sqlite-{name}"))
            .spawn(move || desk.serve(&waiting, &lock))?;
        let places = Arc::new(Semaphore::new(WAITING_MAX));
        Ok(Self { queue: Some(queue), places, health, thread: Some(thread) })
    }

    /// Queues a write and waits for its answer, which `work` sends over `answer`'s other end.
    pub(super) async fn write<A>(
        &self,
        work: T,
        answer: oneshot::Receiver<Result<A, Failure>>,
    ) -> Result<A, Failure> {
        let answered = async {
            let places = Arc::clone(&self.places);
            let place = places.acquire_owned().await.expect("the semaphore is never closed");
            let queue = self.queue.as_ref().expect("taken in drop alone");
            if queue.try_send(Waiting { work, place }).is_err() {
                return Err(ended());
            }
            answer.await.unwrap_or_else(|_| Err(ended()))
        };
        timeout(ANSWER_TIMEOUT, answered).await.unwrap_or_else(|_| {
            let text = format!("no answer from the disk in {ANSWER_TIMEOUT:?}");
            Err(Failure::new(StoreErrorKind::Unavailable, text))
        })
    }

    /// The last failure, if no commit succeeded since.
    pub(super) fn failure(&self) -> Option<Failure> {
        let over = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        self.health.get().or_else(|| over.then(ended))
    }
}

fn ended() -> Failure {
    Failure::new(StoreErrorKind::Refused, "the writer's thread has ended")
}

impl<T> Drop for Writer<T> {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so; its file stays marked as unclean.
            drop(thread.join());
        }
    }
}

/// The thread's own things.
struct Desk<W> {
    db: Connection,
    soundness: Soundness,
    writes: W,
    health: Arc<Health>,
    /// When upkeep is due, if nothing is written before.
    upkeep_at: Instant,
    /// When it was done last.
    upkeep_before: Instant,
    /// It has more to do, and takes turns with the writes.
    upkeep_hurries: bool,
}

impl<W: Writes> Desk<W> {
    fn serve(mut self, waiting: &Receiver<Waiting<W::Work>>, lock: &Lock) {
        loop {
            let pause = self.upkeep_at.saturating_duration_since(Instant::now());
            match waiting.recv_timeout(pause) {
                Ok(first) => {
                    self.commit(gather::<W>(first, waiting));
                    self.rest();
                }
                Err(RecvTimeoutError::Timeout) => self.upkeep(true),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let Self { db, soundness, .. } = self;
        // The last connection folds the WAL into the file; a failure leaves it for the next start.
        if db.close().is_ok() {
            lock.closed(&soundness);
        }
    }

    /// Upkeep waits for silence, but not for ever.
    fn rest(&mut self) {
        let now = Instant::now();
        self.upkeep_at = self.upkeep_at.min(now + IDLE_AFTER);
        if self.upkeep_hurries || self.upkeep_before + UPKEEP_EVERY <= now {
            self.upkeep(false);
        }
    }

    fn upkeep(&mut self, idle: bool) {
        // What is damaged stays as it is, for whoever wants to save something from it.
        let kept = self.soundness.check().and_then(|()| self.writes.upkeep(&self.db, idle));
        let pause = match kept {
            Ok(pause) => pause,
            Err(failure) => {
                let failure = self.soundness.heed(failure);
                tracing::warn!(error = %failure, "upkeep of the database failed");
                self.undo();
                UPKEEP_PAUSE
            }
        };
        self.upkeep_hurries = pause.is_zero();
        self.upkeep_before = Instant::now();
        self.upkeep_at = self.upkeep_before + pause;
    }

    fn commit(&mut self, group: Vec<Waiting<W::Work>>) {
        let (mut works, places): (Vec<_>, Vec<_>) =
            group.into_iter().map(|waiting| (waiting.work, waiting.place)).unzip();
        let mut result = self.transaction(&mut works);
        // One write that can never succeed must not take its neighbours with it.
        let alone = works.len() > 1
            && matches!(&result, Err(failure) if failure.kind == StoreErrorKind::Refused);
        for work in works {
            let mut work = [work];
            if alone {
                result = self.transaction(&mut work);
            }
            let [work] = work;
            W::answer(work, result.clone());
        }
        drop(places);
    }

    fn transaction(&mut self, works: &mut [W::Work]) -> Result<(), Failure> {
        let result = self.try_transaction(works).map_err(|failure| self.soundness.heed(failure));
        if result.is_ok() {
            self.writes.committed();
        } else {
            self.undo();
        }
        self.health.set(result.clone().err());
        result
    }

    fn try_transaction(&mut self, works: &mut [W::Work]) -> Result<(), Failure> {
        // On a damaged file nothing that is answered could be believed.
        self.soundness.check()?;
        self.db.execute_batch("BEGIN IMMEDIATE")?;
        self.writes.run(&self.db, works)?;
        self.db.execute_batch("COMMIT")?;
        Ok(())
    }

    fn undo(&mut self) {
        self.writes.rolled_back();
        // Some errors have rolled back already.
        if !self.db.is_autocommit()
            && let Err(error) = self.db.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "rollback failed");
        }
    }
}

/// Whatever waits, up to the weight of a group.
fn gather<W: Writes>(
    first: Waiting<W::Work>,
    waiting: &Receiver<Waiting<W::Work>>,
) -> Vec<Waiting<W::Work>> {
    let mut weight = W::weight(&first.work);
    let mut group = vec![first];
    while weight < GROUP_BYTES_MAX
        && let Ok(next) = waiting.try_recv()
    {
        weight += W::weight(&next.work);
        group.push(next);
    }
    group
}
