//! What a worker knows of one socket, shared by its session, the batches that carry its lines, and
//! the registry. No I/O: whoever changes something here wakes the session, which does the rest.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use observer_wire::frame::Mid;
use observer_wire::ids::short_hash;
use observer_wire::{ApiKey, Code, Refusal, answer};
use tokio::time::Instant;

use crate::documents::{Project, Stamp};
use crate::level2::Said;
use crate::numbers::Numbers;
use crate::outbox::Outbox;
use crate::rate::{AddressRates, KeyRates, Rates, TooFast};
use crate::slots::Slot;

/// Lines at the start of a socket that may have been sent before, on another one: as many as a game
/// keeps unanswered.
const FIRST_LINES: u32 = 32;

/// Message ids that are remembered because their line was answered `busy` or `timeout`. Past it,
/// every later line of the socket counts as sent before, which costs a look-up and nothing else.
const UNSURE_MAX: usize = 64;

/// Bytes of a device id that we make: `s-` and 16 hex digits.
const DEVICE_BYTES: usize = 18;

/// A game's socket, as everybody but its session sees it.
pub(crate) struct Socket {
    /// Tells this socket from every other, in this process and elsewhere.
    pub(crate) random: u64,
    device: [u8; DEVICE_BYTES],
    signed_in: OnceCell<SignedIn>,
    /// What a hello said, if one was sent: the socket is one of level 2.
    said: RefCell<Option<Rc<Said>>>,
    /// A sign-in is under way; the socket is not read meanwhile.
    pub(crate) asking: Cell<bool>,
    /// It waits until fewer messages do; not read meanwhile.
    pub(crate) held_back: Cell<bool>,
    /// Its lines came too fast: it is not read until then.
    pub(crate) rests_until: Cell<Option<Instant>>,
    /// What its address used.
    address: OnceCell<Arc<AddressRates>>,
    /// Why it is not read for now, if so.
    pub(crate) pause: Cell<Option<Pause>>,
    /// Lines that wait for their outcome.
    pub(crate) unsettled: Cell<usize>,
    /// What of the wanted document was sent, if any.
    pub(crate) sent: RefCell<Option<Stamp>>,
    out: RefCell<Outbox>,
    closing: Cell<Option<Code>>,
    ended: Cell<bool>,
    next_seq: Cell<u64>,
    lines: Cell<u32>,
    /// Hashes of message ids; two that collide cost a look-up and nothing else.
    unsure: RefCell<Vec<u64>>,
    waker: RefCell<Option<Waker>>,
    stirred: Cell<bool>,
    /// Place in the worker's roll, and in its project's.
    pub(crate) places: [Cell<usize>; 2],
    numbers: Arc<Numbers>,
}

/// Why a socket is not read for now. See [`crate::pause`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// What it would keep is not in the budget. Its started line must end in time all the same: half
    /// lines that wait for each other must not do so for ever.
    ForBudget,
    /// A line of it was `busy`.
    WhileBusy,
}

/// What a good sign-in settled, for the rest of the socket's life.
pub(crate) struct SignedIn {
    /// The key that every line must bear.
    pub(crate) key: ApiKey,
    /// The project that it opens.
    pub(crate) project: Arc<Project>,
    /// When the session began, in microseconds of our clock. Another session has a later one.
    pub(crate) epoch: Cell<u64>,
    /// What the key used.
    pub(crate) rates: Arc<KeyRates>,
    /// Counts against `limits.key_sockets_max`.
    pub(crate) _slot: Slot<ApiKey>,
}

impl Socket {
    pub(crate) fn new(random: u64, output_bytes_max: usize, numbers: Arc<Numbers>) -> Self {
        let mut device = *b"s-0000000000000000";
        for (at, digit) in device[2..].iter_mut().enumerate() {
            let nibble = (random >> (60 - 4 * at)) & 15;
            *digit = b"0123456789abcdef"[usize::try_from(nibble).expect("four bits")];
        }
        Self {
            random,
            device,
            signed_in: OnceCell::new(),
            said: RefCell::new(None),
            asking: Cell::new(false),
            held_back: Cell::new(false),
            rests_until: Cell::new(None),
            address: OnceCell::new(),
            pause: Cell::new(None),
            unsettled: Cell::new(0),
            sent: RefCell::new(None),
            out: RefCell::new(Outbox::new(output_bytes_max)),
            closing: Cell::new(None),
            ended: Cell::new(false),
            next_seq: Cell::new(0),
            lines: Cell::new(0),
            unsure: RefCell::new(Vec::new()),
            waker: RefCell::new(None),
            stirred: Cell::new(false),
            places: Default::default(),
            numbers,
        }
    }

    /// The device id that we made for this socket.
    pub(crate) fn made_device(&self) -> &str {
        std::str::from_utf8(&self.device).expect("letters and digits")
    }

    /// The session id that we made for this socket.
    pub(crate) fn made_session(&self) -> &str {
        &self.made_device()[2..]
    }

    /// What the last hello said, if there was one.
    pub(crate) fn said(&self) -> Option<Rc<Said>> {
        self.said.borrow().clone()
    }

    /// It signs in as a socket of level 1 after all.
    pub(crate) fn unsay(&self) {
        *self.said.borrow_mut() = None;
    }

    /// A hello came.
    pub(crate) fn say(&self, said: Said) {
        *self.said.borrow_mut() = Some(Rc::new(said));
    }

    /// Who signed in here, if somebody did.
    pub(crate) fn signed_in(&self) -> Option<&SignedIn> {
        self.signed_in.get()
    }

    /// Somebody signed in. Once a socket.
    pub(crate) fn sign_in(&self, signed_in: SignedIn) {
        assert!(self.signed_in.set(signed_in).is_ok(), "a socket signs in once");
    }

    /// The address that it comes from used this.
    pub(crate) fn comes_from(&self, rates: Arc<AddressRates>) {
        assert!(self.address.set(rates).is_ok(), "a socket comes from one address");
    }

    /// Takes a line of `bytes` from what its key, or else its address, may send.
    pub(crate) fn pay(&self, rates: &Rates, bytes: usize) -> Result<(), TooFast> {
        match (self.signed_in(), self.address.get()) {
            (Some(signed_in), _) => rates.line_of_key(&signed_in.rates, bytes),
            (None, Some(address)) => rates.line_of_address(address),
            (None, None) => Ok(()), // It was refused when it came: none of its lines is taken.
        }
    }

    /// A line came too fast: the socket is not read for `time`.
    pub(crate) fn rest(&self, time: Duration) {
        self.rests_until.set(Some(Instant::now() + time));
    }

    /// Takes sequence numbers for a line of `count` records, at `now_us`; returns the first.
    pub(crate) fn take_seq(&self, count: u32, now_us: u64) -> u64 {
        let seq = self.next_seq.get().max(now_us);
        self.next_seq.set(seq + u64::from(count).max(1));
        seq
    }

    /// Whether this next line may have been sent before: see the log indexer.
    pub(crate) fn count_line(&self, mid: Option<Mid<'_>>) -> bool {
        let lines = self.lines.get();
        self.lines.set(lines.saturating_add(1));
        let Some(mid) = mid else { return false };
        let unsure = self.unsure.borrow();
        lines < FIRST_LINES
            || UNSURE_MAX <= unsure.len()
            || unsure.contains(&short_hash(mid.as_str().as_bytes()))
    }

    /// A line was answered in a way that makes the game send it again.
    pub(crate) fn remember_unsure(&self, mid: &str) {
        let mut unsure = self.unsure.borrow_mut();
        let hash = short_hash(mid.as_bytes());
        if unsure.len() < UNSURE_MAX && !unsure.contains(&hash) {
            unsure.push(hash);
        }
    }

    /// Queues what `write` writes, and wakes the session to send it.
    pub(crate) fn tell(&self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.ended.get() || self.closing.get().is_some() {
            return; // Nobody would read it.
        }
        if self.out.borrow_mut().append(write).is_ok() {
            self.stir();
            return;
        }
        let words = "read what you are sent, or sign in again later (limits.output_bytes_max)";
        self.close(&Refusal::new(Code::SlowReader, words), None);
    }

    /// Refuses a line. The socket stays, unless the code says otherwise.
    pub(crate) fn refuse(&self, refusal: &Refusal, mid: Option<Mid<'_>>) {
        self.numbers.refused(refusal.code);
        self.answer_refused(refusal, mid);
    }

    /// Answers a line that is counted as refused elsewhere.
    pub(crate) fn answer_refused(&self, refusal: &Refusal, mid: Option<Mid<'_>>) {
        if refusal.code.closes() {
            return self.close(refusal, mid);
        }
        self.tell(|out| answer::write_error(out, refusal, mid, retry_ms(refusal)));
    }

    /// Says why, then closes once that is written. The first reason counts.
    pub(crate) fn close(&self, refusal: &Refusal, mid: Option<Mid<'_>>) {
        if self.ended.get() || self.closing.replace(Some(refusal.code)).is_some() {
            return;
        }
        self.numbers.closed(refusal.code);
        let write = |out: &mut Vec<u8>| {
            if self.said.borrow().is_some() {
                let return_ms = refusal.retry_ms.unwrap_or_else(|| return_ms(refusal.code));
                answer::write_close(out, refusal.code, return_ms);
            } else {
                answer::write_error(out, refusal, mid, retry_ms(refusal));
            }
        };
        self.out.borrow_mut().append_last(write);
        self.stir();
    }

    /// Why the socket is closing, if it is.
    pub(crate) fn closing(&self) -> Option<Code> {
        self.closing.get()
    }

    /// Whether the socket is closing.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get().is_some()
    }

    /// The session ended: nothing more is queued here.
    pub(crate) fn end(&self) {
        self.ended.set(true);
        *self.out.borrow_mut() = Outbox::new(0);
        *self.waker.borrow_mut() = None;
    }

    /// Whether the session ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// What waits to be written. The session's alone.
    pub(crate) fn out(&self) -> &RefCell<Outbox> {
        &self.out
    }

    /// A line got its outcome.
    pub(crate) fn line_settled(&self) {
        self.unsettled.set(self.unsettled.get() - 1);
        self.stir();
    }

    /// Makes the session look again.
    pub(crate) fn stir(&self) {
        if !self.stirred.replace(true)
            && let Some(waker) = self.waker.borrow().as_ref()
        {
            waker.wake_by_ref();
        }
    }

    /// The session looks now, and is to be woken by `waker` once it looked. What it does itself
    /// meanwhile need not wake it.
    pub(crate) fn attend(&self, waker: &Waker) {
        self.stirred.set(true);
        let mut kept = self.waker.borrow_mut();
        match kept.as_ref() {
            Some(kept) if kept.will_wake(waker) => {}
            _ => *kept = Some(waker.clone()),
        }
    }

    /// The session has seen everything and waits.
    pub(crate) fn wait(&self) {
        self.stirred.set(false);
    }
}

/// When a game of level 2 may come back after its socket was closed, in milliseconds; 0 is not again
/// in this run.
fn return_ms(code: Code) -> u32 {
    if matches!(code, Code::UnknownKey | Code::Revoked | Code::Replaced) {
        0
    } else if code == Code::TooManySockets {
        10_000 // Others must go first.
    } else {
        1_000
    }
}

/// When to come back after a refusal, if coming back helps.
fn retry_ms(refusal: &Refusal) -> Option<u32> {
    // Long enough for a full queue to move, short enough for a person who waits.
    let by_code = matches!(refusal.code, Code::Busy | Code::Timeout | Code::Draining);
    refusal.retry_ms.or(by_code.then_some(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(output_bytes_max: usize) -> Socket {
        Socket::new(0x0123_4567_89ab_cdef, output_bytes_max, Arc::new(Numbers::new()))
    }

    fn waiting(socket: &Socket) -> String {
        String::from_utf8(socket.out().borrow().waiting().to_vec()).unwrap()
    }

    #[test]
    fn device_and_session_bear_the_random_number() {
        let socket = socket(10);
        assert_eq!(socket.made_device(), "s-0123456789abcdef");
        assert_eq!(socket.made_session(), "0123456789abcdef");
    }

    #[test]
    fn sequences_grow_also_when_the_clock_stands_or_goes_back() {
        let socket = socket(10);
        assert_eq!(socket.take_seq(10, 1000), 1000);
        assert_eq!(socket.take_seq(1, 1000), 1010);
        assert_eq!(socket.take_seq(0, 500), 1011);
        assert_eq!(socket.take_seq(1, 500), 1012);
        assert_eq!(socket.take_seq(1, 2000), 2000);
    }

    #[test]
    fn a_line_may_have_been_sent_before_when_it_is_early_or_was_not_answered_well() {
        let socket = socket(10);
        let mid = Mid::parse(b"m").ok();
        assert!(!socket.count_line(None));
        for _ in 1..FIRST_LINES {
            assert!(socket.count_line(mid));
        }
        assert!(!socket.count_line(mid));
        socket.remember_unsure("m");
        assert!(socket.count_line(mid));
        assert!(!socket.count_line(Mid::parse(b"n").ok()));
        for other in 0..UNSURE_MAX {
            socket.remember_unsure(&other.to_string());
        }
        assert!(socket.count_line(Mid::parse(b"n").ok()));
        assert_eq!(socket.unsure.borrow().len(), UNSURE_MAX);
    }

    #[test]
    fn a_game_that_does_not_read_is_told_why_behind_what_waits() {
        let socket = socket(6);
        socket.tell(|out| out.extend_from_slice(b"OK 1\n"));
        socket.tell(|out| out.extend_from_slice(b"OK 2\n"));
        assert!(socket.is_closing());
        assert!(waiting(&socket).starts_with("OK 1\nERR slow_reader - - "));
        let before = waiting(&socket);
        socket.tell(|out| out.extend_from_slice(b"x"));
        assert_eq!(waiting(&socket), before, "nothing follows the last words");
    }
}
