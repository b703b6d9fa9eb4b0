//! The clauses about publishing and consuming, and what all clauses use. Each takes an adapter and
//! holds it to the contract.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use observer_bus::config::BusConfig;
use observer_bus::{
    Bus, Consumer, Cursor, Delivery, Durable, Heard, HeardLog, LiveLogs, Outgoing,
    PAYLOAD_BYTES_MAX, PublishError, Published, RequestError, Service, Stream, Topic,
};
use observer_tests::eventually;
use observer_wire::ProjectId;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::rig::{Adapter, Dead};

/// Time for what must happen at once: long, since the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) const KIB: usize = 1024;

/// The n-th project.
#[expect(non_snake_case, reason = "reads as the constant it is")]
pub(crate) fn PROJECT(n: u32) -> ProjectId {
    format!("project-{n:04}").parse().unwrap()
}

/// An event whose payload is its id.
pub(crate) fn event(stream: Stream, project: ProjectId, id: &str) -> Outgoing {
    let payload = Bytes::copy_from_slice(id.as_bytes());
    Outgoing { stream, project, id: id.to_owned(), expected: None, payload }
}

pub(crate) fn large_event(project: ProjectId, id: &str, bytes: usize) -> Outgoing {
    Outgoing { payload: vec![b'x'; bytes].into(), ..event(Stream::Logs, project, id) }
}

/// The next delivery.
pub(crate) async fn take(consumer: &mut Box<dyn Consumer>) -> Box<dyn Delivery> {
    timeout(SOON, consumer.next()).await.expect("a delivery comes")
}

pub(crate) fn text(payload: &[u8]) -> String {
    String::from_utf8(payload.to_vec()).unwrap()
}

/// The next live event, as text.
pub(crate) async fn hear(live: &mut LiveLogs) -> (String, Cursor) {
    match timeout(SOON, live.events.next()).await.expect("an event is heard") {
        HeardLog::Event(payload, cursor) => (text(&payload), cursor),
        lost @ HeardLog::Lost { .. } => panic!("{lost:?}"),
    }
}

pub(crate) fn publish_soon(
    bus: &Arc<dyn Bus>,
    event: Outgoing,
) -> JoinHandle<Result<Published, PublishError>> {
    let bus = Arc::clone(bus);
    tokio::spawn(async move { bus.publish(event).await })
}

/// Settles all that comes, until dropped.
pub(crate) struct Settling(JoinHandle<()>);

impl Settling {
    pub(crate) async fn start(bus: &Arc<dyn Bus>, durable: Durable) -> Self {
        let mut consumer = bus.consume(durable).await.unwrap();
        Self(tokio::spawn(async move {
            loop {
                consumer.next().await.ack().await.unwrap();
            }
        }))
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) async fn publish_logs(
    bus: &Arc<dyn Bus>,
    project: ProjectId,
    ids: std::ops::Range<u32>,
) {
    for id in ids {
        let payload = format!("e{id}").into();
        let event = event(Stream::Logs, project, &format!("{project}-{id}"));
        bus.publish(Outgoing { payload, ..event }).await.unwrap();
    }
}

pub(super) async fn published_event_is_delivered_and_its_publisher_told(adapter: Adapter) {
    let rig = adapter.start().await;
    let streams = [
        (Stream::Logs, Durable::LogIndexer),
        (Stream::Vars, Durable::VarStore),
        (Stream::Edits, Durable::EditApplier),
    ];
    for (stream, durable) in streams {
        let mut consumer = rig.other.consume(durable).await.unwrap();
        let published = publish_soon(&rig.one, event(stream, PROJECT(1), "a"));
        let delivery = take(&mut consumer).await;
        assert_eq!(delivery.project(), PROJECT(1));
        assert_eq!(delivery.payload(), "a");
        assert_eq!(delivery.attempt(), 1);
        delivery.in_progress().await.unwrap();
        let sequence = delivery.sequence();
        delivery.ack().await.unwrap();
        assert_eq!(published.await.unwrap().unwrap().sequence, sequence);
    }
}

pub(super) async fn events_of_a_project_come_in_order(adapter: Adapter) {
    let rig = adapter.start().await;
    let mut consumer = rig.other.consume(Durable::LogIndexer).await.unwrap();
    let mut before = 0;
    for id in ["a", "b", "c"] {
        let published = publish_soon(&rig.one, event(Stream::Logs, PROJECT(1), id));
        let delivery = take(&mut consumer).await;
        assert_eq!(delivery.payload(), id);
        assert!(before < delivery.sequence());
        before = delivery.sequence();
        delivery.ack().await.unwrap();
        published.await.unwrap().unwrap();
    }
}

pub(super) async fn settled_event_does_not_come_again(adapter: Adapter) {
    let rig = adapter.start().await;
    for id in ["a", "b"] {
        let mut consumer = rig.other.consume(Durable::LogIndexer).await.unwrap();
        let published = publish_soon(&rig.one, event(Stream::Logs, PROJECT(1), id));
        let delivery = take(&mut consumer).await;
        assert_eq!(delivery.payload(), id);
        delivery.ack().await.unwrap();
        published.await.unwrap().unwrap();
        assert!(consumer.try_next().is_none());
    }
}

pub(super) async fn event_dropped_unsettled_comes_again(adapter: Adapter) {
    let rig = adapter.start().await;
    let mut consumer = rig.one.consume(Durable::LogIndexer).await.unwrap();
    let published = publish_soon(&rig.one, event(Stream::Logs, PROJECT(1), "a"));
    drop(take(&mut consumer).await);
    let again = take(&mut consumer).await;
    assert_eq!((&again.payload()[..], again.attempt()), (&b"a"[..], 2));
    again.ack().await.unwrap();
    published.await.unwrap().unwrap();
}

pub(super) async fn retried_event_comes_again_after_its_delay_and_holds_back_no_other_project(
    adapter: Adapter,
) {
    let rig = adapter.start().await;
    let delay = Duration::from_millis(700);
    let mut consumer = rig.one.consume(Durable::LogIndexer).await.unwrap();
    let held = publish_soon(&rig.one, event(Stream::Logs, PROJECT(1), "held"));
    let since = Instant::now();
    take(&mut consumer).await.retry(delay).await.unwrap();
    let free = publish_soon(&rig.one, event(Stream::Logs, PROJECT(2), "free"));
    let delivery = take(&mut consumer).await;
    assert_eq!(delivery.payload(), "free");
    delivery.ack().await.unwrap();
    free.await.unwrap().unwrap();
    let delivery = take(&mut consumer).await;
    assert!(delay <= since.elapsed());
    assert_eq!((&delivery.payload()[..], delivery.attempt()), (&b"held"[..], 2));
    delivery.ack().await.unwrap();
    held.await.unwrap().unwrap();
}

pub(super) async fn buried_event_is_kept_with_its_reason_and_does_not_come_again(adapter: Adapter) {
    let rig = adapter.start().await;
    let mut consumer = rig.one.consume(Durable::LogIndexer).await.unwrap();
    let reason = "line 1\nis: \"ünreadable\"";
    let buried = publish_soon(&rig.one, event(Stream::Logs, PROJECT(1), "bad"));
    take(&mut consumer).await.bury(reason).await.unwrap();
    buried.await.unwrap().unwrap();
    let dead = rig.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].project.as_str(), &dead[0].payload[..]), ("project-0001", &b"bad"[..]));
    let words = dead[0].reason.replace(['\n', ' '], " ");
    assert_eq!(words, reason.replace('\n', " "));

    let good = publish_soon(&rig.one, event(Stream::Logs, PROJECT(1), "good"));
    let delivery = take(&mut consumer).await;
    assert_eq!(delivery.payload(), "good");
    delivery.ack().await.unwrap();
    good.await.unwrap().unwrap();
}

pub(super) async fn part_of_an_event_is_buried_while_the_event_stays_unsettled(adapter: Adapter) {
    let rig = adapter.start().await;
    let mut consumer = rig.one.consume(Durable::LogIndexer).await.unwrap();
    let published = publish_soon(&rig.one, event(Stream::Logs, PROJECT(1), "good,bad,worse"));
    let delivery = take(&mut consumer).await;
    for part in ["bad", "worse"] {
        delivery.bury_part(Bytes::from_static(part.as_bytes()), part).await.unwrap();
    }
    drop(delivery);
    let again = take(&mut consumer).await;
    assert_eq!(again.payload(), "good,bad,worse");
    again.ack().await.unwrap();
    published.await.unwrap().unwrap();
    let dead = |part: &str| Dead {
        project: "project-0001".to_owned(),
        reason: part.to_owned(),
        payload: part.as_bytes().to_vec(),
    };
    assert_eq!(rig.dead().await, [dead("bad"), dead("worse")]);
}

pub(super) async fn same_id_twice_is_one_event(adapter: Adapter) {
    let rig = adapter.start().await;
    let mut consumer = rig.one.consume(Durable::LogIndexer).await.unwrap();
    let a = event(Stream::Logs, PROJECT(1), "a");
    let first = publish_soon(&rig.one, a.clone());
    let second = publish_soon(&rig.other, a.clone());
    let delivery = take(&mut consumer).await;
    let sequence = delivery.sequence();
    delivery.ack().await.unwrap();
    let published = [first.await.unwrap().unwrap(), second.await.unwrap().unwrap()];
    assert_eq!(published.map(|published| published.sequence), [sequence, sequence]);
    assert_eq!(published.iter().filter(|published| published.known).count(), 1, "{published:?}");
    assert_eq!(rig.other.publish(a).await, Ok(Published { sequence, known: true }));

    let next = publish_soon(&rig.one, event(Stream::Logs, PROJECT(1), "b"));
    let delivery = take(&mut consumer).await;
    assert_eq!(delivery.payload(), "b");
    delivery.ack().await.unwrap();
    next.await.unwrap().unwrap();
}

pub(super) async fn same_id_in_another_stream_is_another_event(adapter: Adapter) {
    let rig = adapter.start().await;
    for (stream, durable) in
        [(Stream::Logs, Durable::LogIndexer), (Stream::Vars, Durable::VarStore)]
    {
        let mut consumer = rig.one.consume(durable).await.unwrap();
        let published = publish_soon(&rig.one, event(stream, PROJECT(1), "a"));
        take(&mut consumer).await.ack().await.unwrap();
        published.await.unwrap().unwrap();
    }
}

pub(crate) fn edit(project: ProjectId, id: &str, expected: u64) -> Outgoing {
    Outgoing { expected: Some(expected), ..event(Stream::Edits, project, id) }
}

pub(super) async fn wrong_expectation_is_refused_with_the_last_sequence(adapter: Adapter) {
    let rig = adapter.start().await;
    let _settling = Settling::start(&rig.one, Durable::EditApplier).await;
    let last = rig.one.publish(edit(PROJECT(1), "a", 0)).await.unwrap().sequence;
    for wrong in [0, last - 1, last + 1] {
        let refused = rig.other.publish(edit(PROJECT(1), "b", wrong)).await;
        assert_eq!(refused, Err(PublishError::Unexpected { last }));
    }
    rig.other.publish(edit(PROJECT(2), "c", 0)).await.unwrap();
    let next = rig.other.publish(edit(PROJECT(1), "b", last)).await.unwrap();
    assert!(last < next.sequence);
}

pub(super) async fn only_edits_are_published_with_an_expectation(adapter: Adapter) {
    let rig = adapter.start().await;
    for stream in [Stream::Logs, Stream::Vars] {
        let event = Outgoing { expected: Some(0), ..event(stream, PROJECT(1), "a") };
        let refused = rig.one.publish(event).await;
        assert!(matches!(refused, Err(PublishError::Refused(_))), "{refused:?}");
    }
}

pub(super) async fn accepted_edit_sent_again_is_the_same_edit(adapter: Adapter) {
    let rig = adapter.start().await;
    let _settling = Settling::start(&rig.one, Durable::EditApplier).await;
    let first = rig.one.publish(edit(PROJECT(1), "a", 0)).await.unwrap();
    assert!(!first.known);
    let known = |first| Ok(Published { known: true, ..first });
    assert_eq!(rig.other.publish(edit(PROJECT(1), "a", 0)).await, known(first));
    let next = rig.one.publish(edit(PROJECT(1), "b", first.sequence)).await.unwrap();
    assert_eq!(rig.one.publish(edit(PROJECT(1), "b", first.sequence)).await, known(next));
}

pub(super) async fn of_two_edits_with_one_expectation_one_is_taken(adapter: Adapter) {
    let rig = adapter.start().await;
    let _settling = Settling::start(&rig.one, Durable::EditApplier).await;
    let mut last = rig.one.publish(edit(PROJECT(1), "first", 0)).await.unwrap().sequence;
    for round in 0..10 {
        let a = publish_soon(&rig.one, edit(PROJECT(1), &format!("a{round}"), last));
        let b = publish_soon(&rig.other, edit(PROJECT(1), &format!("b{round}"), last));
        let (taken, refused) = match (a.await.unwrap(), b.await.unwrap()) {
            (Ok(taken), Err(refused)) | (Err(refused), Ok(taken)) => (taken, refused),
            both => panic!("{both:?}"),
        };
        assert_eq!(refused, PublishError::Unexpected { last: taken.sequence });
        last = taken.sequence;
    }
}

/// Publishes all at once; returns when the first is refused, which must be for want of room.
async fn until_full(
    bus: &Arc<dyn Bus>,
    events: impl Iterator<Item = Outgoing>,
) -> FuturesUnordered<JoinHandle<Result<Published, PublishError>>> {
    let mut publishing: FuturesUnordered<_> =
        events.map(|event| publish_soon(bus, event)).collect();
    loop {
        match timeout(Duration::from_secs(4), publishing.next()).await {
            Ok(Some(Ok(Ok(_)))) => {}
            Ok(Some(Ok(Err(error)))) => {
                assert_eq!(error, PublishError::Full);
                return publishing;
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(super) async fn project_that_fills_its_share_is_refused_and_no_other(adapter: Adapter) {
    let small = |config: &mut BusConfig| {
        config.queue_bytes_max = 200 * KIB as u64; // A quarter has room for four events.
        config.logs_project_messages_max = 4;
    };
    let rig = adapter.start_with(small).await;
    let noisy = (0..8).map(|n| large_event(PROJECT(1), &format!("noisy{n}"), 12 * KIB));
    let mut noisy = until_full(&rig.one, noisy).await;

    let other = publish_soon(&rig.other, event(Stream::Logs, PROJECT(2), "other"));
    let _settling = Settling::start(&rig.one, Durable::LogIndexer).await;
    other.await.unwrap().unwrap();
    while let Some(published) = noisy.next().await {
        assert!(matches!(published.unwrap(), Ok(_) | Err(PublishError::Full)));
    }
    eventually(SOON, "there is room again", async || {
        rig.one.publish(large_event(PROJECT(1), "late", 12 * KIB)).await.ok()
    })
    .await;
}

pub(super) async fn full_stream_refuses_everybody_until_there_is_room(adapter: Adapter) {
    let small = |config: &mut BusConfig| {
        config.queue_bytes_max = 64 * KIB as u64;
        config.logs_bytes_max = 64 * KIB as u64;
    };
    let rig = adapter.start_with(small).await;
    let events = (0..8).map(|n| large_event(PROJECT(n), &format!("e{n}"), 12 * KIB));
    let _publishing = until_full(&rig.one, events).await;

    let _settling = Settling::start(&rig.one, Durable::LogIndexer).await;
    eventually(SOON, "there is room again", async || {
        rig.one.publish(large_event(PROJECT(9), "late", 12 * KIB)).await.ok()
    })
    .await;
}

pub(super) async fn fullness_is_what_waits_of_the_project_or_of_all(adapter: Adapter) {
    let small = |config: &mut BusConfig| {
        config.queue_bytes_max = 400 * KIB as u64; // A quarter has room for eight events.
        config.logs_bytes_max = 400 * KIB as u64;
        config.logs_project_messages_max = 8;
    };
    let rig = adapter.start_with(small).await;
    let logs = |project| rig.other.fullness(Stream::Logs, project);
    let empty = async || (logs(PROJECT(1)) == Some(0)).then_some(());
    eventually(SOON, "an empty stream is known to be empty", empty).await;

    let events = (0..4).map(|n| large_event(PROJECT(1), &format!("e{n}"), 12 * KIB));
    let publishing: Vec<_> = events.map(|event| publish_soon(&rig.one, event)).collect();
    eventually(SOON, "a project's half is half", async || {
        let noisy = logs(PROJECT(1)).is_some_and(|percent| (45..=55).contains(&percent));
        let quiet = logs(PROJECT(2)).is_some_and(|percent| (11..=15).contains(&percent));
        (noisy && quiet).then_some(())
    })
    .await;

    let _settling = Settling::start(&rig.one, Durable::LogIndexer).await;
    eventually(SOON, "what was settled takes no room", empty).await;
    for published in publishing {
        published.await.unwrap().unwrap();
    }
    assert_eq!(rig.one.fullness(Stream::Edits, PROJECT(1)), None);
}

pub(super) async fn fullness_of_vars_is_what_var_store_has_not_consumed(adapter: Adapter) {
    let small = |config: &mut BusConfig| {
        config.queue_bytes_max = 400 * KIB as u64;
        config.vars_bytes_max = 100 * KIB as u64;
    };
    let rig = adapter.start_with(small).await;
    let vars = || rig.other.fullness(Stream::Vars, PROJECT(1));
    let empty = async || (vars() == Some(0)).then_some(());
    eventually(SOON, "an empty stream is known to be empty", empty).await;

    let event = |n| Outgoing {
        stream: Stream::Vars,
        ..large_event(PROJECT(1), &format!("e{n}"), 12 * KIB)
    };
    let publishing: Vec<_> = (0..4).map(|n| publish_soon(&rig.one, event(n))).collect();
    eventually(SOON, "half of the stream is not consumed", async || {
        vars().is_some_and(|percent| (45..=55).contains(&percent)).then_some(())
    })
    .await;

    let _settling = Settling::start(&rig.one, Durable::VarStore).await;
    eventually(SOON, "what was consumed takes no room, though it is kept", empty).await;
    for published in publishing {
        published.await.unwrap().unwrap();
    }
}

pub(super) async fn payload_at_the_limit_passes_and_one_byte_more_does_not(adapter: Adapter) {
    let rig = adapter.start().await;
    let _settling = Settling::start(&rig.one, Durable::LogIndexer).await;
    let bytes = PAYLOAD_BYTES_MAX + 1;
    rig.one.publish(large_event(PROJECT(1), "a", PAYLOAD_BYTES_MAX)).await.unwrap();
    let published = rig.one.publish(large_event(PROJECT(1), "b", bytes)).await;
    assert_eq!(published, Err(PublishError::TooLarge { bytes }));

    let mut requests = rig.other.serve(Service::Keys).await.unwrap();
    let echo = async {
        let request = requests.next().await;
        request.reply.send(request.payload).await;
    };
    let most: Bytes = vec![b'x'; PAYLOAD_BYTES_MAX].into();
    let (answer, ()) = tokio::join!(rig.one.request(Service::Keys, most.clone()), echo);
    assert_eq!(answer.unwrap(), most);
    let answer = rig.one.request(Service::Keys, vec![b'x'; bytes].into()).await;
    assert_eq!(answer, Err(RequestError::TooLarge { bytes }));

    let topic = Topic::LiveVars(PROJECT(1));
    let mut listener = rig.other.listen(topic).await.unwrap();
    rig.one.broadcast(topic, most.clone()).await.unwrap();
    assert_eq!(timeout(SOON, listener.next()).await.unwrap(), Heard::Message(most));
    assert!(rig.one.broadcast(topic, vec![b'x'; bytes].into()).await.is_err());
}

pub(super) async fn two_consumers_share_the_work(adapter: Adapter) {
    const EVENTS: u32 = 60;
    let rig = adapter.start().await;
    let (seen, mut arriving) = tokio::sync::mpsc::channel(EVENTS as usize);
    let mut consumers = Vec::new();
    for bus in [&rig.one, &rig.other] {
        let (mut consumer, seen) = (bus.consume(Durable::LogIndexer).await.unwrap(), seen.clone());
        consumers.push(tokio::spawn(async move {
            loop {
                let delivery = consumer.next().await;
                seen.send((text(delivery.payload()), delivery.attempt())).await.unwrap();
                delivery.ack().await.unwrap();
            }
        }));
    }
    publish_logs(&rig.one, PROJECT(1), 0..EVENTS).await;
    let mut all = BTreeSet::new();
    for _ in 0..EVENTS {
        let (id, attempt) = timeout(SOON, arriving.recv()).await.unwrap().unwrap();
        assert_eq!(attempt, 1);
        assert!(all.insert(id));
    }
    assert!(arriving.try_recv().is_err());
    consumers.iter().for_each(JoinHandle::abort);
}

pub(super) async fn consumer_that_stops_waiting_loses_nothing(adapter: Adapter) {
    let rig = adapter.start().await;
    let mut consumer = rig.one.consume(Durable::LogIndexer).await.unwrap();
    let mut deliveries = BTreeSet::new();
    for round in 0..10_u64 {
        // Given up at every moment from before to after the arrival.
        let published =
            publish_soon(&rig.one, event(Stream::Logs, PROJECT(1), &format!("e{round}")));
        let early = timeout(Duration::from_micros(round * 150), consumer.next()).await;
        let delivery = match early {
            Ok(delivery) => delivery,
            Err(_) => take(&mut consumer).await,
        };
        assert_eq!(delivery.attempt(), 1);
        assert!(deliveries.insert(text(delivery.payload())));
        delivery.ack().await.unwrap();
        published.await.unwrap().unwrap();
    }
}

pub(super) async fn further_deliveries_are_taken_without_waiting(adapter: Adapter) {
    let rig = adapter.start().await;
    let mut consumer = rig.one.consume(Durable::LogIndexer).await.unwrap();
    let publishing: Vec<_> = (0..3)
        .map(|n| publish_soon(&rig.one, event(Stream::Logs, PROJECT(1), &format!("e{n}"))))
        .collect();
    let mut deliveries = vec![take(&mut consumer).await];
    while deliveries.len() < 3 {
        let next = eventually(SOON, "the others are here", async || consumer.try_next()).await;
        deliveries.push(next);
    }
    assert!(consumer.try_next().is_none());
    for delivery in deliveries {
        delivery.ack().await.unwrap();
    }
    for published in publishing {
        published.await.unwrap().unwrap();
    }
}
