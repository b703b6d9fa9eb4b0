//! Receipts that change because time passes and nobody speaks: some while after an edit, viewers are
//! told again what became of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use observer_chassis::{BoxError, Shutdown, reason};
use observer_wire::ProjectId;
use tracing::warn;

use crate::Context;
use crate::commit;
use crate::receipts::{IN_FLIGHT_MS, NO_RECEIPT_MS};

/// Edits that wait to be told again. Past it, viewers see the change when they ask.
const WAITING_MAX: usize = 1_000;

/// How late a change may be told, besides the time it takes to tell.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What became of these variables is to be told again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Retell {
    due: Instant,
    project: ProjectId,
    names: Vec<String>,
}

/// Edits that wait to be told again: one queue for each delay, so that each is in order.
#[derive(Default)]
pub(crate) struct Retells([Mutex<VecDeque<Retell>>; 2]);

/// Times after an edit at which a receipt may change by itself.
const DELAYS_MS: [i64; 2] = [IN_FLIGHT_MS, NO_RECEIPT_MS];

impl Retells {
    /// An edit was made now.
    pub(crate) fn edited(&self, project: ProjectId, names: &[String]) {
        for (queue, delay_ms) in self.0.iter().zip(DELAYS_MS) {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.len() < WAITING_MAX {
                let delay = Duration::from_millis(delay_ms.unsigned_abs());
                queue.push_back(Retell {
                    due: Instant::now() + delay + LOOK_EVERY,
                    project,
                    names: names.to_vec(),
                });
            }
        }
    }

    /// Takes what is due at `now`.
    fn take_due(&self, now: Instant) -> Vec<Retell> {
        let mut due = Vec::new();
        for queue in &self.0 {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            while queue.front().is_some_and(|first| first.due <= now) {
                due.extend(queue.pop_front());
            }
        }
        due
    }
}

/// Tells viewers again until shutdown is requested.
pub(crate) async fn keep_telling(
    context: Arc<Context>,
    shutdown: Shutdown,
) -> Result<(), BoxError> {
    loop {
        tokio::select! {
            () = shutdown.requested() => return Ok(()),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        for retell in context.retells.take_due(Instant::now()) {
            if let Err(error) = commit::tell_receipts(&context, retell.project, &retell.names).await
            {
                warn!(error = %reason(&error), "viewers were not told of receipts");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::PROJECT;

    #[test]
    fn an_edit_is_told_again_after_each_delay_and_once() {
        let retells = Retells::default();
        retells.edited(PROJECT.parse().unwrap(), &["a".into()]);
        assert_eq!(retells.take_due(Instant::now()).len(), 0);
        let after_flight = Instant::now() + Duration::from_secs(3);
        assert_eq!(retells.take_due(after_flight).len(), 1);
        assert_eq!(retells.take_due(after_flight).len(), 0);
        assert_eq!(retells.take_due(after_flight + Duration::from_secs(14)).len(), 1);
    }

    #[test]
    fn as_many_edits_wait_as_may_and_not_one_more() {
        let retells = Retells::default();
        for _ in 0..=WAITING_MAX {
            retells.edited(PROJECT.parse().unwrap(), &[]);
        }
        let late = Instant::now() + Duration::from_mins(1);
        assert_eq!(retells.take_due(late).len(), 2 * WAITING_MAX);
    }
}
