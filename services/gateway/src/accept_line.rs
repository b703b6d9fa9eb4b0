//! A line is read, checked and appended to its project's batch, or refused. No I/O: what was read
//! stands in the session's chunk, and what is answered goes to the socket's outbox.

use std::borrow::Cow;
use std::rc::Rc;

use observer_bus::Stream;
use observer_wire::dropped::Dropped;
use observer_wire::event::{LineHead, LineKind};
use observer_wire::frame::{Body, Frame, Mid};
use observer_wire::ids::LineId;
use observer_wire::record::Level;
use observer_wire::records::Records;
use observer_wire::{Code, Refusal, answer, declare};

use crate::batch::{Accepted, Origin, charged_bytes};
use crate::level2;
use crate::numbers::Kind;
use crate::shed;
use crate::sign_in;
use crate::socket::{Pause, SignedIn, Socket};
use crate::worker::Worker;

/// Buffers that every line of a worker is checked in.
#[derive(Default)]
pub(crate) struct Scratch {
    decoded: Vec<u8>,
    records: Records,
}

/// Takes a line, trimmed, that was read at `now_us`.
pub(crate) fn take(worker: &Rc<Worker>, socket: &Rc<Socket>, line: &[u8], now_us: u64) {
    if line.is_empty() {
        return;
    }
    let frame = Frame::parse(line);
    let (kind, mid) = match &frame {
        Ok(frame) => (kind_of(frame), frame.mid()),
        Err(refused) => (Kind::Other, refused.mid),
    };
    worker.shared.numbers.line_in(kind);
    if let Err(too_fast) = socket.pay(&worker.shared.rates, line.len()) {
        socket.refuse(&too_fast.refusal(Code::Rate), mid);
        if !worker.draining.get() {
            socket.rest(too_fast.rest()); // Else what was read is answered now, and no more is.
        }
        return;
    }
    match frame {
        Ok(frame) => take_frame(worker, socket, frame, now_us),
        Err(refused) => socket.refuse(&refused.refusal, refused.mid),
    }
}

fn kind_of(frame: &Frame<'_>) -> Kind {
    match frame {
        Frame::Logs(_) => Kind::Logs,
        Frame::Vars(_) => Kind::Vars,
        Frame::SignIn { .. } => Kind::SignIn,
        Frame::Hello(_) => Kind::Hello,
        Frame::Dropped(_) => Kind::Dropped,
        Frame::State { .. } => Kind::State,
        Frame::Ping { .. } => Kind::Ping,
        Frame::Later { .. } => Kind::Other,
    }
}

fn take_frame(worker: &Rc<Worker>, socket: &Rc<Socket>, frame: Frame<'_>, now_us: u64) {
    match frame {
        Frame::Logs(body) => {
            take_body(worker, socket, &Arrived { kind: LineKind::Logs, body, now_us });
        }
        Frame::Vars(body) => {
            take_body(worker, socket, &Arrived { kind: LineKind::Reported, body, now_us });
        }
        Frame::SignIn { key } => {
            if socket.signed_in().is_none() {
                socket.unsay(); // A hello that did not sign in is not what holds now.
            }
            sign_in::begin(worker, socket, key);
        }
        Frame::Ping { line } => {
            worker.shared.numbers.lines_accepted.increment(1);
            if socket.said().is_none_or(|said| !said.is_echo(line)) {
                socket.tell(|out| {
                    out.extend_from_slice(line);
                    out.push(b'\n');
                });
            }
        }
        Frame::Hello(body) => {
            if let Err(refusal) = level2::hello(worker, socket, &body) {
                socket.refuse(&refusal, body.mid);
            }
        }
        Frame::Dropped(body) => {
            take_dropped(worker, socket, &Arrived { kind: LineKind::Logs, body, now_us });
        }
        Frame::State { key, state } => {
            if let Err(refusal) = level2::state(worker, socket, key, state) {
                socket.refuse(&refusal, None);
            }
        }
        Frame::Later { tag } => {
            let words = format!("{tag}: lines are not taken by this release; send none");
            socket.refuse(&Refusal::new(Code::UnknownLine, words), None);
        }
    }
}

/// An `l:` or `i:` line.
struct Arrived<'l> {
    kind: LineKind,
    body: Body<'l>,
    now_us: u64,
}

fn take_body(worker: &Rc<Worker>, socket: &Rc<Socket>, arrived: &Arrived<'_>) {
    if let Err(refusal) = accept(worker, socket, arrived) {
        refuse(worker, socket, &refusal, arrived.body.mid);
    }
}

/// What a game had to drop becomes a record of its log, so that the gap is seen.
fn take_dropped(worker: &Rc<Worker>, socket: &Rc<Socket>, arrived: &Arrived<'_>) {
    if let Err(refusal) = accept_dropped(worker, socket, arrived) {
        refuse(worker, socket, &refusal, arrived.body.mid);
    }
}

fn refuse(worker: &Worker, socket: &Rc<Socket>, refusal: &Refusal, mid: Option<Mid<'_>>) {
    if refusal.code == Code::Busy {
        worker.pause(socket, Pause::WhileBusy);
        if let Some(mid) = mid {
            socket.remember_unsure(mid.as_str());
        }
    }
    socket.refuse(refusal, mid);
}

fn accept_dropped(
    worker: &Rc<Worker>,
    socket: &Rc<Socket>,
    arrived: &Arrived<'_>,
) -> Result<(), Refusal> {
    let body = &arrived.body;
    level2::check(socket, body.key, "n")?;
    let signed_in = check_key(worker, socket, body)?;
    let again = socket.count_line(body.mid);
    let mut decoded = Vec::new(); // Rare: not worth a buffer of the worker's.
    let json = body.payload.decode(&mut decoded)?;
    let dropped = Dropped::read(json, &worker.shared.limits)?;
    if dropped.total() == 0 {
        answer_empty(worker, socket, body.mid);
        return Ok(());
    }
    let json = dropped.gap_json("by the game");
    // A loss is told under pressure too: it is a warning.
    let (level, count, odd) = (Level::Warn, 1, &[][..]);
    append(worker, socket, arrived, &Checked { signed_in, json: &json, count, level, odd, again })
}

/// Appends the line, to be answered once it is safe.
fn accept(worker: &Rc<Worker>, socket: &Rc<Socket>, arrived: &Arrived<'_>) -> Result<(), Refusal> {
    let Arrived { kind, ref body, .. } = *arrived;
    let signed_in = check_key(worker, socket, body)?;
    let again = socket.count_line(body.mid);

    let mut scratch = worker.scratch.borrow_mut();
    let Scratch { decoded, records } = &mut *scratch;
    let json = body.payload.decode(decoded)?;
    if kind == LineKind::Reported && socket.said().is_some_and(|said| said.is_replay()) {
        let words = "a replay has no variables; send i: lines once the session is the present one";
        return Err(Refusal::new(Code::BadShape, words));
    }
    let count = check(worker, kind, json, records)?;
    if count == 0 {
        answer_empty(worker, socket, body.mid);
        return Ok(());
    }
    let odd = if kind == LineKind::Logs { records.odd.as_slice() } else { &[] };
    let level = records.level;
    append(worker, socket, arrived, &Checked { signed_in, json, count, level, odd, again })
}

/// A payload that may be stored, and who sent it.
struct Checked<'c> {
    signed_in: &'c SignedIn,
    json: &'c str,
    count: u32,
    /// Of log records.
    level: Level,
    odd: &'c [u32],
    again: bool,
}

/// Appends a line that is good, if there is room for it.
fn append(
    worker: &Rc<Worker>,
    socket: &Rc<Socket>,
    arrived: &Arrived<'_>,
    checked: &Checked<'_>,
) -> Result<(), Refusal> {
    let Arrived { kind, ref body, now_us } = *arrived;
    let Checked { signed_in, json, count, odd, again, .. } = *checked;
    let said = socket.said();
    let said = said.as_deref();
    resist(worker, arrived, checked)?;
    worker.shared.budget.take(&signed_in.project, charged_bytes(json))?;

    let seq = socket.take_seq(count, now_us);
    let id = match body.mid {
        // Without a device in a hello none outlives its socket, so the id knows none.
        Some(mid) => {
            let device = said.and_then(|said| said.hello.device.as_deref()).unwrap_or_default();
            LineId::of_message(signed_in.project.id, device, mid, json.as_bytes())
        }
        None => LineId::fresh(socket.random, seq),
    };
    let stream = if kind == LineKind::Logs { Stream::Logs } else { Stream::Vars };
    let head = LineHead {
        kind,
        id: Cow::Borrowed(id.as_str()),
        key: signed_in.key,
        device: Cow::Borrowed(said.map_or(socket.made_device(), |said| &said.device)),
        named: said.is_some_and(|said| said.hello.device.is_some()),
        session: Cow::Borrowed(said.map_or(socket.made_session(), |said| &said.session)),
        epoch: signed_in.epoch.get(),
        seq,
        received: i64::try_from(now_us / 1000).unwrap_or(i64::MAX),
        mid: body.mid.map(|mid| Cow::Borrowed(mid.as_str())),
        index: 0,
        count,
        rev: 0,
        again,
        odd: Cow::Borrowed(odd),
        len: 0,
    };
    socket.unsettled.set(socket.unsettled.get() + 1);
    let origin = Origin::Game(Rc::clone(socket));
    worker.append(&signed_in.project, stream, Accepted { head, json, origin });
    Ok(())
}

/// Refuses what the bus has no room for by its weight, and sees to it that a loss is told.
fn resist(worker: &Worker, arrived: &Arrived<'_>, checked: &Checked<'_>) -> Result<(), Refusal> {
    let Arrived { kind, now_us, .. } = *arrived;
    let Checked { signed_in, count, level, .. } = *checked;
    let shared = &worker.shared;
    let pressed = shed::check(&*shared.bus, &signed_in.project, kind, (level, now_us));
    if pressed.as_ref().is_err_and(|refusal| refusal.code == Code::Shed) {
        shared.numbers.records_shed.increment(count.into());
        shared.gaps.add(&signed_in.project, count, now_us);
    }
    pressed
}

fn check_key<'s>(
    worker: &Worker,
    socket: &'s Socket,
    body: &Body<'_>,
) -> Result<&'s SignedIn, Refusal> {
    let Some(signed_in) = socket.signed_in() else {
        if worker.draining.get() {
            // Its sign-in, which stood before this line, may be what the end cut short.
            return Err(Refusal::new(Code::Busy, "the gateway stops; connect again"));
        }
        return Err(Refusal::new(
            Code::NotSignedIn,
            "sign in first, with a line v:<key>; the answer is OK",
        ));
    };
    if body.key != Some(signed_in.key) {
        return Err(wrong_key());
    }
    Ok(signed_in)
}

/// The refusal of a line with another key than the socket's.
pub(crate) fn wrong_key() -> Refusal {
    Refusal::new(
        Code::WrongKey,
        "this socket signed in with another key; open one socket for each key",
    )
}

/// Checks the payload; returns how many records or variables it has.
fn check(
    worker: &Worker,
    kind: LineKind,
    json: &str,
    records: &mut Records,
) -> Result<u32, Refusal> {
    let limits = &worker.shared.limits;
    if kind == LineKind::Logs {
        records.check(json, limits)?;
        return Ok(records.count);
    }
    let declared = declare::read(json, limits)?;
    Ok(u32::try_from(declared.len()).expect("limits.line_vars_max is far smaller"))
}

/// An empty array needs no storing: it is safe as it is.
fn answer_empty(worker: &Worker, socket: &Socket, mid: Option<Mid<'_>>) {
    worker.shared.numbers.lines_accepted.increment(1);
    if let Some(mid) = mid {
        socket.tell(|out| answer::write_ok(out, mid));
    }
}
