//! Settling, with a scripted store and a real bus.

#![expect(clippy::disallowed_methods, reason = "tests join what they spawn")]

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use observer_bus::config::BusConfig;
use observer_bus::{Bus, Durable, Outgoing, PublishError, Published, Stream};
use observer_store::logs::{LogPage, LogQuery, NewRecord};
use observer_store::{StoreError, StoreErrorKind};
use observer_wire::ProjectId;
use observer_wire::event::{self, LineHead, LineKind};

use super::*;

const PROJECT: &str = "0123456789ab";

/// What a scripted store answers to one call.
enum Answer {
    Each(Vec<Stored>),
    Down,
    Hangs,
}

/// A store that answers as it was told, then stores everything; remembers what it was asked.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<Vec<String>>>,
}

#[async_trait]
impl LogStore for Scripted {
    async fn append(&self, batch: &[NewRecord<'_>]) -> Result<Vec<Stored>, StoreError> {
        self.asked.lock().unwrap().push(batch.iter().map(|r| r.json.to_owned()).collect());
        let answer = self.answers.lock().unwrap().pop_front();
        match answer {
            Some(Answer::Hangs) => std::future::pending().await,
            None => Ok(vec![Stored::New; batch.len()]),
            Some(Answer::Each(stored)) => Ok(stored),
            Some(Answer::Down) => {
                Err(StoreError::new("append", StoreErrorKind::Unavailable, "down"))
            }
        }
    }

    async fn search(&self, _query: &LogQuery) -> Result<LogPage, StoreError> {
        unreachable!("the indexer never searches")
    }

    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn message(payload: &str) -> Bytes {
    let project: ProjectId = PROJECT.parse().unwrap();
    let mut out = Vec::new();
    event::start(&mut out, project);
    let head = LineHead {
        kind: LineKind::Logs,
        id: "r0".into(),
        key: PROJECT.parse().unwrap(),
        device: "s-1".into(),
        named: false,
        session: "1".into(),
        epoch: 1,
        seq: 1,
        received: 1,
        mid: None,
        index: 0,
        count: u32::try_from(payload.matches('{').count()).unwrap(),
        rev: 0,
        again: false,
        odd: vec![].into(),
        len: 0,
    };
    event::push_line(&mut out, head, payload);
    out.into()
}

/// Publishes `payloads` to an indexer whose store answers `answers`, until all are settled.
async fn check(payloads: Vec<Bytes>, answers: Vec<Answer>) -> (Vec<Vec<String>>, String) {
    let folder = tempfile::tempdir().unwrap();
    let config = BusConfig::default();
    let bus = observer_bus::connect(&config, folder.path()).await.unwrap();
    let store = Arc::new(Scripted { answers: Mutex::new(answers.into()), ..Scripted::default() });
    let shutdown = Shutdown::new(Duration::from_secs(5));
    let published: Vec<_> =
        (0..).zip(payloads).map(|(n, payload)| publish(&bus, n, payload)).collect();
    let consumer = bus.consume(Durable::LogIndexer).await.unwrap();
    let settler = Settler {
        store: Arc::<Scripted>::clone(&store),
        numbers: Arc::new(Numbers::new()),
        shutdown: shutdown.clone(),
    };
    let indexer = tokio::spawn(settler.run(consumer));
    for one in published {
        one.await.unwrap();
    }
    shutdown.request();
    indexer.await.unwrap();
    let dead = std::fs::read_dir(folder.path())
        .unwrap()
        .filter_map(|file| std::fs::read_to_string(file.unwrap().path()).ok());
    let asked = std::mem::take(&mut *store.asked.lock().unwrap());
    (asked, dead.collect())
}

fn publish(bus: &Arc<dyn Bus>, number: u32, payload: Bytes) -> tokio::task::JoinHandle<Published> {
    let bus = Arc::clone(bus);
    let event = Outgoing {
        stream: Stream::Logs,
        project: PROJECT.parse().unwrap(),
        id: number.to_string(),
        expected: None,
        payload,
    };
    tokio::spawn(async move {
        loop {
            match bus.publish(event.clone()).await {
                Ok(published) => return published,
                Err(error) => assert_eq!(error, PublishError::Timeout),
            }
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_delivery_is_settled_once_all_its_records_are_stored() {
    let (asked, dead) = check(vec![message(r#"[{"a":1},{"a":2}]"#)], vec![]).await;
    assert_eq!(asked, [[r#"{"a":1}"#, r#"{"a":2}"#]]);
    assert_eq!(dead, "");
}

#[tokio::test(start_paused = true)]
async fn only_records_that_the_store_did_not_take_are_sent_again() {
    let first = Answer::Each(vec![Stored::New, Stored::Later, Stored::Duplicate]);
    let (asked, _) = check(vec![message(r#"[{"a":1},{"a":2},{"a":3}]"#)], vec![first]).await;
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1], [r#"{"a":2}"#]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_asked_until_it_is_back() {
    let down = (0..20).map(|_| Answer::Down).collect();
    let (asked, dead) = check(vec![message(r#"[{"a":1}]"#)], down).await;
    assert_eq!(asked.len(), 21);
    assert_eq!(dead, "");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_no_store_takes_is_kept_among_the_dead_with_its_reason() {
    let never = Answer::Each(vec![Stored::New, Stored::Never("not a date".into())]);
    let (asked, dead) = check(vec![message(r#"[{"a":1},{"bad":2}]"#)], vec![never]).await;
    assert_eq!(asked.len(), 1);
    assert!(dead.contains("not a date"), "{dead}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_ends_with_the_delivery_that_fills_it() {
    let lines = |count: usize| message(&format!("[{}]", vec!["{}"; count].join(",")));
    let one_short = vec![lines(BATCH_RECORDS_MAX - 1), lines(1), lines(1)];
    let (asked, _) = check(one_short, vec![]).await;
    let sizes: Vec<_> = asked.iter().map(Vec::len).collect();
    assert_eq!(sizes, [BATCH_RECORDS_MAX, 1]);
    let (asked, _) = check(vec![lines(BATCH_RECORDS_MAX), lines(1)], vec![]).await;
    let sizes: Vec<_> = asked.iter().map(Vec::len).collect();
    assert_eq!(sizes, [BATCH_RECORDS_MAX, 1]);
}

#[tokio::test(start_paused = true)]
async fn records_behind_those_that_wait_are_not_sent_before_them() {
    let lines = || message(&format!("[{}]", vec!["{}"; BATCH_RECORDS_MAX + 1].join(",")));
    let sizes = |asked: Vec<Vec<String>>| asked.iter().map(Vec::len).collect::<Vec<_>>();
    let (asked, _) = check(vec![lines()], vec![Answer::Down]).await;
    assert_eq!(sizes(asked), [BATCH_RECORDS_MAX, BATCH_RECORDS_MAX, 1]);

    let mut some = vec![Stored::New; BATCH_RECORDS_MAX];
    some[7] = Stored::Later;
    let (asked, _) = check(vec![lines()], vec![Answer::Each(some)]).await;
    assert_eq!(sizes(asked), [BATCH_RECORDS_MAX, 2]);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_nobody_can_read_is_buried_and_the_others_are_stored() {
    let unreadable = Bytes::from_static(b"rubbish");
    let (asked, dead) = check(vec![unreadable, message(r#"[{"a":1}]"#)], vec![]).await;
    assert_eq!(asked.concat(), [r#"{"a":1}"#]);
    assert!(dead.contains("malformed"), "{dead}");
}

/// What a delivery was told.
type Told = Arc<Mutex<Vec<&'static str>>>;

/// A delivery that remembers what it was told.
struct Remembered {
    payload: Bytes,
    told: Told,
}

impl Remembered {
    #[expect(clippy::unnecessary_wraps, reason = "as a delivery is answered")]
    fn tell(&self, word: &'static str) -> Result<(), BusError> {
        self.told.lock().unwrap().push(word);
        Ok(())
    }
}

#[async_trait]
impl Delivery for Remembered {
    fn project(&self) -> ProjectId {
        PROJECT.parse().unwrap()
    }
    fn payload(&self) -> &Bytes {
        &self.payload
    }
    fn sequence(&self) -> u64 {
        1
    }
    fn attempt(&self) -> u64 {
        1
    }
    async fn ack(self: Box<Self>) -> Result<(), BusError> {
        self.tell("ack")
    }
    async fn retry(self: Box<Self>, _: Duration) -> Result<(), BusError> {
        self.tell("retry")
    }
    async fn bury(self: Box<Self>, _: &str) -> Result<(), BusError> {
        self.tell("bury")
    }
    async fn in_progress(&self) -> Result<(), BusError> {
        self.tell("in progress")
    }
    async fn bury_part(&self, _: Bytes, _: &str) -> Result<(), BusError> {
        self.tell("bury part")
    }
}

/// Deliveries of so many records each, and what they will have been told.
fn remembered(sizes: &[usize]) -> (VecDeque<Box<dyn Delivery>>, Vec<Told>) {
    let told: Vec<Told> = sizes.iter().map(|_| Told::default()).collect();
    let delivery = |(size, told): (&usize, &Told)| {
        let payload = message(&format!("[{}]", vec!["{}"; *size].join(",")));
        Box::new(Remembered { payload, told: Arc::clone(told) }) as Box<dyn Delivery>
    };
    (sizes.iter().zip(&told).map(delivery).collect(), told)
}

fn settler(answers: Vec<Answer>, shutdown: &Shutdown) -> Settler {
    let store = Arc::new(Scripted { answers: Mutex::new(answers.into()), ..Scripted::default() });
    Settler { store, numbers: Arc::new(Numbers::new()), shutdown: shutdown.clone() }
}

#[tokio::test(start_paused = true)]
async fn deliveries_in_work_and_those_behind_them_are_kept_in_hand_while_the_store_is_down() {
    let shutdown = Shutdown::new(Duration::from_mins(1));
    let down = (0..12).map(|_| Answer::Down).collect();
    let (deliveries, told) = remembered(&[BATCH_RECORDS_MAX, 1, 1]);
    let since = tokio::time::Instant::now();
    settler(down, &shutdown).store_deliveries(deliveries).await;
    // Told every three seconds, and at the end that all is well.
    let words = usize::try_from(since.elapsed().as_secs() / 3).unwrap();
    assert!(2 < words, "{:?}", since.elapsed());
    for told in told {
        let told = told.lock().unwrap();
        assert_eq!(told.last(), Some(&"ack"));
        let kept = told.iter().filter(|word| **word == "in progress").count();
        assert!(words.abs_diff(kept) <= 1, "{kept} of {words}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_does_not_hold_up_the_shutdown_and_every_delivery_goes_back() {
    let shutdown = Shutdown::new(Duration::from_mins(1));
    let (deliveries, told) = remembered(&[BATCH_RECORDS_MAX, 1]);
    let since = tokio::time::Instant::now();
    shutdown.request();
    settler(vec![Answer::Hangs], &shutdown).store_deliveries(deliveries).await;
    assert_eq!(since.elapsed().as_secs(), LAST_ANSWER_WITHIN.as_secs());
    for told in told {
        let told = told.lock().unwrap();
        assert_eq!(told.last(), Some(&"retry"));
        assert_eq!(told.iter().filter(|word| **word != "in progress").count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_records_of_one_line_the_bad_one_alone_is_buried_as_the_record_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let bus = observer_bus::connect(&BusConfig::default(), folder.path()).await.unwrap();
    let shutdown = Shutdown::new(Duration::from_secs(5));
    let never = Answer::Each(vec![Stored::New, Stored::Never("not a date".into())]);
    let published = publish(&bus, 1, message(r#"[{"a":1},{"bad":2}]"#));
    let mut consumer = bus.consume(Durable::LogIndexer).await.unwrap();
    let deliveries = VecDeque::from([consumer.next().await]);
    settler(vec![never], &shutdown).store_deliveries(deliveries).await;
    published.await.unwrap();

    let project = PROJECT.parse().unwrap();
    let page = bus.dead().list(project, None, 10).await.unwrap();
    assert_eq!(page.letters.len(), 1);
    let letter = bus.dead().get(project, page.letters[0].id).await.unwrap().unwrap();
    let event = Event::parse(&letter.payload).unwrap();
    let mut batch = Batch::default();
    batch.add(&event).unwrap();
    let records = batch.records();
    assert_eq!((records.len(), records[0].id, records[0].seq), (1, "r0-001", 2));
    assert_eq!(records[0].json, r#"{"bad":2}"#);
}
