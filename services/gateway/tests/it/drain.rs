//! How a gateway ends.

use std::time::Duration;

use observer_bus::Stream;
use observer_wire::Limits;
use observer_wire::event::LineKind;
use tokio::net::TcpStream;

use crate::game::{Game, is_draining};
use crate::rig::{KEY, Rig, eventually};
use crate::transport::Transport;

#[tokio::test]
async fn lines_under_way_are_answered_before_the_socket_closes() {
    let rig = Rig::start().await;
    let mut game = rig.game().await;
    let mut idle = rig.game().await;
    let mut stranger = Game::connect(rig.address).await;
    // Connected is not yet accepted: what the gateway never saw is reset when it stops listening.
    stranger.send("p:1\n").await;
    assert_eq!(stranger.line().await, "p:1");
    rig.bus.hold_publishes();
    game.send(&format!("l:{KEY}:[{{}}]:a\nl:{KEY}:[{{")).await;
    eventually("it is published", || rig.bus.lines(Stream::Logs).len() == 1).await;
    rig.shutdown.request();
    for socket in [&mut idle, &mut stranger] {
        assert!(is_draining(&socket.line().await));
        socket.is_closed().await;
    }
    eventually("nobody listens any more", || {
        std::net::TcpStream::connect_timeout(&rig.address, Duration::from_secs(1)).is_err()
    })
    .await;
    rig.bus.release_publishes();
    assert_eq!(game.line().await, "OK a");
    assert!(is_draining(&game.line().await));
    game.is_closed().await;
    drop((game, idle, stranger));
    let bus = std::sync::Arc::clone(&rig.bus);
    assert_eq!(rig.ended().await, Ok(()));
    assert_eq!(bus.of_kind(LineKind::Gone).len(), 2, "whoever signed in went");
}

#[tokio::test]
async fn lines_that_were_read_and_not_taken_yet_are_answered_too() {
    const LINES: usize = 6;
    for transport in Transport::ALL {
        let limits = Limits { unsettled_lines_max: 2, ..Limits::default() };
        let rig = Rig::with_limits(limits).await;
        let mut game = rig.target(transport).sign_in(KEY).await;
        let mut idle = rig.game().await;
        rig.bus.hold_publishes();
        let lines: Vec<_> = (0..LINES).map(|mid| format!("l:{KEY}:[{{}}]:{mid}\n")).collect();
        game.send(&lines.concat()).await; // One packet, and so one read.
        eventually("two are published", || rig.bus.lines(Stream::Logs).len() == 2).await;
        rig.shutdown.request();
        assert!(is_draining(&idle.line().await), "draining has begun");
        rig.bus.release_publishes();
        for mid in 0..LINES {
            assert_eq!(game.line().await, format!("OK {mid}"), "{transport:?}");
        }
        assert!(is_draining(&game.line().await));
        game.is_closed().await;
        drop((game, idle));
        assert_eq!(rig.ended().await, Ok(()));
    }
}

#[tokio::test]
async fn a_line_behind_a_sign_in_that_the_end_cuts_short_is_busy() {
    let rig = Rig::start().await;
    rig.bus.hold_lookups();
    let mut game = Game::connect(rig.address).await;
    game.send(&format!("v:{KEY}\nl:{KEY}:[{{}}]:a\nl:{KEY}:[{{}}]\n")).await;
    eventually("its key is asked for", || rig.bus.keys_asked() == 1).await;
    rig.shutdown.request();
    for mid in ["-", "a", "-"] {
        let answer = game.line().await;
        assert!(answer.starts_with(&format!("ERR busy {mid} 1000 ")), "{answer}");
    }
    assert!(is_draining(&game.line().await));
    game.is_closed().await;
    rig.bus.release_lookups();
    assert_eq!(rig.ended().await, Ok(()));
}

#[tokio::test]
async fn a_gateway_that_is_cut_off_says_that_the_outcome_is_unknown() {
    let rig = Rig::with(Limits::default(), Duration::from_millis(300)).await;
    let mut game = rig.game().await;
    rig.bus.hold_publishes();
    game.send(&format!("l:{KEY}:[{{}}]:a\n")).await;
    eventually("it is published", || rig.bus.lines(Stream::Logs).len() == 1).await;
    rig.shutdown.request();
    assert!(rig.ended().await.is_err());
    assert!(game.line().await.starts_with("ERR timeout a 1000 "));
}

#[tokio::test]
async fn a_game_that_never_closes_does_not_hold_the_gateway_up() {
    let rig = Rig::start().await;
    let _game = rig.game().await;
    let _stranger = TcpStream::connect(rig.address).await.unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn a_thousand_sockets_are_served_and_drained() {
    const SOCKETS: usize = 1_000;
    let limits = Limits { address_sockets_max: 2 * SOCKETS, ..Limits::default() };
    let rig = Rig::with_limits(limits).await;
    let mut games = Vec::new();
    for _ in 0..SOCKETS {
        let mut game = Game::connect(rig.address).await;
        game.send(&format!("v:{KEY}\nl:{KEY}:[{{}}]:first\n")).await;
        games.push(game);
    }
    for game in &mut games {
        assert_eq!(game.line().await, "OK");
        assert_eq!(game.line().await, "OK first");
    }
    assert_eq!(rig.bus.keys_asked(), 1);
    rig.shutdown.request();
    for game in &mut games {
        assert!(game.line().await.starts_with("ERR draining"));
    }
    drop(games);
    assert_eq!(rig.ended().await, Ok(()));
}

#[tokio::test]
async fn a_socket_over_its_rate_does_not_hold_the_gateway_up() {
    const LINES: usize = 200;
    let rig = Rig::with_limits(Limits { key_lines_s_max: 1, ..Limits::default() }).await;
    let mut game = rig.game().await;
    // At its rate these would take minutes.
    game.send(&format!("l:{KEY}:[{{}}]:m\n").repeat(LINES)).await;
    let first = game.line().await;
    rig.shutdown.request();
    assert!(first == "OK m" || first.starts_with("ERR rate m "), "{first}");
    for _ in 1..LINES {
        let answer = game.line().await;
        assert!(answer == "OK m" || answer.starts_with("ERR "), "{answer}");
    }
    assert!(is_draining(&game.line().await));
    game.is_closed().await;
    drop(game);
    assert_eq!(rig.ended().await, Ok(()));
}
