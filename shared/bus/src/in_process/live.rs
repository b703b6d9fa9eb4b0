//! Live log events: a ring of the last two minutes, read by listeners at their own pace.
//!
//! There is no queue a listener: one that is slow finds that the ring went on, and is told how much
//! it lost.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use observer_wire::ProjectId;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::{Cursor, HeardLog, LiveLogs, LogListener, Resume, lock};

/// Time for which an event is kept for listeners that come back.
const KEPT: Duration = Duration::from_mins(2);

/// What an event costs besides its payload, in bytes.
const EVENT_OVERHEAD_BYTES: usize = 128;

/// Projects of which it is remembered how far they were evicted. Past it all are forgotten, and
/// cursors older than that are reset.
const EVICTED_MAX: usize = 10_000;

/// The ring.
pub(super) struct Live {
    /// Random, so that a cursor of another process is recognised.
    epoch: String,
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of the last event, over all projects.
    sequence: u64,
    bytes: usize,
    /// All events in the ring, oldest first.
    order: VecDeque<Kept>,
    projects: HashMap<ProjectId, Project>,
    /// Last sequence evicted of each project.
    evicted: HashMap<ProjectId, u64>,
    /// Cursors before this are reset, whatever their project.
    floor: u64,
}

struct Kept {
    project: ProjectId,
    since: Instant,
    bytes: usize,
}

/// A project's part of the ring. Removed when it is empty and nobody listens.
#[derive(Default)]
struct Project {
    events: VecDeque<(u64, Bytes)>,
    /// Events evicted since it is here, for counting what a listener lost.
    evicted: u64,
    pushed: Arc<Notify>,
}

impl Live {
    /// An empty ring with a new epoch.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { epoch: random_epoch(), bytes_max, state: Mutex::default() }
    }

    /// Adds an event and wakes its project's listeners.
    pub(super) fn push(&self, project: ProjectId, payload: Bytes) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let (since, bytes) = (Instant::now(), payload.len() + EVENT_OVERHEAD_BYTES);
        state.sequence += 1;
        state.bytes += bytes;
        state.order.push_back(Kept { project, since, bytes });
        let part = state.projects.entry(project).or_default();
        part.events.push_back((state.sequence, payload));
        part.pushed.notify_waiters();
        while let Some(oldest) = state.order.front() {
            if state.bytes <= self.bytes_max && since < oldest.since + KEPT {
                break;
            }
            state.evict();
        }
    }

    /// Listens to a project from `cursor`.
    pub(super) fn listen(
        self: &Arc<Self>,
        project: ProjectId,
        cursor: Option<&Cursor>,
    ) -> LiveLogs {
        let mut state = lock(&self.state);
        let (resume, position) = match cursor {
            None => (Resume::Fresh, state.sequence),
            Some(cursor) => match self.read(cursor).filter(|at| state.keeps(project, *at)) {
                Some(position) => (Resume::Resumed, position),
                None => (Resume::Reset, state.sequence),
            },
        };
        let part = state.projects.entry(project).or_default();
        let behind = part.events.iter().filter(|(sequence, _)| *sequence <= position).count();
        let heard = part.evicted + behind as u64;
        let pushed = Arc::clone(&part.pushed);
        drop(state);
        let live = Arc::clone(self);
        let cursor = self.cursor(position);
        let events = Box::new(RingListener { live, project, pushed, heard });
        LiveLogs { resume, cursor, events }
    }

    fn cursor(&self, sequence: u64) -> Cursor {
        Cursor(format!("{}.{sequence}", self.epoch))
    }

    /// The sequence of a cursor of this process.
    fn read(&self, cursor: &Cursor) -> Option<u64> {
        cursor.0.strip_prefix(self.epoch.as_str())?.strip_prefix('.')?.parse().ok()
    }
}

impl State {
    /// Whether all events of `project` behind sequence `position` are in the ring.
    fn keeps(&self, project: ProjectId, position: u64) -> bool {
        let evicted = self.evicted.get(&project).copied().unwrap_or_default();
        position <= self.sequence && self.floor.max(evicted) <= position
    }

    /// Evicts the oldest event of all.
    fn evict(&mut self) {
        let Some(oldest) = self.order.pop_front() else { return };
        self.bytes -= oldest.bytes;
        let Some(part) = self.projects.get_mut(&oldest.project) else { return };
        let Some((sequence, _)) = part.events.pop_front() else { return };
        part.evicted += 1;
        let heard_by_none = Arc::strong_count(&part.pushed) == 1;
        if part.events.is_empty() && heard_by_none {
            self.projects.remove(&oldest.project);
        }
        if EVICTED_MAX <= self.evicted.len() {
            self.evicted.clear();
            self.floor = sequence;
        }
        self.evicted.insert(oldest.project, sequence);
    }
}

fn random_epoch() -> String {
    let mut random = [0; 6];
    getrandom::fill(&mut random).expect("a system without random numbers cannot serve keys either");
    let mut epoch = String::new();
    for byte in random {
        write!(epoch, "{byte:02x}").expect("writing to a string cannot fail");
    }
    epoch
}

struct RingListener {
    live: Arc<Live>,
    project: ProjectId,
    pushed: Arc<Notify>,
    /// Events of the project, evicted ones counted, that were heard or lost.
    heard: u64,
}

impl RingListener {
    fn try_next(&mut self) -> Option<HeardLog> {
        let state = lock(&self.live.state);
        let part = state.projects.get(&self.project)?;
        if self.heard < part.evicted {
            let events = Some(part.evicted - self.heard);
            self.heard = part.evicted;
            return Some(HeardLog::Lost { events });
        }
        let index = usize::try_from(self.heard - part.evicted).ok()?;
        let (sequence, payload) = part.events.get(index)?;
        self.heard += 1;
        Some(HeardLog::Event(payload.clone(), self.live.cursor(*sequence)))
    }
}

#[async_trait]
impl LogListener for RingListener {
    async fn next(&mut self) -> HeardLog {
        let pushed = Arc::clone(&self.pushed);
        loop {
            let pushed = pushed.notified(); // Counts from here, before looking.
            if let Some(heard) = self.try_next() {
                return heard;
            }
            pushed.await;
        }
    }
}

impl Drop for RingListener {
    fn drop(&mut self) {
        let mut state = lock(&self.live.state);
        let part = state.projects.get(&self.project);
        // Two: the project's own, and this one.
        if part.is_some_and(|part| part.events.is_empty() && Arc::strong_count(&part.pushed) == 2) {
            state.projects.remove(&self.project);
        }
    }
}
