//! `/api/v1`: logs, variables, edits, and what every error looks like.

use std::sync::{Arc, Mutex};

use observer_api::ApiConfig;
use observer_bus::{Bus as _, Heard, Topic};
use observer_store::StoreErrorKind;
use observer_wire::ask::{
    Control, DeviceState, DeviceView, Place, ReceiptState, ReceiptView, ReportedView, Snapshot,
    VarsAnswer, VarsAsk,
};
use observer_wire::edit::{Document, Scope, Wanted};
use observer_wire::hello::About;
use observer_wire::record::Level;
use observer_wire::text::Term;
use reqwest::Method;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::harness::{KEY, Running, no_vars, open_keys, start};

#[tokio::test]
async fn the_server_says_where_games_connect() {
    let game_address = "games.example:7000".parse().unwrap();
    let config = ApiConfig { game_address, ..ApiConfig::default() };
    let running = start(config, no_vars).await;
    let answer = running.api.get("/api/v1/server").await.unwrap();
    assert_eq!(answer.json["name"], "observer");
    assert_eq!(answer.json["game"], json!({ "host": "games.example", "port": 7000 }));
    assert_eq!(answer.json["form"], "embedded");
}

#[tokio::test]
async fn records_come_back_as_the_game_sent_them_newest_first() {
    let running = start(open_keys(), no_vars).await;
    running.stores.add_hit(r#"{ "message":"hi", "n" : 1.50, "s":"\u00e4" }"#);
    running.stores.add_hit("{}");
    let answer = running.api.logs(KEY, "").await.unwrap();
    assert_eq!((answer.status, answer.content_type.as_str()), (200, "application/json"));
    assert!(answer.text.contains(r#"{ "message":"hi", "n" : 1.50, "s":"\u00e4" ,"observer":{"#));
    let items = answer.json["items"].as_array().unwrap();
    assert_eq!(items[0].as_object().unwrap().len(), 1, "our object alone");
    assert_eq!(
        items[1]["observer"],
        json!({ "id": "r0-000", "key": KEY, "device": "d-1", "session": "session-1", "seq": 0,
            "received": "2023-11-14T22:13:20.000Z", "rev": 7, "level": "warn",
            "time": "1973-11-26T00:52:03.000Z", "message": "hi" })
    );
    assert_eq!(answer.json["next"], Value::Null);
}

#[tokio::test]
async fn a_forged_observer_is_replaced() {
    let running = start(open_keys(), no_vars).await;
    let forged = r#"{"observer":{"key":"aaaaaaaaaaaa"},"a":1.0,"\u006fbserver":7}"#;
    running.stores.add_hit(forged);
    let answer = running.api.logs(KEY, "").await.unwrap();
    assert_eq!(answer.json["items"][0]["observer"]["key"], KEY);
    assert!(!answer.text.contains("aaaaaaaaaaaa") && answer.text.contains("\"a\":1.0"));
}

#[tokio::test]
async fn pages_follow_each_other_without_hole_or_repetition() {
    let running = start(open_keys(), no_vars).await;
    for number in 0..7 {
        running.stores.add_hit(&format!("{{\"n\":{number}}}"));
    }
    let mut numbers = Vec::new();
    let mut query = "limit=3".to_owned();
    loop {
        let page = running.api.logs(KEY, &query).await.unwrap();
        let items = page.json["items"].as_array().unwrap();
        numbers.extend(items.iter().map(|item| item["n"].as_i64().unwrap()));
        let Some(cursor) = page.json["next"].as_str() else { break };
        query = format!("limit=3&cursor={cursor}");
    }
    assert_eq!(numbers, [6, 5, 4, 3, 2, 1, 0]);
}

#[tokio::test]
async fn what_is_asked_reaches_the_store() {
    let running = start(open_keys(), no_vars).await;
    let query = "q=player%20hp:10&since=2023-11-14T22:13:20Z&until=2023-11-14T23:13:20.5%2B01:00\
        &level=WARN&device=d-1&limit=1000&cursor=";
    assert_eq!(running.api.logs(KEY, query).await.unwrap().status, 200);
    let asked = running.stores.asked.lock().unwrap().clone().unwrap();
    assert_eq!((asked.project.as_str(), asked.limit), (KEY, 1000));
    assert_eq!((asked.since, asked.until), (Some(1_700_000_000_000), Some(1_700_000_000_500)));
    assert_eq!((asked.level, asked.device.as_deref()), (Some(Level::Warn), Some("d-1")));
    let field = Term::Field { name: "hp".into(), value: "10".into() };
    assert_eq!(asked.terms, [Term::Phrase(vec!["player".into()]), field]);
    assert_eq!(asked.before, None);
    assert_eq!(running.api.logs(KEY, "").await.unwrap().status, 200);
    assert_eq!(running.stores.asked.lock().unwrap().as_ref().unwrap().limit, 100);
}

#[tokio::test]
async fn a_bad_parameter_is_named() {
    let running = start(open_keys(), no_vars).await;
    let long = format!("q={}", "a".repeat(1025));
    let many = format!("q={}", "a+".repeat(33));
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("since=yesterday", "since"),
        ("until=1", "until"),
        ("level=loud", "level"),
        ("cursor=AAAA", "cursor"),
        ("cursor=..", "cursor"),
        ("limt=3", "limt"),
        ("limit=3&limit=4", "limit"),
        (long.as_str(), "q"),
        (many.as_str(), "q"),
    ] {
        let answer = running.api.logs(KEY, query).await.unwrap();
        assert_problem(&answer, 422, "bad_field");
        assert_eq!(answer.json["field"], field, "{query}");
    }
}

#[tokio::test]
async fn unknown_and_malformed_projects_get_the_same_answer() {
    let running = start(open_keys(), no_vars).await;
    let first = running.api.logs("aaaaaaaaaaaa", "").await.unwrap();
    assert_problem(&first, 404, "unknown_project");
    for key in ["*", "%3E", "a.b", "..%2F..", "%20%20", "0123456789abc", "%ff%fe", "0123456789a%00"]
    {
        for path in ["logs", "vars", "stream"] {
            let answer = running.api.get(&format!("/api/v1/projects/{key}/{path}")).await.unwrap();
            assert_eq!(answer.text, first.text, "{key} {path}");
        }
    }
}

#[tokio::test]
async fn every_error_under_api_is_a_problem() {
    let running = start(open_keys(), no_vars).await;
    let api = &running.api;
    for path in ["/api/v1/other", "/api", "/api/v1/projects", "/other", "/assets/none.js"] {
        assert_problem(&api.get(path).await.unwrap(), 404, "not_found");
    }
    let logs = format!("/api/v1/projects/{KEY}/logs");
    for path in [logs.as_str(), "/users", "/alive", "/"] {
        let answer = api.send(api.request(Method::DELETE, path)).await.unwrap();
        assert_problem(&answer, 405, "method_not_allowed");
    }
    let stream = api.get(&format!("/api/v1/projects/{KEY}/stream")).await.unwrap();
    assert_problem(&stream, 400, "bad_request");
}

#[tokio::test]
async fn a_broken_store_is_told_and_not_described() {
    let running = start(open_keys(), no_vars).await;
    for (kind, status, code) in [
        (StoreErrorKind::Unavailable, 503, "store_down"),
        (StoreErrorKind::Throttled, 503, "busy"),
        (StoreErrorKind::Refused, 500, "internal"),
    ] {
        *running.stores.broken.lock().unwrap() = Some(kind);
        let answer = running.api.logs(KEY, "").await.unwrap();
        assert_problem(&answer, status, code);
        assert!(!answer.text.contains("broken by the test"));
    }
}

fn wanted(name: &str) -> Wanted {
    Wanted {
        name: name.into(),
        kind: "float".into(),
        value: "3".into(),
        scope: Scope::All,
        rev: 57,
        at: 1_700_000_000_000,
        actor: "dashboard".into(),
    }
}

fn device(id: &str) -> DeviceView {
    let json = r#"{"name":"gravity","type":"float","value":9.8,"min":0.10,"group":"World"}"#;
    let receipt = ReceiptView { state: ReceiptState::Applied, ms: Some(4), rev: 57 };
    DeviceView {
        device: id.into(),
        about: About::default(),
        online: true,
        state: DeviceState::Online,
        since: 1_700_000_000_000,
        session: "s".into(),
        rev: 57,
        reported: vec![ReportedView {
            name: "gravity".into(),
            kind: "float".into(),
            value: "9.8".into(),
            at: 1_700_000_000_004,
            json: RawValue::from_string(json.into()).unwrap(),
        }],
        states: [("gravity".to_owned(), receipt)].into(),
    }
}

#[tokio::test]
async fn variables_of_all_pages_are_shown_together() {
    let running = start(open_keys(), |ask| {
        let VarsAsk::Snapshot { after, .. } = ask else { return None };
        let document =
            Document { revision: 57, epoch: "a1b2".into(), wanted: vec![wanted("gravity")] };
        // The second device is cut: its only value comes with the next page.
        let (mut start, mut rest) = (device("b"), device("b"));
        start.reported.clear();
        rest.states.clear();
        let cut = Place { device: "b".into(), name: Some("a".into()) };
        Some(VarsAnswer::Snapshot(match after {
            None => Snapshot {
                document: Some(document),
                devices: vec![device("a"), start],
                next: Some(cut),
            },
            Some(place) if place == cut => {
                Snapshot { document: None, devices: vec![rest, device("c")], next: None }
            }
            Some(other) => panic!("asked behind {other:?}"),
        }))
    })
    .await;
    let answer = running.api.vars(KEY).await.unwrap();
    assert_eq!(answer.status, 200);
    let device = |id: &str| {
        json!({ "id": id, "device": id, "name": null, "online": true, "state": "online",
            "about": {}, "since": "2023-11-14T22:13:20.000Z",
            "session": "s", "rev": 57,
            "reported": [{ "name": "gravity", "type": "float", "value": "9.8",
                "at": "2023-11-14T22:13:20.004Z", "min": 0.1, "group": "World" }],
            "states": { "gravity": { "state": "applied", "ms": 4, "rev": 57 } } })
    };
    assert_eq!(
        answer.json,
        json!({ "revision": 57, "epoch": "a1b2",
            "wanted": [{ "name": "gravity", "type": "float", "value": "3", "scope": "all",
                "rev": 57, "at": "2023-11-14T22:13:20.000Z", "actor": "dashboard" }],
            "devices": [device("a"), device("b"), device("c")] })
    );
}

async fn with_answer(answer: VarsAnswer) -> (Running, Arc<Mutex<Vec<VarsAsk>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    let running = start(open_keys(), move |ask| {
        kept.lock().unwrap().push(ask);
        Some(answer.clone())
    })
    .await;
    (running, asked)
}

fn one_edit() -> Value {
    json!({ "edits": [{ "name": "gravity", "type": "float", "value": 3.5 }],
        "if_revision": 57, "note": "why" })
}

#[tokio::test]
async fn an_edit_is_committed_as_one_revision() {
    let (running, asked) = with_answer(VarsAnswer::Edited { revision: 58 }).await;
    let answer = running.api.edit(KEY, &one_edit()).await.unwrap();
    assert_eq!((answer.status, answer.text.as_str()), (200, r#"{"revision":58}"#));
    let asked = asked.lock().unwrap();
    let [VarsAsk::Edit(edit)] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((edit.project.as_str(), edit.if_revision), (KEY, Some(57)));
    assert_eq!(edit.edits[0].value.as_deref(), Some("3.5"));
    assert!(edit.raw.is_none());
}

#[tokio::test]
async fn a_conflict_says_what_changed() {
    let changed = vec![wanted("gravity")];
    let (running, _) = with_answer(VarsAnswer::Conflict { revision: 58, changed }).await;
    let answer = running.api.edit(KEY, &one_edit()).await.unwrap();
    assert_problem(&answer, 409, "conflict");
    assert_eq!(answer.json["revision"], 58);
    assert_eq!(answer.json["changed"][0]["name"], "gravity");
    assert_eq!(answer.json["changed"][0]["actor"], "dashboard");
}

#[tokio::test]
async fn a_refusal_names_code_and_field() {
    let (running, _) = with_answer(VarsAnswer::Refused {
        code: "document_too_large".into(),
        field: "edits[0].value".into(),
        words: "the document would have 200000 bytes".into(),
    })
    .await;
    let answer = running.api.edit(KEY, &one_edit()).await.unwrap();
    assert_problem(&answer, 422, "document_too_large");
    assert_eq!(answer.json["field"], "edits[0].value");
    assert_eq!(answer.json["detail"], "the document would have 200000 bytes");
}

#[tokio::test]
async fn an_edit_that_is_not_possible_now_may_be_sent_again() {
    let (running, _) = with_answer(VarsAnswer::Busy { words: "catching up".into() }).await;
    let answer = running.api.edit(KEY, &one_edit()).await.unwrap();
    assert_problem(&answer, 503, "busy");
}

#[tokio::test]
async fn an_edit_with_a_mistake_is_never_asked_for() {
    let (running, asked) = with_answer(VarsAnswer::Edited { revision: 58 }).await;
    let scope = json!({ "edits": [{ "name": "a", "value": "1", "scope": "device:x" }] });
    let answer = running.api.edit(KEY, &scope).await.unwrap();
    assert_problem(&answer, 422, "bad_field");
    assert_eq!(answer.json["field"], "edits[0].scope");

    let path = format!("/api/v1/projects/{KEY}/vars");
    let request = |kind: &str, body: Vec<u8>| {
        let request = running.api.request(Method::PATCH, &path).header("content-type", kind);
        running.api.send(request.body(body))
    };
    let answer = request("application/json", b"{".to_vec()).await.unwrap();
    assert_problem(&answer, 400, "bad_json");
    let answer = request("application/json", b"\xff".to_vec()).await.unwrap();
    assert_problem(&answer, 400, "bad_json");
    let answer = request("text/plain", one_edit().to_string().into()).await.unwrap();
    assert_problem(&answer, 400, "bad_request");
    let padded = |bytes: usize| {
        let mut body = one_edit().to_string().into_bytes();
        body.resize(bytes, b' ');
        body
    };
    let answer = request("application/json", padded(1024 * 1024 + 1)).await.unwrap();
    assert_problem(&answer, 413, "too_large");
    assert!(asked.lock().unwrap().is_empty());
    let answer = request("application/json", padded(1024 * 1024)).await.unwrap();
    assert_eq!(answer.status, 200);
}

fn assert_problem(answer: &observer_tests::http::Answer, status: u16, code: &str) {
    assert_eq!((answer.status, &answer.json["code"]), (status, &json!(code)), "{}", answer.text);
    assert_eq!(answer.content_type, "application/problem+json");
    assert_eq!(answer.json["status"], status);
    assert_eq!(answer.json["type"], "about:blank");
    assert!(answer.json["title"].is_string() && answer.json["detail"].is_string());
}

#[tokio::test]
async fn what_games_shall_send_is_told_to_all_gateways() {
    let running = start(open_keys(), no_vars).await;
    let mut gateway = running.bus.listen(Topic::Control).await.unwrap();
    let path = format!("/api/v1/projects/{KEY}/devices/my%20phone/send");
    let answer = running.api.post(&path, &json!({ "level": "debug" })).await.unwrap();
    assert_eq!((answer.status, answer.text.as_str()), (202, "{}"));
    let Heard::Message(told) = gateway.next().await else { panic!("nothing was lost") };
    let Control::Send { device, sending, .. } = serde_json::from_slice(&told).unwrap() else {
        panic!("something else was told");
    };
    assert_eq!((device.as_deref(), sending.level.as_deref()), (Some("my phone"), Some("debug")));
    let answer = running.api.post(&path, &json!({ "level": "loud" })).await.unwrap();
    assert_problem(&answer, 422, "bad_field");
    assert_eq!(answer.json["field"], "level");
    let foreign = path.replace(KEY, "nosuchkey000");
    let answer = running.api.post(&foreign, &json!({ "level": "debug" })).await.unwrap();
    assert_problem(&answer, 404, "unknown_project");
}
