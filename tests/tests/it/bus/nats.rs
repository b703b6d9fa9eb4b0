//! What the adapter for NATS promises besides: which servers and streams it takes, and that it
//! outlives them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use observer_bus::config::{BusConfig, BusType, Profile, connect};
use observer_bus::{
    Bus, BusErrorKind, Cursor, Durable, Heard, HeardLog, Outgoing, PublishError, Published,
    REPLAY_MAX, RequestError, Resume, Service, Stream, Topic,
};
use observer_tests::eventually;
use observer_tests::servers::{NatsCluster, NatsOptions, NatsServer, NatsVersion};
use tokio::time::{Instant, timeout};

use super::rig::Dead;
use super::suite::{PROJECT, SOON, Settling, event, hear, publish_logs, publish_soon, take};
use super::within;

async fn jetstream(server: &NatsServer) -> jetstream::Context {
    jetstream::new(async_nats::connect(server.url()).await.unwrap())
}

/// All messages in the stream of dead letters.
pub(crate) async fn dead_in_stream(server: &NatsServer) -> Vec<Dead> {
    let stream = jetstream(server).await.get_stream("OBSERVER_DEAD").await.unwrap();
    let count = stream.cached_info().state.messages;
    let mut dead = Vec::new();
    for sequence in 1..=count {
        let message = stream.get_raw_message(sequence).await.unwrap();
        dead.push(Dead {
            project: message.subject.rsplit('.').next().unwrap().to_owned(),
            reason: message.headers.get("Observer-Reason").unwrap().as_str().to_owned(),
            payload: message.payload.to_vec(),
        });
    }
    dead
}

fn config(server: &NatsServer) -> BusConfig {
    BusConfig { kind: BusType::Nats, url: server.url(), ..BusConfig::default() }
}

async fn try_connect(config: &BusConfig) -> Result<Arc<dyn Bus>, (BusErrorKind, String)> {
    let connected = connect(config, Path::new("unused")).await;
    connected.map_err(|error| (error.kind, error.source.to_string()))
}

async fn start() -> (NatsServer, Arc<dyn Bus>) {
    let server = NatsServer::start(NatsOptions::default()).await;
    let bus = try_connect(&config(&server)).await.unwrap();
    (server, bus)
}

/// What `connect` says against it.
async fn complaint(config: &BusConfig) -> String {
    match try_connect(config).await {
        Ok(_) => panic!("it is refused"),
        Err((kind, text)) => {
            assert_eq!(kind, BusErrorKind::Refused, "{text}");
            text
        }
    }
}

#[tokio::test]
async fn old_server_is_refused_by_name_and_version() {
    within(async {
        let options = NatsOptions { version: NatsVersion::TooOld, ..NatsOptions::default() };
        let server = NatsServer::start(options).await;
        let address = server.address();
        assert_eq!(
            complaint(&config(&server)).await,
            format!("nats-server 2.9.10 at {address} is too old: Observer needs 2.10 or newer")
        );
    })
    .await;
}

#[tokio::test]
async fn server_that_takes_too_little_is_refused() {
    within(async {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("small.conf");
        std::fs::write(&file, "max_payload: 65536\n").unwrap();
        let args = vec!["-c".to_owned(), file.display().to_string()];
        let server = NatsServer::start(NatsOptions { args, ..NatsOptions::default() }).await;
        let complaint = complaint(&config(&server)).await;
        assert!(complaint.contains("takes 65536 bytes (max_payload)"), "{complaint}");
    })
    .await;
}

#[tokio::test]
async fn nobody_at_the_address_is_said_in_time() {
    let url = format!("nats://127.0.0.1:{}", observer_tests::servers::free_port());
    let config = BusConfig { kind: BusType::Nats, url, ..BusConfig::default() };
    let since = Instant::now();
    let Err((kind, _)) = try_connect(&config).await else { panic!("nobody is there") };
    assert_eq!(kind, BusErrorKind::Unavailable);
    assert!(since.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn stream_with_another_configuration_is_refused_with_the_field_named() {
    within(async {
        let (server, bus) = start().await;
        drop(bus);
        let ours = config(&server);
        let more_logs = BusConfig { logs_bytes_max: ours.logs_bytes_max + 1, ..ours.clone() };
        let more_messages = BusConfig { logs_project_messages_max: 1, ..ours.clone() };
        let more_vars = BusConfig { vars_bytes_max: ours.vars_bytes_max + 1, ..ours.clone() };
        let cases = [
            (more_logs, "OBSERVER_LOGS has another configuration"),
            (more_messages, "max_msgs_per_subject is 32768, not 1"),
            (more_vars, "max_bytes"),
        ];
        for (config, named) in cases {
            let complaint = complaint(&config).await;
            assert!(complaint.contains(named), "{complaint}");
        }

        let jetstream = jetstream(&server).await;
        let stream = jetstream.get_stream("OBSERVER_LOGS").await.unwrap();
        let mut other = stream.cached_info().config.clone();
        other.republish = None;
        jetstream.update_stream(other).await.unwrap();
        let complaint = complaint(&ours).await;
        assert!(complaint.contains("republish is not set"), "{complaint}");
    })
    .await;
}

#[tokio::test]
async fn copies_that_one_server_cannot_keep_are_refused() {
    within(async {
        let server = NatsServer::start(NatsOptions::default()).await;
        let config = BusConfig { profile: Profile::ReplicatedDurable, ..config(&server) };
        let complaint = complaint(&config).await;
        assert!(complaint.contains("replicas"), "{complaint}");
    })
    .await;
}

#[tokio::test]
async fn durable_profile_is_ready_only_where_the_server_is_seen_to_sync() {
    within(async {
        let start = async |sync_always| {
            let options = NatsOptions { monitoring: true, sync_always, ..NatsOptions::default() };
            NatsServer::start(options).await
        };
        let (lazy, careful) = tokio::join!(start(false), start(true));
        let durable = |server: &NatsServer| BusConfig {
            profile: Profile::Durable,
            monitor_url: Some(server.monitor_url()),
            ..config(server)
        };
        try_connect(&durable(&careful)).await.unwrap().check().await.unwrap();

        let unseen = BusConfig { monitor_url: None, ..durable(&careful) };
        let wrong = Some(format!("http://127.0.0.1:{}", observer_tests::servers::free_port()));
        let unread = BusConfig { monitor_url: wrong, ..durable(&careful) };
        let cases = [
            (durable(&lazy), "does not sync"),
            (unseen, "without bus.monitor_url"),
            (unread, "cannot see"),
        ];
        for (config, reason) in cases {
            let bus = try_connect(&config).await.unwrap();
            let complaint = bus.check().await.unwrap_err();
            assert!(complaint.contains(reason), "{complaint}");
        }
    })
    .await;
}

/// Time for three servers to agree on who leads, on a busy machine.
const AGREED_WITHIN: Duration = Duration::from_secs(40);

/// A bus on three servers, once they agree.
async fn replicated(cluster: &NatsCluster) -> (BusConfig, Arc<dyn Bus>) {
    let config = BusConfig {
        kind: BusType::Nats,
        url: cluster.url(),
        profile: Profile::ReplicatedDurable,
        monitor_url: Some(cluster.monitor_url()),
        ..BusConfig::default()
    };
    let bus =
        eventually(AGREED_WITHIN, "three servers agree", async || try_connect(&config).await.ok());
    let bus = bus.await;
    (config, bus)
}

#[tokio::test]
async fn three_servers_keep_the_replicated_profile_while_one_is_away_and_not_while_two_are() {
    let mut cluster = NatsCluster::start([true; 3]).await;
    let (config, bus) = replicated(&cluster).await;
    bus.check().await.unwrap();
    bus.publish(event(Stream::Logs, PROJECT(1), "all")).await.unwrap();

    let two = cluster.monitor_url().rsplit_once(',').unwrap().0.to_owned();
    let unseen =
        try_connect(&BusConfig { monitor_url: Some(two), ..config.clone() }).await.unwrap();
    let complaint = unseen.check().await.unwrap_err();
    assert!(complaint.contains("takes 3 NATS servers here"), "{complaint}");

    cluster.servers[0].kill();
    eventually(AGREED_WITHIN, "two servers take events", async || {
        bus.publish(event(Stream::Logs, PROJECT(1), "two")).await.ok()
    })
    .await;
    eventually(AGREED_WITHIN, "two servers are enough", async || bus.check().await.ok()).await;

    // The one that is left acknowledges nothing; readiness tells within the minute.
    cluster.servers[1].kill();
    assert!(bus.publish(event(Stream::Logs, PROJECT(1), "one")).await.is_err());

    for server in &mut cluster.servers[..2] {
        server.restart().await;
    }
    eventually(AGREED_WITHIN, "all are back", async || bus.check().await.ok()).await;
    eventually(AGREED_WITHIN, "events are taken", async || {
        bus.publish(event(Stream::Logs, PROJECT(1), "one")).await.ok()
    })
    .await;
    // A stream may have its leader before the cluster has the one that makes consumers: until then a
    // consumer is `Unavailable`, and asked for again.
    let mut consumer = eventually(AGREED_WITHIN, "consumers can be made", async || {
        match bus.consume(Durable::LogIndexer).await {
            Ok(consumer) => Some(consumer),
            Err(error) => {
                assert_eq!(error.kind, BusErrorKind::Unavailable, "{error:?}");
                None
            }
        }
    })
    .await;
    for expected in ["all", "two", "one"] {
        let delivery = take(&mut consumer).await;
        assert_eq!(&delivery.payload()[..], expected.as_bytes());
        delivery.ack().await.unwrap();
    }
}

#[tokio::test]
async fn one_of_three_servers_that_does_not_sync_is_named() {
    let cluster = NatsCluster::start([true, true, false]).await;
    let (_, bus) = replicated(&cluster).await;
    let complaint = bus.check().await.unwrap_err();
    assert!(complaint.contains("does not sync"), "{complaint}");
    assert!(complaint.contains(&cluster.servers[2].monitor_url()), "{complaint}");
}

#[tokio::test]
async fn a_server_that_comes_back_without_syncing_or_without_its_streams_is_found_out() {
    let sync = NatsOptions { monitoring: true, sync_always: true, ..NatsOptions::default() };
    let mut server = NatsServer::start(sync).await;
    let durable = BusConfig {
        profile: Profile::Durable,
        monitor_url: Some(server.monitor_url()),
        ..config(&server)
    };
    let bus = try_connect(&durable).await.unwrap();
    bus.check().await.unwrap();

    server.kill();
    std::fs::write(server.folder().join("nats.conf"), "jetstream { sync_interval: 2m }\n").unwrap();
    server.restart().await;
    let found = |what| move |error: String| error.contains(what).then_some(());
    eventually(AGREED_WITHIN, "it does not sync", async || {
        bus.check().await.err().and_then(found("does not sync"))
    })
    .await;

    server.kill();
    let conf = "jetstream { sync_interval: always }\n";
    std::fs::write(server.folder().join("nats.conf"), conf).unwrap();
    std::fs::remove_dir_all(server.folder().join("jetstream")).unwrap();
    server.restart().await;
    eventually(AGREED_WITHIN, "its streams are gone", async || {
        bus.check().await.err().and_then(found("is gone from the NATS server"))
    })
    .await;
}

#[tokio::test]
async fn everything_goes_on_after_a_restart_of_the_server() {
    within(async {
        let (mut server, bus) = start().await;
        let mut edits = bus.listen(Topic::Edits).await.unwrap();
        let mut live = bus.listen_from(PROJECT(1), None).await.unwrap();
        let mut consumer = bus.consume(Durable::LogIndexer).await.unwrap();
        let mut requests = bus.serve(Service::Keys).await.unwrap();
        let before = event(Stream::Logs, PROJECT(1), "before");
        bus.publish(before).await.unwrap();
        assert_eq!(hear(&mut live).await.0, "before");

        server.kill();
        eventually(SOON, "the loss is noticed", async || bus.check().await.err()).await;
        // It waits a little for the server to come back; nobody knows when, so its answer is open.
        let during = publish_soon(&bus, event(Stream::Logs, PROJECT(1), "during"));
        server.restart().await;
        eventually(SOON, "the bus can be used", async || bus.check().await.ok()).await;
        let again = event(Stream::Logs, PROJECT(1), "during");
        if let Err(error) = during.await.unwrap() {
            assert_eq!(error, PublishError::Unavailable);
        }
        eventually(SOON, "it is published", async || bus.publish(again.clone()).await.ok()).await;

        assert_eq!(timeout(SOON, edits.next()).await.unwrap(), Heard::Resync);
        let lost = timeout(SOON, live.events.next()).await.unwrap();
        assert_eq!(lost, HeardLog::Lost { events: None });
        for id in ["before", "during"] {
            let delivery = take(&mut consumer).await;
            assert_eq!(delivery.payload(), id);
            delivery.ack().await.unwrap();
        }
        let answering = async {
            let request = requests.next().await;
            request.reply.send(request.payload).await;
        };
        let (answer, ()) = tokio::join!(bus.request(Service::Keys, "still?".into()), answering);
        assert_eq!(answer.unwrap(), "still?");
        bus.publish(event(Stream::Edits, PROJECT(1), "edit")).await.unwrap();
        assert_eq!(timeout(SOON, edits.next()).await.unwrap(), Heard::Message("edit".into()));
    })
    .await;
}

#[tokio::test]
async fn acknowledgement_that_comes_late_is_no_second_event() {
    within(async {
        let (mut server, bus) = start().await;
        bus.publish(event(Stream::Logs, PROJECT(1), "first")).await.unwrap();
        // The first attempt goes to a server that does not answer; when it wakes, it gets both.
        server.stop();
        let late = publish_soon(&bus, event(Stream::Logs, PROJECT(1), "late"));
        tokio::time::sleep(Duration::from_millis(2_500)).await; // One attempt takes two seconds.
        server.cont();
        assert!(!late.await.unwrap().unwrap().known, "the first attempt was its own");
        let mut consumer = bus.consume(Durable::LogIndexer).await.unwrap();
        for id in ["first", "late"] {
            let delivery = take(&mut consumer).await;
            assert_eq!(delivery.payload(), id);
            delivery.ack().await.unwrap();
        }
        assert!(timeout(Duration::from_millis(300), consumer.next()).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_refusal_behind_an_attempt_without_an_answer_does_not_say_that_nothing_was_taken() {
    within(async {
        let mut server = NatsServer::start(NatsOptions::default()).await;
        let config = BusConfig { logs_project_messages_max: 1, ..config(&server) };
        let bus = try_connect(&config).await.unwrap();
        bus.publish(event(Stream::Logs, PROJECT(1), "first")).await.unwrap();
        let refused = bus.publish(event(Stream::Logs, PROJECT(1), "second")).await;
        assert_eq!(refused, Err(PublishError::Full));
        server.stop();
        let mut third = bus.publish(event(Stream::Logs, PROJECT(1), "third"));
        tokio::select! {
            biased; // The first attempt begins at once, and takes two seconds.
            published = &mut third => panic!("{published:?}"),
            () = tokio::time::sleep(Duration::from_millis(2_500)) => {}
        }
        server.cont();
        assert_eq!(third.await, Err(PublishError::Timeout));
    })
    .await;
}

#[tokio::test]
async fn while_the_server_is_away_callers_are_told_so() {
    within(async {
        let (mut server, bus) = start().await;
        server.kill();
        eventually(SOON, "the loss is noticed", async || bus.check().await.err()).await;
        let refused = bus.publish(event(Stream::Logs, PROJECT(1), "a")).await;
        assert_eq!(refused, Err(PublishError::Unavailable));
        let since = Instant::now();
        let refused = bus.publish(event(Stream::Logs, PROJECT(1), "b")).await;
        assert_eq!(refused, Err(PublishError::Unavailable));
        assert!(since.elapsed() < Duration::from_secs(1), "the second is told at once");
        let answer = bus.request(Service::Keys, "anybody?".into()).await;
        assert_eq!(answer, Err(RequestError::Unavailable));
        assert!(bus.listen(Topic::Gateways).await.is_err());
        assert!(bus.broadcast(Topic::Gateways, "here".into()).await.is_err());
        assert!(bus.consume(Durable::VarStore).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn cursor_survives_a_restart_only_when_nothing_is_missing() {
    within(async {
        let (mut server, bus) = start().await;
        let _settling = Settling::start(&bus, Durable::LogIndexer).await;
        let mut live = bus.listen_from(PROJECT(1), None).await.unwrap();
        publish_logs(&bus, PROJECT(1), 0..3).await;
        let mut cursors = Vec::new();
        for _ in 0..3 {
            cursors.push(hear(&mut live).await.1);
        }
        // The memory stream is gone with the server, and is made anew; the stream of logs is not.
        server.restart().await;
        let jetstream = jetstream(&server).await;
        let there = async || jetstream.get_stream("OBSERVER_LIVE").await.ok();
        eventually(SOON, "the memory stream is there again", there).await;
        let resume = async |cursor: &Cursor| {
            let listening = async || bus.listen_from(PROJECT(1), Some(cursor)).await.ok();
            eventually(SOON, "the bus is back", listening).await
        };
        assert_eq!(resume(&cursors[0]).await.resume, Resume::Reset);
        let mut live = resume(&cursors[2]).await;
        assert_eq!(live.resume, Resume::Resumed);
        publish_logs(&bus, PROJECT(1), 3..4).await;
        assert_eq!(hear(&mut live).await.0, "e3");
        let mut live = resume(&cursors[2]).await;
        assert_eq!(live.resume, Resume::Resumed);
        assert_eq!(hear(&mut live).await.0, "e3");
    })
    .await;
}

#[tokio::test]
async fn live_stream_has_each_log_event_once_and_no_consumer_is_left_behind() {
    const EVENTS: u32 = 50;
    within(async {
        let (server, bus) = start().await;
        let _settling = Settling::start(&bus, Durable::LogIndexer).await;
        let first = bus.listen_from(PROJECT(1), None).await.unwrap().cursor;
        publish_logs(&bus, PROJECT(1), 0..EVENTS).await;
        publish_logs(&bus, PROJECT(1), 0..EVENTS).await;
        for _ in 0..5 {
            let mut live = bus.listen_from(PROJECT(1), Some(&first)).await.unwrap();
            hear(&mut live).await;
        }
        let jetstream = jetstream(&server).await;
        let live = jetstream.get_stream("OBSERVER_LIVE").await.unwrap();
        assert_eq!(live.cached_info().state.messages, u64::from(EVENTS));
        eventually(SOON, "the consumers are removed", async || {
            let info = live.get_info().await.unwrap();
            (info.state.consumer_count == 0).then_some(())
        })
        .await;
        let logs = jetstream.get_stream("OBSERVER_LOGS").await.unwrap();
        eventually(SOON, "nothing settled is kept", async || {
            (logs.get_info().await.unwrap().state.messages == 0).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn edits_are_replayed_in_order_from_any_sequence_and_within_the_bound() {
    within(async {
        let (_server, bus) = start().await;
        let mut sequences = Vec::new();
        for n in 0..REPLAY_MAX + 10 {
            bus.publish(event(Stream::Edits, PROJECT(2), &format!("other{n}"))).await.unwrap();
            let edit = event(Stream::Edits, PROJECT(1), &format!("edit{n}"));
            sequences.push(bus.publish(edit).await.unwrap().sequence);
        }
        let first = bus.replay_edits(PROJECT(1), 0).await.unwrap();
        assert_eq!(first.len(), REPLAY_MAX);
        let last = first.last().unwrap().sequence;
        let rest = bus.replay_edits(PROJECT(1), last).await.unwrap();
        let replayed: Vec<_> = first.iter().chain(&rest).collect();
        assert!(replayed.iter().map(|edit| edit.sequence).eq(sequences.iter().copied()));
        for (n, edit) in replayed.iter().enumerate() {
            assert_eq!(edit.payload, format!("edit{n}"));
        }
        let end = *sequences.last().unwrap();
        assert!(bus.replay_edits(PROJECT(1), end).await.unwrap().is_empty());
        assert!(bus.replay_edits(PROJECT(1), u64::MAX).await.unwrap().is_empty());
        assert!(bus.replay_edits(PROJECT(3), 0).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn retry_of_an_accepted_edit_is_recognised_behind_later_ones() {
    within(async {
        let (_server, bus) = start().await;
        let edit = |id, expected| Outgoing {
            expected: Some(expected),
            ..event(Stream::Edits, PROJECT(1), id)
        };
        let a = bus.publish(edit("a", 0)).await.unwrap();
        let b = bus.publish(edit("b", a.sequence)).await.unwrap();
        let known = bus.publish(edit("a", 0)).await;
        assert_eq!(known, Ok(Published { known: true, ..a }));
        let last = b.sequence;
        let refused = bus.publish(edit("c", a.sequence)).await;
        assert_eq!(refused, Err(PublishError::Unexpected { last }));
    })
    .await;
}

#[tokio::test]
async fn foreign_message_is_buried_and_disturbs_nobody() {
    within(async {
        let (server, bus) = start().await;
        let jetstream = jetstream(&server).await;
        for subject in ["observer.logs.short", "observer.logs.much-too-long-for-a-project"] {
            jetstream.publish(subject, "foreign".into()).await.unwrap().await.unwrap();
        }
        bus.publish(event(Stream::Logs, PROJECT(1), "ours")).await.unwrap();
        let mut consumer = bus.consume(Durable::LogIndexer).await.unwrap();
        let delivery = take(&mut consumer).await;
        assert_eq!(delivery.payload(), "ours");
        delivery.ack().await.unwrap();
        let dead = dead_in_stream(&server).await;
        assert_eq!(dead.len(), 2);
        assert!(dead.iter().all(|dead| dead.payload == b"foreign" && dead.project == "unknown"));
    })
    .await;
}

#[tokio::test]
async fn deliveries_fetched_ahead_are_given_back_when_the_consumer_ends() {
    within(async {
        let (server, bus) = start().await;
        publish_logs(&bus, PROJECT(1), 0..250).await;
        let mut first = bus.consume(Durable::LogIndexer).await.unwrap();
        take(&mut first).await.ack().await.unwrap();
        let logs = jetstream(&server).await.get_stream("OBSERVER_LOGS").await.unwrap();
        let fetched = async || {
            let name = "observer-log-indexer";
            let info: jetstream::consumer::PullConsumer = logs.get_consumer(name).await.unwrap();
            (info.cached_info().num_pending == 0).then_some(())
        };
        eventually(SOON, "all are fetched", fetched).await;
        drop(first);
        let mut second = bus.consume(Durable::LogIndexer).await.unwrap();
        for _ in 1..250 {
            take(&mut second).await.ack().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn consumer_goes_on_after_it_was_deleted_on_the_server() {
    within(async {
        let (server, bus) = start().await;
        let mut consumer = bus.consume(Durable::LogIndexer).await.unwrap();
        bus.publish(event(Stream::Logs, PROJECT(1), "a")).await.unwrap();
        take(&mut consumer).await.ack().await.unwrap();
        let jetstream = jetstream(&server).await;
        let deleted =
            jetstream.delete_consumer_from_stream("observer-log-indexer", "OBSERVER_LOGS").await;
        assert!(deleted.unwrap().success);
        bus.publish(event(Stream::Logs, PROJECT(1), "b")).await.unwrap();
        let delivery = timeout(SOON * 2, consumer.next()).await.unwrap();
        assert_eq!(delivery.payload(), "b");
    })
    .await;
}

#[tokio::test]
async fn publishing_stops_while_the_broker_hangs_and_goes_on_by_itself() {
    const PUBLISHERS: usize = 200;
    const UNAVAILABLE: Result<Published, PublishError> = Err(PublishError::Unavailable);
    within(async {
        let (mut server, bus) = start().await;
        let fullness = async || bus.fullness(Stream::Logs, PROJECT(1));
        eventually(SOON, "fullness is known", fullness).await;
        server.stop();
        let publish = |id: String| publish_soon(&bus, event(Stream::Logs, PROJECT(1), &id));
        let first: Vec<_> = (0..PUBLISHERS).map(|n| publish(format!("first{n}"))).collect();
        eventually(SOON, "all but one are refused while that one finds out", async || {
            let mut one = publish("one".to_owned());
            let mut other = publish("other".to_owned());
            let refused = tokio::select! {
                refused = &mut one => !other.is_finished() && refused.unwrap() == UNAVAILABLE,
                refused = &mut other => !one.is_finished() && refused.unwrap() == UNAVAILABLE,
            };
            one.abort();
            other.abort();
            refused.then_some(())
        })
        .await;
        eventually(SOON * 2, "fullness is not known any more", async || {
            bus.fullness(Stream::Logs, PROJECT(1)).is_none().then_some(())
        })
        .await;
        server.cont();
        for published in first {
            // The broker took what reached it; nobody knew, and nobody was told otherwise.
            assert!(matches!(published.await.unwrap(), Ok(_) | Err(PublishError::Timeout)));
        }
        eventually(SOON, "events are taken again", async || {
            bus.publish(event(Stream::Logs, PROJECT(1), "again")).await.ok()
        })
        .await;
        eventually(SOON, "fullness is known again", fullness).await;
    })
    .await;
}
