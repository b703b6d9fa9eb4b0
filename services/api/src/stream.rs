//! `GET /stream`: what happens in a project, as frames, at most some ten a second, the first at once.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{State, WebSocketUpgrade};
use axum::response::Response;
use observer_bus::{Cursor, HeardLog, LogListener, Resume};
use observer_chassis::reason;
use observer_wire::ProjectId;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tracing::{debug, warn};

use crate::app::App;
use crate::feed::Batch;
use crate::filter::Filter;
use crate::frames::{self, Head};
use crate::guard::OpenProject;
use crate::live::Seat;
use crate::problem::ApiError;
use crate::query::Params;
use crate::queue::Queue;
use crate::socket::{self, End, Gone, Incoming, Socket};
use crate::vars;

/// Shortest time between two frames: the eye sees no more, and browsers draw no faster.
const FRAME_INTERVAL: Duration = Duration::from_millis(100);

/// How often a viewer is asked for a sign of life, so that proxies keep the connection.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Silence after which a viewer is gone: three pings without an answer.
const SILENCE_MAX: Duration = Duration::from_secs(65);

/// Time that a hello waits for the revision. Logs are shown also while nobody knows it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest cursor, in bytes. Ours are far shorter.
const CURSOR_BYTES_MAX: usize = 128;

/// Opens a live stream.
pub(crate) async fn open(
    OpenProject(project): OpenProject,
    State(app): State<Arc<App>>,
    params: Params,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    params.check_names(&["cursor", "level", "q", "device"])?;
    let cursor = params.text("cursor").map(|text| Cursor(text.to_owned()));
    if cursor.as_ref().is_some_and(|cursor| cursor.0.len() > CURSOR_BYTES_MAX) {
        return Err(ApiError::field("cursor", "is none of ours"));
    }
    let queue = Queue::new(Filter::read(&params)?, app.config.viewer_queue_bytes_max.get());
    let shared = Arc::clone(&app);
    socket::open(&app, upgrade, "stream", async move |socket| {
        let viewer = Viewer { app: shared, project, socket };
        viewer.serve(queue, cursor).await
    })
}

struct Viewer {
    app: Arc<App>,
    project: ProjectId,
    socket: Socket,
}

impl Viewer {
    async fn serve(mut self, queue: Queue, cursor: Option<Cursor>) -> (Socket, End) {
        let seat = match self.app.live.watch(self.project, Arc::new(queue)).await {
            Ok(seat) => seat,
            Err(error) => {
                warn!(error = %reason(&error), "project cannot be listened to");
                return (self.socket, End::Away); // Come back, perhaps to another process.
            }
        };
        let end = match self.begin(&seat, cursor).await {
            Ok((own, head)) => self.go_on(&seat, own, head).await,
            Err(Gone) => End::Gone,
        };
        (self.socket, end)
    }

    /// Says hello and, if the viewer was here before, whether it missed anything.
    async fn begin(&mut self, seat: &Seat, cursor: Option<Cursor>) -> Result<(Own, Head), Gone> {
        // Asked once the subscription is in force: what changes meanwhile is news.
        let mut head = head_of(&self.app, self.project).await;
        let joined = seat.queue.joined();
        let Some(cursor) = cursor else {
            self.socket.send(frames::hello(joined.as_ref(), self.project, &head)).await?;
            return Ok((None, head));
        };
        let (own, at) = resume(&self.app, self.project, &seat.queue, cursor).await;
        let hello_at = at.as_ref().or(joined.as_ref());
        self.socket.send(frames::hello(hello_at, self.project, &head)).await?;
        match at {
            None => self.socket.send(frames::reset(joined.as_ref())).await?,
            Some(at) => {
                self.socket.send(frames::resumed(&at)).await?;
                // Only logs can be continued; of variables, the viewer gets what is true now.
                self.send_snapshot(&at, &mut head).await?;
            }
        }
        Ok((own, head))
    }

    async fn send_snapshot(&mut self, at: &Cursor, head: &mut Head) -> Result<(), Gone> {
        let mut after = None;
        loop {
            let page = match vars::page(&self.app, self.project, after.take()).await {
                Ok(page) => page,
                Err(error) => {
                    debug!(%error, "variables are not known now");
                    // The viewer asks for itself, and again until it is told.
                    return self.socket.send(frames::reset(Some(at))).await;
                }
            };
            for frame in frames::snapshot(&page, Some(at), head) {
                self.socket.send(frame).await?;
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Sends news until one side ends it.
    async fn go_on(&mut self, seat: &Seat, mut own: Own, head: Head) -> End {
        let (queue, mut last_head) = (&seat.queue, head);
        let mut pings = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut alive_at = Instant::now();
        let mut next_frame_at = Instant::now();
        let mut told = queue.quiet_cursor();
        loop {
            let due = async {
                queue.filled().await;
                sleep_until(next_frame_at).await;
            };
            let done = tokio::select! {
                () = self.app.shutdown.requested() => return End::Away,
                incoming = self.socket.next() => {
                    alive_at = Instant::now();
                    match incoming {
                        Incoming::Alive => Ok(()),
                        Incoming::Closed => return End::Gone,
                        Incoming::TooLarge => return End::TooLarge,
                        Incoming::Text(_) | Incoming::Binary => {
                            return End::Policy("nothing is to be sent here");
                        }
                    }
                }
                event = next_of(&mut own) => {
                    if take_own(queue, event) {
                        own = None;
                    }
                    Ok(())
                }
                () = due => {
                    let (news, cursor) = queue.take();
                    next_frame_at = Instant::now() + FRAME_INTERVAL;
                    let frames = frames::compose(&news, told.as_ref(), cursor.as_ref(), &mut last_head);
                    told = cursor;
                    self.send_all(frames).await
                }
                _ = pings.tick() => {
                    if alive_at.elapsed() > SILENCE_MAX {
                        return End::Idle;
                    }
                    self.keep_alive(queue, &mut told).await
                }
            };
            if done.is_err() {
                return End::Gone;
            }
        }
    }

    async fn send_all(&mut self, frames: Vec<String>) -> Result<(), Gone> {
        for frame in frames {
            self.socket.send(frame).await?;
        }
        Ok(())
    }

    /// Pings, and tells a viewer whose filter lets little pass where it may continue: its old
    /// cursor would be forgotten.
    async fn keep_alive(&mut self, queue: &Queue, told: &mut Option<Cursor>) -> Result<(), Gone> {
        if let Some(cursor) = queue.quiet_cursor()
            && told.as_ref() != Some(&cursor)
        {
            self.socket.send(frames::nothing(&cursor)).await?;
            *told = Some(cursor);
        }
        self.socket.ping().await
    }
}

async fn head_of(app: &App, project: ProjectId) -> Head {
    match timeout(HEAD_TIMEOUT, vars::document(app, project)).await {
        Ok(Ok(document)) => Head::from(&document),
        Ok(Err(error)) => {
            debug!(%error, "revision is not known now");
            Head::default()
        }
        Err(_elapsed) => Head::default(),
    }
}

/// Continues from `cursor`, with a subscription of the viewer's own if it takes one. Without a
/// position, it could not.
async fn resume(
    app: &App,
    project: ProjectId,
    queue: &Queue,
    cursor: Cursor,
) -> (Own, Option<Cursor>) {
    if queue.joined().as_ref() == Some(&cursor) {
        return (None, Some(cursor)); // Nothing happened since.
    }
    match app.ports.bus.listen_from(project, Some(&cursor)).await {
        Ok(live) if live.resume == Resume::Resumed => {
            queue.hold_shared(&live.cursor);
            (Some(live.events), Some(live.cursor))
        }
        Ok(_) => (None, None),
        Err(error) => {
            warn!(error = %reason(&error), "viewer cannot continue where it was");
            (None, None)
        }
    }
}

/// A subscription of the viewer's own, until it has caught up with the shared one.
type Own = Option<Box<dyn LogListener>>;

async fn next_of(own: &mut Own) -> HeardLog {
    match own {
        Some(own) => own.next().await,
        None => std::future::pending().await,
    }
}

/// True when the viewer's own subscription is needed no more.
fn take_own(queue: &Queue, heard: HeardLog) -> bool {
    match heard {
        HeardLog::Event(payload, cursor) => match Batch::read(&payload, cursor) {
            Ok(batch) => return queue.push_own(&Arc::new(batch)),
            Err(error) => {
                warn!(%error, "live event is not readable");
                queue.push_own_loss(None);
            }
        },
        HeardLog::Lost { events } => queue.push_own_loss(events),
    }
    false
}
