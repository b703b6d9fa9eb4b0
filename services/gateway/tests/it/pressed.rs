//! Games that send more than can be kept or stored: they wait, the others do not.

use std::net::SocketAddr;

use futures_util::SinkExt as _;
use observer_bus::{PublishError, Stream};
use observer_wire::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::game::{Game, WITHIN};
use crate::rig::{KEY, OTHER_KEY, Rig, eventually};
use crate::transport::{Target, Transport};

/// Bytes that the system keeps for a game which writes; far less than what tests write.
const SEND_BUFFER_BYTES: u32 = 64 * 1024;

/// Far more than the system keeps between a game and the gateway.
const FLOOD_BYTES: usize = 32 * 1024 * 1024;

/// A project may have 200,000 bytes; a line may be longer than any test's.
fn tight() -> Limits {
    Limits {
        line_bytes_max: 2 * FLOOD_BYTES,
        waiting_bytes_max: 800_000,
        project_waiting_percent_max: 25,
        ..Limits::default()
    }
}

/// A connection that blocks its writer soon.
async fn narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(SEND_BUFFER_BYTES).unwrap();
    timeout(WITHIN, socket.connect(address)).await.unwrap().unwrap()
}

/// The start of a line of `bytes`.
fn half_line(key: &str, bytes: usize) -> String {
    format!("l:{key}:[{{\"message\":\"{}", "x".repeat(bytes))
}

/// Writes what is no whole line for ever; returns what came back when the gateway closes.
async fn floods(socket: TcpStream, start: &str) -> String {
    let (mut from, mut to) = socket.into_split();
    let writing = async {
        to.write_all(start.as_bytes()).await.ok();
        let bytes = vec![b'x'; 64 * 1024];
        for _ in 0..FLOOD_BYTES / bytes.len() {
            if to.write_all(&bytes).await.is_err() {
                std::future::pending::<()>().await; // It is closed.
            }
        }
    };
    let mut answers = Vec::new();
    tokio::select! {
        () = writing => panic!("all of it was read"),
        _ = from.read_to_end(&mut answers) => {} // A reset comes behind the last words, if at all.
    }
    String::from_utf8(answers).unwrap()
}

#[tokio::test]
async fn a_line_that_finds_no_budget_is_not_read_and_must_end_in_time_all_the_same() {
    let limits = Limits { started_line_secs_max: 2, sign_in_secs_max: 2, ..tight() };
    let rig = Rig::with_limits(limits).await;
    let mut socket = narrow(rig.address).await;
    socket.write_all(format!("v:{KEY}\n").as_bytes()).await.unwrap();
    let mut first = [0; 3];
    socket.read_exact(&mut first).await.unwrap();
    for (socket, start) in [(socket, half_line(KEY, 0)), (narrow(rig.address).await, "x".into())] {
        // More than a project may have is not a line too long, which would be said at once.
        let answers = timeout(WITHIN, floods(socket, &start)).await.expect("it is closed");
        assert!(answers.starts_with("ERR idle - - "), "{answers}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn half_lines_that_fill_the_budget_stop_neither_other_projects_nor_sign_ins() {
    for transport in Transport::ALL {
        let rig = Rig::with_limits(tight()).await;
        let target = rig.target(transport);
        let mut halves = JoinSet::new();
        for number in 0..16 {
            let sign_in = if number % 2 == 0 { format!("v:{KEY}\n") } else { "p:1\n".into() };
            halves.spawn(halves_for_ever(target.clone(), sign_in));
        }
        for number in 0..20 {
            let mut other = target.sign_in(OTHER_KEY).await;
            other
                .send(&format!("l:{OTHER_KEY}:[{{\"m\":\"{}\"}}]:{number}\n", "y".repeat(9_000)))
                .await;
            assert_eq!(other.line().await, format!("OK {number}"), "{transport:?}");
        }
        halves.shutdown().await;
        rig.stop().await;
    }
}

/// Starts a line, and writes on without an end: what is not read waits.
async fn halves_for_ever(target: Target, first: String) {
    let text = |text: String, opcode, is_final| {
        Message::Frame(Frame::message(text.into_bytes(), OpCode::Data(opcode), is_final))
    };
    if matches!(target.transport, Transport::Plain | Transport::Tls) {
        let mut game = target.connect().await;
        game.send(&first).await;
        game.socket.write_all(half_line(KEY, 150_000).as_bytes()).await.ok();
        std::future::pending::<()>().await;
    }
    let mut socket = target.web_socket().await;
    socket.send(text(first, Data::Text, true)).await.unwrap();
    socket.send(text(half_line(KEY, 14_000), Data::Text, false)).await.unwrap();
    for _ in 0..10 {
        socket.send(text("x".repeat(14_000), Data::Continue, false)).await.ok();
    }
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_socket_that_waits_for_budget_goes_on_once_others_are_gone() {
    let rig = Rig::with_limits(tight()).await;
    let mut first = Vec::new();
    for _ in 0..3 {
        let mut game = rig.game().await;
        game.send(&half_line(KEY, 90_000)).await;
        first.push(game);
    }
    let mut last = rig.game().await;
    last.send(&half_line(KEY, 90_000)).await;
    drop(first);
    last.send(&format!("{}\"}}]:late\n", "x".repeat(10_000))).await;
    assert_eq!(last.line().await, "OK late");
    rig.stop().await;
}

#[tokio::test]
async fn a_socket_whose_lines_are_busy_is_not_read_until_the_bus_takes_some() {
    let rig = Rig::start().await;
    let mut socket = narrow(rig.address).await;
    socket.write_all(format!("v:{KEY}\n").as_bytes()).await.unwrap();
    let mut first = [0; 3];
    socket.read_exact(&mut first).await.unwrap();
    rig.bus.fail_all(Some(PublishError::Full));
    let line = format!("l:{KEY}:[{{\"message\":\"{}\"}}]\n", "x".repeat(1_000));
    let (from, mut to) = socket.into_split();
    let lines = FLOOD_BYTES / line.len();
    let mut sending = tokio::spawn(async move {
        for _ in 0..lines {
            if to.write_all(line.as_bytes()).await.is_err() {
                return;
            }
        }
    });
    let reading = tokio::spawn(async move {
        let mut from = from;
        let mut answers = vec![0; 64 * 1024];
        while from.read(&mut answers).await.is_ok_and(|count| count > 0) {}
    });
    eventually("it is busy", || !rig.bus.lines(Stream::Logs).is_empty()).await;
    let waits = timeout(std::time::Duration::from_secs(2), &mut sending).await;
    assert!(waits.is_err(), "all of the flood was read");
    // Others of the gateway are served meanwhile, as far as the bus goes.
    Game::sign_in(rig.address, OTHER_KEY).await.hears_nothing_more().await;
    let before = rig.bus.lines(Stream::Logs).len();
    rig.bus.fail_all(None);
    eventually("it is read on", || before + 100 < rig.bus.lines(Stream::Logs).len()).await;
    sending.abort();
    reading.abort();
    rig.stop().await;
}
