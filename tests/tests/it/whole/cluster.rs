//! Several of each service: every device is reached, every record is stored once.

use std::collections::BTreeSet;

use observer_tests::game::LINE_WITHIN;
use observer_tests::stack::{Cluster, ClusterOptions};
use observer_tests::wait::eventually;
use serde_json::json;

use super::{SOON, items_once, one_edit, receipts};

/// Lines that each of two games sends.
const LINES: usize = 100;

#[tokio::test]
async fn two_of_each_service_reach_every_device_and_store_each_record_once() {
    let mut cluster = Cluster::start(ClusterOptions::default()).await;
    let api = cluster.api().await;
    let key = api.new_key().await;
    let mut games = [cluster.game(0, &key).await, cluster.game(1, &key).await];

    for (number, game) in games.iter_mut().enumerate() {
        for line in 0..LINES {
            let records = json!([{ "message": "a", "n": number, "i": 2 * line },
                { "message": "b", "n": number, "i": 2 * line + 1 }]);
            game.log_with_mid(&records, &format!("{number}-{line}")).await.unwrap();
        }
    }
    for game in &mut games {
        let mut answers = BTreeSet::new();
        for _ in 0..LINES {
            let answer = game.answer(LINE_WITHIN).await.unwrap();
            assert!(answer.starts_with("OK "), "{answer}");
            answers.insert(answer);
        }
        assert_eq!(answers.len(), LINES);
    }
    let items = items_once(&api, &key, 4 * LINES).await;
    let ids: BTreeSet<_> = items.iter().map(|item| item["observer"]["id"].to_string()).collect();
    let sent: BTreeSet<_> =
        items.iter().map(|item| (item["n"].to_string(), item["i"].to_string())).collect();
    assert_eq!((items.len(), ids.len(), sent.len()), (4 * LINES, 4 * LINES, 4 * LINES));

    for (revision, game) in games.iter_mut().enumerate() {
        game.var("speed", "integer", &revision.to_string()).await.unwrap();
    }
    let edited = api.edit(&key, &one_edit("speed", "integer", "7")).await.unwrap();
    assert_eq!(edited.text, r#"{"revision":1}"#);
    for game in &mut games {
        let wanted = json!([{ "name": "speed", "type": "integer", "value": "7" }]);
        assert_eq!(game.callback(LINE_WITHIN).await.unwrap(), wanted);
        game.var("speed", "integer", "7").await.unwrap();
    }
    eventually(SOON, "both devices have applied the edit", async || {
        let applied = ("7".to_owned(), "applied".to_owned());
        (receipts(&api, &key, "speed").await == [applied.clone(), applied]).then_some(())
    })
    .await;
}
