//! `/dead-letters`: what was buried is listed, shown, replayed and dropped, by its project alone.

use bytes::Bytes;
use observer_api::ApiConfig;
use observer_bus::{Bus, Consumer, Durable, Outgoing, Stream};
use observer_store::AccountStore;
use observer_tests::http::Answer;
use observer_wire::event::{LineHead, LineKind, of_record};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{KEY, Running, no_vars, open_keys, project, start};

/// A project that is not [`KEY`]'s.
const OTHER: &str = "ba9876543210";

/// An event of one record, as the log indexer buries it.
fn part() -> Bytes {
    let head = LineHead {
        kind: LineKind::Logs,
        id: "m0".into(),
        key: KEY.parse().unwrap(),
        device: "d-1".into(),
        named: true,
        session: "session-1".into(),
        epoch: 1,
        seq: 5,
        received: 1_700_000_000_000,
        mid: Some("mid".into()),
        index: 0,
        count: 3,
        rev: 0,
        again: false,
        odd: [].as_slice().into(),
        len: 0,
    };
    of_record(project(), &head, 2, "{\"n\" : 1.50}").into()
}

/// Buries a part and a whole event; the consumer takes what is replayed.
async fn bury(running: &Running) -> Box<dyn Consumer> {
    let mut consumer = running.bus.consume(Durable::VarStore).await.unwrap();
    let payload = Bytes::from_static(b"\xff");
    let id = "event".to_owned();
    let event = Outgoing { stream: Stream::Vars, project: project(), id, expected: None, payload };
    let consume = async {
        let delivery = consumer.next().await;
        delivery.bury_part(part(), "not a date").await.unwrap();
        delivery.bury("not readable").await.unwrap();
    };
    tokio::join!(running.bus.publish(event), consume).0.unwrap();
    consumer
}

async fn ask(running: &Running, method: Method, key: &str, rest: &str) -> Answer {
    let path = format!("/api/v1/projects/{key}/dead-letters{rest}");
    running.api.send(running.api.request(method, &path)).await.unwrap()
}

async fn ids(running: &Running) -> Vec<String> {
    let answer = ask(running, Method::GET, KEY, "").await;
    let items = answer.json["items"].as_array().unwrap();
    items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn dead_letters_are_listed_and_shown_with_their_reason() {
    let running = start(open_keys(), no_vars).await;
    let _consumer = bury(&running).await;
    let first = ask(&running, Method::GET, KEY, "?limit=1").await;
    assert_eq!((first.status, first.json["items"].as_array().unwrap().len()), (200, 1));
    let cursor = first.json["next"].as_str().unwrap();
    let second = ask(&running, Method::GET, KEY, &format!("?limit=1&cursor={cursor}")).await;
    assert_eq!((&second.json["next"], &second.json["items"][0]["size"]), (&Value::Null, &json!(1)));

    let id = first.json["items"][0]["id"].as_str().unwrap();
    let shown = ask(&running, Method::GET, KEY, &format!("/{id}")).await;
    assert!(shown.text.contains("\"record\":{\"n\" : 1.50}"), "{}", shown.text);
    let mut letter = shown.json;
    assert!(letter["payload"].as_str().unwrap().contains("\"index\":2"));
    letter["payload"].take();
    let at = letter["at"].take();
    assert!(at.as_str().unwrap().ends_with('Z'), "{at}");
    let expected = json!({ "id": id, "stream": "vars", "kind": "record", "reason": "not a date",
        "at": null, "size": part().len(), "record": { "n": 1.5 }, "payload": null });
    assert_eq!(letter, expected);

    let id = second.json["items"][0]["id"].as_str().unwrap();
    let shown = ask(&running, Method::GET, KEY, &format!("/{id}")).await.json;
    assert_eq!((&shown["kind"], &shown["payload_base64"]), (&json!("event"), &json!("/w==")));
    assert_eq!(shown.get("payload").or(shown.get("record")), None);
}

#[tokio::test]
async fn a_replayed_letter_is_published_again_and_a_dropped_one_is_gone() {
    let running = start(open_keys(), no_vars).await;
    let mut consumer = bury(&running).await;
    let ids = ids(&running).await;
    let replay = format!("/{}/replay", ids[0]);
    let consume = async {
        let delivery = consumer.next().await;
        assert_eq!(delivery.payload(), &part());
        delivery.ack().await.unwrap();
    };
    let (answer, ()) = tokio::join!(ask(&running, Method::POST, KEY, &replay), consume);
    assert_eq!((answer.status, answer.json), (200, json!({ "replayed": true })));
    assert_eq!(ask(&running, Method::POST, KEY, &replay).await.status, 404);

    let letter = format!("/{}", ids[1]);
    let answer = ask(&running, Method::DELETE, KEY, &letter).await;
    assert_eq!((answer.status, answer.json), (200, json!({ "dropped": true })));
    for method in [Method::DELETE, Method::GET] {
        assert_eq!(ask(&running, method, KEY, &letter).await.status, 404);
    }
    assert_eq!(
        ask(&running, Method::GET, KEY, "").await.json,
        json!({ "items": [], "next": null })
    );
}

#[tokio::test]
async fn letters_of_another_project_and_ids_that_are_none_get_the_same_answer() {
    let running = start(open_keys(), no_vars).await;
    running.stores.register_key(OTHER.parse().unwrap()).await.unwrap();
    let _consumer = bury(&running).await;
    let ids = ids(&running).await;
    assert_eq!(ask(&running, Method::GET, OTHER, "").await.json["items"], json!([]));
    let unknown = ask(&running, Method::GET, OTHER, "/1").await;
    assert_eq!(unknown.status, 404);
    for id in [ids[0].as_str(), "0", "-1", "x", "18446744073709551616", "1%2F2"] {
        for (method, rest) in [
            (Method::GET, format!("/{id}")),
            (Method::DELETE, format!("/{id}")),
            (Method::POST, format!("/{id}/replay")),
        ] {
            let answer = ask(&running, method, OTHER, &rest).await;
            assert_eq!((answer.status, &answer.json), (404, &unknown.json), "{rest}");
        }
    }
    assert_eq!(self::ids(&running).await, ids);
    for path in ["", "/1"] {
        let answer = ask(&running, Method::GET, "000000000000", path).await;
        assert_eq!(answer.json["code"], "unknown_project");
    }
}

#[tokio::test]
async fn an_edit_is_not_replayable_and_says_so() {
    let running = start(open_keys(), no_vars).await;
    let mut consumer = running.bus.consume(Durable::EditApplier).await.unwrap();
    let payload = Bytes::from_static(b"edit");
    let id = "edit".to_owned();
    let event = Outgoing { stream: Stream::Edits, project: project(), id, expected: None, payload };
    let consume = async { consumer.next().await.bury("unreadable").await.unwrap() };
    tokio::join!(running.bus.publish(event), consume).0.unwrap();
    let rest = format!("/{}/replay", ids(&running).await[0]);
    let answer = ask(&running, Method::POST, KEY, &rest).await;
    assert_eq!((answer.status, &answer.json["code"]), (422, &json!("not_replayable")));
    assert_eq!(ids(&running).await.len(), 1);
}

#[tokio::test]
async fn bad_parameters_are_named_and_keys_alone_open_nothing() {
    let running = start(open_keys(), no_vars).await;
    for (query, field) in [("limit=0", "limit"), ("limit=1001", "limit"), ("cursor=x", "cursor")] {
        let answer = ask(&running, Method::GET, KEY, &format!("?{query}")).await;
        assert_eq!((answer.status, &answer.json["field"]), (422, &json!(field)), "{query}");
    }
    assert_eq!(ask(&running, Method::GET, KEY, "?limit=1000").await.status, 200);
    let running = start(ApiConfig::default(), no_vars).await;
    for (method, rest) in [(Method::GET, ""), (Method::DELETE, "/1"), (Method::POST, "/1/replay")] {
        assert_eq!(ask(&running, method, KEY, rest).await.status, 401);
    }
}
