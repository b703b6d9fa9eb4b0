//! T27, the part of devices and subjects: whatever a key or a device id looks like, it reaches no
//! project and no subject but its own.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use observer_tests::game::{Game, LINE_WITHIN};
use observer_tests::wait::eventually;
use observer_wire::ProjectId;
use serde_json::json;

use super::{SOON, Stack, items, one_edit};

/// What would mean something else to NATS, Redis, Elasticsearch or a file system.
const SHAPES: [&str; 14] = [
    "*",
    ">",
    "a.b",
    "observer.logs.>",
    "..",
    "../../etc",
    "a b",
    "$JS.API.>",
    "{x}:vs",
    "logs-*",
    "%2e%2e",
    "-1",
    "k\u{e9}y",
    "a\u{0}b",
];

async fn code(game: &mut Game) -> String {
    let answer = game.answer(LINE_WITHIN).await.unwrap();
    answer.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn keys_of_every_shape_are_unknown_and_nothing_is_published_for_them() {
    let mut stack = Stack::cluster().await;
    let Stack::Cluster(cluster) = &stack else { unreachable!("it was started so") };
    let nats = async_nats::connect(cluster.nats.url()).await.unwrap();
    let mut published = nats.subscribe("observer.>").await.unwrap();
    nats.flush().await.unwrap();
    let api = stack.api().await;
    let good = api.new_key().await;

    for key in SHAPES {
        let hello = format!(r#"h:{key}:{{"v":2,"device":"d"}}"#);
        for line in [format!("v:{key}"), hello, format!("l:{key}:[{{\"a\":1}}]:m")] {
            let mut game = stack.connect().await;
            game.send_line(&line).await.unwrap();
            let answer = game.read_line(LINE_WITHIN).await.unwrap();
            let refused = answer.starts_with("ERR ") || answer.starts_with("x:unknown_key:");
            assert!(refused, "{line:?}: {answer}");
        }
        let mut game = stack.game(&good).await;
        game.send_line(&format!("l:{key}:[{{\"a\":1}}]:m")).await.unwrap();
        let code = code(&mut game).await;
        assert!(code.starts_with("ERR "), "{key:?}: {code}");
    }
    for device in SHAPES {
        let mut game = stack.connect().await;
        let hello = json!({ "v": 2, "device": device, "session": device, "platform": device });
        game.send_line(&format!("h:{good}:{hello}")).await.unwrap();
        game.send_line(&format!("l:{good}:[{}]:m", json!({ "device": device }))).await.unwrap();
        let answer = game.answer(LINE_WITHIN).await.unwrap();
        // Such an id is taken as the text it is, or the hello is refused.
        assert!(answer == "OK m" || answer.starts_with("ERR bad_shape "), "{device:?}: {answer}");
    }
    assert!(!items(&api, &good, "").await.iter().any(|item| item["a"] == 1), "none was stored");

    // The last to be published is known: all that came before it on its connection has arrived.
    let mut last = stack.game(&good).await;
    last.log_with_mid(&json!([{ "last": true }]), "last").await.unwrap();
    assert_eq!(code(&mut last).await, "OK last");
    let project: ProjectId = good.parse().unwrap();
    let mut subjects = BTreeSet::new();
    loop {
        let next = tokio::time::timeout(SOON, published.next()).await.expect("the last arrives");
        let message = next.expect("the server is there");
        subjects.insert(message.subject.to_string());
        let is_last = message.payload.windows(11).any(|part| part == b"\"last\":true");
        if is_last && message.subject.starts_with("observer.logs.") {
            break;
        }
    }
    for subject in subjects {
        let own = subject.rsplit('.').next() == Some(&project.to_string());
        let ours = ["observer.ask.", "observer.control."];
        let fixed = ours.iter().any(|prefix| subject.starts_with(prefix));
        assert!(own || fixed, "{subject}");
    }
}

#[tokio::test]
async fn a_device_reaches_only_the_project_of_its_key_though_ids_are_the_same() {
    let mut stack = Stack::cluster().await;
    let api = stack.api().await;
    let keys = [api.new_key().await, api.new_key().await];
    let mut games = Vec::new();
    for key in &keys {
        let mut game = stack.connect().await;
        let hello = json!({ "v": 2, "device": "twin", "session": "twin" });
        game.send_line(&format!("h:{key}:{hello}")).await.unwrap();
        let welcome = game.read_line(LINE_WITHIN).await.unwrap();
        assert!(welcome.starts_with(&format!("h:{key}:")), "{welcome}");
        let own = json!([{ "canary": key }]);
        game.send_line(&format!("l:{key}:{own}:same")).await.unwrap();
        assert_eq!(code(&mut game).await, "OK same");
        game.send_line(&format!(
            r#"i:{key}:[{{"name":"gravity","type":"float","value":"1"}}]:vars"#
        ))
        .await
        .unwrap();
        assert_eq!(code(&mut game).await, "OK vars");
        games.push(game);
    }
    let [mut mine, mut other] = <[Game; 2]>::try_from(games).unwrap();
    mine.send_line(&format!("l:{}:[{{\"canary\":1}}]:wrong", keys[1])).await.unwrap();
    assert_eq!(code(&mut mine).await, "ERR wrong_key");

    for key in &keys {
        let found = eventually(SOON, "the record is found", async || {
            let found = items(&api, key, "").await;
            (!found.is_empty()).then_some(found)
        })
        .await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0]["canary"], **key);
    }
    let edit = one_edit("gravity", "float", "4");
    eventually(SOON, "the edit is taken", async || {
        let answer = api.edit(&keys[0], &edit).await.unwrap();
        (answer.status == 200).then_some(())
    })
    .await;
    let mut told = String::new();
    while !told.starts_with("v:") {
        told = mine.read_line(LINE_WITHIN).await.unwrap();
    }
    other.send_line("p:1").await.unwrap();
    assert_eq!(other.read_line(LINE_WITHIN).await.unwrap(), "p:1", "nothing came before it");
    let vars = api.vars(&keys[1]).await.unwrap();
    assert!(!vars.text.contains("\"4\""), "{}", vars.text);
}
