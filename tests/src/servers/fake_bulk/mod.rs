//! A scripted Elasticsearch: as much of one as the log store speaks to, with the rare answers of `_bulk`
//! on demand. What it accepts it keeps by index and id, and it counts how often each record was sent.
//!
//! It searches nothing; the ordinary answers are tested against a real node.

mod answers;
mod http;
mod kept;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use self::http::{Reply, Request};
use self::kept::Kept;

/// What happens to the documents of a `_bulk`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Items {
    /// Those that are new are stored.
    #[default]
    Stored,
    /// Every second one, over all requests, is not stored and has this status.
    Half(u16),
    /// None is stored, and the answer says otherwise.
    Dropped,
}

/// How the answer to a `_bulk` comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// As it is.
    #[default]
    Whole,
    /// With this status and no items. Nothing is stored.
    Status(u16),
    /// Not at all: the connection stays open until the client leaves.
    Hang,
    /// The connection ends in the middle of it.
    Cut,
    /// A page of something in between, with status 200.
    Garbage,
    /// JSON that ends in the middle, sent as if it were whole.
    Truncated,
    /// Without its last item.
    OneShort,
    /// Its last item twice.
    OneOver,
    /// Its last item names a document that nobody sent.
    Stranger,
    /// Items in another order.
    Shuffled,
    /// After so long.
    Slow(Duration),
    /// With white space before it, so that it has so many bytes.
    Huge(usize),
}

/// What happens to one `_bulk`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Act {
    /// To its documents.
    pub items: Items,
    /// To its answer.
    pub answer: Answer,
}

impl Act {
    /// Documents are stored, and the answer comes so.
    #[must_use]
    pub fn answer(answer: Answer) -> Self {
        Self { answer, ..Self::default() }
    }

    /// The answer comes as it is, for documents that are treated so.
    #[must_use]
    pub fn items(items: Items) -> Self {
        Self { items, ..Self::default() }
    }
}

/// A `_bulk` as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Documents to be created.
    pub documents: usize,
    /// Bytes of the body.
    pub bytes: usize,
    /// Status of the answer; 0 when there was none.
    pub status: u16,
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Act>,
    usual: Act,
    body_bytes_max: Option<usize>,
    answered_bytes_max: Option<usize>,
    refused_text: Option<String>,
    kept: Kept,
    /// How often each record was sent.
    sends: BTreeMap<String, usize>,
    sent: Vec<Sent>,
    /// Documents of all requests so far, for [`Items::Half`].
    counted: usize,
    /// Items that were refused by [`Items::Half`].
    refused: usize,
    /// Documents that came though they are stored.
    known: usize,
}

/// The fake. Dropped, it is gone with its connections.
#[derive(Debug)]
pub struct FakeBulk {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _accepting: JoinSet<()>,
}

impl FakeBulk {
    /// Starts it, empty, with nothing but ordinary answers.
    ///
    /// # Panics
    ///
    /// When there is no free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("some port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(Mutex::new(State::default()));
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, _accepting: accepting }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What happens to the next `_bulk` requests, one each; what is scripted already comes first.
    pub fn script(&self, acts: impl IntoIterator<Item = Act>) {
        self.lock().script.extend(acts);
    }

    /// What happens to those without a script.
    pub fn always(&self, act: Act) {
        self.lock().usual = act;
    }

    /// Refuses larger bodies with 413, as proxies do.
    pub fn refuse_larger(&self, bytes: usize) {
        self.lock().body_bytes_max = Some(bytes);
    }

    /// Answers larger bodies never, and keeps nothing of them: as when the time ends before they are
    /// through a slow link.
    pub fn leave_larger_unanswered(&self, bytes: usize) {
        self.lock().answered_bytes_max = Some(bytes);
    }

    /// Refuses bodies that hold this text with 400, whole.
    pub fn refuse_text(&self, text: &str) {
        self.lock().refused_text = Some(text.to_owned());
    }

    /// What is stored, by index and id.
    #[must_use]
    pub fn stored(&self) -> BTreeMap<(String, String), Value> {
        self.lock().kept.all()
    }

    /// Number of documents that are stored.
    #[must_use]
    pub fn stored_count(&self) -> usize {
        self.lock().kept.len()
    }

    /// How often each record was sent, by its id.
    #[must_use]
    pub fn sends(&self) -> BTreeMap<String, usize> {
        self.lock().sends.clone()
    }

    /// How many items had the status of [`Items::Half`].
    #[must_use]
    pub fn refused(&self) -> usize {
        self.lock().refused
    }

    /// How many documents came though they were stored already.
    #[must_use]
    pub fn known(&self) -> usize {
        self.lock().known
    }

    /// All `_bulk` requests with documents, in their order.
    #[must_use]
    pub fn sent(&self) -> Vec<Sent> {
        self.lock().sent.clone()
    }

    /// Acts that no request has met yet.
    #[must_use]
    pub fn acts_left(&self) -> usize {
        self.lock().script.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// A panic in one connection fails the test by what it does not find.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new(); // They end with the fake.
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        connections.spawn(serve(socket, Arc::clone(&state)));
        while connections.try_join_next().is_some() {}
    }
}

/// Answers one request after the other, until one of the two leaves.
async fn serve(mut socket: TcpStream, state: Arc<Mutex<State>>) {
    let mut reader = http::Reader::default();
    while let Some(request) = reader.next(&mut socket).await {
        let reply = answer(&request, &state);
        if reply.send(&mut socket).await.is_none() {
            return;
        }
    }
}

fn answer(request: &Request, state: &Mutex<State>) -> Reply {
    let mut state = lock(state);
    match (request.method.as_str(), request.path.as_str()) {
        (_, "/_bulk") => state.bulk(&request.body),
        (_, "/_mget") => Reply::json(200, &state.kept.mget(&request.body)),
        ("GET", "/") => Reply::json(200, &answers::root()),
        ("GET", path) if path.starts_with("/_index_template/") => {
            Reply::json(404, &answers::none())
        }
        ("GET", path) if path.starts_with("/_cluster/health") => {
            Reply::json(200, &answers::health())
        }
        ("POST", path) if path.ends_with("/_search") => Reply::json(200, &answers::no_hits()),
        ("PUT", path) if path.starts_with("/observer-logs-") => {
            let made = state.kept.make_index(&path[1..]);
            if made {
                Reply::json(200, &answers::done())
            } else {
                Reply::json(400, &answers::there())
            }
        }
        _ => Reply::json(200, &answers::done()),
    }
}
