//! One task a socket: bytes become lines, and what waits for the game is written. The only reader
//! and the only writer of the socket.
//!
//! The task waits for the socket, for whoever stirs the [`Socket`], and for a deadline, all in one
//! small state: it reads into a buffer that all sockets of the worker share, so an idle socket holds
//! none. What the lines say is in [`crate::accept_line`].

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use observer_chassis::now_us;
use observer_wire::line::{GROWTH_BYTES, LineSplitter, capacity_for};
use observer_wire::{Code, Refusal};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep, sleep_until};
use tracing::debug;

use crate::accept_line;
use crate::budget::{Full, Kept};
use crate::deadline::{Deadlines, Due};
use crate::listener::accept::{Handed, Transport, Welcome};
use crate::listener::handshake;
use crate::numbers::Kind;
use crate::rate::Address;
use crate::shared::random;
use crate::slots::Slot;
use crate::socket::{Pause, Socket};
use crate::stream::{Raw, Received, Stream};
use crate::worker::{READ_BYTES, Worker};

/// What a socket may keep of its lines outside of the budget: else half a line on every socket would
/// stop all sign-ins. The number of sockets bounds it.
const UNCHARGED_BYTES: usize = GROWTH_BYTES;

/// A read that brings less than this is followed by small ones, which need nothing of the budget.
const NARROW_BYTES: usize = GROWTH_BYTES / 4;

/// Reads of one socket before the others have their turn.
const READS_MAX: usize = 4;

/// Time to write what waits, once the socket closes.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// Time to write what waits to a game that does not read: it is tried, no more.
const FLUSH_SLOW_WITHIN: Duration = Duration::from_secs(1);

/// Time for the game to see the end before the socket is gone: closing a socket with unread bytes
/// would take the last words back.
const LINGER: Duration = Duration::from_secs(1);

/// What a game may still say meanwhile, in bytes: more than the system keeps of a game that stops when it
/// is told.
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Serves a socket until it ends.
pub(crate) async fn serve(worker: Rc<Worker>, handed: Handed) {
    let Handed { stream, transport, welcome, open: _open } = handed;
    let stream = match (TcpStream::from_std(stream), transport) {
        (Ok(tcp), Transport::Plain) => Stream::Raw(Raw::Plain(tcp)),
        (Ok(tcp), transport) => {
            // In a box: what a handshake needs is no part of every socket's task.
            let Some(stream) = Box::pin(handshake::greet(&worker, tcp, transport)).await else {
                return;
            };
            stream
        }
        (Err(error), _) => return debug!(%error, "socket was gone before it was served"),
    };
    let mut session = Session::open(worker, stream, welcome);
    poll_fn(|cx| session.poll(cx)).await;
}

/// What only the session knows of its socket.
struct Session {
    worker: Rc<Worker>,
    socket: Rc<Socket>,
    stream: Stream,
    splitter: LineSplitter,
    /// Lines that were read and may not be taken yet.
    held: Held,
    phase: Phase,
    /// Bytes that came after our last words.
    discarded: usize,
    /// The game said that nothing follows.
    at_end: bool,
    deadlines: Deadlines,
    /// Ends when the socket may be read again after lines that came too fast.
    rest: Option<Pin<Box<Sleep>>>,
    /// Ends when the game has taken nothing of what waits for too long.
    untaken: Option<Pin<Box<Sleep>>>,
    /// What is charged for all that is kept of lines which are not taken yet.
    kept: Kept,
    /// Its last reads brought much at once: the next may too.
    wide: bool,
    _slot: Option<Slot<Address>>,
    _refused: Option<OwnedSemaphorePermit>,
}

#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Lines are taken.
    Open,
    /// What waits is written, then the socket closes.
    Flushing,
    /// We said that nothing follows, and wait for the game to close.
    Lingering,
}

/// What a step came to.
enum Step {
    Again,
    Wait,
    End,
}

impl Session {
    fn open(worker: Rc<Worker>, stream: Stream, welcome: Welcome) -> Self {
        let shared = &worker.shared;
        let numbers = Arc::clone(&shared.numbers);
        let socket = Rc::new(Socket::new(random(), shared.limits.output_bytes_max, numbers));
        let (slot, refused) = match welcome {
            Welcome::Served(slot, rates) => {
                socket.comes_from(rates);
                (Some(slot), None)
            }
            Welcome::Refused(permit, refusal) => {
                socket.close(&refusal, None);
                (None, Some(permit))
            }
        };
        shared.numbers.socket_opened();
        worker.registry.borrow_mut().add(&socket);
        Self {
            socket,
            stream,
            splitter: LineSplitter::new(shared.limits.line_bytes_max),
            held: Held::default(),
            phase: Phase::Open,
            discarded: 0,
            at_end: false,
            deadlines: Deadlines::new(Duration::from_secs(shared.limits.sign_in_secs_max)),
            rest: None,
            untaken: None,
            kept: Kept::default(),
            wide: false,
            _slot: slot,
            _refused: refused,
            worker,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.attend(cx.waker());
        loop {
            let step = match self.phase {
                Phase::Open => self.step_open(cx),
                Phase::Flushing => self.step_flushing(cx),
                Phase::Lingering => self.step_lingering(cx),
            };
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Wait) => {
                    self.socket.wait();
                    return Poll::Pending;
                }
                // A socket that broke ends like one that was closed: nobody is there to tell.
                Ok(Step::End) | Err(_) => return Poll::Ready(()),
            }
        }
    }

    fn step_open(&mut self, cx: &mut Context<'_>) -> io::Result<Step> {
        self.take_in(cx)?;
        // The last line that was taken may have come too fast: somebody must wake us then.
        if self.socket.rests_until.get().is_some() && !self.rests(cx) {
            return Ok(Step::Again);
        }
        self.watch_the_clock();
        if self.worker.draining.get() && self.owes_nothing() {
            let words = "the gateway stops; connect again";
            let return_ms = self.worker.shared.spread.next_ms();
            let refusal = Refusal::new(Code::Draining, words).retry_after(return_ms);
            self.socket.close(&refusal, None);
        }
        if self.socket.is_closing() || self.at_end && self.owes_nothing() {
            self.phase = Phase::Flushing;
            self.held = Held::default();
            self.splitter = LineSplitter::new(self.worker.shared.limits.line_bytes_max);
            self.settle_kept();
            let slow = self.socket.closing() == Some(Code::SlowReader);
            self.deadlines.replace(if slow { FLUSH_SLOW_WITHIN } else { FLUSH_WITHIN });
            return Ok(Step::Again);
        }
        if !self.write_out(cx)? && self.is_untaken(cx) {
            let words = "nothing of what you are sent was read in time (limits.output_secs_max)";
            self.socket.close(&Refusal::new(Code::SlowReader, words), None);
            return Ok(Step::Again);
        }
        let Poll::Ready(due) = self.deadlines.poll(cx) else { return Ok(Step::Wait) };
        self.remind(due);
        Ok(Step::Again)
    }

    /// Asks a silent game whether it is there, or closes.
    fn remind(&self, due: Due) {
        let words = match due {
            Due::Ask => {
                if let Some(said) = self.socket.said() {
                    let ping = said.ping();
                    self.socket.tell(|out| out.extend_from_slice(ping.as_bytes()));
                }
                return;
            }
            Due::Silent => "nothing came for two heartbeats; send p:<n> when there is nothing else",
            Due::Owed if self.socket.signed_in().is_none() => {
                "no good sign-in in time (limits.sign_in_secs_max)"
            }
            Due::Owed => {
                "the line that was started did not end in time (limits.started_line_secs_max)"
            }
        };
        self.socket.close(&Refusal::new(Code::Idle, words), None);
    }

    fn step_flushing(&mut self, cx: &mut Context<'_>) -> io::Result<Step> {
        let why = self.socket.closing();
        if self.write_out(cx)? && self.stream.poll_shutdown(cx, why)?.is_ready() {
            if self.at_end {
                return Ok(Step::End);
            }
            self.phase = Phase::Lingering;
            self.deadlines.replace(LINGER);
            return Ok(Step::Again);
        }
        Ok(if self.deadlines.poll(cx).is_ready() { Step::End } else { Step::Wait })
    }

    fn step_lingering(&mut self, cx: &mut Context<'_>) -> io::Result<Step> {
        for _ in 0..READS_MAX {
            let mut chunk = self.worker.chunk.borrow_mut();
            match self.stream.poll_discard(cx, &mut chunk)? {
                Poll::Ready(0) => return Ok(Step::End),
                Poll::Ready(count) => self.discarded += count,
                Poll::Pending => {
                    let over = self.deadlines.poll(cx).is_ready();
                    return Ok(if over { Step::End } else { Step::Wait });
                }
            }
        }
        if LINGER_BYTES_MAX <= self.discarded || self.deadlines.poll(cx).is_ready() {
            return Ok(Step::End); // It does not listen.
        }
        cx.waker().wake_by_ref(); // More may be there, but the others are next.
        Ok(Step::Wait)
    }

    /// Takes lines for as long as there are some and their outcome has room.
    fn take_in(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let worker = Rc::clone(&self.worker);
        for _ in 0..READS_MAX {
            if self.rests(cx) || worker.hold_back(&self.socket) {
                return Ok(());
            }
            self.take_held();
            if !self.may_read() {
                return Ok(());
            }
            let room = self.reserve();
            if room == 0 {
                worker.pause(&self.socket, Pause::ForBudget);
                self.deadlines.heard(); // It is not silent: we do not listen.
                return Ok(());
            }
            let mut chunk = worker.chunk.borrow_mut();
            let count = match self.stream.poll_read(cx, &mut chunk[..room])? {
                Poll::Ready(Received::Bytes(count)) => count,
                Poll::Ready(Received::Refused(refusal)) => {
                    self.refuse_unread(&refusal);
                    self.settle_kept();
                    continue;
                }
                Poll::Ready(Received::End) => {
                    self.at_end = true;
                    self.splitter = LineSplitter::new(worker.shared.limits.line_bytes_max);
                    self.deadlines.line_ended(); // A line without an end is no line.
                    self.settle_kept();
                    return Ok(());
                }
                Poll::Pending => {
                    self.watch_started();
                    self.settle_kept();
                    if self.stream.is_out_of_room() {
                        continue; // Of a message that is not whole yet more may be kept now.
                    }
                    return Ok(());
                }
            };
            self.deadlines.heard();
            self.wide = count == room || self.wide && NARROW_BYTES <= count;
            let read = &chunk[..count];
            let left = self.take_lines(read);
            if left > 0 {
                self.held = Held { bytes: read[read.len() - left..].to_vec(), at: 0 };
            }
            self.settle_kept();
        }
        cx.waker().wake_by_ref(); // More may be there, but the others are next.
        Ok(())
    }

    /// Whether the socket is not read because its lines came too fast. The session is woken when that
    /// is over.
    fn rests(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(until) = self.socket.rests_until.get() else { return false };
        let rest = self.rest.get_or_insert_with(|| Box::pin(sleep_until(until)));
        // Who stops does not wait: what was read is answered now.
        if rest.as_mut().poll(cx).is_pending() && !self.worker.draining.get() {
            return true;
        }
        self.rest = None;
        self.socket.rests_until.set(None);
        false
    }

    fn take_held(&mut self) {
        if self.held.bytes.is_empty() {
            return;
        }
        let mut held = std::mem::take(&mut self.held);
        let left = self.take_lines(&held.bytes[held.at..]);
        if left > 0 {
            held.at = held.bytes.len() - left;
            self.held = held;
        }
        self.settle_kept();
    }

    /// Takes lines off `bytes`; returns how many bytes at its end may not be taken yet.
    fn take_lines(&mut self, bytes: &[u8]) -> usize {
        let now_us = now_us();
        let mut rest = bytes;
        let mut lines = 0;
        while self.may_take_line() && !self.is_behind() {
            match self.splitter.next_line(&mut rest) {
                Ok(Some(line)) => {
                    lines += 1;
                    // From here on its message is charged: it is kept twice for this moment only.
                    let more = capacity_for(bytes.len()) + self.stream.kept_bytes();
                    let more = more.saturating_sub(UNCHARGED_BYTES);
                    self.kept.shrink_to(&self.worker.shared.budget, more);
                    accept_line::take(&self.worker, &self.socket, line, now_us);
                }
                Ok(None) => break,
                Err(refusal) => self.refuse_unread(&refusal),
            }
        }
        self.splitter.let_go();
        if lines > 0 {
            self.deadlines.line_ended(); // The next one has its own time.
        }
        self.time_started();
        rest.len()
    }

    /// Refuses what was no line.
    fn refuse_unread(&self, refusal: &Refusal) {
        self.worker.shared.numbers.line_in(Kind::Other);
        self.socket.refuse(refusal, None);
    }

    /// Sees to what the stream keeps of a line, as nothing else of it came.
    fn watch_started(&mut self) {
        if self.stream.take_heard() {
            self.deadlines.heard();
        }
        if self.stream.started_bytes() > 0 || self.deadlines.has_line() {
            self.time_started();
        }
    }

    /// Gives a line that was started its time to end.
    fn time_started(&mut self) {
        if self.started_bytes() == 0 {
            self.deadlines.line_ended();
        } else if !self.deadlines.has_line() {
            let limits = &self.worker.shared.limits;
            self.deadlines.line_started(Duration::from_secs(limits.started_line_secs_max));
        }
    }

    /// Bytes that are kept of a line whose end has not come.
    fn started_bytes(&self) -> usize {
        self.splitter.started_bytes() + self.stream.started_bytes()
    }

    fn may_take_line(&self) -> bool {
        !self.socket.is_closing()
            && !self.socket.asking.get()
            && self.socket.rests_until.get().is_none()
            && self.socket.unsettled.get() < self.worker.shared.limits.unsettled_lines_max
    }

    fn is_behind(&self) -> bool {
        self.socket.signed_in().is_some() && self.worker.batches.borrow().are_behind()
    }

    fn may_read(&self) -> bool {
        let may = !self.worker.draining.get() || self.stream.has_read();
        may && !self.at_end
            && self.held.bytes.is_empty()
            && self.socket.pause.get() != Some(Pause::WhileBusy)
            && self.may_take_line()
    }

    /// Silence counts only while we would read.
    fn watch_the_clock(&mut self) {
        if self.socket.signed_in().is_some() {
            self.deadlines.signed_in();
            self.deadlines.beat(self.socket.said().and_then(|said| said.heartbeat()));
        }
        if self.may_read() && !self.socket.held_back.get() {
            self.deadlines.resume();
        } else {
            self.deadlines.pause();
        }
    }

    /// Reserves what the next read could leave over; returns how many bytes it may bring, 0 when the
    /// socket is to wait.
    fn reserve(&mut self) -> usize {
        let rooms: &[usize] = if self.wide { &[READ_BYTES, GROWTH_BYTES] } else { &[GROWTH_BYTES] };
        for &room in rooms {
            let bytes = self.stream.kept_after(room) + self.splitter.kept_after(room);
            if self.charge(bytes).is_ok() {
                return room;
            }
        }
        // Within what is charged already, and the first bytes, which are nobody's.
        let within = UNCHARGED_BYTES + self.kept.bytes();
        let within = within.saturating_sub(self.stream.kept_bytes()) / self.stream.copies();
        self.splitter.room_within(within).min(within)
    }

    /// Gives back what was reserved and is not kept.
    fn settle_kept(&mut self) {
        // What is held may become the start of a line.
        let held = capacity_for(self.held.bytes.capacity());
        let bytes = held + self.splitter.kept_bytes() + self.stream.kept_bytes();
        let bytes = bytes.saturating_sub(UNCHARGED_BYTES);
        self.kept.shrink_to(&self.worker.shared.budget, bytes);
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Full> {
        let project = self.socket.signed_in().map(|signed_in| &signed_in.project);
        let bytes = bytes.saturating_sub(UNCHARGED_BYTES);
        self.kept.charge(&self.worker.shared.budget, project, bytes)
    }

    /// Whether no line waits for its outcome.
    fn owes_nothing(&self) -> bool {
        self.held.bytes.is_empty()
            && !self.stream.has_read()
            && !self.socket.asking.get()
            && self.socket.unsettled.get() == 0
    }

    /// Writes what waits; returns whether all is written.
    fn write_out(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut out = self.socket.out().borrow_mut();
        while !out.is_empty() {
            match self.stream.poll_write(cx, out.waiting())? {
                Poll::Ready(count) => {
                    out.advance(count);
                    self.untaken = None; // It took something.
                }
                Poll::Pending => return Ok(false),
            }
        }
        let all = self.stream.poll_flush(cx)?.is_ready();
        if all {
            self.untaken = None;
        }
        Ok(all)
    }

    /// Something waits to be written: whether nothing of it was taken for too long.
    fn is_untaken(&mut self, cx: &mut Context<'_>) -> bool {
        let secs = self.worker.shared.limits.output_secs_max;
        let timer = || Box::pin(sleep(Duration::from_secs(secs)));
        self.untaken.get_or_insert_with(timer).as_mut().poll(cx).is_ready()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.kept.shrink_to(&self.worker.shared.budget, 0);
        self.worker.leave(&self.socket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an idle, signed-in socket may cost us, in bytes. The kernel's part is not ours.
    const IDLE_BYTES_MAX: usize = 2_000;

    /// What tokio keeps for a registered socket and for a task, and the lists of sockets: measured
    /// generously, as it is not ours to say.
    const AROUND_BYTES: usize = 800;

    /// The size of what `serve` returns: the task, whatever its socket does.
    fn task_bytes<F>(_: impl FnOnce(Rc<Worker>, Handed) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_socket_costs_less_than_2_kb() {
        let ours = task_bytes(serve) + size_of::<Socket>();
        assert!(ours + AROUND_BYTES <= IDLE_BYTES_MAX, "{ours} bytes");
    }
}
