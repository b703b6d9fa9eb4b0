//! The original's exchange: its routes, and `/ws`.

use std::sync::{Arc, Mutex};

use observer_api::ApiConfig;
use observer_bus::{Bus, Service};
use observer_store::StoreErrorKind;
use observer_store::vars::LastValue;
use observer_tests::eventually;
use observer_tests::ws::WebSocket;
use observer_wire::ask::{DeviceView, KeyAnswer, KeyAsk, LiveVars, VarsAnswer, VarsAsk};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{KEY, SOON, no_vars, open_keys, start};

#[tokio::test]
async fn a_user_gets_a_key_and_the_same_address_gets_none() {
    let running = start(open_keys(), no_vars).await;
    let api = &running.api;
    let user = json!({ "email": "Anna@Example.org", "password": "secret" });
    let made = api.post("/users", &user).await.unwrap();
    assert_eq!((made.status, made.content_type.as_str()), (200, "application/json"));
    let key = made.json["token"].as_str().unwrap();
    assert_eq!(made.text, format!("{{\"token\":\"{key}\"}}"));
    assert!(key.len() == 12 && key.bytes().all(|byte| b"0123456789abcdef".contains(&byte)));
    assert_eq!(api.logs(key, "").await.unwrap().status, 200);

    let again = json!({ "email": "anna@example.ORG", "password": "other" });
    let again = api.post("/users", &again).await.unwrap();
    assert_eq!((again.status, again.text.as_str()), (400, r#"{"error":"email exists"}"#));

    let accounts = running.stores.emails.lock().unwrap();
    let account = &accounts["anna@example.org"];
    assert!(account.password_hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
}

#[tokio::test]
async fn a_bad_user_is_refused_as_the_original_did() {
    let running = start(open_keys(), no_vars).await;
    let long = "p".repeat(1025);
    for bad in [
        json!({}),
        json!([]),
        json!({ "email": "anna", "password": "x" }),
        json!({ "email": "a@b" }),
        json!({ "email": "a@b", "password": "" }),
        json!({ "email": "a@b", "password": 7 }),
        json!({ "email": "a@b", "password": long }),
        json!({ "email": ["a@b"], "password": "x" }),
    ] {
        let answer = running.api.post("/users", &bad).await.unwrap();
        assert_eq!(answer.status, 400, "{bad}");
        assert!(answer.json["error"].is_string(), "{}", answer.text);
    }
    assert!(running.stores.emails.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_token_is_made_and_registered_apart() {
    let running = start(open_keys(), no_vars).await;
    let api = &running.api;
    let made = api.get("/users/tokens").await.unwrap();
    let key = made.json["token"].as_str().unwrap().to_owned();
    assert_eq!(made.text, format!("{{\"token\":\"{key}\"}}"));
    assert_eq!(api.logs(&key, "").await.unwrap().status, 404, "it is not registered");
    for _ in 0..2 {
        let registered = api.post("/users/tokens", &made.json).await.unwrap();
        assert_eq!((registered.status, registered.text.as_str()), (200, made.text.as_str()));
    }
    assert_eq!(api.logs(&key, "").await.unwrap().status, 200);
    for bad in [json!({}), json!({ "token": "short" }), json!({ "token": "12345678901*" })] {
        let answer = api.post("/users/tokens", &bad).await.unwrap();
        assert_eq!(answer.status, 400, "{bad}");
        assert!(answer.json["error"].is_string());
    }
}

#[tokio::test]
async fn alive_is_answered_to_anybody() {
    let running = start(ApiConfig::default(), no_vars).await;
    let answer = running.api.get("/alive").await.unwrap();
    assert_eq!((answer.status, answer.text.as_str()), (200, r#"{"status":"ok"}"#));
}

#[tokio::test]
async fn gateways_learn_which_keys_are_good_and_nothing_when_nobody_can_tell() {
    let running = start(open_keys(), no_vars).await;
    let ask = async |key: &str| {
        let ask = KeyAsk { key: key.parse().unwrap() };
        let ask = serde_json::to_vec(&ask).unwrap();
        let answer = running.bus.request(Service::Keys, ask.into()).await.ok()?;
        Some(serde_json::from_slice::<KeyAnswer>(&answer).unwrap().project)
    };
    // The api serves once it runs.
    eventually(SOON, "keys are served", async || ask(KEY).await).await;
    assert_eq!(ask(KEY).await, Some(Some(KEY.parse().unwrap())));
    assert_eq!(ask("aaaaaaaaaaaa").await, Some(None));
    *running.stores.broken.lock().unwrap() = Some(StoreErrorKind::Unavailable);
    assert_eq!(ask(KEY).await, None);
}

async fn ws(api: &observer_tests::http::Api) -> WebSocket {
    WebSocket::open(&api.ws_url("/ws")).await.unwrap()
}

fn value(name: &str, kind: &str, value: &str) -> LastValue {
    LastValue { name: name.into(), kind: kind.into(), value: value.into() }
}

#[tokio::test]
async fn a_page_gets_values_then_logs_and_values_as_they_come() {
    let running = start(open_keys(), no_vars).await;
    running
        .stores
        .values
        .lock()
        .unwrap()
        .extend([value("testing1", "string", "example"), value("testing2", "integer", "-1")]);
    let mut page = ws(&running.api).await;
    page.send(&json!({ "event": "init", "data": { "token": KEY } })).await.unwrap();
    let values = page.next_json(SOON).await;
    let expected = json!({ "type": "vars", "vars": [
        "testing1:type", "string", "testing1:value", "example",
        "testing2:type", "integer", "testing2:value", "-1",
    ] });
    assert_eq!(values, expected);

    let logs = r#"[{"message":"testing1","timestamp":123123123},{"message":"testing2","x":1.50}]"#;
    running.send_logs("d-1", logs).await;
    let frame = page.next_json(SOON).await;
    assert_eq!(
        frame,
        json!({ "type": "logs", "logs": serde_json::from_str::<Value>(logs).unwrap() })
    );

    running.stores.values.lock().unwrap().truncate(1);
    let changed = DeviceView { device: "d-1".into(), ..DeviceView::default() };
    running.tell_vars(&LiveVars { document: None, devices: vec![changed] }).await;
    let values = page.next_json(SOON).await;
    assert_eq!(values["vars"], json!(["testing1:type", "string", "testing1:value", "example"]));
}

#[tokio::test]
async fn what_a_page_sends_is_committed_exactly_as_it_is() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    let running = start(open_keys(), move |ask| {
        let VarsAsk::Edit(edit) = ask else { return no_vars(ask) };
        let refused = edit.edits[0].name == "bad";
        kept.lock().unwrap().push(edit);
        Some(if refused {
            VarsAnswer::Refused {
                code: "bad_value".into(),
                field: "edits[0].value".into(),
                words: "no".into(),
            }
        } else {
            VarsAnswer::Edited { revision: 1 }
        })
    })
    .await;
    let mut page = ws(&running.api).await;
    let edits = |vars: Value| json!({ "event": "vars", "data": { "token": KEY, "vars": vars } });
    let one = json!({ "name": "g", "type": "float", "value": "3.0", "$$hash": 1 });
    page.send(&edits(one.clone())).await.unwrap();
    page.send(&edits(json!([one, { "name": "h", "type": "string", "value": "x" }]))).await.unwrap();
    page.send(&edits(json!({ "name": "bad", "type": "float", "value": "x" }))).await.unwrap();
    let error = page.next_json(SOON).await;
    assert_eq!(error, json!({ "type": "error", "code": "bad_value", "field": "edits[0].value" }));

    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[0].raw.as_ref().unwrap().get(), one.to_string());
    assert_eq!(asked[1].raw.as_ref().unwrap().get().chars().next(), Some('['));
    let names: Vec<_> = asked[1].edits.iter().map(|edit| edit.name.as_str()).collect();
    assert_eq!(names, ["g", "h"]);
}

#[tokio::test]
async fn a_page_that_speaks_nonsense_is_told_and_stays_open() {
    let running = start(open_keys(), no_vars).await;
    let mut page = ws(&running.api).await;
    for (bad, code, field) in [
        (json!(7), "bad_json", Value::Null),
        (json!({ "event": "init" }), "bad_json", Value::Null),
        (json!({ "event": "other", "data": {} }), "bad_field", json!("event")),
        (json!({ "event": "init", "data": {} }), "bad_field", json!("data.token")),
        (
            json!({ "event": "init", "data": { "token": "aaaaaaaaaaaa" } }),
            "unknown_project",
            Value::Null,
        ),
        (json!({ "event": "init", "data": { "token": "*" } }), "unknown_project", Value::Null),
        (json!({ "event": "vars", "data": { "token": KEY } }), "bad_field", json!("data.vars")),
        (
            json!({ "event": "vars", "data": { "token": KEY, "vars": [1] } }),
            "bad_field",
            json!("vars[0]"),
        ),
    ] {
        page.send(&bad).await.unwrap();
        let error = page.next_json(SOON).await;
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{bad}");
        assert_eq!(error["field"], field, "{bad}");
    }
    page.send(&json!({ "event": "init", "data": { "token": KEY } })).await.unwrap();
    assert_eq!(page.next_json(SOON).await, json!({ "type": "vars", "vars": [] }));
}

#[tokio::test]
async fn without_open_keys_everything_of_a_project_is_closed() {
    let running = start(ApiConfig::default(), no_vars).await;
    let api = &running.api;
    for (method, path) in [
        (Method::POST, "/users".to_owned()),
        (Method::GET, "/users/tokens".to_owned()),
        (Method::POST, "/users/tokens".to_owned()),
        (Method::GET, "/ws".to_owned()),
        (Method::GET, format!("/api/v1/projects/{KEY}/logs")),
        (Method::GET, format!("/api/v1/projects/{KEY}/vars")),
        (Method::PATCH, format!("/api/v1/projects/{KEY}/vars")),
        (Method::GET, format!("/api/v1/projects/{KEY}/stream")),
        (Method::GET, "/api/v1/projects/aaaaaaaaaaaa/logs".to_owned()),
    ] {
        let answer = api.send(api.request(method, &path).body("{}")).await.unwrap();
        assert_eq!(
            (answer.status, &answer.json["code"]),
            (401, &json!("unauthenticated")),
            "{path}"
        );
        assert_eq!(answer.content_type, "application/problem+json");
    }
    assert_eq!(api.get("/api/v1/server").await.unwrap().status, 200);
}
