//! Sockets that are not read for now: their lines were `busy`, or what they would keep is not in the
//! budget. The system's buffers fill meanwhile, and then the game's: that is how it is slowed down.
//!
//! What was read is taken and answered all the same. Pauses end as soon as there is room; the others
//! are read on.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use observer_wire::line::GROWTH_BYTES;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::documents::Project;
use crate::settle::Outcome;
use crate::socket::{Pause, Socket};
use crate::worker::Worker;

/// Longest pause after a line was `busy`: somebody must try whether the bus is back.
const BUSY_PAUSE_MAX: Duration = Duration::from_millis(500);

/// How often it is looked whether a pause is over.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The sockets of one worker that are paused, longest first; each once.
#[derive(Default)]
pub(crate) struct Paused {
    list: RefCell<Vec<(Rc<Socket>, Instant)>>,
    added: Notify,
}

impl Worker {
    /// Stops reading a socket until there is room.
    pub(crate) fn pause(&self, socket: &Rc<Socket>, why: Pause) {
        if socket.pause.get().is_some() || socket.has_ended() {
            return;
        }
        socket.pause.set(Some(why));
        self.paused.list.borrow_mut().push((Rc::clone(socket), Instant::now()));
        self.paused.added.notify_one();
    }

    /// Ends the pauses that are over.
    fn resume(&self) {
        let now = Instant::now();
        self.paused.list.borrow_mut().retain(|(socket, since)| {
            let over = socket.has_ended() || self.is_over(socket, now - *since);
            if over {
                socket.pause.set(None);
                socket.stir();
            }
            !over
        });
    }

    fn is_over(&self, socket: &Socket, lasted: Duration) -> bool {
        let project = socket.signed_in().map(|signed_in| &*signed_in.project);
        let budget = &self.shared.budget;
        match socket.pause.get() {
            None => true,
            Some(Pause::ForBudget) => budget.fits(project, GROWTH_BYTES),
            Some(Pause::WhileBusy) => {
                let bus_takes = project.is_none_or(|project| project.pressure.bus_takes());
                is_over(lasted, bus_takes && budget.has_room(project))
            }
        }
    }
}

/// Whether a pause after a line was `busy` is over.
fn is_over(lasted: Duration, has_room: bool) -> bool {
    has_room || BUSY_PAUSE_MAX <= lasted
}

/// Notes whether the bus takes lines of a project.
pub(crate) fn heed(project: &Project, outcome: &Outcome) {
    match outcome {
        Outcome::Safe | Outcome::Known => project.pressure.set_bus_takes(true),
        Outcome::Busy(_) | Outcome::Refused(_) => project.pressure.set_bus_takes(false),
        Outcome::Unknown => {}
    }
}

/// Ends pauses, until it is dropped.
pub(crate) async fn resume_paused(worker: Rc<Worker>) {
    loop {
        if worker.paused.list.borrow().is_empty() {
            worker.paused.added.notified().await;
        }
        sleep(LOOK_EVERY).await;
        worker.resume();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_with_room_or_after_its_time_and_not_a_millisecond_earlier() {
        assert!(is_over(Duration::ZERO, true));
        assert!(is_over(BUSY_PAUSE_MAX, false));
        assert!(!is_over(BUSY_PAUSE_MAX.saturating_sub(Duration::from_millis(1)), false));
    }
}
