//! Lines in, however they are cut; and what each bad one gets.

use std::fmt::Write as _;

use observer_bus::Stream;
use observer_wire::Limits;
use observer_wire::event::{Event, LineKind, MESSAGE_BYTES_TARGET};

use crate::game::{Game, base64};
use crate::rig::{KEY, OTHER_KEY, Rig, eventually};

#[tokio::test]
async fn a_line_reaches_the_bus_as_it_was_sent() {
    let rig = Rig::start().await;
    let mut game = rig.game().await;
    let json = r#"[{"message": "hi", "x":1.50},{"_odd":1}]"#;
    game.send(&format!("l:{KEY}:{}:m-1\n", base64(json))).await;
    assert_eq!(game.line().await, "OK m-1");
    let lines = rig.bus.lines(Stream::Logs);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].json, json);
    assert_eq!((lines[0].count, lines[0].odd.as_slice()), (2, &[1][..]));
    assert_eq!(lines[0].mid.as_deref(), Some("m-1"));
    assert!(lines[0].again, "it may have been sent on another socket");

    game.send(&format!("i:{KEY}:[{{\"name\":\"g\",\"value\":9.8}}]:m-2\n")).await;
    assert_eq!(game.line().await, "OK m-2");
    let lines = rig.bus.of_kind(LineKind::Reported);
    assert_eq!(lines[0].json, "[{\"name\":\"g\",\"value\":9.8}]");
    rig.stop().await;
}

#[tokio::test]
async fn lines_do_not_depend_on_how_they_are_cut() {
    let rig = Rig::start().await;
    let text = format!("v:{KEY}\r\n\n l:{KEY}:{}:a\nl:{KEY}:[{{}}]:b\np:7\n", base64("[{}]"));
    for cut in 0..=text.len() {
        let mut game = Game::connect(rig.address).await;
        game.send(&text[..cut]).await;
        tokio::task::yield_now().await;
        game.send(&text[cut..]).await;
        assert_eq!(game.line().await, "OK");
        let mut answers = [game.line().await, game.line().await, game.line().await];
        answers.sort();
        assert_eq!(answers, ["OK a", "OK b", "p:7"], "cut at {cut}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_line_sent_a_byte_at_a_time_arrives() {
    let rig = Rig::start().await;
    let mut game = Game::connect(rig.address).await;
    let text = format!("v:{KEY}\nl:{KEY}:[{{\"message\":\"slow\"}}]:a\n");
    for byte in text.as_bytes() {
        game.send_bytes(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(game.line().await, "OK");
    assert_eq!(game.line().await, "OK a");
    rig.stop().await;
}

#[tokio::test]
async fn bad_lines_get_their_error_and_nothing_else_breaks() {
    let rig = Rig::start().await;
    let mut game = Game::connect(rig.address).await;
    let deep = format!("[{{\"a\":{}{}}}]", "[".repeat(31), "]".repeat(31));
    let many = format!("[{}]", vec!["{}"; 501].join(","));
    game.send(&format!("l:{KEY}:[{{}}]:m\n")).await;
    assert!(game.line().await.starts_with("ERR not_signed_in m - sign in first"));
    game.send(&format!("v:{KEY}\n")).await;
    assert_eq!(game.line().await, "OK");
    for (line, start) in [
        (format!("l:{OTHER_KEY}:[{{}}]:m"), "ERR wrong_key m - "),
        (format!("v:{OTHER_KEY}"), "ERR wrong_key - - "),
        ("l:x:[{}]".into(), "ERR wrong_key - - "),
        (format!("l:{KEY}:not base64!:m"), "ERR bad_base64 m - "),
        (format!("l:{KEY}:{}:m", base64("[{]")), "ERR bad_json m - "),
        (format!("l:{KEY}:{}", base64("[7]")), "ERR bad_shape - - "),
        (format!("i:{KEY}:[{{\"value\":7}}]:m"), "ERR bad_shape m - "),
        (format!("l:{KEY}:{deep}:m"), "ERR too_deep m - "),
        (format!("l:{KEY}:{many}:m"), "ERR too_many m - "),
        (format!("i:{KEY}:[{{\"name\":\"{}\",\"value\":1}}]", "n".repeat(129)), "ERR too_big - - "),
        (format!("l:{KEY}:[{{}}]:bad mid"), "ERR bad_mid - - "),
        ("z:what".into(), "ERR unknown_line - - "),
        ("hello".into(), "ERR unknown_line - - "),
    ] {
        game.send(&format!("{line}\n")).await;
        let answer = game.line().await;
        assert!(answer.starts_with(start), "{line}: {answer}");
    }
    game.send_bytes(b"\x00\xff\xfe:\x80\n").await;
    assert!(game.line().await.starts_with("ERR unknown_line - - "));
    game.send(&format!("l:{KEY}:[{{}}]:good\n")).await;
    assert_eq!(game.line().await, "OK good");
    assert_eq!(rig.bus.lines(Stream::Logs).len(), 1, "nothing that was refused was published");
    rig.stop().await;
}

#[tokio::test]
async fn depth_is_refused_only_past_its_limit() {
    let rig = Rig::start().await;
    let mut game = rig.game().await;
    // The array of records and the record itself count.
    for (depth, start) in [(30, "OK m"), (31, "ERR too_deep m")] {
        let json = format!("[{{\"a\":{}{}}}]", "[".repeat(depth), "]".repeat(depth));
        game.send(&format!("l:{KEY}:{json}:m\n")).await;
        let answer = game.line().await;
        assert!(answer.starts_with(start), "{answer}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_line_one_byte_too_long_closes_the_socket() {
    let limits = Limits { line_bytes_max: 100, ..Limits::default() };
    let rig = Rig::with_limits(limits).await;
    let mut others = rig.game().await;
    let mut game = rig.game().await;
    let line = |bytes: usize| {
        let frame = format!("l:{KEY}:[{{\"a\":\"\"}}]:m");
        let text = "x".repeat(bytes - frame.len());
        format!("l:{KEY}:[{{\"a\":\"{text}\"}}]:m\n")
    };
    game.send(&line(100)).await;
    assert_eq!(game.line().await, "OK m");
    game.send(&line(101)).await;
    assert!(game.line().await.starts_with("ERR line_too_long - - "));
    game.is_closed().await;

    let mut flood = rig.game().await;
    flood.send(&"x".repeat(101)).await; // No newline ever comes.
    assert!(flood.line().await.starts_with("ERR line_too_long - - "));
    flood.is_closed().await;
    others.hears_nothing_more().await;
    rig.stop().await;
}

#[tokio::test]
async fn an_empty_array_is_answered_and_not_published() {
    let rig = Rig::start().await;
    let mut game = rig.game().await;
    game.send(&format!("l:{KEY}:[]:a\ni:{KEY}:W10=:b\nl:{KEY}:[]\n")).await;
    assert_eq!(game.line().await, "OK a");
    assert_eq!(game.line().await, "OK b");
    game.hears_nothing_more().await;
    assert!(rig.bus.lines(Stream::Logs).is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn lines_gather_into_messages_and_a_long_one_travels_alone() {
    let limits = Limits { unsettled_lines_max: 1000, ..Limits::default() };
    let rig = Rig::with_limits(limits).await;
    let mut game = rig.game().await;
    let mut text = String::new();
    for number in 0..100 {
        let words = "x".repeat(1000);
        writeln!(text, "l:{KEY}:[{{\"message\":\"{words}\"}}]:s{number}").unwrap();
    }
    let long = "y".repeat(100_000);
    writeln!(text, "l:{KEY}:[{{\"message\":\"{long}\"}}]:long").unwrap();
    game.send(&text).await;
    for _ in 0..101 {
        assert!(game.line().await.starts_with("OK "));
    }
    let messages: Vec<_> =
        rig.bus.messages().into_iter().filter(|message| message.stream == Stream::Logs).collect();
    assert!(messages.len() < 40, "{} messages", messages.len());
    for message in &messages {
        let lines = Event::parse(&message.payload).unwrap().lines.len();
        assert!(lines == 1 || message.payload.len() <= MESSAGE_BYTES_TARGET + 400);
    }
    assert!(messages.iter().any(|message| message.payload.len() > 100_000));
    rig.stop().await;
}

#[tokio::test]
async fn ids_are_the_same_for_a_line_sent_again_and_fresh_without_a_mid() {
    let rig = Rig::start().await;
    for _ in 0..2 {
        let mut game = rig.game().await;
        game.send(&format!("l:{KEY}:[{{}}]:same\nl:{KEY}:[{{}}]\n")).await;
        assert_eq!(game.line().await, "OK same");
    }
    eventually("all lines are published", || rig.bus.lines(Stream::Logs).len() == 4).await;
    let lines = rig.bus.lines(Stream::Logs);
    let (with, without): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.mid.is_some());
    assert_eq!(with[0].id, with[1].id);
    assert_ne!(without[0].id, without[1].id);
    assert!(!without[0].again);
    rig.stop().await;
}

#[tokio::test]
async fn a_game_that_says_nothing_follows_still_gets_its_answers() {
    use tokio::io::AsyncWriteExt as _;

    let rig = Rig::start().await;
    rig.bus.hold_publishes();
    let mut game = Game::connect(rig.address).await;
    game.send(&format!("v:{KEY}\nl:{KEY}:[{{}}]:last\nl:{KEY}:[{{")).await;
    game.socket.shutdown().await.unwrap();
    assert_eq!(game.line().await, "OK");
    eventually("it is published", || rig.bus.lines(Stream::Logs).len() == 1).await;
    rig.bus.release_publishes();
    assert_eq!(game.line().await, "OK last");
    game.is_closed().await;
    assert_eq!(rig.bus.lines(Stream::Logs).len(), 1, "half a line is no line");
    rig.stop().await;
}
