//! `h:`, `d:` and what a socket has that said hello: who it is, how it gets JSON, whether its silence
//! counts. A socket of level 1 has none of this, and is served byte for byte as ever.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use observer_bus::Topic;
use observer_chassis::{now_ms, now_us};
use observer_wire::ask::Control;
use observer_wire::event::{GoneState, LineKind};
use observer_wire::frame::{Body, GameState};
use observer_wire::hello::{Bounds, Encoding, HEARTBEAT_MS_DEFAULT, Hello, Welcome};
use observer_wire::payload::Payload;
use observer_wire::{ApiKey, Code, Refusal};
use tracing::debug;

use crate::accept_line::wrong_key;
use crate::documents::Stamp;
use crate::edits::{Push, bring_up_to_date};
use crate::presence::{self, Presence};
use crate::sign_in;
use crate::socket::Socket;
use crate::worker::Worker;

/// What a hello said. The next one replaces it as a whole.
#[derive(Debug)]
pub(crate) struct Said {
    /// All that was said so far.
    pub(crate) hello: Hello,
    /// From the hello, else made for the socket.
    pub(crate) device: Box<str>,
    /// From the hello, else made for the socket.
    pub(crate) session: Box<str>,
    /// How JSON goes to this socket.
    pub(crate) encoding: Encoding,
    /// The game is in the background: its silence is no fault.
    background: Cell<bool>,
    /// The game said goodbye.
    ending: Cell<bool>,
    /// Our own `p:` that was not echoed yet.
    pinged: Cell<Option<u64>>,
    /// The epoch that the game was told last.
    told_epoch: RefCell<Option<Arc<str>>>,
}

impl Said {
    fn new(hello: Hello, encoding: Encoding, socket: &Socket) -> Self {
        let or = |said: &Option<Box<str>>, made: &str| said.clone().unwrap_or_else(|| made.into());
        Self {
            device: or(&hello.device, socket.made_device()),
            session: or(&hello.session, socket.made_session()),
            hello,
            encoding,
            background: Cell::new(false),
            ending: Cell::new(false),
            pinged: Cell::new(None),
            told_epoch: RefCell::new(None),
        }
    }

    /// Lines of an earlier session, which were saved: never online, and without variables.
    pub(crate) fn is_replay(&self) -> bool {
        self.hello.replay.is_some()
    }

    /// Whether a newer socket can be told to be the same session again.
    fn is_fenced(&self) -> bool {
        self.hello.device.is_some() && self.hello.session.is_some() && !self.is_replay()
    }

    /// Whether the game is in the background.
    pub(crate) fn is_in_background(&self) -> bool {
        self.background.get()
    }

    /// What the end of the socket means, as far as the game said.
    pub(crate) fn gone_state(&self) -> GoneState {
        if self.ending.get() {
            GoneState::Ended
        } else if self.background.get() {
            GoneState::Suspended
        } else {
            GoneState::Lost
        }
    }

    /// The silence after which the game is asked whether it is there; `None` while it may be silent.
    pub(crate) fn heartbeat(&self) -> Option<Duration> {
        let ms = self.hello.heartbeat_ms.unwrap_or(HEARTBEAT_MS_DEFAULT);
        (!self.background.get()).then(|| Duration::from_millis(ms.into()))
    }

    /// Makes the line that asks whether the game is there.
    pub(crate) fn ping(&self) -> String {
        let now = now_ms();
        self.pinged.set(Some(now));
        format!("p:{now}\n")
    }

    /// Whether a `p:` line is the echo of ours. Echoing that again would never end.
    pub(crate) fn is_echo(&self, line: &[u8]) -> bool {
        let ours = self.pinged.get().is_some_and(|pinged| line == format!("p:{pinged}").as_bytes());
        if ours {
            self.pinged.set(None);
        }
        ours
    }
}

/// Takes an `h:` line.
///
/// # Errors
///
/// Why it was refused. The socket is as it was before.
pub(crate) fn hello(
    worker: &Rc<Worker>,
    socket: &Rc<Socket>,
    body: &Body<'_>,
) -> Result<(), Refusal> {
    let mut decoded = Vec::new(); // Once a socket: not worth a buffer of the worker's.
    let json = body.payload.decode(&mut decoded)?;
    let later = Hello::read(json, &worker.shared.limits)?;
    let encoding = match body.payload {
        Payload::Base64(_) => Encoding::Base64,
        Payload::Json(_) => Encoding::Plain,
    };
    let before = socket.said();
    let mut hello = before.as_ref().map(|said| said.hello.clone()).unwrap_or_default();
    hello.update(later);
    let said = Said::new(hello, encoding, socket);
    let Some(signed_in) = socket.signed_in() else {
        socket.say(said);
        sign_in::begin(worker, socket, body.key);
        return Ok(());
    };
    if body.key != Some(signed_in.key) {
        return Err(wrong_key());
    }
    let same = before.as_ref().is_some_and(|before| {
        (&before.device, &before.session, before.is_replay())
            == (&said.device, &said.session, said.is_replay())
    });
    if let (true, Some(before)) = (same, &before) {
        said.background.set(before.background.get());
    } else {
        if let Some(gone) = Presence::ended(socket) {
            presence::tell(worker, gone);
        }
        signed_in.epoch.set(now_us().max(signed_in.epoch.get() + 1));
    }
    socket.say(said);
    if !same {
        fence(worker, socket);
    }
    worker.shared.numbers.lines_accepted.increment(1);
    sign_in::answer_hello(worker, socket);
    Ok(())
}

/// Takes a `d:` line.
///
/// # Errors
///
/// Why it was refused.
pub(crate) fn state(
    worker: &Rc<Worker>,
    socket: &Rc<Socket>,
    key: Option<ApiKey>,
    state: GameState,
) -> Result<(), Refusal> {
    let said = check(socket, key, "d")?;
    worker.shared.numbers.lines_accepted.increment(1);
    let background = state == GameState::Back;
    said.ending.set(state == GameState::Bye);
    let changed = said.background.replace(background) != background;
    if changed && let Some(sign_in) = Presence::of(socket, LineKind::SignIn) {
        presence::tell(worker, sign_in);
    }
    Ok(())
}

/// What a hello said here, for lines that need one.
///
/// # Errors
///
/// The socket did not sign in, did so with another key, or without a hello.
pub(crate) fn check(socket: &Socket, key: Option<ApiKey>, tag: &str) -> Result<Rc<Said>, Refusal> {
    let Some(signed_in) = socket.signed_in() else {
        let words = "sign in first, with a line h:<key>:{}; the answer is h:";
        return Err(Refusal::new(Code::NotSignedIn, words));
    };
    if key != Some(signed_in.key) {
        return Err(wrong_key());
    }
    socket.said().ok_or_else(|| {
        let words = format!("{tag}: lines need a hello: say h:<key>:{{}} first");
        Refusal::new(Code::UnknownLine, words)
    })
}

/// Closes older sockets of the session that signed in here, on this gateway and on others.
pub(crate) fn fence(worker: &Rc<Worker>, socket: &Socket) {
    let (Some(signed_in), Some(said)) = (socket.signed_in(), socket.said()) else { return };
    if !said.is_fenced() {
        return;
    }
    let control = Control::SignedIn {
        project: signed_in.project.id,
        device: said.device.to_string(),
        session: said.session.to_string(),
        epoch: signed_in.epoch.get(),
    };
    let payload = serde_json::to_vec(&control).expect("a plain enum always serialises");
    worker.shared.push(Push::Control(Arc::new(control)));
    let (shared, drain) = (Arc::clone(&worker.shared), worker.drain_requested.clone());
    worker.sessions.spawn_local(async move {
        let told = shared.bus.broadcast(Topic::Control, Bytes::from(payload));
        if let Some(Err(error)) = drain.run_until_cancelled(told).await {
            // Var-store takes nothing of the older socket, and its heartbeat ends it.
            debug!(%error, "other gateways were not told of a sign-in");
        }
    });
}

/// Does what all gateways were told, to the sockets of this worker.
pub(crate) fn take_control(worker: &Worker, control: &Control) {
    let registry = worker.registry.borrow();
    match control {
        Control::SignedIn { project, device, session, epoch } => {
            let Some(of_project) = registry.of(*project) else { return };
            for socket in &of_project.sockets {
                let (Some(signed_in), Some(said)) = (socket.signed_in(), socket.said()) else {
                    continue;
                };
                let same = *said.device == **device && *said.session == **session;
                if same && said.is_fenced() && signed_in.epoch.get() < *epoch {
                    let words = "a newer socket of this session took over";
                    socket.close(&Refusal::new(Code::Replaced, words), None);
                }
            }
        }
        Control::Send { project, device, sending } => {
            let Some(of_project) = registry.of(*project) else { return };
            let json = serde_json::to_vec(sending).expect("a plain struct always serialises");
            for socket in &of_project.sockets {
                let (Some(signed_in), Some(said)) = (socket.signed_in(), socket.said()) else {
                    continue;
                };
                let meant = device.as_ref().is_none_or(|device| **device == *said.device);
                let able = said.hello.caps.is_some_and(|caps| caps.has("g"));
                if meant && able && !said.is_replay() {
                    socket.tell(|out| write(out, 'g', signed_in.key, (said.encoding, &json)));
                }
            }
        }
    }
}

/// Answers a hello, and sends the wanted document to a game that is behind it.
pub(crate) fn welcome(worker: &Worker, socket: &Socket) {
    let (Some(signed_in), Some(said)) = (socket.signed_in(), socket.said()) else { return };
    let wanted = signed_in.project.wanted();
    let stamp = wanted.as_ref().map(|wanted| &wanted.stamp);
    let mut line = Vec::new();
    write_welcome(&mut line, worker, (signed_in.key, &said), stamp);
    socket.tell(|out| out.extend_from_slice(&line));
    *socket.sent.borrow_mut() = match (&said.hello.epoch, said.hello.rev) {
        (Some(epoch), Some(rev)) => Some(Stamp { epoch: Arc::from(&**epoch), rev }),
        _ => None,
    };
    bring_up_to_date(worker, socket, wanted.as_ref());
}

/// Writes an `h:` line before what is sent in an epoch that the game does not know yet.
pub(crate) fn tell_epoch(worker: &Worker, socket: &Socket, said: &Said, stamp: &Stamp) {
    let Some(signed_in) = socket.signed_in() else { return };
    let known = said.told_epoch.borrow().as_ref() == Some(&stamp.epoch);
    if !known {
        let mut line = Vec::new();
        write_welcome(&mut line, worker, (signed_in.key, said), Some(stamp));
        socket.tell(|out| out.extend_from_slice(&line));
    }
}

fn write_welcome(
    out: &mut Vec<u8>,
    worker: &Worker,
    (key, said): (ApiKey, &Said),
    stamp: Option<&Stamp>,
) {
    *said.told_epoch.borrow_mut() = stamp.map(|stamp| Arc::clone(&stamp.epoch));
    let welcome = Welcome {
        device: said.device.to_string(),
        session: said.session.to_string(),
        epoch: stamp.map(|stamp| stamp.epoch.to_string()),
        rev: stamp.map(|stamp| stamp.rev),
        time: i64::try_from(now_ms()).unwrap_or(i64::MAX),
        heartbeat_ms: said.hello.heartbeat_ms.unwrap_or(HEARTBEAT_MS_DEFAULT),
        limits: Bounds::from(&worker.shared.limits),
    };
    let json = serde_json::to_vec(&welcome).expect("a plain struct always serialises");
    write(out, 'h', key, (said.encoding, &json));
}

fn write(out: &mut Vec<u8>, tag: char, key: ApiKey, (encoding, json): (Encoding, &[u8])) {
    out.extend_from_slice(format!("{tag}:{}:", key.as_str()).as_bytes());
    encoding.write(json, out);
    out.push(b'\n');
}
