//! `GET /ws`: the original's WebSocket, message for message. It knows no cursor, no gap and no
//! receipt; whoever wants those uses `/stream`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{State, WebSocketUpgrade};
use axum::response::Response;
use observer_chassis::reason;
use observer_wire::ProjectId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::app::App;
use crate::edits;
use crate::filter::Filter;
use crate::guard::{OpenKeys, project_of};
use crate::live::Seat;
use crate::problem::ApiError;
use crate::queue::{News, Queue};
use crate::socket::{self, End, Gone, Incoming, Socket};

/// Bytes of names and values of one `vars` frame, past which the next begins: a frame must fit into what
/// a socket may be behind.
const VALUES_BYTES_TARGET: usize = 256 * 1024;

/// Silence in both directions after which the original closed a socket.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// Shortest time between two rounds of frames.
const FRAME_INTERVAL: Duration = Duration::from_millis(100);

/// Text of a `logs` frame, in bytes, past which the next begins.
const FRAME_BYTES_TARGET: usize = 256 * 1024;

/// Opens the original's WebSocket.
pub(crate) async fn open(
    _: OpenKeys,
    State(app): State<Arc<App>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let shared = Arc::clone(&app);
    socket::open(&app, upgrade, "ws", async move |socket| {
        let mut page = Page { app: shared, socket, watched: None };
        let end = page.serve().await;
        (page.socket, end)
    })
}

/// What the original's page sends.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
    #[serde(borrow, default)]
    vars: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Frame<'a> {
    Vars {
        /// Field, value, field, value: the hash as Redis lists it.
        vars: Vec<Cow<'a, str>>,
    },
    /// The original had none: it said nothing, or died.
    Error {
        code: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        field: Option<&'a str>,
    },
}

impl Frame<'_> {
    fn text(&self) -> String {
        serde_json::to_string(self).expect("plain structs into memory always serialise")
    }
}

/// An open page.
struct Page {
    app: Arc<App>,
    socket: Socket,
    /// The project of the last `init`.
    watched: Option<(ProjectId, Seat)>,
}

impl Page {
    async fn serve(&mut self) -> End {
        let mut last = Instant::now();
        let mut next_frame_at = last;
        loop {
            let queue = self.watched.as_ref().map(|(_, seat)| Arc::clone(&seat.queue));
            let due = async {
                match &queue {
                    Some(queue) => queue.filled().await,
                    None => std::future::pending().await,
                }
                sleep_until(next_frame_at).await;
            };
            let done = tokio::select! {
                () = self.app.shutdown.requested() => return End::Away,
                () = sleep_until(last + IDLE_TIMEOUT) => return End::Idle,
                incoming = self.socket.next() => match incoming {
                    Incoming::Text(text) => self.take(&text).await,
                    Incoming::Alive => Ok(()),
                    Incoming::Binary => self.refuse(&bad_event()).await,
                    Incoming::TooLarge => return End::TooLarge,
                    Incoming::Closed => return End::Gone,
                },
                () = due => {
                    next_frame_at = Instant::now() + FRAME_INTERVAL;
                    self.tell().await
                }
            };
            if done.is_err() {
                return End::Gone;
            }
            last = Instant::now();
        }
    }

    async fn take(&mut self, text: &str) -> Result<(), Gone> {
        let done = match read(text) {
            Ok(("init", data)) => self.init(&data).await,
            Ok((_vars, data)) => self.edit(&data).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(Some(project)) => self.send_values(project).await,
            Ok(None) => Ok(()),
            Err(error) => self.refuse(&error).await,
        }
    }

    /// Subscribes to a key: to it alone, as one page shows one project.
    async fn init(&mut self, data: &Data<'_>) -> Result<Option<ProjectId>, ApiError> {
        let project = project_of(&self.app, &data.token).await?;
        self.watched = None;
        let bytes_max = self.app.config.viewer_queue_bytes_max.get();
        let queue = Arc::new(Queue::new(Filter::default(), bytes_max));
        let seat = self.app.live.watch(project, queue).await.map_err(|error| {
            warn!(error = %reason(&error), "project cannot be listened to");
            ApiError::Busy("the project cannot be watched now".into())
        })?;
        self.watched = Some((project, seat));
        Ok(Some(project))
    }

    /// Sends variables to the devices. The page hears of it when they say that they have them.
    async fn edit(&mut self, data: &Data<'_>) -> Result<Option<ProjectId>, ApiError> {
        let project = project_of(&self.app, &data.token).await?;
        let vars = data.vars.ok_or_else(|| ApiError::field("data.vars", "is missing"))?;
        let edit = edits::read_original(project, vars)?;
        edits::commit(&self.app, edit).await?;
        Ok(None)
    }

    /// Sends what waits: records as they came, then all values if one changed.
    async fn tell(&mut self) -> Result<(), Gone> {
        let Some((project, seat)) = &self.watched else { return Ok(()) };
        let (project, (news, _)) = (*project, seat.queue.take());
        let mut values_changed = false;
        let mut records = String::new();
        for one in &news {
            match one {
                News::Logs(picked) => {
                    for record in picked.records() {
                        if !records.is_empty() {
                            if records.len() + record.json.len() > FRAME_BYTES_TARGET {
                                self.send_logs(&mut records).await?;
                            } else {
                                records.push(',');
                            }
                        }
                        records.push_str(&record.json);
                    }
                }
                News::Vars(vars) => values_changed |= !vars.devices.is_empty(),
                News::Reset => values_changed = true,
                News::Devices(_) | News::Gap { .. } => {}
            }
        }
        self.send_logs(&mut records).await?;
        if values_changed { self.send_values(project).await } else { Ok(()) }
    }

    async fn send_logs(&mut self, records: &mut String) -> Result<(), Gone> {
        if records.is_empty() {
            return Ok(());
        }
        let frame = format!("{{\"type\":\"logs\",\"logs\":[{records}]}}");
        records.clear();
        self.socket.send(frame).await
    }

    async fn send_values(&mut self, project: ProjectId) -> Result<(), Gone> {
        let values = match self.app.ports.vars.last_values(project).await {
            Ok(values) => values,
            Err(error) => return self.refuse(&ApiError::Store(error)).await,
        };
        let mut vars = Vec::with_capacity(values.len() * 4);
        let mut bytes = 0;
        for value in &values {
            bytes += 2 * value.name.len() + value.kind.len() + value.value.len();
            vars.push(Cow::Owned(format!("{}:type", value.name)));
            vars.push(Cow::Borrowed(value.kind.as_str()));
            vars.push(Cow::Owned(format!("{}:value", value.name)));
            vars.push(Cow::Borrowed(value.value.as_str()));
            if VALUES_BYTES_TARGET <= bytes {
                let vars = std::mem::take(&mut vars);
                self.socket.send(Frame::Vars { vars }.text()).await?;
                bytes = 0;
            }
        }
        // The first frame comes also when there is nothing to say: the page waits for it.
        if !vars.is_empty() || values.is_empty() {
            self.socket.send(Frame::Vars { vars }.text()).await?;
        }
        Ok(())
    }

    async fn refuse(&mut self, error: &ApiError) -> Result<(), Gone> {
        let (_, code) = error.status_and_code();
        self.socket.send(Frame::Error { code, field: error.blamed_field() }.text()).await
    }
}

fn bad_event() -> ApiError {
    ApiError::BadJson("expected an event with its data".into())
}

/// Reads a message: the name of a known event, and its data.
fn read(text: &str) -> Result<(&'static str, Data<'_>), ApiError> {
    let event: Event<'_> = serde_json::from_str(text).map_err(|_| bad_event())?;
    let name = match event.event.as_ref() {
        "init" => "init",
        "vars" => "vars",
        _ => return Err(ApiError::field("event", "expected init or vars")),
    };
    let data = serde_json::from_str(event.data.get())
        .map_err(|_| ApiError::field("data.token", "is missing"))?;
    Ok((name, data))
}
