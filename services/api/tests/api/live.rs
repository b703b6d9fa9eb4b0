//! The live stream: hello, logs, variables, devices, filters, gaps and continuing.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use observer_api::ApiConfig;
use observer_tests::eventually;
use observer_tests::ws::WebSocket;
use observer_wire::ask::{
    DeviceView, LiveDevices, LiveVars, ReceiptState, ReceiptView, ReportedView, Snapshot,
    VarsAnswer, VarsAsk,
};
use observer_wire::edit::Document;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{KEY, Running, SOON, no_vars, open_keys, start};

fn messages(frame: &Value) -> Vec<&str> {
    let items = frame["items"].as_array().expect("a logs frame");
    items.iter().map(|item| item["message"].as_str().unwrap()).collect()
}

/// Reads `logs` frames until `count` records came; their messages.
async fn read(stream: &mut WebSocket, count: usize) -> Vec<String> {
    let mut read = Vec::new();
    while read.len() < count {
        let frame = stream.next_of_type("logs", SOON).await;
        read.extend(messages(&frame).into_iter().map(str::to_owned));
    }
    read
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("m{number}")).collect()
}

async fn send_numbered(running: &Running, range: std::ops::Range<usize>) {
    for message in numbered(range) {
        running.send_logs("d-1", &format!("[{{\"message\":\"{message}\"}}]")).await;
    }
}

#[tokio::test]
async fn a_record_is_shown_at_once_and_as_the_game_sent_it() {
    let running = start(open_keys(), |ask| {
        let VarsAsk::Document { .. } = ask else { return None };
        let document = Document { revision: 57, epoch: "a1b2".into(), wanted: vec![] };
        Some(VarsAnswer::Document(document))
    })
    .await;
    let (mut stream, hello) = running.stream("").await;
    assert_eq!((&hello["project"], &hello["revision"]), (&json!(KEY), &json!(57)));
    assert_eq!(hello["epoch"], "a1b2");
    assert!(hello["cursor"].is_string());
    let began = Instant::now();
    running
        .send_logs(
            "d-1",
            r#"[{"message":"a","n":1.50},{"message":"b","level":"error","observer":1}]"#,
        )
        .await;
    let frame = stream.next_json(SOON).await;
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    assert_eq!((&frame["type"], messages(&frame)), (&json!("logs"), vec!["a", "b"]));
    assert!(frame["cursor"].is_string() && frame["cursor"] != hello["cursor"]);
    let stamp = &frame["items"][1]["observer"];
    assert_eq!((&stamp["level"], &stamp["key"]), (&json!("error"), &json!(KEY)));
    assert_eq!((&stamp["device"], &stamp["seq"]), (&json!("d-1"), &json!(2)));
    assert_eq!(stamp["received"], "2023-11-14T22:13:20.000Z");
    assert_eq!(stamp["id"].as_str().map(str::len), Some(37));
}

#[tokio::test]
async fn hello_comes_also_while_nobody_knows_the_revision() {
    let running = start(open_keys(), |_| None).await;
    let (_, hello) = running.stream("").await;
    assert_eq!((&hello["revision"], &hello["epoch"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn many_lines_become_few_frames() {
    let running = start(open_keys(), no_vars).await;
    let (mut stream, _) = running.stream("").await;
    let began = Instant::now();
    send_numbered(&running, 0..500).await;
    let (mut frames, mut read) = (0_u32, Vec::new());
    while read.len() < 500 {
        let frame = stream.next_of_type("logs", SOON).await;
        frames += 1;
        read.extend(messages(&frame).into_iter().map(str::to_owned));
    }
    assert_eq!(read, numbered(0..500));
    let most = 2.0 + began.elapsed().as_secs_f64() * 10.0;
    assert!(f64::from(frames) <= most, "{frames} frames in {:?}", began.elapsed());
}

#[tokio::test]
async fn a_filter_lets_pass_what_a_search_would_find() {
    let running = start(open_keys(), no_vars).await;
    let (mut by_level, _) = running.stream("level=warn").await;
    let (mut by_word, _) = running.stream("q=gate%20hp:10%20").await;
    let (mut by_device, _) = running.stream("device=d-2").await;
    let records =
        r#"[{"message":"The gate","hp":10},{"message":"gate"},{"message":"x","level":"fatal"}]"#;
    running.send_logs("d-1", records).await;
    running.send_logs("d-2", r#"{"message":"last"}"#).await;
    assert_eq!(messages(&by_level.next_json(SOON).await), ["x"]);
    assert_eq!(messages(&by_word.next_json(SOON).await), ["The gate"]);
    assert_eq!(messages(&by_device.next_json(SOON).await), ["last"]);
    let path = format!("/api/v1/projects/{KEY}/stream?level=loud");
    assert_eq!(running.api.get(&path).await.unwrap().json["field"], "level");
}

fn changed(value: &str, state: ReceiptState) -> DeviceView {
    let json = format!("{{\"name\":\"g\",\"type\":\"float\",\"value\":{value},\"max\":9}}");
    DeviceView {
        device: "d-1".into(),
        online: true,
        session: "s".into(),
        reported: vec![ReportedView {
            name: "g".into(),
            kind: "float".into(),
            value: value.into(),
            at: 0,
            json: RawValue::from_string(json).unwrap(),
        }],
        states: [("g".to_owned(), ReceiptView { state, ms: None, rev: 58 })].into(),
        ..DeviceView::default()
    }
}

#[tokio::test]
async fn values_and_devices_are_shown_as_they_change() {
    let running = start(open_keys(), no_vars).await;
    let (mut stream, _) = running.stream("").await;
    let document = Document { revision: 58, epoch: "e".into(), wanted: vec![] };
    let pending =
        LiveVars { document: Some(document), devices: vec![changed("1", ReceiptState::Pending)] };
    running.tell_vars(&pending).await;
    let frame = stream.next_of_type("vars", SOON).await;
    assert_eq!((&frame["revision"], &frame["wanted"]), (&json!(58), &json!([])));
    let applied = LiveVars { document: None, devices: vec![changed("2", ReceiptState::Applied)] };
    running.tell_vars(&applied).await;
    let frame = stream.next_of_type("vars", SOON).await;
    assert_eq!((&frame["revision"], frame.get("wanted")), (&json!(58), None));
    assert_eq!(
        frame["devices"],
        json!([{ "id": "d-1", "device": "d-1",
            "reported": [{ "name": "g", "type": "float", "value": "2",
                "at": "1970-01-01T00:00:00.000Z", "max": 9 }],
            "states": { "g": { "state": "applied", "rev": 58 } } }])
    );
    let gone = DeviceView { device: "d-1".into(), session: "s".into(), ..DeviceView::default() };
    let news = LiveDevices { devices: vec![gone], removed: vec!["d-0".into()] };
    running.tell_devices(&news).await;
    let frame = stream.next_of_type("devices", SOON).await;
    assert_eq!(frame["removed"], json!(["d-0"]));
    assert_eq!(
        frame["devices"],
        json!([{ "id": "d-1", "device": "d-1", "name": null, "online": false, "state": "lost",
            "since": "1970-01-01T00:00:00.000Z", "session": "s", "about": {} }])
    );
}

#[tokio::test]
async fn a_viewer_that_does_not_read_gets_a_counted_gap() {
    let room = NonZeroUsize::new(64 * 1024).unwrap();
    let running = start(ApiConfig { viewer_queue_bytes_max: room, ..open_keys() }, no_vars).await;
    let (mut stream, _) = running.stream("").await;
    let padding = "x".repeat(8 * 1024);
    let total = 3_000_u64;
    for number in 0..total {
        let record = format!("{{\"message\":\"m{number}\",\"p\":\"{padding}\"}}");
        running.send_logs("d-1", &record).await;
    }
    running.send_logs("d-1", r#"{"message":"last"}"#).await;
    let (mut seen, mut lost) = (0, 0);
    loop {
        let frame = stream.next_json(SOON).await;
        match frame["type"].as_str() {
            Some("logs") => {
                let names = messages(&frame);
                seen += names.iter().filter(|name| **name != "last").count() as u64;
                if names.contains(&"last") {
                    break;
                }
            }
            Some("gap") => {
                assert_eq!(frame["reason"], "slow_viewer");
                assert!(frame["cursor"].is_string());
                lost += frame["count"].as_u64().unwrap();
                if seen + lost > total {
                    lost -= 1; // The last one was lost, too.
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
        if seen + lost == total {
            break;
        }
    }
    assert!(lost > 0, "nothing was lost: the test is too gentle");
    assert_eq!(seen + lost, total);
}

#[tokio::test]
async fn a_viewer_that_comes_back_misses_nothing_and_sees_nothing_twice() {
    let running = start(open_keys(), no_vars).await;
    // Another viewer keeps the shared subscription alive and ahead.
    let (mut other, _) = running.stream("").await;
    let (mut stream, hello) = running.stream("").await;
    send_numbered(&running, 0..3).await;
    assert_eq!(read(&mut stream, 3).await, numbered(0..3));
    assert_eq!(read(&mut other, 3).await, numbered(0..3));
    drop(stream);
    send_numbered(&running, 3..6).await;
    let cursor = hello["cursor"].as_str().unwrap();
    let (mut stream, _) = running.stream(&format!("cursor={cursor}")).await;
    assert_eq!(stream.next_json(SOON).await["type"], "resumed");
    send_numbered(&running, 6..9).await;
    assert_eq!(read(&mut stream, 9).await, numbered(0..9));
    send_numbered(&running, 9..12).await;
    assert_eq!(read(&mut stream, 3).await, numbered(9..12));
    assert_eq!(read(&mut other, 9).await, numbered(3..12));
}

#[tokio::test]
async fn a_viewer_that_missed_nothing_continues_with_the_shared_subscription() {
    let running = start(open_keys(), no_vars).await;
    let (_other, hello) = running.stream("").await;
    let cursor = hello["cursor"].as_str().unwrap();
    let (mut stream, again) = running.stream(&format!("cursor={cursor}")).await;
    assert_eq!(again["cursor"], hello["cursor"]);
    assert_eq!(stream.next_json(SOON).await, json!({ "type": "resumed", "cursor": cursor }));
    send_numbered(&running, 0..3).await;
    assert_eq!(read(&mut stream, 3).await, numbered(0..3));
}

#[tokio::test]
async fn a_cursor_of_another_life_is_answered_with_reset() {
    let running = start(open_keys(), no_vars).await;
    let (mut stream, hello) = running.stream("cursor=other.7").await;
    let reset = stream.next_json(SOON).await;
    assert_eq!((&reset["type"], &reset["cursor"]), (&json!("reset"), &hello["cursor"]));
    send_numbered(&running, 0..1).await;
    assert_eq!(read(&mut stream, 1).await, numbered(0..1));
}

#[tokio::test]
async fn who_continues_is_told_the_variables_of_now() {
    let running = start(open_keys(), |ask| {
        let VarsAsk::Snapshot { .. } = ask else { return no_vars(ask) };
        let document = Document { revision: 60, epoch: "e".into(), wanted: vec![] };
        let devices = vec![changed("2", ReceiptState::Applied)];
        Some(VarsAnswer::Snapshot(Snapshot { document: Some(document), devices, next: None }))
    })
    .await;
    let (_other, hello) = running.stream("").await;
    let cursor = hello["cursor"].as_str().unwrap();
    let (mut stream, _) = running.stream(&format!("cursor={cursor}")).await;
    assert_eq!(stream.next_json(SOON).await["type"], "resumed");
    let devices = stream.next_json(SOON).await;
    assert_eq!(
        (&devices["type"], &devices["devices"][0]["online"]),
        (&json!("devices"), &json!(true))
    );
    let vars = stream.next_json(SOON).await;
    assert_eq!((&vars["type"], &vars["revision"]), (&json!("vars"), &json!(60)));
    assert_eq!(vars["devices"][0]["states"]["g"]["state"], "applied");
}

#[tokio::test]
async fn a_stream_takes_no_messages_and_no_large_ones() {
    let running = start(open_keys(), no_vars).await;
    let path = format!("/api/v1/projects/{KEY}/stream");
    for (path, message, code) in [
        (path.as_str(), "hi".to_owned(), 1008),
        (path.as_str(), "x".repeat(1024 * 1024), 1009),
        ("/ws", "x".repeat(256 * 1024 + 1), 1009),
    ] {
        let (mut socket, _) = connect_async(running.api.ws_url(path)).await.unwrap();
        socket.send(Message::text(message)).await.unwrap();
        let closed = loop {
            match tokio::time::timeout(SOON, socket.next()).await.unwrap() {
                Some(Ok(Message::Close(frame))) => break frame.map(|frame| u16::from(frame.code)),
                Some(Ok(_)) => {}
                end => panic!("{path}: closed without a word: {end:?}"),
            }
        };
        assert_eq!(closed, Some(code), "{path}");
    }
}

#[tokio::test]
async fn viewers_past_the_bound_are_told_to_come_back() {
    let one = NonZeroUsize::new(1).unwrap();
    let running = start(ApiConfig { live_viewers_max: one, ..open_keys() }, no_vars).await;
    let (first, _) = running.stream("").await;
    let path = format!("/api/v1/projects/{KEY}/stream");
    let url = running.api.ws_url(&path);
    assert!(WebSocket::open(&url).await.is_err());
    drop(first);
    let url = url.as_str();
    eventually(SOON, "the place is free again", async || WebSocket::open(url).await.ok()).await;
}

#[tokio::test]
async fn a_viewer_that_never_reads_is_closed_and_its_place_is_free() {
    let one = NonZeroUsize::new(1).unwrap();
    let running = start(ApiConfig { live_viewers_max: one, ..open_keys() }, no_vars).await;
    let (_silent, _) = running.stream("").await;
    let path = format!("/api/v1/projects/{KEY}/stream");
    let url = running.api.ws_url(&path);
    let record = format!("{{\"message\":\"{}\"}}", "x".repeat(64 * 1024));
    // The system's own buffers take megabytes before anything waits.
    let flood = async {
        loop {
            running.send_logs("d-1", &record).await;
        }
    };
    let closed = eventually(SOON, "its place is free", async || WebSocket::open(&url).await.ok());
    tokio::select! {
        () = flood => unreachable!("the flood never ends"),
        _ = closed => {}
    }
}
