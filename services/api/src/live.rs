//! One subscription for each project that somebody watches, dropped with its last viewer; what it
//! hears is handed to the queue of each viewer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::gauge;
use observer_bus::{Bus, BusError, Cursor, Heard, HeardLog, Listener, LogListener, Topic};
use observer_chassis::Shutdown;
use observer_wire::ProjectId;
use observer_wire::ask::{LiveDevices, LiveVars};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, OnceCell};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::feed::Batch;
use crate::queue::Queue;

/// All subscriptions of the process.
pub(crate) struct Live {
    bus: Arc<dyn Bus>,
    feeds: Mutex<HashMap<ProjectId, Arc<Feed>>>,
    open: TaskTracker,
    shutdown: Shutdown,
}

/// The subscription to one project.
struct Feed {
    project: ProjectId,
    audience: Mutex<Audience>,
    started: OnceCell<()>,
    /// Somebody left.
    left: Notify,
}

#[derive(Default)]
struct Audience {
    queues: Vec<Arc<Queue>>,
    /// Behind the last event that was handed out.
    cursor: Option<Cursor>,
}

/// A viewer's place among the audience. Dropped, it is given up.
pub(crate) struct Seat {
    live: Arc<Live>,
    feed: Arc<Feed>,
    pub(crate) queue: Arc<Queue>,
}

impl Live {
    pub(crate) fn new(bus: Arc<dyn Bus>, open: TaskTracker, shutdown: Shutdown) -> Self {
        Self { bus, feeds: Mutex::default(), open, shutdown }
    }

    /// Hands what happens in a project from now on to `queue`, until the seat is dropped.
    ///
    /// # Errors
    ///
    /// [`BusError`] when the project cannot be listened to.
    pub(crate) async fn watch(
        self: &Arc<Self>,
        project: ProjectId,
        queue: Arc<Queue>,
    ) -> Result<Seat, BusError> {
        // Whoever holds a seat keeps the feed in the map; so the seat comes first.
        let seat = self.sit_down(project, queue);
        seat.feed.started.get_or_try_init(|| self.start(&seat.feed)).await?;
        Ok(seat)
    }

    fn sit_down(self: &Arc<Self>, project: ProjectId, queue: Arc<Queue>) -> Seat {
        let mut feeds = self.lock();
        let feed = feeds.entry(project).or_insert_with(|| Arc::new(Feed::new(project)));
        let feed = Arc::clone(feed);
        let mut audience = feed.lock();
        if let Some(cursor) = &audience.cursor {
            queue.join_at(cursor);
        }
        audience.queues.push(Arc::clone(&queue));
        drop(audience);
        Seat { live: Arc::clone(self), feed, queue }
    }

    async fn start(self: &Arc<Self>, feed: &Arc<Feed>) -> Result<(), BusError> {
        let project = feed.project;
        let vars = self.bus.listen(Topic::LiveVars(project)).await?;
        let devices = self.bus.listen(Topic::LiveDevices(project)).await?;
        let logs = self.bus.listen_from(project, None).await?;
        let mut audience = feed.lock();
        for queue in &audience.queues {
            queue.join_at(&logs.cursor);
        }
        audience.cursor = Some(logs.cursor);
        drop(audience);
        let heard = Ears { logs: logs.events, vars, devices };
        self.open.spawn(Arc::clone(self).hand_out(Arc::clone(feed), heard));
        Ok(())
    }

    /// `observer_projects_watched`: projects with a subscription in this process.
    async fn hand_out(self: Arc<Self>, feed: Arc<Feed>, mut heard: Ears) {
        gauge!("observer_projects_watched").increment(1);
        loop {
            tokio::select! {
                () = self.shutdown.requested() => break,
                () = feed.left.notified() => if self.close_if_empty(&feed) { break },
                log = heard.logs.next() => feed.hand_out_logs(log),
                news = heard.vars.next() => {
                    feed.hand_out_state::<LiveVars>(news, Queue::push_vars);
                }
                news = heard.devices.next() => {
                    feed.hand_out_state::<LiveDevices>(news, Queue::push_devices);
                }
            }
        }
        gauge!("observer_projects_watched").decrement(1);
    }

    fn close_if_empty(&self, feed: &Arc<Feed>) -> bool {
        let mut feeds = self.lock();
        let empty = feed.lock().queues.is_empty();
        if empty {
            feeds.remove(&feed.project);
        }
        empty
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ProjectId, Arc<Feed>>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner) // No update is half done.
    }
}

/// What a feed listens to.
struct Ears {
    logs: Box<dyn LogListener>,
    vars: Box<dyn Listener>,
    devices: Box<dyn Listener>,
}

impl Feed {
    fn new(project: ProjectId) -> Self {
        Self { project, audience: Mutex::default(), started: OnceCell::new(), left: Notify::new() }
    }

    fn hand_out_logs(&self, heard: HeardLog) {
        // The audience is locked while it is told, so that whoever joins gets what follows the
        // cursor that it is told.
        match heard {
            HeardLog::Event(payload, cursor) => match Batch::read(&payload, cursor.clone()) {
                Ok(batch) => {
                    let batch = Arc::new(batch);
                    let mut audience = self.lock();
                    audience.cursor = Some(cursor);
                    audience.queues.iter().for_each(|queue| queue.push_shared(&batch));
                }
                Err(error) => {
                    warn!(%error, "live event is not readable");
                    let mut audience = self.lock();
                    audience.cursor = Some(cursor);
                    audience.queues.iter().for_each(|queue| queue.push_shared_loss(None));
                }
            },
            HeardLog::Lost { events } => {
                warn!(events, "live events were lost on their way");
                // Events, not records: how many records they had, nobody knows.
                self.lock().queues.iter().for_each(|queue| queue.push_shared_loss(events));
            }
        }
    }

    fn hand_out_state<T: DeserializeOwned>(
        &self,
        heard: Heard,
        push: impl Fn(&Queue, &Arc<T>, usize),
    ) {
        let audience = self.lock();
        match heard {
            Heard::Resync => audience.queues.iter().for_each(|queue| queue.push_reset()),
            Heard::Message(payload) => match serde_json::from_slice(&payload) {
                Ok(news) => {
                    let news = Arc::new(news);
                    audience.queues.iter().for_each(|queue| push(queue, &news, payload.len()));
                }
                Err(error) => {
                    warn!(%error, "live news is not readable");
                    audience.queues.iter().for_each(|queue| queue.push_reset());
                }
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Audience> {
        self.audience.lock().unwrap_or_else(PoisonError::into_inner) // No update is half done.
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.feed.lock().queues.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        if self.feed.started.initialized() {
            self.feed.left.notify_one();
        } else if self.live.close_if_empty(&self.feed) {
            debug!("subscription was given up before it began");
        }
    }
}
