//! What is given up as the bus fills, and how that is told.

use observer_bus::{PublishError, Stream};
use observer_wire::event::LineKind;

use crate::game::Game;
use crate::rig::{KEY, Rig, eventually};

async fn send(game: &mut Game, level: &str, mid: &str) -> String {
    game.send(&format!("l:{KEY}:[{{\"level\":\"{level}\"}}]:{mid}\n")).await;
    game.line().await
}

/// A rig whose bus is `percent` full of logs from the start.
async fn full(percent: Option<u8>) -> (Rig, Game) {
    let rig = Rig::start().await;
    rig.bus.fill(Stream::Logs, percent);
    let game = rig.game().await;
    (rig, game)
}

/// The gap records that were published.
fn gaps(rig: &Rig) -> Vec<String> {
    let logs = rig.bus.lines(Stream::Logs);
    logs.into_iter().map(|line| line.json).filter(|json| json.contains("\"gap\"")).collect()
}

/// Sends lines of `level` until the gateway has heard how full the bus is; returns how many were
/// shed.
async fn until(game: &mut Game, level: &str, answer: &str) -> usize {
    for number in 0..1_000_000 {
        let said = send(game, level, &format!("{level}-{number}")).await;
        if said.starts_with(answer) {
            return if answer == "OK" { number } else { 1 };
        }
    }
    panic!("never answered {answer}");
}

#[tokio::test]
async fn nothing_is_shed_below_60_percent_or_while_nobody_knows() {
    for percent in [Some(59), None] {
        let (rig, mut game) = full(percent).await;
        for level in ["trace", "debug", "info", "fatal"] {
            assert_eq!(send(&mut game, level, level).await, format!("OK {level}"));
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn from_60_percent_on_debug_is_shed_and_from_85_on_all_but_warnings_and_worse() {
    for (percent, shed) in [(60, &["trace", "debug"][..]), (84, &["debug"]), (85, &["info", "log"])]
    {
        let (rig, mut game) = full(Some(percent)).await;
        for level in shed {
            let answer = send(&mut game, level, level).await;
            assert!(answer.starts_with(&format!("ERR shed {level} - ")), "{percent}: {answer}");
        }
        let taken = if percent < 85 { "info" } else { "warn" };
        for level in [taken, "error"] {
            assert_eq!(send(&mut game, level, level).await, format!("OK {level}"), "{percent}");
        }
        game.send(&format!("l:{KEY}:[{{\"level\":\"debug\"}}]\n")).await;
        let answer = game.line().await;
        assert!(answer.starts_with("ERR shed - - "), "{answer}");
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_line_with_one_error_in_it_is_taken_whole() {
    let (rig, mut game) = full(Some(100)).await;
    game.send(&format!("l:{KEY}:[{{\"level\":\"debug\"}},{{\"level\":\"error\"}}]:a\n")).await;
    assert_eq!(game.line().await, "OK a");
    rig.stop().await;
}

#[tokio::test]
async fn what_was_shed_is_told_in_one_record_once_there_is_room() {
    let (rig, mut game) = full(Some(60)).await;
    for mid in ["a", "b"] {
        game.send(&format!("l:{KEY}:[{{\"level\":\"debug\"}},{{\"level\":\"trace\"}}]:{mid}\n"))
            .await;
        assert!(game.line().await.starts_with(&format!("ERR shed {mid} - ")));
    }
    assert_eq!(gaps(&rig), Vec::<String>::new(), "there is no room for more yet");
    rig.bus.fill(Stream::Logs, Some(59));
    eventually("the gap is told", || !gaps(&rig).is_empty()).await;
    let gap = &gaps(&rig)[0];
    assert!(gap.contains("\"message\":\"4 records lost under pressure: shed 4\""), "{gap}");
    assert!(gap.contains("\"level\":\"warn\"") && gap.contains("\"since\":1"), "{gap}");
    assert_eq!(until(&mut game, "debug", "OK").await, 0, "it is taken again");
    rig.stop().await;
}

#[tokio::test]
async fn a_gap_that_the_bus_does_not_take_is_told_again_as_the_same_record() {
    let (rig, mut game) = full(Some(60)).await;
    eventually("the sign-in is told", || !rig.bus.lines(Stream::Vars).is_empty()).await;
    assert!(send(&mut game, "debug", "a").await.starts_with("ERR shed a - "));
    rig.bus.fail([PublishError::Full]);
    rig.bus.fill(Stream::Logs, Some(0));
    eventually("the gap is told twice", || gaps(&rig).len() == 2).await;
    let logs = rig.bus.lines(Stream::Logs);
    let [first, second] = &logs[..] else { panic!("two tries: {logs:?}") };
    assert_eq!((&first.id, &first.json, first.seq), (&second.id, &second.json, second.seq));
    assert_eq!((first.again, second.again), (false, true));
    rig.stop().await;
}

#[tokio::test]
async fn what_was_shed_is_told_at_the_latest_when_the_gateway_stops() {
    let (rig, mut game) = full(Some(85)).await;
    assert!(send(&mut game, "info", "a").await.starts_with("ERR shed a - "));
    let bus = std::sync::Arc::clone(&rig.bus);
    rig.stop().await;
    let logs = bus.of_kind(LineKind::Logs);
    assert_eq!(logs.len(), 1);
    assert!(logs[0].json.contains("1 record lost under pressure: shed 1"), "{logs:?}");
}

#[tokio::test]
async fn variables_are_busy_past_50_percent_of_what_var_store_has_not_seen() {
    for (percent, taken) in [(Some(50), true), (Some(51), false), (None, true)] {
        let rig = Rig::start().await;
        rig.bus.fill(Stream::Vars, percent);
        let mut game = rig.game().await;
        game.send(&format!("i:{KEY}:[{{\"name\":\"a\",\"value\":\"1\"}}]:a\n")).await;
        let answer = game.line().await;
        let expected = if taken { "OK a" } else { "ERR busy a 1000 " };
        assert!(answer.starts_with(expected), "{percent:?}: {answer}");
        assert_eq!(send(&mut game, "debug", "b").await, "OK b", "logs have a stream of their own");
        rig.stop().await;
    }
}
