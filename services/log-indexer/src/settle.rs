//! Storing a batch, and settling each of its deliveries by what became of its records.
//!
//! "No log is lost" rests on this file: a delivery is acked only when each of its records is stored,
//! was stored before, or is kept among the dead; what the store did not take stays here and is sent
//! again, without limit and with growing pauses, while nothing more is pulled.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use observer_bus::{BusError, Consumer, Delivery, in_hand};
use observer_chassis::{Backoff, Shutdown};
use observer_store::LogStore;
use observer_store::logs::Stored;
use observer_wire::event::{Event, EventError};
use tracing::warn;

use crate::batch::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Batch};

/// First pause before records are sent to the store again, and the longest.
const STORE_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Pause before a delivery comes again that shutdown took from us: another process may have it now.
const HANDED_BACK_DELAY: Duration = Duration::from_millis(100);

/// Takes deliveries and stores them, until shutdown is requested.
pub(crate) async fn store_until_shutdown(
    mut consumer: Box<dyn Consumer>,
    store: Arc<dyn LogStore>,
    shutdown: Shutdown,
) {
    loop {
        let first = tokio::select! {
            biased;
            () = shutdown.requested() => return,
            delivery = consumer.next() => delivery,
        };
        let deliveries = gather(consumer.as_mut(), first);
        store_deliveries(store.as_ref(), deliveries, &shutdown).await;
    }
}

/// The first delivery and those that are here already, up to the bytes of a batch.
fn gather(consumer: &mut dyn Consumer, first: Box<dyn Delivery>) -> Vec<Box<dyn Delivery>> {
    let mut bytes = first.payload().len();
    let mut deliveries = vec![first];
    while bytes < BATCH_BYTES_MAX {
        let Some(delivery) = consumer.try_next() else { break };
        bytes += delivery.payload().len();
        deliveries.push(delivery);
    }
    deliveries
}

/// Stores what the deliveries carry, a batch of records after the other, and settles each delivery
/// exactly once, on every path.
async fn store_deliveries(
    store: &dyn LogStore,
    deliveries: Vec<Box<dyn Delivery>>,
    shutdown: &Shutdown,
) {
    let payloads: Vec<Bytes> =
        deliveries.iter().map(|delivery| delivery.payload().clone()).collect();
    let mut rest = deliveries.into_iter().zip(&payloads).peekable();
    while rest.peek().is_some() {
        let mut taken = Vec::new();
        let mut records = 0;
        // Records are counted before any is read: small ones would fill the memory.
        while let Some((delivery, payload)) = rest.next_if(|_| records < BATCH_RECORDS_MAX) {
            let event = Event::parse(payload);
            let lines = event.as_ref().map_or(&[][..], |event| &event.lines);
            records += lines.iter().map(|line| line.head.count as usize).sum::<usize>();
            taken.push((delivery, event));
        }
        if let Outcome::CutOff = store_group(store, taken, shutdown).await {
            for (delivery, _) in rest.by_ref() {
                note(delivery.retry(HANDED_BACK_DELAY).await);
            }
        }
    }
}

/// Stores the records of some deliveries, and settles each of them.
async fn store_group(
    store: &dyn LogStore,
    taken: Vec<(Box<dyn Delivery>, Result<Event<'_>, EventError>)>,
    shutdown: &Shutdown,
) -> Outcome {
    let (deliveries, events): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
    let mut batch = Batch::default();
    let mut readable: Vec<(Box<dyn Delivery>, Range<usize>)> = Vec::new();
    for (delivery, event) in deliveries.into_iter().zip(&events) {
        let read = match event {
            Ok(event) => batch.add(event).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(range) => readable.push((delivery, range)),
            Err(reason) => {
                // A whole event that nobody can read: a bug of ours, or another release's format.
                metrics::counter!("observer_events_buried_total").increment(1);
                note(delivery.bury(&reason).await);
            }
        }
    }
    let outcome = store_batch(store, &batch, &readable, shutdown).await;
    for (delivery, _) in readable {
        match outcome {
            Outcome::Stored => note(delivery.ack().await),
            Outcome::CutOff => note(delivery.retry(HANDED_BACK_DELAY).await),
        }
    }
    outcome
}

/// What became of a batch.
#[derive(Clone, Copy)]
enum Outcome {
    /// Every record has a place to stay.
    Stored,
    /// Shutdown came first. The deliveries go back; what is stored already will be a duplicate.
    CutOff,
}

async fn store_batch(
    store: &dyn LogStore,
    batch: &Batch<'_>,
    deliveries: &[(Box<dyn Delivery>, Range<usize>)],
    shutdown: &Shutdown,
) -> Outcome {
    let all = batch.records();
    let mut waiting: Vec<usize> = (0..all.len()).collect();
    let mut pauses = Backoff::new(STORE_PAUSES.0, STORE_PAUSES.1);
    let held = deliveries.iter().map(|(delivery, _)| delivery.as_ref() as &dyn Delivery);
    metrics::gauge!("observer_backlog_records").increment(count(batch.len()));
    while !waiting.is_empty() {
        let mut later = Vec::new();
        for chunk in waiting.chunks(BATCH_RECORDS_MAX) {
            let records: Vec<_> = chunk.iter().map(|index| all[*index].clone()).collect();
            match in_hand(held.clone(), store.append(&records)).await {
                Ok(stored) => {
                    assert_eq!(stored.len(), chunk.len(), "one answer a record");
                    for (index, stored) in chunk.iter().zip(stored) {
                        if !settled(*index, stored, all[*index].json, deliveries).await {
                            later.push(*index);
                        }
                    }
                }
                Err(error) => {
                    warn!(error = %observer_chassis::reason(&error), "log store took no records");
                    later.extend_from_slice(chunk);
                }
            }
        }
        metrics::gauge!("observer_backlog_records").decrement(count(waiting.len() - later.len()));
        waiting = later;
        if waiting.is_empty() {
            break;
        }
        for (delivery, _) in deliveries {
            note(delivery.in_progress().await);
        }
        tokio::select! {
            () = shutdown.requested() => {
                metrics::gauge!("observer_backlog_records").decrement(count(waiting.len()));
                return Outcome::CutOff;
            }
            () = tokio::time::sleep(pauses.next_delay()) => {}
        }
    }
    Outcome::Stored
}

/// Whether the record has a place to stay now; counts it if so.
async fn settled(
    index: usize,
    stored: Stored,
    json: &str,
    deliveries: &[(Box<dyn Delivery>, Range<usize>)],
) -> bool {
    let outcome = match stored {
        Stored::Later => return false,
        // observer_records_stored_total: records that the log store took, each once.
        Stored::New => "observer_records_stored_total",
        // observer_records_duplicate_total: records that were stored before and came again.
        Stored::Duplicate => "observer_records_duplicate_total",
        Stored::Never(reason) => {
            let (delivery, _) = deliveries
                .iter()
                .find(|(_, range)| range.contains(&index))
                .expect("each record came in a delivery");
            let part = Bytes::copy_from_slice(json.as_bytes());
            if let Err(error) = delivery.bury_part(part, &reason).await {
                warn!(error = %observer_chassis::reason(&error), "record could not be buried");
                return false;
            }
            // observer_records_buried_total: records that no store takes, kept among the dead.
            "observer_records_buried_total"
        }
    };
    metrics::counter!(outcome).increment(1);
    true
}

/// A failed settlement is no loss: the delivery comes again, and its records are duplicates then.
fn note(settled: Result<(), BusError>) {
    if let Err(error) = settled {
        warn!(error = %observer_chassis::reason(&error), "delivery was not settled");
    }
}

#[expect(clippy::cast_precision_loss, reason = "batches are far smaller than 2^52")]
fn count(records: usize) -> f64 {
    records as f64
}

#[cfg(test)]
mod tests {
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
            match self.answers.lock().unwrap().pop_front() {
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
        let store =
            Arc::new(Scripted { answers: Mutex::new(answers.into()), ..Scripted::default() });
        let shutdown = Shutdown::new(Duration::from_secs(5));
        let published: Vec<_> =
            (0..).zip(payloads).map(|(n, payload)| publish(&bus, n, payload)).collect();
        let consumer = bus.consume(Durable::LogIndexer).await.unwrap();
        let indexer =
            store_until_shutdown(consumer, Arc::<Scripted>::clone(&store), shutdown.clone());
        let indexer = tokio::spawn(indexer);
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

    fn publish(
        bus: &Arc<dyn Bus>,
        number: u32,
        payload: Bytes,
    ) -> tokio::task::JoinHandle<Published> {
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
    async fn an_event_that_nobody_can_read_is_buried_and_the_others_are_stored() {
        let unreadable = Bytes::from_static(b"rubbish");
        let (asked, dead) = check(vec![unreadable, message(r#"[{"a":1}]"#)], vec![]).await;
        assert_eq!(asked.concat(), [r#"{"a":1}"#]);
        assert!(dead.contains("malformed"), "{dead}");
    }
}
