//! A running api, and what stands behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use observer_api::{ApiConfig, Ports};
use observer_bus::in_process::InProcessBus;
use observer_bus::{Bus, BusConfig, Durable, Outgoing, Service, Stream, Topic};
use observer_chassis::{Readiness, Shutdown};
use observer_store::accounts::{Created, NewAccount};
use observer_store::logs::{LogHit, LogPage, LogQuery, NewRecord, Position, Stored};
use observer_store::vars::{
    Device, DeviceValues, EditApplied, Ended, LastValue, Report, Reported, StoredDocument,
};
use observer_store::{AccountStore, LogStore, StoreError, StoreErrorKind, VarStore};
use observer_tests::http::Api;
use observer_tests::ws::WebSocket;
use observer_wire::ask::{LiveDevices, LiveVars, VarsAnswer, VarsAsk};
use observer_wire::edit::Edit;
use observer_wire::event::{LineHead, LineKind, push_line, start as start_message};
use observer_wire::record::Level;
use observer_wire::{ApiKey, ProjectId};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

/// Time for what should take milliseconds. Generous: the machine may be busy with builds.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The key of every test's project.
pub(crate) const KEY: &str = "0123456789ab";

/// Answers of the var-store that a test plays; `None` stays silent.
pub(crate) type Answers = dyn Fn(VarsAsk) -> Option<VarsAnswer> + Send + Sync;

/// An api that runs as long as the test.
pub(crate) struct Running {
    pub(crate) api: Api,
    pub(crate) bus: Arc<InProcessBus>,
    pub(crate) stores: Arc<Stores>,
    pub(crate) shutdown: Shutdown,
    pub(crate) ended: TaskTracker,
    next_seq: Mutex<u64>,
    _dead_letters: TempDir,
}

/// Settings for most tests: keys are open, viewers have little room.
pub(crate) fn open_keys() -> ApiConfig {
    ApiConfig { open_keys: true, ..ApiConfig::default() }
}

/// Starts an api with the project [`KEY`], and a var-store that answers with `answers`.
pub(crate) async fn start(
    config: ApiConfig,
    answers: impl Fn(VarsAsk) -> Option<VarsAnswer> + Send + Sync + 'static,
) -> Running {
    let dead_letters = tempfile::tempdir().unwrap();
    let bus = InProcessBus::open(&BusConfig::default(), dead_letters.path()).await.unwrap();
    let bus = Arc::new(bus);
    let stores = Arc::new(Stores::default());
    stores.register_key(KEY.parse().unwrap()).await.unwrap();
    let shutdown = Shutdown::new(Duration::from_secs(10));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ports = Ports {
        bus: Arc::clone(&bus) as Arc<dyn Bus>,
        logs: Arc::clone(&stores) as Arc<dyn LogStore>,
        accounts: Arc::clone(&stores) as Arc<dyn AccountStore>,
        vars: Arc::clone(&stores) as Arc<dyn VarStore>,
    };
    let ended = TaskTracker::new();
    play_var_store(&ended, &bus, Arc::new(answers)).await;
    settle_logs(&ended, &bus).await;
    let running =
        observer_api::run(config, ports, listener, Readiness::new("test"), shutdown.clone());
    let ended = TaskTracker::new();
    ended.spawn(async move { running.await.unwrap() });
    ended.close();
    Running {
        api: Api::new(address),
        bus,
        stores,
        shutdown,
        ended,
        next_seq: Mutex::new(1),
        _dead_letters: dead_letters,
    }
}

async fn play_var_store(tasks: &TaskTracker, bus: &Arc<InProcessBus>, answers: Arc<Answers>) {
    let mut requests = bus.serve(Service::Vars).await.unwrap();
    tasks.spawn(async move {
        loop {
            let request = requests.next().await;
            let ask = serde_json::from_slice(&request.payload).unwrap();
            if let Some(answer) = answers(ask) {
                request.reply.send(serde_json::to_vec(&answer).unwrap().into()).await;
            }
        }
    });
}

/// Plays the log indexer: what is settled is live.
async fn settle_logs(tasks: &TaskTracker, bus: &Arc<InProcessBus>) {
    let mut consumer = bus.consume(Durable::LogIndexer).await.unwrap();
    tasks.spawn(async move {
        loop {
            consumer.next().await.ack().await.unwrap();
        }
    });
}

impl Running {
    /// A game of [`KEY`] sends an `l:` line.
    pub(crate) async fn send_logs(&self, device: &str, payload: &str) {
        let count = u32::try_from(observer_wire::record::split(payload).unwrap().len()).unwrap();
        let seq = {
            let mut next = self.next_seq.lock().unwrap();
            *next += u64::from(count);
            *next - u64::from(count)
        };
        let mut message = Vec::new();
        start_message(&mut message, project());
        let id = format!("r{seq:032x}");
        let head = LineHead {
            kind: LineKind::Logs,
            id: id.as_str().into(),
            key: KEY.parse().unwrap(),
            device: device.into(),
            named: true,
            session: "session-1".into(),
            epoch: 1,
            seq,
            received: 1_700_000_000_000,
            mid: None,
            index: 0,
            count,
            rev: 7,
            again: false,
            odd: [].as_slice().into(),
            len: 0,
        };
        push_line(&mut message, head, payload);
        let event = Outgoing {
            stream: Stream::Logs,
            project: project(),
            id,
            expected: None,
            payload: message.into(),
        };
        self.bus.publish(event).await.unwrap();
    }

    /// var-store tells viewers that values changed.
    pub(crate) async fn tell_vars(&self, news: &LiveVars) {
        let payload = Bytes::from(serde_json::to_vec(news).unwrap());
        self.bus.broadcast(Topic::LiveVars(project()), payload).await.unwrap();
    }

    /// var-store tells viewers who came and went.
    pub(crate) async fn tell_devices(&self, news: &LiveDevices) {
        let payload = Bytes::from(serde_json::to_vec(news).unwrap());
        self.bus.broadcast(Topic::LiveDevices(project()), payload).await.unwrap();
    }

    /// Opens the live stream and reads its hello.
    pub(crate) async fn stream(&self, query: &str) -> (WebSocket, serde_json::Value) {
        let path = format!("/api/v1/projects/{KEY}/stream?{query}");
        let mut stream = WebSocket::open(&self.api.ws_url(&path)).await.unwrap();
        let hello = stream.next_json(SOON).await;
        assert_eq!(hello["type"], "hello");
        (stream, hello)
    }
}

/// The project of [`KEY`].
pub(crate) fn project() -> ProjectId {
    KEY.parse().unwrap()
}

/// A var-store that knows nothing and commits nothing.
#[expect(clippy::needless_pass_by_value, clippy::unnecessary_wraps, reason = "as `start` takes it")]
pub(crate) fn no_vars(ask: VarsAsk) -> Option<VarsAnswer> {
    Some(match ask {
        VarsAsk::Document { .. } => VarsAnswer::Document(observer_wire::edit::Document::default()),
        VarsAsk::Snapshot { .. } => VarsAnswer::Snapshot(observer_wire::ask::Snapshot {
            document: Some(observer_wire::edit::Document::default()),
            ..observer_wire::ask::Snapshot::default()
        }),
        VarsAsk::Edit(_) => VarsAnswer::Busy { words: "not now".into() },
    })
}

/// All stores at once, in memory.
#[derive(Default)]
pub(crate) struct Stores {
    /// Stored records, newest first.
    pub(crate) hits: Mutex<Vec<LogHit>>,
    /// What the last search asked for.
    pub(crate) asked: Mutex<Option<LogQuery>>,
    pub(crate) emails: Mutex<BTreeMap<String, NewAccount>>,
    pub(crate) keys: Mutex<BTreeSet<ApiKey>>,
    pub(crate) values: Mutex<Vec<LastValue>>,
    /// Every call fails in this way.
    pub(crate) broken: Mutex<Option<StoreErrorKind>>,
}

impl Stores {
    fn check_broken(&self) -> Result<(), StoreError> {
        match *self.broken.lock().unwrap() {
            Some(kind) => Err(StoreError::new("test", kind, "broken by the test")),
            None => Ok(()),
        }
    }

    /// Stores a record, newer than all before.
    pub(crate) fn add_hit(&self, json: &str) {
        let mut hits = self.hits.lock().unwrap();
        let seq = u64::try_from(hits.len()).unwrap();
        let hit = LogHit {
            position: Position { received: 1_700_000_000_000, seq, id: format!("r{seq}-000") },
            key: KEY.into(),
            device: "d-1".into(),
            session: "session-1".into(),
            rev: 7,
            level: Level::Warn,
            message: Some("hi".into()),
            tag: None,
            time: Some(123_123_123_000),
            json: json.into(),
        };
        hits.insert(0, hit);
    }
}

#[async_trait]
impl LogStore for Stores {
    async fn append(&self, _: &[NewRecord<'_>]) -> Result<Vec<Stored>, StoreError> {
        unreachable!("api stores no records")
    }

    async fn search(&self, query: &LogQuery) -> Result<LogPage, StoreError> {
        self.check_broken()?;
        *self.asked.lock().unwrap() = Some(query.clone());
        let hits = self.hits.lock().unwrap();
        let older = |hit: &&LogHit| query.before.as_ref().is_none_or(|at| hit.position < *at);
        let found: Vec<_> = hits.iter().filter(older).cloned().collect();
        let page: Vec<_> = found.iter().take(query.limit).cloned().collect();
        let more = found.len() > page.len();
        let next = page.last().filter(|_| more).map(|hit| hit.position.clone());
        Ok(LogPage { hits: page, next })
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.check_broken()
    }
}

#[async_trait]
impl AccountStore for Stores {
    async fn create_account(&self, account: &NewAccount) -> Result<Created, StoreError> {
        self.check_broken()?;
        let mut emails = self.emails.lock().unwrap();
        if emails.contains_key(&account.email) {
            return Ok(Created::EmailExists);
        }
        emails.insert(account.email.clone(), account.clone());
        self.keys.lock().unwrap().insert(account.key);
        Ok(Created::Now)
    }

    async fn register_key(&self, key: ApiKey) -> Result<ProjectId, StoreError> {
        self.check_broken()?;
        self.keys.lock().unwrap().insert(key);
        Ok(key.founds())
    }

    async fn project_of(&self, key: ApiKey) -> Result<Option<ProjectId>, StoreError> {
        self.check_broken()?;
        Ok(self.keys.lock().unwrap().get(&key).map(ApiKey::founds))
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.check_broken()
    }
}

#[async_trait]
impl VarStore for Stores {
    async fn document(&self, _: ProjectId) -> Result<StoredDocument, StoreError> {
        unreachable!("api asks var-store")
    }
    async fn apply_edit(&self, _: &Edit, _: u64) -> Result<EditApplied, StoreError> {
        unreachable!("api asks var-store")
    }
    async fn report(&self, _: &Report) -> Result<Reported, StoreError> {
        unreachable!("api asks var-store")
    }
    async fn sign_in(&self, _: ProjectId, _: &Device, _: usize) -> Result<Vec<String>, StoreError> {
        unreachable!("api asks var-store")
    }
    async fn sign_out(&self, _: ProjectId, _: &str, _: &Ended) -> Result<Vec<String>, StoreError> {
        unreachable!("api asks var-store")
    }
    async fn devices(
        &self,
        _: ProjectId,
        _: Option<&str>,
        _: usize,
    ) -> Result<Vec<DeviceValues>, StoreError> {
        unreachable!("api asks var-store")
    }
    async fn devices_by_id(
        &self,
        _: ProjectId,
        _: &[String],
    ) -> Result<Vec<DeviceValues>, StoreError> {
        unreachable!("api asks var-store")
    }
    async fn declared_types(
        &self,
        _: ProjectId,
        _: &[String],
    ) -> Result<Vec<Option<String>>, StoreError> {
        unreachable!("api asks var-store")
    }
    async fn last_values(&self, _: ProjectId) -> Result<Vec<LastValue>, StoreError> {
        self.check_broken()?;
        Ok(self.values.lock().unwrap().clone())
    }
    async fn check(&self) -> Result<(), StoreError> {
        self.check_broken()
    }
}
