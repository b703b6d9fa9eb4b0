//! Edits out: to every socket of the project, in order, and never anything older.

use observer_wire::edit::{Change, Document, EDIT_VERSION, Edit, Scope, TypedValue};
use serde_json::value::RawValue;

use crate::game::Game;
use crate::rig::{KEY, OTHER_KEY, Rig, eventually};

/// An edit of gravity.
pub(crate) fn edit(rev: u64, value: &str) -> Edit {
    Edit {
        v: EDIT_VERSION,
        project: KEY.parse().unwrap(),
        epoch: "epoch001".into(),
        rev,
        edit_id: format!("e{rev}"),
        actor: "anna".into(),
        at: 1,
        note: None,
        changes: vec![Change {
            name: "gravity".into(),
            scope: Scope::All,
            set: Some(TypedValue { kind: "float".into(), value: value.into() }),
        }],
        raw: None,
    }
}

fn gravity(value: &str) -> String {
    format!(r#"[{{"name":"gravity","type":"float","value":"{value}"}}]"#)
}

/// Sign-ins whose document is known: an edit from now on is the next one.
async fn games(rig: &Rig, count: usize) -> Vec<Game> {
    let mut games = Vec::new();
    for _ in 0..count {
        games.push(rig.game().await);
    }
    eventually("the document was asked for", || rig.bus.documents_asked() >= 1).await;
    games
}

#[tokio::test]
async fn an_edit_reaches_every_socket_of_its_project_and_no_other() {
    let rig = Rig::start().await;
    let second_key = "second-key-0";
    rig.bus.register_for(second_key, KEY.parse().unwrap());
    let mut games = games(&rig, 5).await;
    let mut second = Game::sign_in(rig.address, second_key).await;
    let mut other = Game::sign_in(rig.address, OTHER_KEY).await;
    for (rev, value) in [(1, "3.5"), (2, "4")] {
        rig.bus.edit(&edit(rev, value));
        for game in &mut games {
            assert_eq!(game.callback(KEY).await, gravity(value));
        }
        assert_eq!(second.callback(second_key).await, gravity(value), "with its own key");
    }
    other.hears_nothing_more().await;
    rig.stop().await;
}

#[tokio::test]
async fn what_the_originals_page_sent_arrives_exactly_so() {
    let rig = Rig::start().await;
    let mut game = games(&rig, 1).await.remove(0);
    let raw = r#"{"name": "gravity", "value":3.50}"#;
    let raw_edit = Edit { raw: RawValue::from_string(raw.into()).ok(), ..edit(1, "3.5") };
    rig.bus.edit(&raw_edit);
    assert_eq!(game.callback(KEY).await, raw);
    rig.stop().await;
}

#[tokio::test]
async fn the_wanted_document_follows_a_sign_in() {
    let rig = Rig::start().await;
    let mut document = Document::default();
    for (rev, value) in [(1, "1"), (2, "2")] {
        document.apply(&edit(rev, value));
    }
    rig.bus.set_document(KEY, document);
    let mut first = rig.game().await;
    assert_eq!(first.callback(KEY).await, gravity("2"));
    let mut second = rig.game().await;
    assert_eq!(second.callback(KEY).await, gravity("2"));
    assert!(rig.bus.documents_asked() <= 3, "it is kept by revision");
    first.send(&format!("v:{KEY}\n")).await;
    assert_eq!(first.line().await, "OK");
    assert_eq!(first.callback(KEY).await, gravity("2"), "also after a second sign-in");
    rig.bus.hear(&edit(2, "2"));
    rig.bus.hear(&edit(1, "1"));
    first.hears_nothing_more().await;
    rig.bus.edit(&edit(3, "3"));
    assert_eq!(second.callback(KEY).await, gravity("3"));
    assert_eq!(first.callback(KEY).await, gravity("3"), "nothing older came before");
    rig.stop().await;
}

#[tokio::test]
async fn the_document_follows_as_soon_as_somebody_answers_for_it() {
    let rig = Rig::start().await;
    rig.bus.silence_documents(true);
    rig.bus.edit_in_silence(&edit(1, "1"));
    let mut game = rig.game().await;
    eventually("it is asked for", || rig.bus.documents_asked() >= 1).await;
    rig.bus.silence_documents(false);
    assert_eq!(game.callback(KEY).await, gravity("1"));
    rig.stop().await;
}

#[tokio::test]
async fn an_edit_that_does_not_follow_brings_the_whole_document() {
    let rig = Rig::start().await;
    let mut game = games(&rig, 1).await.remove(0);
    rig.bus.edit(&edit(1, "1"));
    assert_eq!(game.callback(KEY).await, gravity("1"));
    rig.bus.edit_in_silence(&edit(2, "2"));
    let other = Edit {
        changes: vec![Change { name: "wind".into(), ..edit(3, "7").changes.remove(0) }],
        ..edit(3, "7")
    };
    rig.bus.edit(&other);
    let whole = r#"[{"name":"gravity","type":"float","value":"2"},{"name":"wind","type":"float","value":"7"}]"#;
    assert_eq!(game.callback(KEY).await, whole);
    rig.stop().await;
}

#[tokio::test]
async fn an_edit_heard_before_it_is_applied_arrives_all_the_same() {
    let rig = Rig::start().await;
    let mut game = games(&rig, 1).await.remove(0);
    rig.bus.hear(&edit(2, "2")); // A gap: the document has revision 0 still.
    let asked = rig.bus.documents_asked();
    eventually("it is asked for again", || rig.bus.documents_asked() >= asked + 2).await;
    rig.bus.edit_in_silence(&edit(1, "1"));
    rig.bus.edit_in_silence(&edit(2, "2"));
    loop {
        // Between the two edits the document may have been asked for once more.
        let now = game.callback(KEY).await;
        if now == gravity("2") {
            break;
        }
        assert_eq!(now, gravity("1"));
    }
    rig.stop().await;
}

#[tokio::test]
async fn after_lost_broadcasts_every_socket_is_brought_up_to_date() {
    let rig = Rig::start().await;
    let mut games = games(&rig, 3).await;
    rig.bus.edit_in_silence(&edit(1, "1"));
    rig.bus.resync();
    for game in &mut games {
        assert_eq!(game.callback(KEY).await, gravity("1"));
    }
    rig.stop().await;
}

#[tokio::test]
async fn another_epoch_brings_the_whole_document_though_its_revision_is_lower() {
    let rig = Rig::start().await;
    let mut game = games(&rig, 1).await.remove(0);
    for rev in 1..=3 {
        rig.bus.edit(&edit(rev, &rev.to_string()));
        assert_eq!(game.callback(KEY).await, gravity(&rev.to_string()));
    }
    let anew = Edit { epoch: "epoch002".into(), ..edit(2, "9") };
    let mut document = Document::default();
    document.apply(&anew);
    rig.bus.set_document(KEY, document);
    rig.bus.hear(&anew);
    assert_eq!(game.callback(KEY).await, gravity("9"));
    rig.stop().await;
}

#[tokio::test]
async fn an_edit_that_cannot_be_read_harms_nobody() {
    let rig = Rig::start().await;
    let mut game = games(&rig, 1).await.remove(0);
    rig.bus.hear(&Edit { v: EDIT_VERSION + 1, ..edit(1, "1") });
    rig.bus.edit(&edit(1, "1"));
    assert_eq!(game.callback(KEY).await, gravity("1"));
    rig.stop().await;
}

/// Reads callbacks until revision `last` is there; each is newer than the one before.
async fn reads_up_to(mut game: Game, last: u64) {
    let mut seen = 0;
    while seen < last {
        let json = game.callback(KEY).await;
        let values: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
        let now: u64 = values[0]["value"].as_str().unwrap().parse().unwrap();
        assert!(seen < now, "{now} after {seen}");
        seen = now;
    }
    game.hears_nothing_more().await;
}

#[tokio::test]
async fn whatever_is_lost_every_socket_ends_at_the_last_revision_and_none_goes_back() {
    const EDITS: u64 = 300;
    let rig = Rig::start().await;
    let mut readers = tokio::task::JoinSet::new();
    let mut random = 7_u64;
    for rev in 1..=EDITS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let edit = edit(rev, &rev.to_string());
        match (random >> 33) % 8 {
            0 => rig.bus.edit_in_silence(&edit),
            1 => {
                rig.bus.edit_in_silence(&edit);
                rig.bus.resync();
            }
            2 => {
                // Heard before var-store has it, and twice.
                rig.bus.hear(&edit);
                rig.bus.hear(&edit);
                tokio::task::yield_now().await;
                rig.bus.edit_in_silence(&edit);
            }
            _ => rig.bus.edit(&edit),
        }
        if rev % 20 == 1 {
            readers.spawn(reads_up_to(rig.game().await, EDITS));
        }
    }
    rig.bus.resync();
    while let Some(read) = readers.join_next().await {
        read.unwrap();
    }
    rig.stop().await;
}
