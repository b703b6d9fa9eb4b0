//! Bad input gets its error, and nothing else breaks.

use std::time::Duration;

use observer_tests::game::{Game, LINE_WITHIN};
use serde_json::json;

use super::{Stack, items, items_once};

/// Bytes of a line that are just too many.
const ONE_TOO_LONG: usize = 384 * 1024 + 1;

/// The code of the next answer.
async fn code(game: &mut Game) -> String {
    let answer = game.answer(LINE_WITHIN).await.unwrap();
    let mut words = answer.split(' ');
    match words.next() {
        Some("ERR") => words.next().unwrap().to_owned(),
        _ => answer,
    }
}

#[tokio::test]
async fn every_bad_line_gets_its_error_and_the_good_ones_are_stored() {
    let mut stack = Stack::embedded().await;
    let api = stack.api().await;
    let key = api.new_key().await;
    let other = api.new_key().await;
    let mut game = stack.game(&key).await;

    let deep = format!("[{}{}]", "[".repeat(32), "]".repeat(32));
    let many = format!("[{}]", vec!["{}"; 501].join(","));
    let big = format!(r#"[{{"name":"a","value":"{}"}}]"#, "x".repeat(16 * 1024 + 1));
    for (line, expected) in [
        (format!("l:{other}:[]"), "wrong_key"),
        (format!("l:{key}:%%%"), "bad_base64"),
        (format!("l:{key}:eyJh"), "bad_json"),
        (format!("l:{key}:[{{]"), "bad_json"),
        (format!("l:{key}:[1]"), "bad_shape"),
        (format!("i:{key}:[{{\"value\":1}}]"), "bad_shape"),
        (format!("l:{key}:{deep}"), "bad_shape"),
        (format!("l:{key}:[{{\"a\":{deep}}}]"), "too_deep"),
        (format!("l:{key}:{many}"), "too_many"),
        (format!("i:{key}:{big}"), "too_big"),
        (format!("l:{key}:[]:a b"), "bad_mid"),
        ("what is this".to_owned(), "unknown_line"),
        ("\u{1}\u{2}\u{3}:\u{7f}".to_owned(), "unknown_line"),
    ] {
        game.send_line(&line).await.unwrap();
        assert_eq!(code(&mut game).await, expected, "{}", &line[..line.len().min(60)]);
        game.log_with_mid(&json!([{ "after": expected }]), "m").await.unwrap();
        assert_eq!(code(&mut game).await, "OK m", "after {expected}");
    }
    game.send(&[0xff, 0xfe, 0x00, b':', 0xff, b'\n']).await.unwrap();
    assert_eq!(code(&mut game).await, "unknown_line");
    items_once(&api, &key, 12).await;
    assert!(items(&api, &other, "").await.is_empty());
}

#[tokio::test]
async fn nothing_is_taken_before_a_good_sign_in() {
    let mut stack = Stack::embedded().await;
    let api = stack.api().await;
    let key = api.new_key().await;
    let mut game = stack.connect().await;
    game.send_line(&format!("l:{key}:[{{\"early\":1}}]:m1")).await.unwrap();
    assert_eq!(code(&mut game).await, "not_signed_in");
    game.send_line("p:7").await.unwrap();
    assert_eq!(game.read_line(LINE_WITHIN).await.unwrap(), "p:7");
    game.send_line(&format!("v:{key}")).await.unwrap();
    assert_eq!(code(&mut game).await, "OK");
    game.log_with_mid(&json!([{ "late": 1 }]), "m2").await.unwrap();
    assert_eq!(code(&mut game).await, "OK m2");
    let items = items_once(&api, &key, 1).await;
    assert_eq!(items[0]["late"], 1);
}

#[tokio::test]
async fn an_unknown_key_and_a_line_too_long_close_the_socket_and_no_other() {
    let mut stack = Stack::embedded().await;
    let api = stack.api().await;
    let key = api.new_key().await;
    let mut good = stack.game(&key).await;
    for unknown in ["000000000000", "short", ""] {
        let mut game = stack.connect().await;
        game.send_line(&format!("v:{unknown}")).await.unwrap();
        assert_eq!(code(&mut game).await, "unknown_key");
        game.closed(LINE_WITHIN).await.unwrap();
    }
    let mut game = stack.game(&key).await;
    let start = format!("l:{key}:[{{\"a\":\"");
    let fill = "x".repeat(ONE_TOO_LONG - start.len());
    game.send(format!("{start}{fill}").as_bytes()).await.unwrap();
    assert_eq!(code(&mut game).await, "line_too_long");
    game.closed(LINE_WITHIN).await.unwrap();

    good.log_with_mid(&json!([{ "still": "here" }]), "m").await.unwrap();
    assert_eq!(code(&mut good).await, "OK m");
    assert!(good.closed(Duration::from_millis(100)).await.is_err());
}

#[tokio::test]
async fn a_line_of_the_longest_length_is_stored() {
    let mut stack = Stack::embedded().await;
    let api = stack.api().await;
    let key = api.new_key().await;
    let mut game = stack.game(&key).await;
    let (start, end) = (format!("l:{key}:[{{\"a\":\""), "\"}]:m");
    let fill = "x".repeat(ONE_TOO_LONG - 1 - start.len() - end.len());
    game.send_line(&format!("{start}{fill}{end}")).await.unwrap();
    assert_eq!(code(&mut game).await, "OK m");
    let items = items_once(&api, &key, 1).await;
    assert_eq!(items[0]["a"], fill);
}
