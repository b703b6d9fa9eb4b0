//! The queue of one stream: takes events from publishers, gives them to consumers, keeps each until
//! it is settled. Projects take turns; one that is held back holds back no other.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use observer_wire::ProjectId;
use tokio::sync::{Notify, SetOnce};
use tokio::time::{Instant, sleep_until};

use super::News;
use super::dead::Burial;
use crate::{
    BusError, Consumer, DeadKind, Delivery, Outgoing, PublishError, Stream, lock, percent,
};

/// What an event costs besides its payload and id, in bytes, so that many tiny events are bounded
/// too.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// Share of a queue that one project may fill, as a divisor.
const PROJECT_SHARE: usize = 4;

/// Time for which the id of a settled event is remembered; the bus promises it.
const IDS_KEPT: Duration = Duration::from_mins(2);

/// Ids of settled events remembered at most: a few MiB a queue. Publishers send an event again
/// within seconds.
const IDS_MAX: usize = 100_000;

/// Projects whose last sequence is remembered. Past it all are forgotten, and the next expectation
/// of each is believed, as after a start.
const LAST_MAX: usize = 100_000;

/// Pause before an event that was dropped unsettled comes again: whoever dropped it panicked, and
/// may panic again.
const DROPPED_RETRY: Duration = Duration::from_millis(100);

/// Time for which a consumer may say that its store takes nothing, and nothing be settled, before new
/// events are refused: a slow commit is no reason, a full disk is.
const HELD_UP_AFTER: Duration = Duration::from_secs(2);

/// An event that the queue owns until it is settled.
pub(super) struct Entry {
    pub(super) sequence: u64,
    pub(super) settled: SetOnce<()>,
    project: ProjectId,
    id: Arc<str>,
    payload: Bytes,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.payload.len() + self.id.len() + EVENT_OVERHEAD_BYTES
    }
}

/// What became of an event that was offered.
pub(super) enum Taken {
    /// One with this id was settled before, under this sequence.
    Settled(u64),
    /// One with this id waits for its consumer.
    InFlight(Arc<Entry>),
    /// It waits for its consumer.
    New(Arc<Entry>),
}

/// The queue of one stream.
pub(super) struct Queue {
    stream: Stream,
    bytes_max: usize,
    news: Arc<News>,
    state: Mutex<State>,
    arrived: Notify,
}

struct State {
    /// The last given. Starts at the clock in microseconds, so that it grows across processes.
    sequence: u64,
    /// Of all events not settled, delivered or not.
    bytes: usize,
    /// Since when consumers say that they have to wait, while nothing was settled.
    held_up_since: Option<Instant>,
    events: u64,
    projects: HashMap<ProjectId, Backlog>,
    /// Projects whose first waiting event may be delivered, in turn.
    ready: VecDeque<ProjectId>,
    /// Projects whose first waiting event is held back, by the end of that.
    held: BTreeSet<(Instant, ProjectId)>,
    ids: Ids,
    last: HashMap<ProjectId, u64>,
}

/// A project's events. Removed when all are settled.
#[derive(Default)]
struct Backlog {
    /// By sequence.
    waiting: VecDeque<Waiting>,
    bytes: usize,
    place: Place,
}

/// Where a project is listed.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// Nowhere: nothing of it waits.
    #[default]
    Nowhere,
    Ready,
    Held(Instant),
}

struct Waiting {
    entry: Arc<Entry>,
    /// Deliveries so far.
    attempts: u64,
    held_until: Option<Instant>,
}

/// Ids of events: in flight, or settled within [`IDS_KEPT`].
#[derive(Default)]
struct Ids {
    known: HashMap<Arc<str>, Known>,
    settled: VecDeque<(Instant, Arc<str>)>,
}

enum Known {
    InFlight(Arc<Entry>),
    Settled(u64),
}

impl Ids {
    fn settle(&mut self, entry: &Entry, now: Instant) {
        self.known.insert(Arc::clone(&entry.id), Known::Settled(entry.sequence));
        self.settled.push_back((now, Arc::clone(&entry.id)));
        while let Some((since, id)) = self.settled.front() {
            if self.settled.len() <= IDS_MAX && now < *since + IDS_KEPT {
                break;
            }
            self.known.remove(id);
            self.settled.pop_front();
        }
    }
}

impl Queue {
    /// An empty queue.
    pub(super) fn new(stream: Stream, bytes_max: usize, news: Arc<News>) -> Self {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let state = State {
            sequence: u64::try_from(clock).unwrap_or_default(),
            bytes: 0,
            held_up_since: None,
            events: 0,
            projects: HashMap::new(),
            ready: VecDeque::new(),
            held: BTreeSet::new(),
            ids: Ids::default(),
            last: HashMap::new(),
        };
        Self { stream, bytes_max, news, state: Mutex::new(state), arrived: Notify::new() }
    }

    /// Takes an event, unless one with its id is here already, and wakes a consumer.
    pub(super) fn take(&self, event: Outgoing) -> Result<Taken, PublishError> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        match state.ids.known.get(event.id.as_str()) {
            Some(Known::Settled(sequence)) => return Ok(Taken::Settled(*sequence)),
            Some(Known::InFlight(entry)) => return Ok(Taken::InFlight(Arc::clone(entry))),
            None => {}
        }
        // What waits is owned and will be stored; more would only wait for its time-out.
        if state.held_up_since.is_some_and(|since| since + HELD_UP_AFTER <= Instant::now()) {
            return Err(PublishError::Full);
        }
        let sequence = state.next_sequence(event.project, event.expected)?;
        let (project, payload) = (event.project, event.payload);
        let settled = SetOnce::new();
        let entry = Entry { sequence, settled, project, id: event.id.into(), payload };
        let bytes = entry.bytes();
        let of_project = state.projects.get(&project).map_or(0, |backlog| backlog.bytes);
        if self.bytes_max < state.bytes + bytes
            || self.bytes_max / PROJECT_SHARE < of_project + bytes
        {
            return Err(PublishError::Full);
        }
        let entry = Arc::new(entry);
        state.own(&entry, bytes, self.stream);
        drop(guard);
        self.arrived.notify_one();
        Ok(Taken::New(entry))
    }

    /// Events that are not settled.
    pub(super) fn events(&self) -> u64 {
        lock(&self.state).events
    }

    /// How full the queue is for one more event of `project`, in percent.
    pub(super) fn fullness(&self, project: ProjectId) -> u8 {
        let state = lock(&self.state);
        let of_project = state.projects.get(&project).map_or(0, |backlog| backlog.bytes);
        let all = percent(state.bytes as u64, self.bytes_max as u64);
        all.max(percent(of_project as u64, (self.bytes_max / PROJECT_SHARE) as u64))
    }

    /// The next delivery, or when to look again.
    fn give(self: &Arc<Self>) -> Result<QueueDelivery, Option<Instant>> {
        let mut state = lock(&self.state);
        state.release_held(Instant::now());
        let Some(waiting) = state.next_waiting() else {
            return Err(state.held.first().map(|(until, _)| *until));
        };
        let more = !state.ready.is_empty();
        drop(state);
        if more {
            // One permit may stand for many events: whoever takes one wakes the next consumer.
            self.arrived.notify_one();
        }
        let (entry, attempt) = (waiting.entry, waiting.attempts + 1);
        Ok(QueueDelivery { queue: Arc::clone(self), entry, attempt, settled: false })
    }

    /// The event was dealt with: tells listeners, then publishers, and forgets it.
    fn settle(&self, entry: &Entry) {
        self.news.settled(self.stream, entry.project, &entry.payload);
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let bytes = entry.bytes();
        state.bytes -= bytes;
        state.held_up_since = None;
        state.events -= 1;
        if let Some(backlog) = state.projects.get_mut(&entry.project) {
            backlog.bytes -= bytes;
            if backlog.bytes == 0 {
                state.projects.remove(&entry.project);
            }
        }
        state.ids.settle(entry, Instant::now());
        drop(guard);
        // It is set here alone, and an event is settled once.
        entry.settled.set(()).ok();
    }

    /// A consumer has to wait with what it has in hand.
    fn hold_up(&self) {
        lock(&self.state).held_up_since.get_or_insert_with(Instant::now);
    }

    /// Puts a delivered event back in its place.
    fn put_back(&self, waiting: Waiting) {
        lock(&self.state).put_back(waiting);
        self.arrived.notify_one();
    }
}

impl State {
    /// The sequence of a project's next event, if what its publisher expects is true.
    fn next_sequence(
        &mut self,
        project: ProjectId,
        expected: Option<u64>,
    ) -> Result<u64, PublishError> {
        match (expected, self.last.get(&project)) {
            (Some(expected), Some(&last)) if expected != last => {
                Err(PublishError::Unexpected { last })
            }
            (expected, _) => Ok(self.sequence.max(expected.unwrap_or_default()) + 1),
        }
    }

    /// Owns a new event.
    fn own(&mut self, entry: &Arc<Entry>, bytes: usize, stream: Stream) {
        self.sequence = entry.sequence;
        self.bytes += bytes;
        self.events += 1;
        self.ids.known.insert(Arc::clone(&entry.id), Known::InFlight(Arc::clone(entry)));
        if stream == Stream::Edits {
            if LAST_MAX <= self.last.len() {
                self.last.clear();
            }
            self.last.insert(entry.project, entry.sequence);
        }
        let backlog = self.projects.entry(entry.project).or_default();
        backlog.bytes += bytes;
        let entry = Arc::clone(entry);
        backlog.waiting.push_back(Waiting { entry, attempts: 0, held_until: None });
        if backlog.place == Place::Nowhere {
            let project = backlog.waiting[0].entry.project;
            self.list(project);
        }
    }

    fn put_back(&mut self, waiting: Waiting) {
        let project = waiting.entry.project;
        let Some(backlog) = self.projects.get_mut(&project) else {
            return; // Its bytes are charged until it is settled, so its project is there.
        };
        let sequence = waiting.entry.sequence;
        let place = backlog.waiting.partition_point(|other| other.entry.sequence < sequence);
        backlog.waiting.insert(place, waiting);
        if place == 0 {
            self.list(project);
        }
    }

    /// Lists a project by its first waiting event.
    fn list(&mut self, project: ProjectId) {
        let Some(backlog) = self.projects.get_mut(&project) else { return };
        let place = match backlog.waiting.front() {
            None => Place::Nowhere,
            Some(Waiting { held_until: Some(until), .. }) => Place::Held(*until),
            Some(Waiting { held_until: None, .. }) => Place::Ready,
        };
        let before = std::mem::replace(&mut backlog.place, place);
        if before == place {
            return;
        }
        match before {
            Place::Nowhere => {}
            Place::Ready => self.ready.retain(|other| *other != project),
            Place::Held(until) => {
                self.held.remove(&(until, project));
            }
        }
        match place {
            Place::Nowhere => {}
            Place::Ready => self.ready.push_back(project),
            Place::Held(until) => {
                self.held.insert((until, project));
            }
        }
    }

    /// Makes projects ready that were held back long enough.
    fn release_held(&mut self, now: Instant) {
        while let Some(&(until, project)) = self.held.first() {
            if now < until {
                return;
            }
            let first = self.projects.get_mut(&project).and_then(|all| all.waiting.front_mut());
            let Some(first) = first else {
                self.held.pop_first(); // A listed project has a waiting event; never loop over it.
                continue;
            };
            first.held_until = None;
            self.list(project);
        }
    }

    /// The first event of the project whose turn it is.
    fn next_waiting(&mut self) -> Option<Waiting> {
        let project = self.ready.pop_front()?;
        let backlog = self.projects.get_mut(&project)?;
        backlog.place = Place::Nowhere;
        let waiting = backlog.waiting.pop_front();
        self.list(project);
        waiting
    }
}

/// Takes turns with the other consumers of its queue.
pub(super) struct QueueConsumer {
    queue: Arc<Queue>,
}

impl QueueConsumer {
    /// A consumer of `queue`.
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { queue }
    }
}

#[async_trait]
impl Consumer for QueueConsumer {
    async fn next(&mut self) -> Box<dyn Delivery> {
        loop {
            // Made before looking, and it keeps a permit: an event that arrives between is seen.
            let arrived = self.queue.arrived.notified();
            match self.queue.give() {
                Ok(delivery) => return Box::new(delivery),
                Err(None) => arrived.await,
                Err(Some(until)) => tokio::select! {
                    () = arrived => {}
                    () = sleep_until(until) => {}
                },
            }
        }
    }

    fn try_next(&mut self) -> Option<Box<dyn Delivery>> {
        let delivery = self.queue.give().ok()?;
        Some(Box::new(delivery))
    }
}

struct QueueDelivery {
    queue: Arc<Queue>,
    entry: Arc<Entry>,
    attempt: u64,
    settled: bool,
}

impl QueueDelivery {
    fn settle(mut self) {
        self.settled = true;
        self.queue.settle(&self.entry);
    }

    fn put_back(&mut self, delay: Duration) {
        self.settled = true;
        let held_until = (!delay.is_zero()).then(|| Instant::now() + delay);
        let entry = Arc::clone(&self.entry);
        self.queue.put_back(Waiting { entry, attempts: self.attempt, held_until });
    }

    async fn keep(&self, kind: DeadKind, payload: Bytes, reason: &str) -> Result<(), BusError> {
        let burial = Burial {
            stream: self.queue.stream,
            project: self.entry.project,
            event: Arc::clone(&self.entry.id),
            kind,
            reason: reason.to_owned(),
            payload,
        };
        self.queue.news.dead.keep(burial).await
    }
}

#[async_trait]
impl Delivery for QueueDelivery {
    fn project(&self) -> ProjectId {
        self.entry.project
    }

    fn payload(&self) -> &Bytes {
        &self.entry.payload
    }

    fn sequence(&self) -> u64 {
        self.entry.sequence
    }

    fn attempt(&self) -> u64 {
        self.attempt
    }

    async fn ack(self: Box<Self>) -> Result<(), BusError> {
        self.settle();
        Ok(())
    }

    async fn retry(mut self: Box<Self>, delay: Duration) -> Result<(), BusError> {
        self.put_back(delay);
        Ok(())
    }

    async fn bury(self: Box<Self>, reason: &str) -> Result<(), BusError> {
        self.keep(DeadKind::Event, self.entry.payload.clone(), reason).await?;
        self.settle();
        Ok(())
    }

    async fn in_progress(&self) -> Result<(), BusError> {
        // Nothing is taken away from a consumer of this process, but who publishes shall know.
        self.queue.hold_up();
        Ok(())
    }

    async fn bury_part(&self, payload: Bytes, reason: &str) -> Result<(), BusError> {
        self.keep(DeadKind::Record, payload, reason).await
    }
}

impl Drop for QueueDelivery {
    fn drop(&mut self) {
        if !self.settled {
            self.put_back(DROPPED_RETRY);
        }
    }
}
