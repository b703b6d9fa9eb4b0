//! The original's whole exchange, as its clients and its page still speak it.

use observer_tests::game::{LINE_WITHIN, from_payload, to_base64};
use observer_tests::http::Api;
use observer_tests::wait::eventually;
use observer_tests::ws::WebSocket;
use serde_json::{Value, json};

use super::{SOON, Stack, items_once, one_edit, receipts};

#[tokio::test]
async fn the_originals_exchange_works_with_the_embedded_form() {
    whole_exchange(Stack::embedded().await).await;
}

#[tokio::test]
async fn the_originals_exchange_works_with_the_services() {
    whole_exchange(Stack::cluster().await).await;
}

async fn whole_exchange(mut stack: Stack) {
    let api = stack.api().await;
    let alive = api.get("/alive").await.unwrap();
    assert_eq!((alive.status, alive.text.as_str()), (200, r#"{"status":"ok"}"#));

    let by_user = register_user(&api).await;
    exchange(&mut stack, &api, &by_user).await;
    let by_token = register_token(&api).await;
    exchange(&mut stack, &api, &by_token).await;

    if let Stack::Cluster(cluster) = &mut stack {
        check_redis(&cluster.vars.url(), &cluster.accounts.url(), &by_user).await;
    }
}

async fn register_user(api: &Api) -> String {
    let user = json!({ "email": "Anna@example.com", "password": "correct horse" });
    let made = api.post("/users", &user).await.unwrap();
    assert_eq!(made.status, 200, "{}", made.text);
    let again = api.post("/users", &user).await.unwrap();
    assert_eq!((again.status, again.text.as_str()), (400, r#"{"error":"email exists"}"#));
    let token = made.json["token"].as_str().unwrap().to_owned();
    assert_eq!(made.text, format!(r#"{{"token":"{token}"}}"#));
    token
}

async fn register_token(api: &Api) -> String {
    let token = api.get("/users/tokens").await.unwrap().json["token"].as_str().unwrap().to_owned();
    assert!(token.len() == 12 && token.bytes().all(|b| b.is_ascii_hexdigit()), "{token}");
    for _ in 0..2 {
        let answer = api.post("/users/tokens", &json!({ "token": token })).await.unwrap();
        assert_eq!((answer.status, answer.text), (200, format!(r#"{{"token":"{token}"}}"#)));
    }
    token
}

/// Sign-in, two logs, two variables, the page's frames, and an edit of the page.
async fn exchange(stack: &mut Stack, api: &Api, key: &str) {
    let mut game = stack.connect().await;
    game.send_line(&format!("v:{key}")).await.unwrap();
    assert_eq!(game.read_line(LINE_WITHIN).await.unwrap(), "OK");

    let mut page = WebSocket::open(&api.ws_url("/ws")).await.unwrap();
    page.send(&json!({ "event": "init", "data": { "token": key } })).await.unwrap();
    // Nobody answers `init`; the subscription is in force once the first values have come.
    let variables = json!([
        { "name": "testing1", "type": "string", "value": "example" },
        { "name": "testing2", "type": "integer", "value": "-1" },
    ]);
    game.send_line(&format!("i:{key}:{}", to_base64(&variables))).await.unwrap();
    let frame = eventually(SOON, "a page is told the variables", async || {
        let frame = page.next_of_type("vars", SOON).await;
        (frame["vars"].as_array().unwrap().len() == 8).then_some(frame)
    })
    .await;
    let mut pairs: Vec<_> = frame["vars"].as_array().unwrap().chunks(2).collect();
    pairs.sort_by_key(|pair| pair[0].to_string());
    let pairs: Vec<Value> = pairs.concat();
    let expected = json!([
        "testing1:type",
        "string",
        "testing1:value",
        "example",
        "testing2:type",
        "integer",
        "testing2:value",
        "-1",
    ]);
    assert_eq!(Value::from(pairs), expected);

    let logs = json!([
        { "message": "testing1", "timestamp": 123_123_123 },
        { "message": "testing2", "timestamp": 123_123_123.5, "deep": { "a": [1, null, "x"] } },
    ]);
    game.send_line(&format!("l:{key}:{}", to_base64(&logs))).await.unwrap();
    let frame = page.next_of_type("logs", SOON).await;
    assert_eq!(frame, json!({ "type": "logs", "logs": logs }));
    items_once(api, key, 2).await;
    let mut hits = eventually(SOON, "two logs are two hits", async || {
        let hits = stack.hits(key).await;
        (hits.len() == 2).then_some(hits)
    })
    .await;
    hits.sort_by_key(|hit| hit["message"].to_string());
    assert_eq!(Value::from(hits), logs);

    check_edits_of_the_page(&mut page, &mut game, key).await;
}

/// What the page sends reaches the game byte for byte: one object for Save, an array for Save All.
async fn check_edits_of_the_page(
    page: &mut WebSocket,
    game: &mut observer_tests::game::Game,
    key: &str,
) {
    let one = json!({ "name": "testing1", "type": "string", "value": "changed" });
    let all = json!([one, { "name": "testing2", "type": "integer", "value": 7 }]);
    for vars in [one, all] {
        page.send(&json!({ "event": "vars", "data": { "token": key, "vars": vars } }))
            .await
            .unwrap();
        let line = game.read_line(LINE_WITHIN).await.unwrap();
        let payload = line.strip_prefix(&format!("v:{key}:")).unwrap();
        assert_eq!(payload, to_base64(&vars), "{:?}", from_payload(payload));
    }
}

/// The hashes and sets that the original kept.
async fn check_redis(vars: &str, accounts: &str, key: &str) {
    let mut vars =
        redis::Client::open(vars).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut fields: Vec<String> =
        redis::cmd("HKEYS").arg(format!("{key}:vs")).query_async(&mut vars).await.unwrap();
    fields.sort_unstable();
    assert_eq!(fields, ["testing1:type", "testing1:value", "testing2:type", "testing2:value"]);
    let accounts = redis::Client::open(accounts).unwrap();
    let mut accounts = accounts.get_multiplexed_async_connection().await.unwrap();
    let (email, is_token): (String, bool) = redis::pipe()
        .hget(key, "email")
        .sismember("tokens", key)
        .query_async(&mut accounts)
        .await
        .unwrap();
    assert_eq!((email.as_str(), is_token), ("anna@example.com", true));
}

#[tokio::test]
async fn lines_may_be_split_at_every_byte_and_joined() {
    let mut stack = Stack::embedded().await;
    let api = stack.api().await;
    let key = api.new_key().await;
    let mut game = stack.connect().await;
    let lines = format!("v:{key}\nl:{key}:[{{\"message\":\"split\"}}]:m1\r\nl:{key}:W10=:m2\n");
    for byte in lines.as_bytes() {
        game.send(std::slice::from_ref(byte)).await.unwrap();
    }
    for expected in ["OK", "OK m1", "OK m2"] {
        assert_eq!(game.read_line(LINE_WITHIN).await.unwrap(), expected);
    }
    let mut game = stack.connect().await;
    game.send(lines.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(game.read_line(LINE_WITHIN).await.unwrap());
    }
    answers.sort_unstable();
    assert_eq!(answers, ["OK", "OK m1", "OK m2"]);
    // The same line with the same mid is the same record.
    assert_eq!(items_once(&api, &key, 1).await.len(), 1);
}

#[tokio::test]
async fn a_value_set_by_a_program_reaches_the_game_and_is_applied_when_it_says_so() {
    let mut stack = Stack::embedded().await;
    let api = stack.api().await;
    let key = api.new_key().await;
    let mut game = stack.game(&key).await;
    game.var("gravity", "float", "9.8").await.unwrap();
    eventually(SOON, "the value on the device is seen", async || {
        (receipts(&api, &key, "gravity").await == [("9.8".into(), String::new())]).then_some(())
    })
    .await;

    let edited = api.edit(&key, &one_edit("gravity", "float", "3.0")).await.unwrap();
    assert_eq!((edited.status, edited.text.as_str()), (200, r#"{"revision":1}"#));
    let line = game.read_line(LINE_WITHIN).await.unwrap();
    let wanted = json!([{ "name": "gravity", "type": "float", "value": "3" }]);
    assert_eq!(line, format!("v:{key}:{}", to_base64(&wanted)));
    assert_eq!(receipts(&api, &key, "gravity").await, [("9.8".into(), "pending".into())]);

    game.var("gravity", "float", "3").await.unwrap();
    eventually(SOON, "the edit is applied", async || {
        (receipts(&api, &key, "gravity").await == [("3".into(), "applied".into())]).then_some(())
    })
    .await;
    // A game that comes later gets what is wanted at its sign-in.
    let mut late = stack.game(&key).await;
    assert_eq!(late.callback(LINE_WITHIN).await.unwrap(), wanted);
}

#[tokio::test]
async fn a_stale_edit_is_a_conflict_and_changes_nothing() {
    let mut stack = Stack::embedded().await;
    let api = stack.api().await;
    let key = api.new_key().await;
    api.edit(&key, &one_edit("a", "integer", "1")).await.unwrap();
    let mut stale = one_edit("a", "integer", "2");
    stale["if_revision"] = json!(0);
    let conflict = api.edit(&key, &stale).await.unwrap();
    assert_eq!(conflict.status, 409, "{}", conflict.text);
    assert_eq!(conflict.json["code"], "conflict");
    assert_eq!(conflict.json["revision"], 1);
    assert_eq!(conflict.json["changed"][0]["value"], "1");
    stale["if_revision"] = json!(1);
    assert_eq!(api.edit(&key, &stale).await.unwrap().text, r#"{"revision":2}"#);
    let wrong = api.edit(&key, &one_edit("a", "integer", "x")).await.unwrap();
    assert_eq!(wrong.status, 422, "{}", wrong.text);
    assert_eq!(
        (&wrong.json["code"], &wrong.json["field"]),
        (&json!("bad_value"), &json!("edits[0].value"))
    );
}
