//! Connections that have no request under way: those that just came, and those that are kept for the
//! next one. When all places are taken, the one that was silent longest makes room.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// Time in which nobody takes the place of a connection without a request: a head takes less from
/// anywhere.
const MINE_FOR: Duration = Duration::from_secs(1);

/// Pause before a look for a connection that is idle, when none is.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The connections without a request, by their silence.
#[derive(Debug, Default)]
pub(crate) struct Idle(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    by_age: BTreeMap<u64, (Instant, CancellationToken)>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    idle: Arc<Idle>,
    /// Its number while it is idle.
    number: Mutex<Option<u64>>,
    /// Somebody else took its place.
    pub(crate) displaced: CancellationToken,
}

impl Idle {
    /// A connection came.
    pub(crate) fn enter(self: &Arc<Self>) -> Arc<Connection> {
        let (idle, number) = (Arc::clone(self), Mutex::default());
        let connection = Connection { idle, number, displaced: CancellationToken::new() };
        connection.waits();
        Arc::new(connection)
    }

    /// Waits until a connection was silent for long enough, and ends it.
    pub(crate) async fn make_room(&self) {
        loop {
            let oldest = lock(&self.0).by_age.first_key_value().map(|(_, (since, _))| *since);
            let Some(since) = oldest else {
                sleep(LOOK_EVERY).await;
                continue;
            };
            sleep_until(since + MINE_FOR).await;
            let mut waiting = lock(&self.0);
            let is_due = |since: &Instant| MINE_FOR <= since.elapsed();
            if waiting.by_age.first_key_value().is_some_and(|(_, (since, _))| is_due(since))
                && let Some((_, (_, displaced))) = waiting.by_age.pop_first()
            {
                return displaced.cancel();
            }
        }
    }
}

impl Connection {
    /// A request began.
    pub(crate) fn works(&self) {
        if let Some(number) = lock(&self.number).take() {
            lock(&self.idle.0).by_age.remove(&number);
        }
    }

    /// It is answered: the next may come.
    pub(crate) fn waits(&self) {
        let mut waiting = lock(&self.idle.0);
        let number = waiting.next;
        waiting.next += 1;
        waiting.by_age.insert(number, (Instant::now(), self.displaced.clone()));
        drop(waiting);
        *lock(&self.number) = Some(number);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.works(); // It is not idle any more, either.
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // No update is half done.
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_was_silent_longest_makes_room_and_nobody_before_a_second() {
        let idle = Arc::new(Idle::default());
        let first = idle.enter();
        advance(Duration::from_millis(10)).await;
        let second = idle.enter();
        let busy = idle.enter();
        busy.works();
        let began = Instant::now();
        idle.make_room().await;
        assert!(Duration::from_millis(980) < began.elapsed());
        assert!(first.displaced.is_cancelled() && !second.displaced.is_cancelled());
        first.waits();
        idle.make_room().await;
        assert!(second.displaced.is_cancelled() && !busy.displaced.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn who_works_or_left_is_not_displaced() {
        let idle = Arc::new(Idle::default());
        let busy = idle.enter();
        busy.works();
        drop(idle.enter());
        assert!(timeout(MINE_FOR * 10, idle.make_room()).await.is_err());
        busy.waits();
        assert!(timeout(MINE_FOR * 10, idle.make_room()).await.is_ok());
        assert!(busy.displaced.is_cancelled());
    }
}
