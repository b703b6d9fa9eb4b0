//! When a line is answered, and what it is told when the bus is not well.

use std::time::Duration;

use observer_bus::{PublishError, Stream};
use observer_wire::Limits;
use tokio::time::{sleep, timeout};

use crate::game::{Game, WITHIN, base64};
use crate::rig::{KEY, OTHER_KEY, Rig, eventually};
use crate::transport::Transport;

#[tokio::test]
async fn ok_is_said_only_after_the_publish_returned() {
    let rig = Rig::start().await;
    let mut game = rig.game().await;
    rig.bus.hold_publishes();
    game.send(&format!("l:{KEY}:[{{}}]:a\n")).await;
    eventually("it is published", || rig.bus.lines(Stream::Logs).len() == 1).await;
    game.hears_nothing_more().await;
    rig.bus.release_publishes();
    assert_eq!(game.line().await, "OK a");
    rig.stop().await;
}

#[tokio::test]
async fn a_line_without_a_mid_hears_nothing_of_success() {
    let rig = Rig::start().await;
    let mut game = rig.game().await;
    game.send(&format!("l:{KEY}:[{{}}]\n")).await;
    eventually("it is published", || rig.bus.lines(Stream::Logs).len() == 1).await;
    game.hears_nothing_more().await;
    rig.stop().await;
}

#[tokio::test]
async fn a_full_or_unreachable_bus_is_busy_and_the_line_is_flagged_when_it_comes_again() {
    let rig = Rig::start().await;
    let mut game = rig.game().await;
    // Past the first lines of a socket only what was not answered well is flagged.
    for number in 0..40 {
        game.send(&format!("l:{KEY}:[{{}}]:n{number}\n")).await;
        assert_eq!(game.line().await, format!("OK n{number}"));
    }
    eventually("the sign-in is told", || !rig.bus.lines(Stream::Vars).is_empty()).await;
    for error in [PublishError::Full, PublishError::Unavailable] {
        rig.bus.fail([error.clone()]);
        game.send(&format!("l:{KEY}:[{{}}]:a\n")).await;
        let answer = game.line().await;
        assert!(answer.starts_with("ERR busy a 1000 "), "{error:?}: {answer}");
    }
    rig.bus.fail([PublishError::Full]);
    game.send(&format!("l:{KEY}:[{{}}]\n")).await;
    assert!(game.line().await.starts_with("ERR busy - 1000 "));
    game.send(&format!("l:{KEY}:[{{}}]:a\n")).await;
    assert_eq!(game.line().await, "OK a");
    game.send(&format!("l:{KEY}:[{{}}]:b\n")).await;
    assert_eq!(game.line().await, "OK b");
    let lines = rig.bus.lines(Stream::Logs);
    assert!(lines[lines.len() - 2].again);
    assert!(!lines[lines.len() - 1].again);
    rig.stop().await;
}

#[tokio::test]
async fn an_unknown_outcome_is_tried_once_more_with_the_same_id_and_bytes() {
    let rig = Rig::start().await;
    let mut game = rig.game().await;
    eventually("the sign-in is told", || !rig.bus.lines(Stream::Vars).is_empty()).await;
    rig.bus.fail([PublishError::Timeout]);
    game.send(&format!("l:{KEY}:[{{}}]:a\n")).await;
    assert_eq!(game.line().await, "OK a");
    let messages = rig.bus.messages();
    let [first, second] = &messages[messages.len() - 2..] else { panic!("two tries") };
    assert_eq!((&first.id, &first.payload), (&second.id, &second.payload));

    rig.bus.fail([PublishError::Timeout, PublishError::Unavailable]);
    game.send(&format!("l:{KEY}:[{{}}]:b\n")).await;
    assert!(game.line().await.starts_with("ERR timeout b 1000 "));
    rig.stop().await;
}

#[tokio::test]
async fn a_bus_that_refuses_is_busy_to_the_game() {
    let rig = Rig::start().await;
    let mut game = rig.game().await;
    eventually("the sign-in is told", || !rig.bus.lines(Stream::Vars).is_empty()).await;
    rig.bus.fail([PublishError::Refused("no such stream".into())]);
    game.send(&format!("l:{KEY}:[{{}}]:a\n")).await;
    assert!(game.line().await.starts_with("ERR busy a 1000 "));
    rig.stop().await;
}

#[tokio::test]
async fn a_bus_that_never_answers_is_a_timeout_within_8_seconds() {
    let rig = Rig::start().await;
    let mut game = rig.game().await;
    rig.bus.hold_publishes();
    game.send(&format!("l:{KEY}:[{{}}]:a\n")).await;
    let answer = timeout(Duration::from_secs(8), game.line()).await.unwrap();
    assert!(answer.starts_with("ERR timeout a 1000 "), "{answer}");
    rig.bus.release_publishes();
    rig.stop().await;
}

#[tokio::test]
async fn a_socket_is_not_read_past_its_unsettled_lines() {
    let limits = Limits { unsettled_lines_max: 3, ..Limits::default() };
    let rig = Rig::with_limits(limits).await;
    let mut game = rig.game().await;
    rig.bus.hold_publishes();
    for number in 0..10 {
        game.send(&format!("l:{KEY}:[{{}}]:{number}\n")).await;
    }
    eventually("three are published", || rig.bus.lines(Stream::Logs).len() == 3).await;
    game.send("p:late\n").await;
    // Another socket is served all the while.
    let mut other = Game::sign_in(rig.address, OTHER_KEY).await;
    other.hears_nothing_more().await;
    assert_eq!(rig.bus.lines(Stream::Logs).len(), 3, "nothing more was taken");
    rig.bus.release_publishes();
    let mut answers = Vec::new();
    for _ in 0..11 {
        answers.push(game.line().await);
    }
    let place = |text: &str| answers.iter().position(|answer| answer == text);
    // It is taken once fewer than three of the lines before it wait, in whatever order they are settled.
    assert!(place("p:late") >= Some(8), "{answers:?}");
    assert!((0..10).all(|number| place(&format!("OK {number}")).is_some()), "{answers:?}");
    rig.stop().await;
}

#[tokio::test]
async fn lines_past_a_projects_part_of_the_budget_are_busy_and_others_are_not() {
    let limits = Limits {
        line_bytes_max: 5_000,
        waiting_bytes_max: 40_000,
        project_waiting_percent_max: 25,
        ..Limits::default()
    };
    let rig = Rig::with_limits(limits).await;
    let mut game = rig.game().await;
    let mut other = Game::sign_in(rig.address, OTHER_KEY).await;
    eventually("sign-ins are told", || rig.bus.lines(Stream::Vars).len() == 2).await;
    rig.bus.hold_publishes();
    let words = "x".repeat(3_000);
    for mid in 0..4 {
        game.send(&format!("l:{KEY}:[{{\"message\":\"{words}\"}}]:{mid}\n")).await;
    }
    assert!(game.line().await.starts_with("ERR busy "));
    other.send(&format!("l:{OTHER_KEY}:[{{}}]:fine\n")).await;
    eventually("the other's is published", || {
        rig.bus.lines(Stream::Logs).iter().any(|line| line.mid.as_deref() == Some("fine"))
    })
    .await;
    rig.bus.release_publishes();
    assert_eq!(other.line().await, "OK fine");
    rig.stop().await;
}

#[tokio::test]
async fn a_game_that_does_not_read_is_closed_and_others_are_unaffected() {
    let limits = Limits { output_bytes_max: 10_000, ..Limits::default() };
    let rig = Rig::with_limits(limits).await;
    let mut game = rig.game().await;
    let mut other = rig.game().await;
    let echo = format!("p:{}\n", base64(&"x".repeat(3_000)));
    let flood = async {
        loop {
            use tokio::io::AsyncWriteExt as _;
            if game.socket.write_all(echo.as_bytes()).await.is_err() {
                break;
            }
        }
    };
    assert!(timeout(Duration::from_secs(20), flood).await.is_ok(), "it is closed");
    other.hears_nothing_more().await;
    rig.stop().await;
}

#[tokio::test]
async fn while_the_bus_is_behind_sockets_are_not_read_and_then_all_lines_are_answered() {
    const GAMES: usize = 40;
    const LINES: usize = 32;
    let rig = Rig::start().await;
    rig.bus.hold_publishes();
    let json = format!("[{{\"message\":\"{}\"}}]", "x".repeat(17_000)); // Each travels alone.
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..GAMES {
        let mut game = rig.game().await;
        let json = json.clone();
        sending.spawn(async move {
            for mid in 0..LINES {
                game.send(&format!("l:{KEY}:{json}:{mid}\n")).await;
            }
            for _ in 0..LINES {
                let answer = game.line().await;
                assert!(answer.starts_with("OK "), "{answer}");
            }
        });
    }
    // Two workers, each with 256 messages under way.
    eventually("all that may be is under way", || rig.bus.messages().len() >= 512).await;
    let mut late = rig.game().await; // Who comes now is welcome all the same.
    rig.bus.release_publishes();
    late.hears_nothing_more().await;
    while let Some(sent) = sending.join_next().await {
        sent.unwrap();
    }
    assert_eq!(rig.bus.lines(Stream::Logs).len(), GAMES * LINES);
    rig.stop().await;
}

#[tokio::test]
async fn a_game_that_takes_nothing_of_what_waits_is_closed_in_time() {
    // More than the kernel's buffers hold, and less than may wait.
    const FLOOD_BYTES: usize = 24 * 1024 * 1024;
    let limits =
        Limits { output_bytes_max: 2 * FLOOD_BYTES, output_secs_max: 1, ..Limits::default() };
    let rig = Rig::with_limits(limits).await;
    let echo = format!("p:{}\n", "x".repeat(64 * 1024));
    // The kit's WebSockets read by themselves, so they would never be slow.
    for transport in [Transport::Plain, Transport::Tls] {
        let mut game = rig.target(transport).sign_in(KEY).await;
        let flood = async {
            use tokio::io::AsyncWriteExt as _;
            for _ in 0..FLOOD_BYTES / echo.len() {
                if game.socket.write_all(echo.as_bytes()).await.is_err() {
                    return;
                }
            }
            while game.socket.write_all(b"p:1\n").await.is_ok() {
                sleep(Duration::from_millis(10)).await; // Until it is closed.
            }
        };
        assert!(timeout(2 * WITHIN, flood).await.is_ok(), "{transport:?} is closed");
        let mut other = rig.target(transport).sign_in(OTHER_KEY).await;
        other.hears_nothing_more().await;
    }
    rig.stop().await;
}
