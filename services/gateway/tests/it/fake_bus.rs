//! A bus that does what the test says, and remembers what it was asked.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use observer_bus::{
    Bus, BusError, Consumer, Cursor, DeadLetters, Durable, Heard, Listener, LiveLogs, Outgoing,
    PublishError, Published, ReplayedEdit, RequestError, Requests, Service, Stream, Topic,
};
use observer_wire::ask::{Control, KeyAnswer, KeyAsk, VarsAnswer, VarsAsk};
use observer_wire::edit::{Document, Edit};
use observer_wire::event::{Event, LineKind};
use observer_wire::{ApiKey, ProjectId};
use tokio::sync::{broadcast, watch};

/// What a test sees of a published line.
#[derive(Clone, Debug)]
pub(crate) struct SeenLine {
    pub(crate) kind: LineKind,
    pub(crate) id: String,
    pub(crate) device: String,
    pub(crate) session: String,
    pub(crate) named: bool,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) again: bool,
    pub(crate) mid: Option<String>,
    pub(crate) count: u32,
    pub(crate) odd: Vec<u32>,
    pub(crate) json: String,
}

#[derive(Default)]
struct Told {
    keys: HashMap<ApiKey, ProjectId>,
    keys_silent: bool,
    documents: HashMap<ProjectId, Document>,
    documents_silent: bool,
    /// What becomes of the next publishes; when empty, all is well.
    /// Ids of events that were taken.
    taken: HashSet<String>,
    fates: VecDeque<PublishError>,
    /// What becomes of all publishes, if something is wrong with all.
    fate: Option<PublishError>,
    seen: Vec<Outgoing>,
    keys_asked: usize,
    documents_asked: usize,
    signs_of_life: usize,
    /// Percent by stream; one that is not here is empty.
    fullness: HashMap<Stream, Option<u8>>,
}

pub(crate) struct FakeBus {
    told: Mutex<Told>,
    publishes: Gate,
    /// What requests for a key go through.
    lookups: Gate,
    edits: broadcast::Sender<Heard>,
    control: broadcast::Sender<Heard>,
}

/// What a test may hold calls at. A call that is let through while another waits behind it changes
/// nothing for that one: permits of a semaphore would come back and let it through too.
struct Gate(watch::Sender<bool>);

impl Gate {
    fn open() -> Self {
        Self(watch::Sender::new(true))
    }

    fn set(&self, is_open: bool) {
        self.0.send_replace(is_open);
    }

    async fn pass(&self) {
        self.0.subscribe().wait_for(|is_open| *is_open).await.expect("the gate is ours");
    }
}

impl FakeBus {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            told: Mutex::default(),
            publishes: Gate::open(),
            lookups: Gate::open(),
            edits: broadcast::Sender::new(1024),
            control: broadcast::Sender::new(1024),
        })
    }

    fn with<T>(&self, tell: impl FnOnce(&mut Told) -> T) -> T {
        tell(&mut self.told.lock().unwrap())
    }

    pub(crate) fn register(&self, key: &str) {
        let key: ApiKey = key.parse().unwrap();
        self.register_for(key.as_str(), key.founds());
    }

    pub(crate) fn register_for(&self, key: &str, project: ProjectId) {
        self.with(|told| told.keys.insert(key.parse().unwrap(), project));
    }

    pub(crate) fn silence_keys(&self, silent: bool) {
        self.with(|told| told.keys_silent = silent);
    }

    pub(crate) fn silence_documents(&self, silent: bool) {
        self.with(|told| told.documents_silent = silent);
    }

    pub(crate) fn set_document(&self, project: &str, document: Document) {
        self.with(|told| told.documents.insert(project.parse().unwrap(), document));
    }

    /// Commits an edit: the document has it, and listeners hear it.
    pub(crate) fn edit(&self, edit: &Edit) {
        self.with(|told| told.documents.entry(edit.project).or_default().apply(edit));
        self.hear(edit);
    }

    /// Commits an edit that nobody hears of.
    pub(crate) fn edit_in_silence(&self, edit: &Edit) {
        self.with(|told| told.documents.entry(edit.project).or_default().apply(edit));
    }

    pub(crate) fn hear(&self, edit: &Edit) {
        let bytes = serde_json::to_vec(edit).unwrap();
        self.edits.send(Heard::Message(bytes.into())).ok();
    }

    pub(crate) fn resync(&self) {
        self.edits.send(Heard::Resync).ok();
    }

    /// Whether the gateway listens to edits, and to what all gateways are told.
    pub(crate) fn is_listened_to(&self) -> bool {
        self.edits.receiver_count() > 0 && self.control.receiver_count() > 0
    }

    /// All gateways are told.
    pub(crate) fn tell_gateways(&self, control: &Control) {
        let bytes = serde_json::to_vec(control).unwrap();
        self.control.send(Heard::Message(bytes.into())).ok();
    }

    /// The next publishes fail so, one after the other.
    pub(crate) fn fail(&self, fates: impl IntoIterator<Item = PublishError>) {
        self.with(|told| told.fates.extend(fates));
    }

    /// From now on a stream is so full, for all projects; `None` when nobody knows.
    pub(crate) fn fill(&self, stream: Stream, percent: Option<u8>) {
        self.with(|told| told.fullness.insert(stream, percent));
    }

    /// From now on all publishes fail so, or none.
    pub(crate) fn fail_all(&self, fate: Option<PublishError>) {
        self.with(|told| told.fate = fate);
    }

    pub(crate) fn hold_publishes(&self) {
        self.publishes.set(false);
    }

    pub(crate) fn release_publishes(&self) {
        self.publishes.set(true);
    }

    pub(crate) fn hold_lookups(&self) {
        self.lookups.set(false);
    }

    pub(crate) fn release_lookups(&self) {
        self.lookups.set(true);
    }

    pub(crate) fn keys_asked(&self) -> usize {
        self.with(|told| told.keys_asked)
    }

    pub(crate) fn documents_asked(&self) -> usize {
        self.with(|told| told.documents_asked)
    }

    pub(crate) fn signs_of_life(&self) -> usize {
        self.with(|told| told.signs_of_life)
    }

    /// Every publish that was tried.
    pub(crate) fn messages(&self) -> Vec<Outgoing> {
        self.with(|told| told.seen.clone())
    }

    /// Lines of a stream in the order of their publishing.
    pub(crate) fn lines(&self, stream: Stream) -> Vec<SeenLine> {
        let mut seen = Vec::new();
        for message in self.messages().iter().filter(|message| message.stream == stream) {
            let event = Event::parse(&message.payload).unwrap();
            assert_eq!(event.project, message.project);
            seen.extend(event.lines.into_iter().map(|line| SeenLine {
                kind: line.head.kind,
                id: line.head.id.into_owned(),
                device: line.head.device.into_owned(),
                session: line.head.session.into_owned(),
                named: line.head.named,
                epoch: line.head.epoch,
                seq: line.head.seq,
                again: line.head.again,
                mid: line.head.mid.map(std::borrow::Cow::into_owned),
                count: line.head.count,
                odd: line.head.odd.into_owned(),
                json: line.json.to_owned(),
            }));
        }
        seen
    }

    pub(crate) fn of_kind(&self, kind: LineKind) -> Vec<SeenLine> {
        let stream = if kind == LineKind::Logs { Stream::Logs } else { Stream::Vars };
        self.lines(stream).into_iter().filter(|line| line.kind == kind).collect()
    }
}

#[async_trait]
impl Bus for FakeBus {
    async fn publish(&self, event: Outgoing) -> Result<Published, PublishError> {
        let id = event.id.clone();
        self.with(|told| told.seen.push(event));
        self.publishes.pass().await;
        self.with(|told| match told.fates.pop_front().or_else(|| told.fate.clone()) {
            Some(error) => {
                if error == PublishError::Timeout {
                    told.taken.insert(id); // Only the answer was lost.
                }
                Err(error)
            }
            None => Ok(Published { sequence: 1, known: !told.taken.insert(id) }),
        })
    }

    async fn consume(&self, _: Durable) -> Result<Box<dyn Consumer>, BusError> {
        unimplemented!("a gateway consumes nothing")
    }

    async fn broadcast(&self, topic: Topic, payload: Bytes) -> Result<(), BusError> {
        if topic == Topic::Control {
            self.control.send(Heard::Message(payload)).ok();
            return Ok(());
        }
        assert_eq!(topic, Topic::Gateways);
        self.with(|told| told.signs_of_life += 1);
        Ok(())
    }

    async fn listen(&self, topic: Topic) -> Result<Box<dyn Listener>, BusError> {
        if topic == Topic::Control {
            return Ok(Box::new(FakeListener(self.control.subscribe())));
        }
        assert_eq!(topic, Topic::Edits);
        Ok(Box::new(FakeListener(self.edits.subscribe())))
    }

    async fn listen_from(&self, _: ProjectId, _: Option<&Cursor>) -> Result<LiveLogs, BusError> {
        unimplemented!("a gateway watches no logs")
    }

    async fn replay_edits(&self, _: ProjectId, _: u64) -> Result<Vec<ReplayedEdit>, BusError> {
        unimplemented!("a gateway repairs nothing")
    }

    async fn request(&self, service: Service, payload: Bytes) -> Result<Bytes, RequestError> {
        let answer = match service {
            Service::Keys => {
                self.with(|told| told.keys_asked += 1);
                self.lookups.pass().await;
                let ask: KeyAsk = serde_json::from_slice(&payload).unwrap();
                self.with(|told| {
                    let project = told.keys.get(&ask.key).copied();
                    (!told.keys_silent).then(|| serde_json::to_vec(&KeyAnswer { project }).unwrap())
                })
            }
            Service::Vars => {
                let Ok(VarsAsk::Document { project }) = serde_json::from_slice(&payload) else {
                    unimplemented!("a gateway asks for documents only")
                };
                self.with(|told| {
                    told.documents_asked += 1;
                    let document = told.documents.get(&project).cloned().unwrap_or_default();
                    let answer = VarsAnswer::Document(document);
                    (!told.documents_silent).then(|| serde_json::to_vec(&answer).unwrap())
                })
            }
        };
        answer.map(Bytes::from).ok_or(RequestError::Nobody(service))
    }

    async fn serve(&self, _: Service) -> Result<Box<dyn Requests>, BusError> {
        unimplemented!("a gateway answers nothing")
    }

    fn dead(&self) -> &dyn DeadLetters {
        unimplemented!("a gateway buries nothing")
    }

    async fn backlog(&self, _: Durable) -> Result<u64, BusError> {
        unimplemented!("a gateway consumes nothing")
    }

    fn fullness(&self, stream: Stream, _: ProjectId) -> Option<u8> {
        self.with(|told| told.fullness.get(&stream).copied().unwrap_or(Some(0)))
    }

    async fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

struct FakeListener(broadcast::Receiver<Heard>);

#[async_trait]
impl Listener for FakeListener {
    async fn next(&mut self) -> Heard {
        match self.0.recv().await {
            Ok(heard) => heard,
            Err(_) => std::future::pending().await,
        }
    }
}
