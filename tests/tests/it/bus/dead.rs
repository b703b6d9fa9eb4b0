//! The clauses about dead letters: listing, showing, replaying and dropping them.

use bytes::Bytes;
use observer_bus::config::BusConfig;
use observer_bus::{
    Bus, Consumer, DeadHead, DeadKind, DeadPage, Durable, ReplayError, Stream, replay_dead,
};
use observer_tests::eventually;
use observer_wire::ProjectId;

use super::rig::{Adapter, Rig};
use super::suite::{KIB, PROJECT, SOON, event, large_event, publish_soon, take, text};

/// Publishes an event and buries it, reason and payload alike.
async fn bury(rig: &Rig, consumer: &mut Box<dyn Consumer>, project: ProjectId, id: &str) {
    let published = publish_soon(&rig.one, event(Stream::Logs, project, id));
    take(consumer).await.bury(id).await.unwrap();
    published.await.unwrap().unwrap();
}

async fn list(bus: &dyn Bus, project: ProjectId) -> Vec<DeadHead> {
    let page = bus.dead().list(project, None, 100).await.unwrap();
    assert_eq!(page.next, None);
    page.letters
}

fn reasons(page: &DeadPage) -> Vec<&str> {
    page.letters.iter().map(|letter| letter.reason.as_str()).collect()
}

pub(super) async fn dead_letters_are_listed_by_project_a_page_at_a_time(adapter: Adapter) {
    let rig = adapter.start().await;
    let mut consumer = rig.one.consume(Durable::LogIndexer).await.unwrap();
    for id in ["a", "b", "c", "d"] {
        bury(&rig, &mut consumer, PROJECT(1), id).await;
        bury(&rig, &mut consumer, PROJECT(2), &format!("other {id}")).await;
    }
    let first = rig.other.dead().list(PROJECT(1), None, 2).await.unwrap();
    assert_eq!(reasons(&first), ["a", "b"]);
    let second = rig.other.dead().list(PROJECT(1), first.next, 2).await.unwrap();
    assert_eq!(reasons(&second), ["c", "d"]);
    assert_eq!(second.next, None);
    assert!(first.letters.is_sorted_by(|one, next| one.id < next.id && one.at <= next.at));
    assert_eq!(rig.other.dead().list(PROJECT(3), None, 2).await.unwrap(), DeadPage::default());
    let count = rig.other.dead().count().await.unwrap();
    assert_eq!(count.letters, 8);
    assert!(0 < count.bytes);
}

pub(super) async fn dead_letter_says_what_it_is_and_is_shown_to_its_project_alone(
    adapter: Adapter,
) {
    let rig = adapter.start().await;
    let mut consumer = rig.one.consume(Durable::VarStore).await.unwrap();
    let published = publish_soon(&rig.one, event(Stream::Vars, PROJECT(1), "event"));
    let delivery = take(&mut consumer).await;
    delivery.bury_part(Bytes::from_static(b"part"), "a \"reason\"").await.unwrap();
    delivery.bury("whole").await.unwrap();
    published.await.unwrap().unwrap();

    let heads = list(rig.one.as_ref(), PROJECT(1)).await;
    let seen: Vec<_> =
        heads.iter().map(|head| (head.kind, head.reason.as_str(), head.size)).collect();
    let expected = [(DeadKind::Record, "a \"reason\"", 4), (DeadKind::Event, "whole", 5)];
    assert_eq!(seen, expected);
    assert_eq!((heads[0].stream, heads[0].project), (Stream::Vars, PROJECT(1)));
    let letter = rig.other.dead().get(PROJECT(1), heads[0].id).await.unwrap().unwrap();
    assert_eq!((&letter.payload[..], &letter.head), (&b"part"[..], &heads[0]));

    for (project, id) in [(PROJECT(2), heads[0].id), (PROJECT(1), 0), (PROJECT(1), u64::MAX / 2)] {
        assert_eq!(rig.one.dead().get(project, id).await.unwrap(), None);
        assert!(!rig.one.dead().drop(project, id).await.unwrap());
        let replayed = replay_dead(rig.one.as_ref(), project, id).await;
        assert!(matches!(replayed, Err(ReplayError::Unknown)), "{replayed:?}");
    }
    assert_eq!(list(rig.one.as_ref(), PROJECT(1)).await.len(), 2);
}

pub(super) async fn replayed_letter_is_delivered_again_and_is_gone(adapter: Adapter) {
    let rig = adapter.start().await;
    let mut consumer = rig.one.consume(Durable::LogIndexer).await.unwrap();
    bury(&rig, &mut consumer, PROJECT(1), "bad").await;
    let id = list(rig.one.as_ref(), PROJECT(1)).await[0].id;

    // Its consumer buries it again: another letter, under another id.
    let consume = async { take(&mut consumer).await.bury("still bad").await.unwrap() };
    let (replayed, ()) = tokio::join!(replay_dead(rig.other.as_ref(), PROJECT(1), id), consume);
    replayed.unwrap();
    let again = eventually(SOON, "the old letter is gone", async || {
        let heads = list(rig.one.as_ref(), PROJECT(1)).await;
        (heads.len() == 1 && heads[0].id != id).then(|| heads[0].clone())
    })
    .await;
    assert_eq!(again.reason, "still bad");

    let consume = async {
        let delivery = take(&mut consumer).await;
        assert_eq!(text(delivery.payload()), "bad");
        delivery.ack().await.unwrap();
    };
    let replay = replay_dead(rig.other.as_ref(), PROJECT(1), again.id);
    let (replayed, ()) = tokio::join!(replay, consume);
    replayed.unwrap();
    assert_eq!(list(rig.one.as_ref(), PROJECT(1)).await, []);
    let replayed = replay_dead(rig.one.as_ref(), PROJECT(1), again.id).await;
    assert!(matches!(replayed, Err(ReplayError::Unknown)), "{replayed:?}");
    assert!(consumer.try_next().is_none());
}

pub(super) async fn dropped_letter_is_gone_and_leaves_the_others(adapter: Adapter) {
    let rig = adapter.start().await;
    let mut consumer = rig.one.consume(Durable::LogIndexer).await.unwrap();
    for id in ["a", "b", "c"] {
        bury(&rig, &mut consumer, PROJECT(1), id).await;
    }
    let heads = list(rig.one.as_ref(), PROJECT(1)).await;
    assert!(rig.one.dead().drop(PROJECT(1), heads[1].id).await.unwrap());
    assert!(!rig.other.dead().drop(PROJECT(1), heads[1].id).await.unwrap());
    assert_eq!(rig.other.dead().get(PROJECT(1), heads[1].id).await.unwrap(), None);
    let left = list(rig.other.as_ref(), PROJECT(1)).await;
    assert_eq!(left, [heads[0].clone(), heads[2].clone()]);
}

pub(super) async fn buried_edit_is_not_replayed(adapter: Adapter) {
    let rig = adapter.start().await;
    let mut consumer = rig.one.consume(Durable::EditApplier).await.unwrap();
    let published = publish_soon(&rig.one, event(Stream::Edits, PROJECT(1), "edit"));
    take(&mut consumer).await.bury("unreadable").await.unwrap();
    published.await.unwrap().unwrap();
    let id = list(rig.one.as_ref(), PROJECT(1)).await[0].id;
    let replayed = replay_dead(rig.one.as_ref(), PROJECT(1), id).await;
    assert!(matches!(replayed, Err(ReplayError::IsEdit)), "{replayed:?}");
    assert_eq!(list(rig.one.as_ref(), PROJECT(1)).await.len(), 1);
}

pub(super) async fn when_there_is_no_room_among_the_dead_the_event_comes_again(adapter: Adapter) {
    let small = |config: &mut BusConfig| config.dead_bytes_max = 20 * KIB as u64;
    let rig = adapter.start_with(small).await;
    let mut consumer = rig.one.consume(Durable::LogIndexer).await.unwrap();
    let first = publish_soon(&rig.one, large_event(PROJECT(1), "first", 12 * KIB));
    take(&mut consumer).await.bury("fits").await.unwrap();
    first.await.unwrap().unwrap();

    let second = publish_soon(&rig.one, large_event(PROJECT(1), "second", 12 * KIB));
    assert!(take(&mut consumer).await.bury("does not fit").await.is_err());
    let again = take(&mut consumer).await;
    let heads = list(rig.one.as_ref(), PROJECT(1)).await;
    assert_eq!(heads.len(), 1);
    assert!(rig.other.dead().drop(PROJECT(1), heads[0].id).await.unwrap());
    again.bury("fits now").await.unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(list(rig.one.as_ref(), PROJECT(1)).await[0].reason, "fits now");
}

pub(super) async fn backlog_is_what_waits_delivered_or_not(adapter: Adapter) {
    let rig = adapter.start().await;
    let mut consumer = rig.one.consume(Durable::LogIndexer).await.unwrap();
    let publishing: Vec<_> = (0..3)
        .map(|n| publish_soon(&rig.one, event(Stream::Logs, PROJECT(1), &format!("e{n}"))))
        .collect();
    let delivery = take(&mut consumer).await;
    let backlog = async |events| {
        eventually(SOON, "that many wait", async || {
            let waiting = rig.other.backlog(Durable::LogIndexer).await.unwrap();
            (waiting == events).then_some(())
        })
        .await;
    };
    backlog(3).await;
    delivery.ack().await.unwrap();
    backlog(2).await;
    for _ in 0..2 {
        take(&mut consumer).await.ack().await.unwrap();
    }
    backlog(0).await;
    for published in publishing {
        published.await.unwrap().unwrap();
    }
}
