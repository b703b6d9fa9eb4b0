//! Who is here: a sign-in and its end, told to var-store through the same batches as lines; and the
//! gateway's own sign of life, while which its devices count as online.
//!
//! A line that could not be published is told again while that makes sense. Nobody else would.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use observer_bus::{Stream, Topic};
use observer_chassis::now_us;
use observer_wire::ApiKey;
use observer_wire::ask::GatewayAlive;
use observer_wire::event::{Gone, GoneState, LineHead, LineKind, SignIn};
use observer_wire::ids::LineId;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::debug;

use crate::batch::{Accepted, Origin};
use crate::documents::Project;
use crate::level2::Said;
use crate::shared::Shared;
use crate::socket::Socket;
use crate::worker::Worker;

/// How often a gateway says that it is alive.
pub(crate) const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// Pause before what could not be told is told again.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// Sign-ins and ends that wait to be told again, on one worker, each in about 200 bytes. Past it the
/// oldest is dropped and counted.
const UNTOLD_MAX: usize = 20_000;

/// A sign-in, or the end of a socket.
pub(crate) struct Presence {
    kind: LineKind,
    socket: Weak<Socket>,
    project: Arc<Project>,
    key: ApiKey,
    random: u64,
    epoch: u64,
    /// What its hello said, if there was one.
    said: Option<Rc<Said>>,
    /// The socket goes on with another session.
    ended: bool,
}

impl Presence {
    /// `socket` signed in, or ended, as `kind` says; `None` when it never signed in, or replays.
    pub(crate) fn of(socket: &Rc<Socket>, kind: LineKind) -> Option<Box<Self>> {
        let signed_in = socket.signed_in()?;
        let said = socket.said();
        if said.as_ref().is_some_and(|said| said.is_replay()) {
            return None;
        }
        Some(Box::new(Self {
            kind,
            socket: Rc::downgrade(socket),
            project: Arc::clone(&signed_in.project),
            key: signed_in.key,
            random: socket.random,
            epoch: signed_in.epoch.get(),
            said,
            ended: false,
        }))
    }

    /// The session on `socket` is over, and another one follows.
    pub(crate) fn ended(socket: &Rc<Socket>) -> Option<Box<Self>> {
        let mut gone = Self::of(socket, LineKind::Gone)?;
        gone.ended = true;
        Some(gone)
    }

    /// Whether saying so is still right: a sign-in told after its end would bring the dead back.
    fn still_right(&self) -> bool {
        self.kind == LineKind::Gone
            || self
                .socket
                .upgrade()
                .is_some_and(|socket| !socket.has_ended() && self.is_last(&socket))
    }

    /// Whether no later hello said something else.
    fn is_last(&self, socket: &Socket) -> bool {
        match (&self.said, socket.said()) {
            (Some(said), Some(last)) => Rc::ptr_eq(said, &last),
            (said, last) => said.is_none() && last.is_none(),
        }
    }

    /// What is told.
    fn json(&self, worker: &Worker) -> String {
        let json = if self.kind == LineKind::SignIn {
            let said = self.said.as_ref();
            serde_json::to_string(&SignIn {
                gateway: worker.shared.gateway_id.clone(),
                about: said.map(|said| said.hello.about.clone()).unwrap_or_default(),
                background: said.is_some_and(|said| said.is_in_background()),
            })
        } else {
            let said = self.said.as_ref().map_or(GoneState::Lost, |said| said.gone_state());
            let state = if self.ended { GoneState::Ended } else { said };
            serde_json::to_string(&Gone { state })
        };
        json.expect("a plain struct always serialises")
    }
}

/// Appends a sign-in or an end to the project's batch.
pub(crate) fn tell(worker: &Rc<Worker>, presence: Box<Presence>) {
    let now_us = now_us();
    let made = format!("s-{:016x}", presence.random);
    let said = presence.said.clone();
    let said = said.as_deref();
    // An end is told when its socket may be gone; its order needs the clock and nothing else.
    let seq = presence.socket.upgrade().map_or(now_us, |socket| socket.take_seq(1, now_us));
    let id = LineId::fresh(presence.random, seq);
    let json = presence.json(worker);
    let head = LineHead {
        kind: presence.kind,
        id: Cow::Borrowed(id.as_str()),
        key: presence.key,
        device: Cow::Borrowed(said.map_or(&made, |said| &said.device)),
        named: said.is_some_and(|said| said.hello.device.is_some()),
        session: Cow::Borrowed(said.map_or(&made[2..], |said| &said.session)),
        epoch: presence.epoch,
        seq,
        received: i64::try_from(now_us / 1000).unwrap_or(i64::MAX),
        mid: None,
        index: 0,
        count: 0,
        rev: 0,
        again: false,
        odd: Cow::Borrowed(&[]),
        len: 0,
    };
    let project = Arc::clone(&presence.project);
    let origin = Origin::Presence(presence);
    worker.append(&project, Stream::Vars, Accepted { head, json: &json, origin });
}

/// Keeps what could not be told, to tell it again.
pub(crate) fn tell_later(worker: &Worker, presence: Box<Presence>) {
    let mut untold = worker.untold.borrow_mut();
    if UNTOLD_MAX <= untold.len() {
        untold.pop_front();
        worker.shared.numbers.presence_lost.increment(1);
    }
    untold.push_back(presence);
}

/// Tells again what could not be told, until it is dropped.
pub(crate) async fn tell_again(worker: Rc<Worker>) {
    loop {
        sleep(TELL_AGAIN).await;
        let untold: VecDeque<_> = worker.untold.take();
        for presence in untold {
            if presence.still_right() {
                tell(&worker, presence);
            }
        }
    }
}

/// Says that this gateway is alive, until it is dropped.
pub(crate) async fn announce(shared: Arc<Shared>) {
    let alive = GatewayAlive { gateway: shared.gateway_id.clone() };
    let alive = serde_json::to_vec(&alive).expect("a plain struct always serialises");
    let alive = Bytes::from(alive);
    let mut every = interval(ALIVE_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        if let Err(error) = shared.bus.broadcast(Topic::Gateways, alive.clone()).await {
            debug!(%error, "sign of life was not sent");
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge, far below 2^52")]
        shared.numbers.waiting_bytes.set(shared.budget.waiting_bytes() as f64);
    }
}
