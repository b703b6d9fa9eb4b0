//! What the adapter in process promises besides.

use std::time::Duration;

use observer_bus::{Durable, PUBLISH_TIMEOUT, PublishError, Stream};
use tokio::time::{Instant, timeout};

use super::rig::Adapter;
use super::suite::{PROJECT, event, hear, take};
use super::within;

/// Long enough for what is wrongly there already to be seen.
const A_MOMENT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn publisher_waits_until_its_event_is_settled_and_so_do_listeners() {
    within(async {
        let rig = Adapter::InProcess.start().await;
        let mut live = rig.one.listen_from(PROJECT(1), None).await.unwrap();
        let mut consumer = rig.one.consume(Durable::LogIndexer).await.unwrap();
        let mut published = rig.one.publish(event(Stream::Logs, PROJECT(1), "a"));
        assert!(timeout(A_MOMENT, &mut published).await.is_err());

        let delivery = take(&mut consumer).await;
        assert!(timeout(A_MOMENT, &mut published).await.is_err());
        assert!(timeout(A_MOMENT, live.events.next()).await.is_err());
        delivery.ack().await.unwrap();
        published.await.unwrap();
        assert_eq!(hear(&mut live).await.0, "a");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn event_whose_publisher_gave_up_is_kept_and_delivered_once() {
    let rig = Adapter::InProcess.start().await;
    let before = Instant::now();
    let published = rig.one.publish(event(Stream::Logs, PROJECT(1), "a")).await;
    assert_eq!(published, Err(PublishError::Timeout));
    assert_eq!(before.elapsed().as_secs(), PUBLISH_TIMEOUT.as_secs());

    let mut again = rig.one.publish(event(Stream::Logs, PROJECT(1), "a"));
    assert!(timeout(A_MOMENT, &mut again).await.is_err());
    let mut consumer = rig.one.consume(Durable::LogIndexer).await.unwrap();
    take(&mut consumer).await.ack().await.unwrap();
    again.await.unwrap();
    assert!(consumer.try_next().is_none());
}

#[tokio::test(start_paused = true)]
async fn id_is_forgotten_after_two_minutes() {
    let rig = Adapter::InProcess.start().await;
    let mut consumer = rig.one.consume(Durable::LogIndexer).await.unwrap();
    let mut publish = async |id: &str| {
        let published = rig.one.publish(event(Stream::Logs, PROJECT(1), id));
        let settled = async { take(&mut consumer).await.ack().await.unwrap() };
        tokio::join!(published, settled).0.unwrap().sequence
    };
    let first = publish("a").await;
    tokio::time::advance(Duration::from_secs(121)).await;
    publish("b").await;
    assert!(first < publish("a").await);
}

#[tokio::test]
async fn retried_event_holds_back_what_follows_in_its_project() {
    within(async {
        let rig = Adapter::InProcess.start().await;
        let mut consumer = rig.one.consume(Durable::LogIndexer).await.unwrap();
        let publish = |id| rig.one.publish(event(Stream::Logs, PROJECT(1), id));
        let consume = async {
            take(&mut consumer).await.retry(Duration::from_millis(50)).await.unwrap();
            for (text, attempt) in [("a", 2), ("b", 1)] {
                let delivery = take(&mut consumer).await;
                assert_eq!(
                    (&delivery.payload()[..], delivery.attempt()),
                    (text.as_bytes(), attempt)
                );
                delivery.ack().await.unwrap();
            }
        };
        let (a, b, ()) = tokio::join!(publish("a"), publish("b"), consume);
        assert!(a.unwrap().sequence < b.unwrap().sequence);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn events_are_refused_once_a_consumer_waits_for_its_store_and_taken_once_it_settles() {
    let rig = Adapter::InProcess.start().await;
    let mut consumer = rig.one.consume(Durable::LogIndexer).await.unwrap();
    let publish = |id| rig.one.publish(event(Stream::Logs, PROJECT(1), id));
    let mut waits = publish("a");
    assert!(timeout(A_MOMENT, &mut waits).await.is_err());
    let delivery = take(&mut consumer).await;

    delivery.in_progress().await.unwrap();
    tokio::time::advance(Duration::from_millis(1_999)).await;
    let mut second = publish("b");
    assert!(timeout(Duration::ZERO, &mut second).await.is_err(), "it waits like the first");
    delivery.in_progress().await.unwrap();
    tokio::time::advance(Duration::from_millis(2)).await;
    assert_eq!(publish("c").await, Err(PublishError::Full));
    assert_eq!(
        rig.one.publish(event(Stream::Vars, PROJECT(1), "c")).await,
        Err(PublishError::Timeout),
        "another queue waits for another store"
    );

    delivery.ack().await.unwrap();
    take(&mut consumer).await.ack().await.unwrap();
    let (published, ()) = tokio::join!(publish("c"), async {
        take(&mut consumer).await.ack().await.unwrap();
    });
    published.unwrap();
}

#[tokio::test]
async fn first_expectation_is_believed_and_sequences_go_on_behind_it() {
    within(async {
        let rig = Adapter::InProcess.start().await;
        let mut consumer = rig.one.consume(Durable::EditApplier).await.unwrap();
        let stored = u64::MAX / 2;
        let mut edit = event(Stream::Edits, PROJECT(1), "a");
        edit.expected = Some(stored);
        let settled = async { take(&mut consumer).await.ack().await.unwrap() };
        let (published, ()) = tokio::join!(rig.one.publish(edit.clone()), settled);
        assert_eq!(published.unwrap().sequence, stored + 1);
        edit.id = "b".to_owned();
        assert_eq!(rig.one.publish(edit).await, Err(PublishError::Unexpected { last: stored + 1 }));
    })
    .await;
}

#[tokio::test]
async fn sequences_grow_across_starts() {
    within(async {
        let mut before = 0;
        for _ in 0..2 {
            let rig = Adapter::InProcess.start().await;
            let mut consumer = rig.one.consume(Durable::VarStore).await.unwrap();
            let settled = async { take(&mut consumer).await.ack().await.unwrap() };
            let publish = rig.one.publish(event(Stream::Vars, PROJECT(1), "a"));
            let sequence = tokio::join!(publish, settled).0.unwrap().sequence;
            assert!(before < sequence);
            before = sequence;
        }
    })
    .await;
}
