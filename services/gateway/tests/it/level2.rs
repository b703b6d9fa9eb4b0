//! Level 2: who says hello gets more, and is asked for more.

use observer_bus::Stream;
use observer_wire::Limits;
use observer_wire::ask::Control;
use observer_wire::event::{Gone, GoneState, LineKind, SignIn};
use observer_wire::sending::Sending;
use serde_json::Value;

use crate::edits::edit;
use crate::game::{Game, base64, is_draining};
use crate::rig::{KEY, OTHER_KEY, Rig, eventually};

async fn hello(rig: &Rig, json: &str) -> Game {
    let mut game = Game::connect(rig.address).await;
    say(&mut game, json).await;
    game
}

/// Says hello in plain JSON, and reads the answer.
async fn say(game: &mut Game, json: &str) -> Value {
    game.send(&format!("h:{KEY}:{json}\n")).await;
    welcome(&game.line().await)
}

fn welcome(line: &str) -> Value {
    let json = line.strip_prefix(&format!("h:{KEY}:")).expect(line);
    serde_json::from_str(json).expect(line)
}

fn gravity(value: &str, rev: u64, base: u64) -> String {
    format!(r#"v:{KEY}:[{{"name":"gravity","type":"float","value":"{value}"}}]:{rev}:{base}"#)
}

fn gone_states(rig: &Rig) -> Vec<(String, GoneState)> {
    let gone = rig.bus.of_kind(LineKind::Gone).into_iter();
    gone.map(|line| {
        let gone: Gone = serde_json::from_str(&line.json).unwrap();
        (line.session, gone.state)
    })
    .collect()
}

#[tokio::test]
async fn a_hello_is_answered_with_what_holds_and_told_to_who_watches_devices() {
    let rig = Rig::start().await;
    let mut game = Game::connect(rig.address).await;
    let answer =
        say(&mut game, r#"{"device":"d1","session":"s1","build":"1.2","heartbeat_ms":7000}"#).await;
    assert_eq!((&answer["device"], &answer["session"]), (&"d1".into(), &"s1".into()));
    assert_eq!((&answer["epoch"], &answer["rev"]), (&"".into(), &0.into()));
    assert_eq!(answer["heartbeat_ms"], 7000);
    assert!(answer["time"].as_i64().unwrap() > 1_700_000_000_000);
    let limits = Limits::default();
    assert_eq!(answer["limits"]["line"], limits.line_bytes_max);
    assert_eq!(answer["limits"]["unacked"], limits.unsettled_lines_max);

    game.send(&format!("l:{KEY}:[{{}}]:m\n")).await;
    assert_eq!(game.line().await, "OK m");
    let line = rig.bus.lines(Stream::Logs).remove(0);
    assert_eq!((line.device.as_str(), line.session.as_str(), line.named), ("d1", "s1", true));
    let came = rig.bus.of_kind(LineKind::SignIn).remove(0);
    let sign_in: SignIn = serde_json::from_str(&came.json).unwrap();
    assert_eq!(sign_in.about.build.as_deref(), Some("1.2"));
    rig.stop().await;
}

#[tokio::test]
async fn a_hello_in_base64_is_answered_in_base64_and_may_say_nothing() {
    let rig = Rig::start().await;
    let mut game = Game::connect(rig.address).await;
    game.send(&format!("h:{KEY}:{}\n", base64("{}"))).await;
    let line = game.line().await;
    assert!(line.starts_with(&format!("h:{KEY}:eyJ")), "{line}");
    rig.stop().await;
}

#[tokio::test]
async fn a_bad_hello_is_refused_by_the_name_of_its_field_and_may_be_said_again() {
    let rig = Rig::start().await;
    let mut game = Game::connect(rig.address).await;
    for (json, start) in [
        (r#"{"device":7}"#, "ERR bad_shape - - `device` "),
        (r#"{"labels":["a",1]}"#, "ERR bad_shape - - `labels` "),
        ("[]", "ERR bad_shape - - a hello is an object"),
    ] {
        game.send(&format!("h:{KEY}:{json}\n")).await;
        let answer = game.line().await;
        assert!(answer.starts_with(start), "{answer}");
    }
    say(&mut game, "{}").await;
    game.send(&format!("h:{OTHER_KEY}:{{}}\n")).await;
    assert!(game.line().await.starts_with("ERR wrong_key"));
    rig.stop().await;
}

#[tokio::test]
async fn a_hello_that_did_not_sign_in_leaves_the_socket_as_it_was() {
    let rig = Rig::start().await;
    rig.bus.silence_keys(true);
    let mut game = Game::connect(rig.address).await;
    game.send(&format!("h:{KEY}:{{}}\n")).await;
    assert!(game.line().await.starts_with("ERR busy - 1000 "));
    rig.bus.silence_keys(false);
    game.send(&format!("v:{KEY}\n")).await;
    assert_eq!(game.line().await, "OK");
    rig.bus.edit(&edit(1, "1"));
    assert_eq!(game.callback(KEY).await, r#"[{"name":"gravity","type":"float","value":"1"}]"#);
    rig.stop().await;
}

#[tokio::test]
async fn who_says_hello_is_told_why_its_socket_closes_in_an_x_line() {
    let rig = Rig::start().await;
    let mut stranger = Game::connect(rig.address).await;
    stranger.send("h:nosuchkey000:{}\n").await;
    assert_eq!(stranger.line().await, "x:unknown_key:0");
    stranger.is_closed().await;

    let mut game = hello(&rig, "{}").await;
    let mut old = rig.game().await;
    rig.shutdown.request();
    let line = game.line().await;
    let retry: u32 = line.strip_prefix("x:draining:").expect(&line).parse().unwrap();
    assert!((1_000..=9_000).contains(&retry), "{retry}");
    assert!(is_draining(&old.line().await));
    drop((game, old, stranger));
    assert_eq!(rig.ended().await, Ok(()));
}

#[tokio::test]
async fn a_line_sent_again_on_another_socket_of_the_device_has_the_same_id() {
    let rig = Rig::start().await;
    for (device, session) in [("d1", "s1"), ("d1", "s2"), ("d2", "s1")] {
        let json = format!(r#"{{"device":"{device}","session":"{session}"}}"#);
        let mut game = hello(&rig, &json).await;
        game.send(&format!("l:{KEY}:[{{}}]:m\n")).await;
        assert_eq!(game.line().await, "OK m");
    }
    let lines = rig.bus.lines(Stream::Logs);
    assert_eq!(lines[0].id, lines[1].id);
    assert_ne!(lines[0].id, lines[2].id);
    rig.stop().await;
}

#[tokio::test]
async fn wanted_values_come_with_their_revision_and_only_to_who_is_behind() {
    let rig = Rig::start().await;
    rig.bus.edit(&edit(1, "1"));
    let mut new = Game::connect(rig.address).await;
    assert_eq!(say(&mut new, "{}").await["epoch"], "epoch001");
    assert_eq!(new.line().await, gravity("1", 1, 0));
    let mut knows = hello(&rig, r#"{"rev":1,"epoch":"epoch001"}"#).await;
    let mut other_epoch = hello(&rig, r#"{"rev":9,"epoch":"another0"}"#).await;
    assert_eq!(other_epoch.line().await, gravity("1", 1, 0));
    let mut old = rig.game().await;
    old.callback(KEY).await;
    rig.bus.edit(&edit(2, "2"));
    for game in [&mut new, &mut knows, &mut other_epoch] {
        assert_eq!(game.line().await, gravity("2", 2, 1));
    }
    assert_eq!(old.callback(KEY).await, r#"[{"name":"gravity","type":"float","value":"2"}]"#);
    rig.stop().await;
}

#[tokio::test]
async fn a_game_is_told_the_epoch_before_values_of_it_come() {
    let rig = Rig::start().await;
    let mut game = Game::connect(rig.address).await;
    assert_eq!(say(&mut game, "{}").await["epoch"], "");
    rig.bus.edit(&edit(1, "1"));
    assert_eq!(welcome(&game.line().await)["epoch"], "epoch001");
    assert_eq!(game.line().await, gravity("1", 1, 0));
    rig.stop().await;
}

#[tokio::test]
async fn a_game_with_values_of_another_epoch_hears_that_there_are_none() {
    let rig = Rig::start().await;
    let mut game = hello(&rig, r#"{"rev":9,"epoch":"another0"}"#).await;
    assert_eq!(game.line().await, format!("v:{KEY}:[]:0:0"));
    rig.stop().await;
}

#[tokio::test]
async fn a_hello_is_answered_also_while_nobody_knows_the_revision() {
    let rig = Rig::start().await;
    rig.bus.silence_documents(true);
    let mut game = Game::connect(rig.address).await;
    let answer = say(&mut game, "{}").await;
    assert!(answer.get("epoch").is_none() && answer.get("rev").is_none(), "{answer}");
    rig.bus.edit_in_silence(&edit(1, "1"));
    rig.bus.silence_documents(false);
    assert_eq!(welcome(&game.line().await)["rev"], 1);
    assert_eq!(game.line().await, gravity("1", 1, 0));
    rig.stop().await;
}

#[tokio::test]
async fn a_newer_socket_of_a_session_closes_the_older_one_and_no_other() {
    let rig = Rig::start().await;
    let json = r#"{"device":"d1","session":"s1"}"#;
    let mut older = hello(&rig, json).await;
    let mut other_session = hello(&rig, r#"{"device":"d1","session":"s2"}"#).await;
    let mut unnamed = hello(&rig, "{}").await;
    let mut newer = hello(&rig, json).await;
    assert_eq!(older.line().await, "x:replaced:0");
    older.is_closed().await;

    // On another gateway the same session signs in.
    rig.bus.tell_gateways(&Control::SignedIn {
        project: KEY.parse().unwrap(),
        device: "d1".into(),
        session: "s1".into(),
        epoch: u64::MAX,
    });
    assert_eq!(newer.line().await, "x:replaced:0");
    for game in [&mut other_session, &mut unnamed] {
        game.hears_nothing_more().await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn how_a_game_went_is_what_it_said() {
    let rig = Rig::start().await;
    for (session, lines) in [
        ("lost", &[][..]),
        ("suspended", &["back"][..]),
        ("again", &["back", "front"][..]),
        ("ended", &["back", "bye"][..]),
    ] {
        let mut game = hello(&rig, &format!(r#"{{"session":"{session}"}}"#)).await;
        for line in lines {
            game.send(&format!("d:{KEY}:{line}\n")).await;
        }
        game.hears_nothing_more().await;
    }
    eventually("all ends are told", || gone_states(&rig).len() == 4).await;
    let mut states = gone_states(&rig);
    states.sort_by(|left, right| left.0.cmp(&right.0));
    let expected = [
        ("again", GoneState::Lost),
        ("ended", GoneState::Ended),
        ("lost", GoneState::Lost),
        ("suspended", GoneState::Suspended),
    ];
    assert_eq!(states, expected.map(|(session, state)| (session.to_owned(), state)));
    rig.stop().await;
}

#[tokio::test]
async fn a_second_hello_updates_what_it_gives_or_begins_another_session() {
    let rig = Rig::start().await;
    let mut game = hello(&rig, r#"{"device":"d1","session":"s1","name":"a"}"#).await;
    let answer = say(&mut game, r#"{"scene":"menu"}"#).await;
    assert_eq!((&answer["device"], &answer["session"]), (&"d1".into(), &"s1".into()));
    eventually("both are told", || rig.bus.of_kind(LineKind::SignIn).len() == 2).await;
    let told = rig.bus.of_kind(LineKind::SignIn);
    let last: SignIn = serde_json::from_str(&told[1].json).unwrap();
    assert_eq!(
        (last.about.name.as_deref(), last.about.scene.as_deref()),
        (Some("a"), Some("menu"))
    );
    assert_eq!(told[0].epoch, told[1].epoch);
    assert!(gone_states(&rig).is_empty());

    assert_eq!(say(&mut game, r#"{"session":"s2"}"#).await["session"], "s2");
    eventually("the first session ended", || gone_states(&rig).len() == 1).await;
    assert_eq!(gone_states(&rig), [("s1".to_owned(), GoneState::Ended)]);
    let told = rig.bus.of_kind(LineKind::SignIn);
    assert_eq!(told[2].session, "s2");
    assert!(told[1].epoch < told[2].epoch);
    rig.stop().await;
}

#[tokio::test]
async fn a_replay_is_stored_and_neither_online_nor_given_variables() {
    let rig = Rig::start().await;
    rig.bus.edit(&edit(1, "1"));
    let mut game =
        hello(&rig, r#"{"device":"d1","session":"s0","replay":true,"ended":"abrupt"}"#).await;
    game.send(&format!("l:{KEY}:[{{}}]:m\n")).await;
    assert_eq!(game.line().await, "OK m");
    assert_eq!(rig.bus.lines(Stream::Logs)[0].session, "s0");
    game.send(&format!("i:{KEY}:[{{\"name\":\"a\",\"value\":1}}]:v\n")).await;
    assert!(game.line().await.starts_with("ERR bad_shape v - a replay has no variables"));
    rig.bus.edit(&edit(2, "2"));
    game.hears_nothing_more().await;
    assert!(rig.bus.lines(Stream::Vars).is_empty());
    // Then the game goes on with the session at hand.
    say(&mut game, r#"{"session":"s1"}"#).await;
    assert_eq!(game.line().await, gravity("2", 2, 0));
    eventually("it is told", || rig.bus.of_kind(LineKind::SignIn).len() == 1).await;
    assert!(gone_states(&rig).is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn what_a_game_had_to_drop_is_a_record_of_its_log() {
    let rig = Rig::start().await;
    let mut game = hello(&rig, r#"{"device":"d1"}"#).await;
    game.send(&format!("n:{KEY}:{{\"dropped\":{{\"queue\":30,\"rate\":7}},\"since\":5}}:m\n"))
        .await;
    assert_eq!(game.line().await, "OK m");
    let line = rig.bus.lines(Stream::Logs).remove(0);
    assert_eq!((line.count, line.device.as_str()), (1, "d1"));
    let records: Value = serde_json::from_str(&line.json).unwrap();
    assert_eq!(records[0]["kind"], "gap");
    assert_eq!(records[0]["message"], "37 records lost by the game: queue 30, rate 7");
    game.send(&format!("n:{KEY}:{{\"dropped\":{{\"queue\":0}}}}:none\n")).await;
    assert_eq!(game.line().await, "OK none");
    game.send(&format!("n:{KEY}:{{\"dropped\":{{\"queue\":-1}}}}:bad\n")).await;
    assert!(game.line().await.starts_with("ERR bad_shape bad - `dropped.queue` "));
    assert_eq!(rig.bus.lines(Stream::Logs).len(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn lines_of_level_2_need_a_hello() {
    let rig = Rig::start().await;
    let mut stranger = Game::connect(rig.address).await;
    let mut old = rig.game().await;
    for line in [format!("d:{KEY}:back\n"), format!("n:{KEY}:{{\"dropped\":{{}}}}\n")] {
        stranger.send(&line).await;
        assert!(stranger.line().await.starts_with("ERR not_signed_in - - "));
        old.send(&line).await;
        assert!(old.line().await.starts_with("ERR unknown_line - - "));
    }
    // A socket of level 1 may say hello later.
    say(&mut old, r#"{"device":"d1"}"#).await;
    old.send(&format!("d:{OTHER_KEY}:back\n")).await;
    assert!(old.line().await.starts_with("ERR wrong_key"));
    old.send("a:x:7\n").await;
    assert!(old.line().await.starts_with("ERR unknown_line - - a: lines are not taken"));
    rig.stop().await;
}

#[tokio::test]
async fn a_silent_game_is_asked_and_closed_unless_it_answers_or_is_in_the_background() {
    let rig = Rig::start().await;
    let beat = r#"{"heartbeat_ms":5000}"#;
    let mut silent = hello(&rig, beat).await;
    let mut answers = hello(&rig, beat).await;
    let mut background = hello(&rig, beat).await;
    background.send(&format!("d:{KEY}:back\n")).await;
    assert!(silent.line().await.starts_with("p:"));
    let asked = answers.line().await;
    assert!(asked.starts_with("p:"), "{asked}");
    answers.send(&format!("{asked}\n")).await;
    assert_eq!(silent.line().await, "x:idle:1000");
    silent.is_closed().await;
    // The echo was not echoed again; what came now is the next question, or none yet.
    answers.send("p:mine\n").await;
    let mut line = answers.line().await;
    if line != "p:mine" {
        assert!(line.starts_with("p:") && line != asked, "{line}");
        line = answers.line().await;
    }
    assert_eq!(line, "p:mine");
    background.hears_nothing_more().await;
    rig.stop().await;
}

#[tokio::test]
async fn who_can_is_told_what_to_send() {
    let rig = Rig::start().await;
    let mut one = hello(&rig, r#"{"device":"d1","caps":["g"]}"#).await;
    let mut two = hello(&rig, r#"{"device":"d2","caps":["g","a"]}"#).await;
    let mut cannot = hello(&rig, r#"{"device":"d1","caps":["a"]}"#).await;
    let sending = Sending { level: Some("debug".into()), ..Sending::default() };
    let project = KEY.parse().unwrap();
    let send = |device: Option<&str>| Control::Send {
        project,
        device: device.map(Into::into),
        sending: sending.clone(),
    };
    rig.bus.tell_gateways(&send(Some("d1")));
    rig.bus.tell_gateways(&send(None));
    let line = format!(r#"g:{KEY}:{{"level":"debug"}}"#);
    assert_eq!((one.line().await, one.line().await), (line.clone(), line.clone()));
    assert_eq!(two.line().await, line);
    for game in [&mut one, &mut two, &mut cannot] {
        game.hears_nothing_more().await;
    }
    rig.stop().await;
}
