//! Several of each service: every device is reached, every record is stored once.

use std::collections::BTreeSet;
use std::time::Duration;

use observer_tests::game::LINE_WITHIN;
use observer_tests::stack::{Cluster, ClusterOptions};
use observer_tests::wait::eventually;
use serde_json::json;

use super::{SOON, items, items_once, one_edit, receipts};

/// Time for what a killed log-indexer had in hand to be stored by the other: the broker gives it away
/// after 15 s.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(40);

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

#[tokio::test]
async fn what_a_killed_log_indexer_had_in_hand_is_stored_once_by_the_other() {
    let mut cluster = Cluster::start(ClusterOptions::default()).await;
    let api = cluster.api().await;
    let key = api.new_key().await;
    let mut game = cluster.game(0, &key).await;
    let mut answered = 0;
    for line in 0..20 * LINES {
        game.log_with_mid(&json!([{ "line": line }]), &line.to_string()).await.unwrap();
        if line == 10 * LINES {
            cluster.log_indexers[0].kill();
        }
        // Thirty ahead of their answers: a socket with more is not read.
        if line >= answered + 30 {
            game.answer(LINE_WITHIN).await.unwrap();
            answered += 1;
        }
    }
    while answered < 20 * LINES {
        let answer = game.answer(LINE_WITHIN).await.unwrap();
        assert!(answer.starts_with("OK "), "{answer}");
        answered += 1;
    }
    eventually(TAKEN_OVER_WITHIN, "every acknowledged line is found", async || {
        (items(&api, &key, "").await.len() >= answered).then_some(())
    })
    .await;
    let lines: BTreeSet<_> =
        items(&api, &key, "").await.iter().map(|item| item["line"].to_string()).collect();
    assert_eq!((items(&api, &key, "").await.len(), lines.len()), (answered, answered));
}
