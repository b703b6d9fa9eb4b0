//! Lines of one project gather into one message, which is published when it is full or as soon as
//! the worker has nothing else to do: no added wait when quiet, large messages when busy.
//!
//! One set of batches a worker, so no line crosses threads. What becomes of a message is
//! [`crate::settle`]'s.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use observer_bus::{Outgoing, PublishError, Stream};
use observer_wire::ProjectId;
use observer_wire::event::{self, LineHead, MESSAGE_BYTES_TARGET};
use observer_wire::ids::MessageId;
use tokio::time::{Instant, timeout_at};

use crate::budget::{Budget, Charge};
use crate::documents::Project;
use crate::pause;
use crate::presence::Presence;
use crate::settle::{Outcome, Unsettled, settle};
use crate::shed::Gap;
use crate::socket::Socket;
use crate::worker::Worker;

/// About the bytes that a line takes in a message besides its JSON.
const HEAD_BYTES_ABOUT: usize = 400;

/// Time from a message's first line to its outcome, a second try included. Then the lines are
/// answered `timeout`: a game gets an answer within 8 s, whatever the bus does.
const SETTLE_WITHIN: Duration = Duration::from_secs(7);

/// First buffer of a message: most, when it is quiet, fit.
const FIRST_BYTES: usize = 2 * 1024;

/// Full messages that may wait until one more may be under way. Past it the worker's sockets are
/// not read, so that games wait instead of our memory growing: 1 MiB in messages of 16 KiB.
const READY_MAX: usize = 64;

/// What a line is charged for the time in which it waits.
pub(crate) fn charged_bytes(json: &str) -> usize {
    json.len() + HEAD_BYTES_ABOUT
}

/// A line that was checked and is on its way.
pub(crate) struct Accepted<'a> {
    pub(crate) head: LineHead<'a>,
    pub(crate) json: &'a str,
    pub(crate) origin: Origin,
}

/// Whom the outcome of a line is for.
pub(crate) enum Origin {
    /// A game. What the line is charged was taken from the budget by whoever accepted it.
    Game(Rc<Socket>),
    /// Ourselves: who is here.
    Presence(Box<Presence>),
    /// Ourselves: what was shed.
    Gap(Box<Gap>),
}

/// One message in the making.
pub(crate) struct Batch {
    stream: Stream,
    project: ProjectId,
    payload: Vec<u8>,
    id: MessageId,
    /// The lines' message ids, one after the other.
    mids: String,
    lines: Vec<Unsettled>,
    charge: Charge,
    born: Instant,
}

/// The messages of one worker.
#[derive(Default)]
pub(crate) struct Batches {
    open: HashMap<(ProjectId, Stream), Batch>,
    /// Messages that wait to be published, oldest first; bounded by the budget of waiting bytes.
    ready: VecDeque<Batch>,
    under_way: usize,
}

impl Batch {
    fn new(stream: Stream, project: &Arc<Project>, budget: &Arc<Budget>) -> Self {
        let mut payload = Vec::with_capacity(FIRST_BYTES);
        event::start(&mut payload, project.id);
        Self {
            stream,
            project: project.id,
            payload,
            id: MessageId::default(),
            mids: String::new(),
            lines: Vec::new(),
            charge: budget.open(project),
            born: Instant::now(),
        }
    }

    fn append(&mut self, line: Accepted<'_>) {
        let Accepted { head, json, origin } = line;
        match origin {
            Origin::Game(_) => self.charge.keep(charged_bytes(json)),
            Origin::Presence(_) | Origin::Gap(_) => self.charge.add(charged_bytes(json)),
        }
        self.id.add(&head.id);
        let mid = head.mid.as_deref().unwrap_or_default();
        let mid_at = self.mids.len();
        self.mids.push_str(mid);
        self.lines.push(Unsettled::new(origin, head.kind, head.count, mid_at..self.mids.len()));
        event::push_line(&mut self.payload, head, json);
    }

    fn has_room_for(&self, json: &str) -> bool {
        self.payload.len() + json.len() + HEAD_BYTES_ABOUT <= MESSAGE_BYTES_TARGET
    }
}

impl Batches {
    /// Appends a line. Full messages become ready.
    fn append(&mut self, budget: &Arc<Budget>, project: &Arc<Project>, to: Appended<'_>) {
        let Appended { stream, line } = to;
        let place = (project.id, stream);
        if let Some(open) = self.open.get(&place)
            && !open.has_room_for(line.json)
        {
            self.ready.extend(self.open.remove(&place));
        }
        let batch = self.open.entry(place).or_insert_with(|| Batch::new(stream, project, budget));
        batch.append(line);
        if MESSAGE_BYTES_TARGET <= batch.payload.len() {
            self.ready.extend(self.open.remove(&place));
        }
    }

    /// Whether nothing has gathered, waits or is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.ready.is_empty() && self.under_way == 0
    }

    /// Whether so much waits that no socket is to be read.
    pub(crate) fn are_behind(&self) -> bool {
        READY_MAX <= self.ready.len()
    }

    /// Takes the next message to publish, if one more may be under way.
    fn start_next(&mut self, publishes_max: usize) -> Option<Batch> {
        if publishes_max <= self.under_way {
            return None;
        }
        let batch = self.ready.pop_front()?;
        self.under_way += 1;
        Some(batch)
    }
}

/// A line, and where it goes.
struct Appended<'a> {
    stream: Stream,
    line: Accepted<'a>,
}

impl Worker {
    /// Appends a line to its project's message, and sees to it that it is published.
    pub(crate) fn append(
        self: &Rc<Self>,
        project: &Arc<Project>,
        stream: Stream,
        line: Accepted<'_>,
    ) {
        let mut batches = self.batches.borrow_mut();
        batches.append(&self.shared.budget, project, Appended { stream, line });
        let (full, open) = (!batches.ready.is_empty(), !batches.open.is_empty());
        drop(batches);
        if full {
            self.publish_ready();
        }
        if open {
            self.flush.notify_one();
        }
    }

    /// Publishes what has gathered, unless so much is under way that it may gather further.
    pub(crate) fn publish_open(self: &Rc<Self>) {
        let mut batches = self.batches.borrow_mut();
        let Batches { open, ready, under_way } = &mut *batches;
        if *under_way + ready.len() < self.shared.config.publishes_max.get() {
            ready.extend(open.drain().map(|(_, batch)| batch));
        }
        drop(batches);
        self.publish_ready();
    }

    /// Gives up what was not published yet: its lines are answered `busy`.
    pub(crate) fn cut(self: &Rc<Self>) {
        let mut batches = self.batches.borrow_mut();
        let Batches { open, ready, .. } = &mut *batches;
        let all: Vec<_> = open.drain().map(|(_, batch)| batch).chain(ready.drain(..)).collect();
        drop(batches);
        for batch in all {
            settle(self, batch.lines, &batch.mids, &Outcome::Busy("the gateway stops"));
        }
    }

    /// Whether so much waits to be published that `socket` is not read. It is stirred once that is
    /// over. Who is not signed in has nothing to publish, and is read.
    pub(crate) fn hold_back(&self, socket: &Rc<Socket>) -> bool {
        if socket.signed_in().is_none() || !self.batches.borrow().are_behind() {
            return false;
        }
        if !socket.held_back.replace(true) {
            self.waiting.borrow_mut().push(Rc::clone(socket));
        }
        true
    }

    fn publish_ready(self: &Rc<Self>) {
        let publishes_max = self.shared.config.publishes_max.get();
        loop {
            let next = self.batches.borrow_mut().start_next(publishes_max);
            let Some(batch) = next else { return };
            self.publishes.spawn_local(publish(Rc::clone(self), batch));
        }
    }

    fn publish_ended(self: &Rc<Self>) {
        let mut batches = self.batches.borrow_mut();
        batches.under_way -= 1;
        let open = batches.ready.is_empty() && !batches.open.is_empty();
        drop(batches);
        self.publish_ready();
        if !self.batches.borrow().are_behind() {
            for socket in self.waiting.take() {
                socket.held_back.set(false);
                socket.stir();
            }
        }
        if open {
            self.flush.notify_one();
        }
    }
}

/// Publishes what has gathered whenever the worker has nothing else to do, until it is dropped.
pub(crate) async fn flush_when_idle(worker: Rc<Worker>) {
    loop {
        worker.flush.notified().await;
        // Sockets that are ready are read before this goes on.
        tokio::task::yield_now().await;
        worker.publish_open();
    }
}

async fn publish(worker: Rc<Worker>, batch: Batch) {
    let Batch { stream, project, payload, id, mids, lines, charge, born } = batch;
    let event =
        Outgoing { stream, project, id: id.finish(), expected: None, payload: payload.into() };
    let began = Instant::now();
    let outcome = tokio::select! {
        biased;
        outcome = publish_until(&worker, event, born + SETTLE_WITHIN) => outcome,
        () = worker.shared.cut.cancelled() => Outcome::Unknown,
    };
    worker.shared.numbers.published_in(began.elapsed());
    pause::heed(charge.project(), &outcome);
    settle(&worker, lines, &mids, &outcome);
    drop(charge);
    worker.publish_ended();
}

/// Publishes, and once more with the same id and bytes if the first time nobody answered.
async fn publish_until(worker: &Worker, event: Outgoing, deadline: Instant) -> Outcome {
    if deadline <= Instant::now() {
        return Outcome::Busy("the bus is behind");
    }
    let bus = &worker.shared.bus;
    match timeout_at(deadline, bus.publish(event.clone())).await {
        Ok(Ok(published)) if published.known => return Outcome::Known,
        Ok(Ok(_)) => return Outcome::Safe,
        Ok(Err(PublishError::Timeout)) => {}
        Ok(Err(error)) => return Outcome::of(error),
        Err(_) => return Outcome::Unknown,
    }
    match timeout_at(deadline, bus.publish(event)).await {
        // If it is known now, then by the first try.
        Ok(Ok(_)) => Outcome::Safe,
        // Whatever is wrong now, the first try may have succeeded.
        Ok(Err(_)) | Err(_) => Outcome::Unknown,
    }
}
