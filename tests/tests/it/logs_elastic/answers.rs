//! The rare answers of `_bulk`, from the scripted server.

use observer_tests::servers::FakeBulk;
use observer_tests::servers::fake_bulk::{Act, Answer, Items};

use super::*;

/// A midnight.
const MIDNIGHT: i64 = NOON + DAY / 2;

/// What the store bounds an answer to, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

async fn fake() -> (FakeBulk, ElasticLogStore) {
    let fake = FakeBulk::start().await;
    let config = ElasticConfig { bulk_timeout_ms: 2_000, ..config(&fake.url()) };
    let store = ElasticLogStore::connect(&config).await.unwrap();
    (fake, store)
}

fn records(count: u64) -> Vec<Record> {
    let project = project();
    (0..count).map(|seq| record(project, NOON, seq, r#"{"message":"one of many"}"#)).collect()
}

fn again_at(record: &Record, received: i64) -> Record {
    Record { received, again: true, ..record.clone() }
}

#[tokio::test]
async fn a_line_and_the_same_sent_again_in_one_batch_over_midnight_are_stored_once() {
    let (fake, store) = fake().await;
    let first = record(project(), MIDNIGHT - 1, 1, "{}");
    let again = again_at(&first, MIDNIGHT);
    let batch = [first.clone(), again.clone()];
    assert_eq!(append(&store, &batch).await, [Stored::New, Stored::Duplicate]);
    assert_eq!(fake.stored_count(), 1);

    let first = record(project(), MIDNIGHT - 1, 1, "{}");
    let batch = [again_at(&first, MIDNIGHT), first];
    assert_eq!(append(&store, &batch).await, [Stored::Duplicate, Stored::New]);
    assert_eq!(fake.stored_count(), 2);
}

#[tokio::test]
async fn a_record_that_waits_over_midnight_is_stored_once_though_it_was_sent_again() {
    let (fake, store) = fake().await;
    let project = project();
    let first = [record(project, MIDNIGHT - 2, 1, "{}"), record(project, MIDNIGHT - 1, 2, "{}")];
    fake.script([Act::items(Items::Half(429))]);
    let batch = [first[0].clone(), first[1].clone(), again_at(&first[1], MIDNIGHT)];
    assert_eq!(append(&store, &batch).await, [Stored::New, Stored::Later, Stored::New]);
    assert_eq!(append(&store, &first[1..]).await, [Stored::Duplicate]);
    assert_eq!(fake.stored_count(), 2);
}

#[tokio::test]
async fn of_an_unbelievable_answer_nothing_is_believed_and_nothing_is_stored_twice() {
    for answer in [
        Answer::Hang,
        Answer::Cut,
        Answer::Garbage,
        Answer::Truncated,
        Answer::OneShort,
        Answer::OneOver,
        Answer::Stranger,
        Answer::Status(503),
    ] {
        for items in [Items::Stored, Items::Dropped] {
            let (fake, store) = fake().await;
            let records = records(3);
            let batch: Vec<_> = records.iter().map(Record::to_store).collect();
            fake.script([Act { items, answer }]);
            let error = store.append(&batch).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{answer:?} {items:?}");
            let was_stored = items == Items::Stored && answer != Answer::Status(503);
            let next = if was_stored { Stored::Duplicate } else { Stored::New };
            assert_eq!(append(&store, &records).await, vec![next; 3], "{answer:?} {items:?}");
            assert_eq!((fake.stored_count(), fake.acts_left()), (3, 0));
        }
    }
}

#[tokio::test]
async fn items_in_another_order_settle_their_own_records() {
    let (fake, store) = fake().await;
    let records = records(40);
    let act = Act { items: Items::Half(429), answer: Answer::Shuffled };
    fake.script([act]);
    let outcomes = append(&store, &records).await;
    for (record, outcome) in records.iter().zip(&outcomes) {
        let stored = fake.stored().keys().any(|(_, id)| *id == record.id);
        assert_eq!(*outcome == Stored::New, stored, "{outcome:?}");
        assert_eq!(*outcome == Stored::Later, !stored, "{outcome:?}");
    }
    assert_eq!(fake.stored_count(), 20);
}

#[tokio::test]
async fn an_answer_is_read_up_to_its_bound_and_no_further() {
    let (fake, store) = fake().await;
    fake.script([ANSWER_BYTES_MAX, ANSWER_BYTES_MAX + 1].map(|b| Act::answer(Answer::Huge(b))));
    let (first, second) = (records(1), records(1));
    assert_eq!(append(&store, &first).await, [Stored::New]);
    let error = store.append(&[second[0].to_store()]).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("longer than 16777216 bytes"), "{source}");
}

#[tokio::test]
async fn requests_that_are_too_large_for_something_on_the_way_become_smaller_and_stay_so() {
    const KIB: usize = 1024;
    let (fake, store) = fake().await;
    fake.refuse_larger(600 * KIB);
    let many = records(6_000);
    assert_eq!(append(&store, &many).await, vec![Stored::New; many.len()]);
    let refused = fake.sent().iter().filter(|sent| sent.status == 413).count();
    assert!(refused < 8, "{:?}", fake.sent());

    let before = fake.sent().len();
    let more = records(6_000);
    assert_eq!(append(&store, &more).await, vec![Stored::New; more.len()]);
    assert!(fake.sent()[before..].iter().all(|sent| sent.status == 200), "{:?}", fake.sent());
    assert_eq!(fake.stored_count(), 12_000);
}

#[tokio::test]
async fn requests_that_have_no_answer_become_smaller_until_they_have_one() {
    let (fake, store) = fake().await;
    fake.leave_larger_unanswered(600 * 1024);
    let many = records(6_000);
    let records: Vec<_> = many.iter().map(Record::to_store).collect();
    let mut tries = 1;
    while store.append(&records).await.is_err() {
        tries += 1;
        assert!(tries <= 5, "{:?}", fake.sent());
    }
    // A later request of the batch may have been too much again; what was stored stays.
    fake.leave_larger_unanswered(usize::MAX);
    let outcomes = append(&store, &many).await;
    assert!(outcomes.contains(&Stored::Duplicate), "some were stored while larger bodies were not");
    assert_eq!(fake.stored_count(), many.len());
}

#[tokio::test]
async fn a_record_that_no_request_gets_through_with_is_given_up_with_the_reason() {
    let (fake, store) = fake().await;
    fake.refuse_larger(100_000);
    fake.refuse_text("forbidden fruit");
    let mut batch = records(300);
    batch[17].json = r#"{"message":"forbidden fruit"}"#.to_owned();
    batch[230].json = format!(r#"{{"message":"{}"}}"#, "x".repeat(100_000));
    let outcomes = append(&store, &batch).await;
    for (at, outcome) in outcomes.iter().enumerate() {
        let words = match at {
            17 => "status 400: <html>400 Bad Request",
            230 => "status 413: <html>413 Request Entity Too Large",
            _ => {
                assert_eq!(*outcome, Stored::New, "{at}");
                continue;
            }
        };
        let Stored::Never(reason) = outcome else { panic!("{at}: {outcome:?}") };
        assert!(reason.starts_with(words), "{reason}");
    }
    assert_eq!(fake.stored_count(), 298);
}

#[tokio::test]
async fn no_record_is_given_up_while_no_request_at_all_gets_through() {
    let (fake, store) = fake().await;
    let batch = records(4);
    for status in [400, 413] {
        fake.always(Act::answer(Answer::Status(status)));
        let records: Vec<_> = batch.iter().map(Record::to_store).collect();
        let error = store.append(&records).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Refused, "{status}");
    }
    fake.always(Act::default());
    assert_eq!(append(&store, &batch).await, vec![Stored::New; 4]);
}
