//! What only a WebSocket can do, or do wrong.

use futures_util::{SinkExt as _, StreamExt as _};
use observer_bus::Stream;
use observer_gateway::GatewayConfig;
use observer_wire::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Duration, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

use crate::game::{WITHIN, is_draining, tcp};
use crate::rig::{KEY, Rig, eventually};
use crate::transport::{Transport, WebSocket};

async fn next(socket: &mut WebSocket) -> Message {
    let next = timeout(WITHIN, socket.next()).await.expect("a message comes");
    next.expect("it is open").unwrap()
}

async fn text(socket: &mut WebSocket) -> String {
    let message = next(socket).await;
    let Message::Text(text) = message else { panic!("no text: {message:?}") };
    text.as_str().to_owned()
}

/// Signs in; a message that does not end its line ends it all the same.
async fn signed_in(rig: &Rig) -> WebSocket {
    let mut socket = rig.target(Transport::Web).web_socket().await;
    socket.send(Message::text(format!("v:{KEY}"))).await.unwrap();
    assert_eq!(text(&mut socket).await, "OK\n");
    socket
}

/// The code and the reason with which the server closes next.
async fn closed(socket: &mut WebSocket) -> (u16, String) {
    let message = next(socket).await;
    let Message::Close(Some(CloseFrame { code, reason })) = message else {
        panic!("no close: {message:?}")
    };
    (code.into(), reason.to_string())
}

/// What the server answers to a request, all of it.
async fn http(rig: &Rig, request: &str) -> String {
    let mut socket = tcp(rig.web).await;
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(WITHIN, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn a_message_may_hold_many_lines_and_come_in_parts() {
    let rig = Rig::start().await;
    let mut socket = signed_in(&rig).await;
    let lines = format!("p:1\r\nl:{KEY}:[{{}}]:a\n\np:2");
    socket.send(Message::text(lines)).await.unwrap();
    let mut heard = String::new();
    while heard.lines().count() < 3 {
        heard.push_str(&text(&mut socket).await);
    }
    let mut heard: Vec<_> = heard.lines().collect();
    heard.sort_unstable();
    assert_eq!(heard, ["OK a", "p:1", "p:2"]);

    let part = |text: &str, kind, last| {
        Message::Frame(Frame::message(text.as_bytes().to_vec(), OpCode::Data(kind), last))
    };
    socket.send(part("p:th", Data::Text, false)).await.unwrap();
    socket.send(Message::Ping("between".into())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Pong("between".into()));
    socket.send(part("ree", Data::Continue, true)).await.unwrap();
    assert_eq!(text(&mut socket).await, "p:three\n");
    rig.stop().await;
}

#[tokio::test]
async fn a_line_longer_than_a_frame_arrives_in_one_message() {
    let rig = Rig::start().await;
    let mut socket = signed_in(&rig).await;
    let line = format!("p:{}\n", "\u{fc}".repeat(40_000));
    socket.send(Message::text(line.clone())).await.unwrap();
    assert_eq!(text(&mut socket).await, line);
    rig.stop().await;
}

#[tokio::test]
async fn a_binary_frame_is_refused_with_words_and_the_socket_stays() {
    let rig = Rig::start().await;
    let mut socket = signed_in(&rig).await;
    socket.send(Message::binary(format!("l:{KEY}:[{{}}]\n"))).await.unwrap();
    let answer = text(&mut socket).await;
    assert!(answer.starts_with("ERR unknown_line - - send lines in text frames"), "{answer}");
    socket.send(Message::text("p:1")).await.unwrap();
    assert_eq!(text(&mut socket).await, "p:1\n");
    assert!(rig.bus.lines(Stream::Logs).is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn the_last_words_come_before_a_close_frame_that_says_the_same() {
    let rig = Rig::start().await;
    let mut socket = signed_in(&rig).await;
    socket.send(Message::text("v:nosuchkey000")).await.unwrap();
    assert!(text(&mut socket).await.starts_with("ERR wrong_key"));
    let mut stranger = rig.target(Transport::Web).web_socket().await;
    stranger.send(Message::text("v:nosuchkey000")).await.unwrap();
    assert!(text(&mut stranger).await.starts_with("ERR unknown_key - - "));
    assert_eq!(closed(&mut stranger).await, (1008, "unknown_key".into()));
    rig.shutdown.request();
    assert!(is_draining(&text(&mut socket).await));
    assert_eq!(closed(&mut socket).await, (1012, "draining".into()));
    assert_eq!(rig.ended().await, Ok(()));
}

#[tokio::test]
async fn a_close_of_the_game_is_answered_and_its_lines_are_kept() {
    let rig = Rig::start().await;
    let mut socket = signed_in(&rig).await;
    rig.bus.hold_publishes();
    socket.send(Message::text(format!("l:{KEY}:[{{}}]:a"))).await.unwrap();
    let code = CloseCode::Normal;
    socket.close(Some(CloseFrame { code, reason: "bye".into() })).await.unwrap();
    assert_eq!(closed(&mut socket).await, (1000, "bye".into()));
    eventually("it is published", || rig.bus.lines(Stream::Logs).len() == 1).await;
    rig.bus.release_publishes();
    let end = timeout(WITHIN, socket.next()).await.expect("it ends");
    assert!(end.is_none_or(|end| end.is_err()), "nothing follows a close");
    rig.stop().await;
}

#[tokio::test]
async fn broken_framing_is_closed_with_its_code_and_takes_nothing_with_it() {
    let rig = Rig::start().await;
    let mut socket = signed_in(&rig).await;
    let bad = Frame::message(vec![b'p', b':', 0xff], OpCode::Data(Data::Text), true);
    socket.send(Message::Frame(bad)).await.unwrap();
    assert_eq!(closed(&mut socket).await, (1007, String::new()));

    let mut socket = signed_in(&rig).await;
    let bad = Frame::message(b"p:1".to_vec(), OpCode::Data(Data::Continue), true);
    socket.send(Message::text(format!("l:{KEY}:[{{}}]:a"))).await.unwrap();
    socket.send(Message::Frame(bad)).await.unwrap();
    assert_eq!(text(&mut socket).await, "OK a\n");
    assert_eq!(closed(&mut socket).await, (1002, String::new()));

    let mut socket = signed_in(&rig).await;
    socket.get_mut().write_all(&[0x81, 3, b'p', b':', b'1']).await.unwrap();
    assert_eq!(closed(&mut socket).await, (1002, String::new()), "frames of games are masked");
    rig.stop().await;
}

#[tokio::test]
async fn half_a_message_must_end_in_time_and_pings_do_not_prolong_it() {
    let limits = Limits { started_line_secs_max: 1, ..Limits::default() };
    let rig = Rig::with_limits(limits).await;
    let mut idle = signed_in(&rig).await;
    // A ping that comes in two parts is no line that was started.
    idle.get_mut().write_all(&[0x89, 0x80]).await.unwrap();
    signed_in(&rig).await;
    idle.get_mut().write_all(&[1, 2, 3, 4]).await.unwrap();
    assert_eq!(next(&mut idle).await, Message::Pong(Vec::new().into()));
    // The head of a masked frame of 100 bytes, and a few of them.
    let mut half = signed_in(&rig).await;
    half.get_mut().write_all(&[0x81, 0x80 | 0x64, 1, 2, 3, 4, 5, 6]).await.unwrap();
    let mut in_parts = signed_in(&rig).await;
    let part = Frame::message(b"p:".to_vec(), OpCode::Data(Data::Text), false);
    in_parts.send(Message::Frame(part)).await.unwrap();
    let pings = async {
        while in_parts.send(Message::Ping("still there".into())).await.is_ok() {
            if let Message::Text(text) = next(&mut in_parts).await {
                return text;
            }
        }
        panic!("it closed without words");
    };
    let words = timeout(WITHIN, pings).await.expect("it is closed");
    assert!(words.starts_with("ERR idle - - the line that was started"), "{words}");
    assert_eq!(closed(&mut in_parts).await, (1008, "idle".into()));
    assert!(text(&mut half).await.starts_with("ERR idle"));
    // It would have been closed before these.
    idle.send(Message::text("p:1")).await.unwrap();
    assert_eq!(text(&mut idle).await, "p:1\n");
    rig.stop().await;
}

#[tokio::test]
async fn everything_but_an_upgrade_of_the_device_path_gets_an_answer_in_words() {
    let rig = Rig::start().await;
    for (request, status, words) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404", "games connect to /device"),
        ("GET /device HTTP/1.1\r\nHost: x\r\n\r\n", "426", "this is a WebSocket"),
        ("POST /device HTTP/1.1\r\nHost: x\r\n\r\n", "400", "not a GET request"),
    ] {
        let answer = http(&rig, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(words), "{answer}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn the_head_of_a_request_has_a_bounded_length() {
    const HEAD_BYTES_MAX: usize = 8 * 1024;
    let rig = Rig::start().await;
    let around = "GET /device HTTP/1.1\r\nX: \r\n\r\n".len();
    let head =
        |bytes: usize| format!("GET /device HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(bytes - around));
    assert!(http(&rig, &head(HEAD_BYTES_MAX)).await.starts_with("HTTP/1.1 426 "));
    assert!(http(&rig, &head(HEAD_BYTES_MAX + 1)).await.starts_with("HTTP/1.1 431 "));
    rig.stop().await;
}

#[tokio::test]
async fn where_plain_lines_are_not_allowed_only_tls_gets_in() {
    let config = GatewayConfig {
        workers: 1,
        ws_listen: "0.0.0.0:6669".parse().unwrap(),
        ..GatewayConfig::default()
    };
    let rig = Rig::with_config(config, Limits::default(), Duration::from_secs(10)).await;
    let answer = http(&rig, "GET /device HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("wss://"), "{answer}");
    rig.target(Transport::WebTls).sign_in(KEY).await;
    rig.stop().await;
}
