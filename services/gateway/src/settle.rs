//! What became of a message becomes each line's answer. Every line is settled exactly once, on every
//! path: the counting law rests on this file.

use std::ops::Range;

use observer_bus::PublishError;
use observer_wire::event::LineKind;
use observer_wire::frame::Mid;
use observer_wire::{Code, Refusal, answer};
use tracing::error;

use crate::batch::Origin;
use crate::presence;
use crate::socket::Pause;
use crate::worker::Worker;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is safe.
    Safe,
    /// It was safe before: its lines were sent again.
    Known,
    /// It was not taken; why, for the game to read.
    Busy(&'static str),
    /// It may have been taken.
    Unknown,
    /// It was not taken, and somebody must act.
    Refused(PublishError),
}

impl Outcome {
    /// What an error of the bus means for the lines.
    pub(crate) fn of(error: PublishError) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "what is not known cannot be waited for"
        )]
        match error {
            PublishError::Full => Self::Busy("too many lines wait to be stored"),
            PublishError::Unavailable => Self::Busy("the bus cannot be reached"),
            PublishError::Timeout => Self::Unknown,
            other => Self::Refused(other),
        }
    }
}

/// A line without an outcome. Dropped so, it is counted as `dropped_internal`, and is a bug.
pub(crate) struct Unsettled {
    /// Taken when settled.
    origin: Option<Origin>,
    kind: LineKind,
    records: u32,
    /// Where the message id stands in the batch's; empty without one.
    mid: Range<usize>,
}

impl Unsettled {
    /// A line of `records`, whose message id stands at `mid` of the batch's.
    pub(crate) fn new(origin: Origin, kind: LineKind, records: u32, mid: Range<usize>) -> Self {
        Self { origin: Some(origin), kind, records, mid }
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if self.origin.is_none() {
            return;
        }
        metrics::counter!("observer_refused_total", "reason" => "dropped_internal").increment(1);
        // A panic elsewhere is the bug then, and a second one would end the process.
        debug_assert!(std::thread::panicking(), "a line was dropped without an outcome");
    }
}

/// Answers every line of a message. Lines without a message id hear nothing of success.
pub(crate) fn settle(worker: &Worker, lines: Vec<Unsettled>, mids: &str, outcome: &Outcome) {
    let numbers = &worker.shared.numbers;
    let refusal = refusal_of(worker, outcome);
    let (mut accepted, mut records, mut unknown) = (0, 0, 0);
    for mut line in lines {
        let of_line = if line.kind == LineKind::Logs { u64::from(line.records) } else { 0 };
        let origin = line.origin.take().expect("a line is settled once");
        let socket = match (origin, &refusal) {
            (Origin::Game(socket), _) => socket,
            (Origin::Presence(_), None) => continue,
            (Origin::Presence(presence), Some(_)) => {
                presence::tell_later(worker, presence);
                continue;
            }
            (Origin::Gap(gap), None) => {
                records += of_line;
                gap.settled(&worker.shared.gaps);
                continue;
            }
            (Origin::Gap(gap), Some(refusal)) => {
                unknown += if refusal.code == Code::Timeout { of_line } else { 0 };
                gap.tell_later(&worker.shared.gaps);
                continue;
            }
        };
        let mid = Mid::parse(mids[line.mid.clone()].as_bytes()).ok();
        match (&refusal, mid) {
            (None, mid) => {
                accepted += 1;
                records += of_line;
                if let Some(mid) = mid {
                    socket.tell(|out| answer::write_ok(out, mid));
                }
            }
            (Some(refusal), mid) => {
                unknown += if refusal.code == Code::Timeout { of_line } else { 0 };
                if let Some(mid) = mid {
                    socket.remember_unsure(mid.as_str());
                }
                if refusal.code == Code::Busy {
                    worker.pause(&socket, Pause::WhileBusy);
                }
                socket.refuse(refusal, mid);
            }
        }
        socket.line_settled();
    }
    if refusal.is_none() {
        numbers.messages.increment(1);
    }
    numbers.lines_accepted.increment(accepted);
    numbers.records_accepted.increment(records);
    numbers.records_unknown.increment(unknown);
    if *outcome == Outcome::Known {
        numbers.records_duplicate.increment(records); // The bus passes nothing on that it knows.
    }
}

fn refusal_of(worker: &Worker, outcome: &Outcome) -> Option<Refusal> {
    match outcome {
        Outcome::Safe | Outcome::Known => None,
        Outcome::Busy(words) => Some(Refusal::new(Code::Busy, *words)),
        Outcome::Unknown => Some(Refusal::new(
            Code::Timeout,
            "it is not known whether the line was stored; send it again with the same message id",
        )),
        Outcome::Refused(why) => {
            if worker.may_complain() {
                error!(error = why as &dyn std::error::Error, "bus refused a message");
            }
            Some(Refusal::new(Code::Busy, "the bus refuses lines; the operator must act"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;
    use crate::numbers::Numbers;
    use crate::socket::Socket;

    #[test]
    fn errors_of_the_bus_become_what_the_game_may_do() {
        assert!(matches!(Outcome::of(PublishError::Full), Outcome::Busy(_)));
        assert!(matches!(Outcome::of(PublishError::Unavailable), Outcome::Busy(_)));
        assert_eq!(Outcome::of(PublishError::Timeout), Outcome::Unknown);
        let error = PublishError::TooLarge { bytes: 7 };
        assert_eq!(Outcome::of(error.clone()), Outcome::Refused(error));
    }

    #[test]
    #[should_panic(expected = "a line was dropped without an outcome")]
    fn a_line_cannot_be_dropped_without_an_outcome() {
        let socket = Rc::new(Socket::new(1, 10, Arc::new(Numbers::new())));
        drop(Unsettled::new(Origin::Game(socket), LineKind::Logs, 1, 0..0));
    }
}
