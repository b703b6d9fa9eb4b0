//! The clauses about live logs, broadcasts and requests.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use observer_bus::config::BusConfig;
use observer_bus::{
    Cursor, Durable, Heard, HeardLog, Listener, RequestError, Resume, Service, Stream, Topic,
};
use observer_tests::eventually;
use tokio::time::timeout;

use super::rig::Adapter;
use super::suite::{
    KIB, PROJECT, SOON, Settling, edit, event, hear, large_event, publish_logs, text,
};

async fn hear_message(listener: &mut Box<dyn Listener>) -> String {
    match timeout(SOON, listener.next()).await.expect("a message is heard") {
        Heard::Message(payload) => text(&payload),
        Heard::Resync => panic!("nothing was lost"),
    }
}

pub(super) async fn live_listener_hears_each_event_of_its_project_once(adapter: Adapter) {
    let rig = adapter.start().await;
    let _settling = Settling::start(&rig.one, Durable::LogIndexer).await;
    publish_logs(&rig.one, PROJECT(1), 0..2).await;
    let mut live = rig.other.listen_from(PROJECT(1), None).await.unwrap();
    assert_eq!(live.resume, Resume::Fresh);
    for id in 2..6 {
        publish_logs(&rig.one, PROJECT(2), id..id + 1).await;
        publish_logs(&rig.one, PROJECT(1), id..id + 1).await;
        publish_logs(&rig.one, PROJECT(1), id..id + 1).await; // The same id: the same event.
    }
    let mut cursors = BTreeSet::from([live.cursor.0.clone()]);
    for id in 2..6 {
        let (heard, cursor) = hear(&mut live).await;
        assert_eq!(heard, format!("e{id}"));
        assert!(cursors.insert(cursor.0));
    }
}

pub(super) async fn live_listeners_in_two_processes_hear_the_same(adapter: Adapter) {
    let rig = adapter.start().await;
    let _settling = Settling::start(&rig.one, Durable::LogIndexer).await;
    let mut one = rig.one.listen_from(PROJECT(1), None).await.unwrap();
    let mut other = rig.other.listen_from(PROJECT(1), None).await.unwrap();
    publish_logs(&rig.one, PROJECT(1), 0..3).await;
    for id in 0..3 {
        let heard = hear(&mut one).await;
        assert_eq!(heard.0, format!("e{id}"));
        assert_eq!(heard, hear(&mut other).await);
    }
}

pub(super) async fn resumed_listener_hears_exactly_what_it_missed(adapter: Adapter) {
    let rig = adapter.start().await;
    let _settling = Settling::start(&rig.one, Durable::LogIndexer).await;
    let mut live = rig.one.listen_from(PROJECT(1), None).await.unwrap();
    let mut cursors = vec![live.cursor.clone()];
    publish_logs(&rig.one, PROJECT(1), 0..6).await;
    publish_logs(&rig.one, PROJECT(2), 0..6).await;
    for _ in 0..6 {
        cursors.push(hear(&mut live).await.1);
    }
    drop(live);
    publish_logs(&rig.one, PROJECT(1), 6..8).await;
    for (missed_from, cursor) in (0..).zip(&cursors) {
        let mut live = rig.other.listen_from(PROJECT(1), Some(cursor)).await.unwrap();
        assert_eq!((live.resume, &live.cursor), (Resume::Resumed, cursor));
        for id in missed_from..8 {
            assert_eq!(hear(&mut live).await.0, format!("e{id}"));
        }
        let fresh = format!("fresh{missed_from}");
        rig.one.publish(event(Stream::Logs, PROJECT(1), &fresh)).await.unwrap();
        for earlier in 0..missed_from {
            assert_eq!(hear(&mut live).await.0, format!("fresh{earlier}"));
        }
        assert_eq!(hear(&mut live).await.0, fresh);
    }
}

pub(super) async fn listener_that_resumes_while_events_arrive_misses_and_repeats_nothing(
    adapter: Adapter,
) {
    const EVENTS: u32 = 300;
    let rig = adapter.start().await;
    let _settling = Settling::start(&rig.one, Durable::LogIndexer).await;
    let mut live = rig.other.listen_from(PROJECT(1), None).await.unwrap();
    let bus = Arc::clone(&rig.one);
    let publishing = tokio::spawn(async move { publish_logs(&bus, PROJECT(1), 0..EVENTS).await });
    for id in 0..EVENTS {
        let (heard, cursor) = hear(&mut live).await;
        assert_eq!(heard, format!("e{id}"));
        if id % 20 == 0 {
            live = rig.other.listen_from(PROJECT(1), Some(&cursor)).await.unwrap();
            assert_eq!(live.resume, Resume::Resumed);
        }
    }
    publishing.await.unwrap();
}

pub(super) async fn cursor_from_elsewhere_resets(adapter: Adapter) {
    let (rig, foreign) = tokio::join!(adapter.start(), adapter.start());
    let _settling = Settling::start(&rig.one, Durable::LogIndexer).await;
    let foreign = foreign.one.listen_from(PROJECT(1), None).await.unwrap().cursor;
    let ours = rig.one.listen_from(PROJECT(1), None).await.unwrap().cursor;
    let cursors =
        [foreign.0, String::new(), "1.2".to_owned(), format!("{ours}x"), "ü.🦀".to_owned()];
    for (n, cursor) in cursors.map(Cursor).into_iter().enumerate() {
        let mut live = rig.one.listen_from(PROJECT(1), Some(&cursor)).await.unwrap();
        assert_eq!(live.resume, Resume::Reset, "{cursor}");
        let id = format!("behind the reset {n}");
        rig.one.publish(event(Stream::Logs, PROJECT(1), &id)).await.unwrap();
        assert_eq!(hear(&mut live).await.0, id);
        let again = rig.other.listen_from(PROJECT(1), Some(&live.cursor)).await.unwrap();
        assert_eq!(again.resume, Resume::Resumed);
    }
}

pub(super) async fn cursor_older_than_what_is_kept_resets(adapter: Adapter) {
    let small = |config: &mut BusConfig| {
        config.ring_bytes_max = 64 * KIB as u64;
        config.live_bytes_max = 64 * KIB as u64;
    };
    let rig = adapter.start_with(small).await;
    let _settling = Settling::start(&rig.one, Durable::LogIndexer).await;
    let mut live = rig.one.listen_from(PROJECT(1), None).await.unwrap();
    let before = live.cursor.clone();
    let mut last = before.clone();
    for n in 0..10 {
        rig.one.publish(large_event(PROJECT(1), &format!("e{n}"), 12 * KIB)).await.unwrap();
        last = hear(&mut live).await.1;
    }
    let live = rig.other.listen_from(PROJECT(1), Some(&before)).await.unwrap();
    assert_eq!(live.resume, Resume::Reset);
    let live = rig.other.listen_from(PROJECT(1), Some(&last)).await.unwrap();
    assert_eq!(live.resume, Resume::Resumed);
}

pub(super) async fn slow_listener_is_told_that_it_lost_events(adapter: Adapter) {
    const EVENTS: usize = 40;
    let small = |config: &mut BusConfig| {
        config.ring_bytes_max = 16 * 1024 * KIB as u64;
    };
    let rig = adapter.start_with(small).await;
    let _settling = Settling::start(&rig.one, Durable::LogIndexer).await;
    let mut live = rig.other.listen_from(PROJECT(1), None).await.unwrap();
    for n in 0..EVENTS {
        rig.one.publish(large_event(PROJECT(1), &format!("e{n}"), 1000 * KIB)).await.unwrap();
    }
    rig.one.publish(event(Stream::Logs, PROJECT(1), "last")).await.unwrap();
    let (mut heard, mut lost, mut counted) = (0, false, Some(0));
    loop {
        match timeout(SOON, live.events.next()).await.expect("the last event is heard") {
            HeardLog::Event(payload, _) if payload == "last" => break,
            HeardLog::Event(..) => heard += 1,
            HeardLog::Lost { events } => {
                lost = true;
                counted = counted.zip(events).map(|(sum, events)| sum + events);
            }
        }
    }
    assert!(lost && heard < EVENTS);
    assert!(counted.is_none_or(|counted| counted + heard as u64 == EVENTS as u64));
}

pub(super) async fn accepted_edits_reach_listeners_in_two_processes(adapter: Adapter) {
    let rig = adapter.start().await;
    let _settling = Settling::start(&rig.one, Durable::EditApplier).await;
    let mut one = rig.one.listen(Topic::Edits).await.unwrap();
    let mut other = rig.other.listen(Topic::Edits).await.unwrap();
    let first = rig.one.publish(edit(PROJECT(1), "a", 0)).await.unwrap();
    assert!(rig.one.publish(edit(PROJECT(1), "refused", 0)).await.is_err());
    rig.one.publish(edit(PROJECT(1), "b", first.sequence)).await.unwrap();
    rig.one.publish(edit(PROJECT(2), "c", 0)).await.unwrap();
    for listener in [&mut one, &mut other] {
        for id in ["a", "b", "c"] {
            assert_eq!(hear_message(listener).await, id);
        }
    }
}

pub(super) async fn broadcast_reaches_all_who_listen_to_its_topic(adapter: Adapter) {
    let rig = adapter.start().await;
    let topics = [
        Topic::LiveVars(PROJECT(1)),
        Topic::LiveVars(PROJECT(2)),
        Topic::LiveDevices(PROJECT(1)),
        Topic::Gateways,
        Topic::Control,
    ];
    let mut listeners = Vec::new();
    for topic in topics {
        for bus in [&rig.one, &rig.other] {
            listeners.push((topic, bus.listen(topic).await.unwrap()));
        }
    }
    for topic in topics {
        rig.one.broadcast(topic, Bytes::from(format!("{topic:?}"))).await.unwrap();
    }
    for (topic, listener) in &mut listeners {
        assert_eq!(hear_message(listener).await, format!("{topic:?}"));
    }
    drop(listeners);
    rig.one.broadcast(Topic::Gateways, Bytes::from_static(b"to nobody")).await.unwrap();
}

pub(super) async fn edits_are_not_broadcast(adapter: Adapter) {
    let rig = adapter.start().await;
    assert!(rig.one.broadcast(Topic::Edits, Bytes::from_static(b"forged")).await.is_err());
}

pub(super) async fn request_is_answered_by_another_process(adapter: Adapter) {
    let rig = adapter.start().await;
    for service in [Service::Keys, Service::Vars] {
        let mut requests = rig.other.serve(service).await.unwrap();
        let serving = tokio::spawn(async move {
            loop {
                let request = requests.next().await;
                let answer = format!("answer to {}", text(&request.payload));
                request.reply.send(answer.into()).await;
            }
        });
        for n in 0..5 {
            let answer = rig.one.request(service, Bytes::from(format!("question {n}"))).await;
            assert_eq!(answer.unwrap(), format!("answer to question {n}"));
        }
        serving.abort();
    }
}

pub(super) async fn request_that_nobody_serves_says_so(adapter: Adapter) {
    let rig = adapter.start().await;
    let other = rig.other.serve(Service::Vars).await.unwrap();
    let nobody = Err(RequestError::Nobody(Service::Keys));
    assert_eq!(rig.one.request(Service::Keys, Bytes::new()).await, nobody);
    drop(rig.other.serve(Service::Keys).await.unwrap());
    eventually(SOON, "it is known that nobody serves any more", async || {
        (rig.one.request(Service::Keys, Bytes::new()).await == nobody).then_some(())
    })
    .await;
    drop(other);
}

pub(super) async fn request_whose_reply_is_dropped_times_out(adapter: Adapter) {
    let rig = adapter.start().await;
    let mut requests = rig.other.serve(Service::Keys).await.unwrap();
    let dropping = async { drop(requests.next().await) };
    let (answer, ()) = tokio::join!(rig.one.request(Service::Keys, Bytes::new()), dropping);
    assert_eq!(answer, Err(RequestError::Timeout(Service::Keys)));
}

pub(super) async fn bus_says_that_it_can_be_used(adapter: Adapter) {
    let rig = adapter.start().await;
    rig.one.check().await.unwrap();
}
