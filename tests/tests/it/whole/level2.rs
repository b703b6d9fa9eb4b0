//! Level 2 through the whole product: a game that says who it is, and what people see of it.

use observer_tests::game::{Game, LINE_WITHIN};
use observer_tests::http::Api;
use observer_tests::stack::{Cluster, ClusterOptions};
use observer_tests::wait::eventually;
use serde_json::{Value, json};

use super::{SOON, Stack};

async fn hello(stack: &mut Stack, key: &str, json: &Value) -> Game {
    let mut game = stack.connect().await;
    game.send_line(&format!("h:{key}:{json}")).await.unwrap();
    welcomed(&mut game, key).await;
    game
}

async fn welcomed(game: &mut Game, key: &str) {
    let line = game.read_line(LINE_WITHIN).await.unwrap();
    assert!(line.starts_with(&format!("h:{key}:{{\"device\":")), "{line}");
}

/// Device, session and state of each entry.
async fn entries(api: &Api, key: &str) -> Vec<[String; 3]> {
    let vars = api.vars(key).await.unwrap();
    let devices = vars.json["devices"].as_array().unwrap();
    let text = |device: &Value, name: &str| device[name].as_str().unwrap().to_owned();
    let entry = |device| ["device", "session", "state"].map(|name| text(device, name));
    devices.iter().map(entry).collect()
}

async fn entries_are(api: &Api, key: &str, expected: &[[&str; 3]]) {
    eventually(SOON, "the devices are as expected", async || {
        (entries(api, key).await == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_device_is_shown_as_it_says_with_the_embedded_form() {
    a_device_is_shown_as_it_says(Stack::embedded().await).await;
}

#[tokio::test]
async fn a_device_is_shown_as_it_says_with_the_services() {
    a_device_is_shown_as_it_says(Stack::cluster().await).await;
}

async fn a_device_is_shown_as_it_says(mut stack: Stack) {
    let api = stack.api().await;
    let key = api.new_key().await;
    let said = json!({ "device": "d1", "session": "s1", "build": "1.2", "caps": ["g"] });
    let mut game = hello(&mut stack, &key, &said).await;
    game.send_line(&format!("l:{key}:[{{\"message\":\"mine\"}}]:m1")).await.unwrap();
    assert_eq!(game.read_line(LINE_WITHIN).await.unwrap(), "OK m1");
    let mut other = hello(&mut stack, &key, &json!({ "device": "d2", "session": "s1" })).await;
    other.send_line(&format!("n:{key}:{{\"dropped\":{{\"queue\":2}}}}:m1")).await.unwrap();
    assert_eq!(other.read_line(LINE_WITHIN).await.unwrap(), "OK m1");
    for (device, message) in [("d1", "mine"), ("d2", "2 records lost by the game: queue 2")] {
        let found = eventually(SOON, "logs are found by their device", async || {
            let logs = api.logs(&key, &format!("device={device}")).await.unwrap();
            let items = logs.json["items"].as_array().unwrap().clone();
            (!items.is_empty()).then_some(items)
        })
        .await;
        assert_eq!((found.len(), &found[0]["message"]), (1, &json!(message)));
    }
    entries_are(&api, &key, &[["d1", "s1", "online"], ["d2", "s1", "online"]]).await;
    let vars = api.vars(&key).await.unwrap();
    assert_eq!(vars.json["devices"][0]["about"], json!({ "build": "1.2" }));

    let path = format!("/api/v1/projects/{key}/devices/d1/send");
    let told = api.post(&path, &json!({ "level": "debug" })).await.unwrap();
    assert_eq!(told.status, 202, "{}", told.text);
    let line = game.read_line(LINE_WITHIN).await.unwrap();
    assert_eq!(line, format!("g:{key}:{{\"level\":\"debug\"}}"));

    // A second run while the first one lives, then the first one goes.
    let second = hello(&mut stack, &key, &json!({ "device": "d1", "session": "s2" })).await;
    let both = [["d1", "s1", "online"], ["d1", "s2", "online"], ["d2", "s1", "online"]];
    entries_are(&api, &key, &both).await;
    drop(game);
    entries_are(&api, &key, &[["d1", "s2", "online"], ["d2", "s1", "online"]]).await;
    other.send_line(&format!("d:{key}:back")).await.unwrap();
    entries_are(&api, &key, &[["d1", "s2", "online"], ["d2", "s1", "background"]]).await;
    drop((other, second));
    entries_are(&api, &key, &[["d1", "s2", "lost"], ["d2", "s1", "suspended"]]).await;
}

#[tokio::test]
async fn a_session_that_comes_to_another_gateway_closes_its_socket_on_the_first() {
    let options = ClusterOptions { gateways: 2, ..ClusterOptions::default() };
    let mut cluster = Cluster::start(options).await;
    let api = cluster.api().await;
    let key = api.new_key().await;
    let hello = format!("h:{key}:{{\"device\":\"d1\",\"session\":\"s1\"}}");
    let mut games = Vec::new();
    for gateway in &mut cluster.gateways {
        let mut game = Game::connect(gateway.address("gateway").await).await.unwrap();
        game.send_line(&hello).await.unwrap();
        welcomed(&mut game, &key).await;
        games.push(game);
    }
    let [older, newer] = &mut games[..] else { panic!("two gateways") };
    assert_eq!(older.read_line(LINE_WITHIN).await.unwrap(), "x:replaced:0");
    assert!(older.read_line(LINE_WITHIN).await.is_err(), "it is closed");
    newer.send_line("p:1").await.unwrap();
    assert_eq!(newer.read_line(LINE_WITHIN).await.unwrap(), "p:1");
    entries_are(&api, &key, &[["d1", "s1", "online"]]).await;
}
