//! What holds for every transport alike: the session is the same.

use observer_bus::Stream;
use observer_wire::Limits;
use observer_wire::event::LineKind;

use crate::game::is_draining;
use crate::rig::{KEY, OTHER_KEY, Rig, eventually};
use crate::transport::Transport;

#[tokio::test]
async fn a_line_is_taken_byte_for_byte_and_answered() {
    let rig = Rig::start().await;
    let json = "[{\"message\":\"gr\u{fc}n \u{1f3ae}\",\"big\":1e2}]";
    for transport in Transport::ALL {
        let mut game = rig.target(transport).sign_in(KEY).await;
        let mid = format!("{transport:?}");
        game.send(&format!("l:{KEY}:{json}:{mid}\n")).await;
        assert_eq!(game.line().await, format!("OK {mid}"));
        game.hears_nothing_more().await;
        let stored = rig.bus.lines(Stream::Logs);
        let line = stored.iter().find(|line| line.mid.as_deref() == Some(&mid)).unwrap();
        assert_eq!(line.json, json);
    }
    rig.stop().await;
}

#[tokio::test]
async fn lines_of_any_length_up_to_the_limit_come_whole_and_one_byte_more_closes() {
    const LINE_BYTES: usize = 200_000;
    let limits = Limits { line_bytes_max: LINE_BYTES, ..Limits::default() };
    let rig = Rig::with_limits(limits).await;
    for transport in Transport::ALL {
        let mut game = rig.target(transport).sign_in(KEY).await;
        for bytes in [1_000, 65_535, 65_536, 65_537, LINE_BYTES] {
            let around = format!("l:{KEY}:[{{\"m\":\"\"}}]:{bytes}").len();
            let text = "x".repeat(bytes - around);
            game.send(&format!("l:{KEY}:[{{\"m\":\"{text}\"}}]:{bytes}\n")).await;
            assert_eq!(game.line().await, format!("OK {bytes}"), "{transport:?}");
        }
        game.send(&format!("p:{}\n", "x".repeat(LINE_BYTES - 1))).await;
        let answer = game.line().await;
        assert!(answer.starts_with("ERR line_too_long - - "), "{transport:?}: {answer}");
        game.is_closed().await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_key_and_an_address_have_their_number_of_sockets_over_all_transports() {
    let limits = Limits { key_sockets_max: 4, address_sockets_max: 6, ..Limits::default() };
    let rig = Rig::with_limits(limits).await;
    for transport in Transport::ALL {
        let mut games = Vec::new();
        for each in Transport::ALL {
            games.push(rig.target(each).sign_in(KEY).await);
        }
        let mut fifth = rig.target(transport).connect().await;
        fifth.send(&format!("v:{KEY}\n")).await;
        let answer = fifth.line().await;
        assert!(answer.starts_with("ERR too_many_sockets - - the key has"), "{answer}");
        fifth.is_closed().await;
        drop(fifth);
        // Sockets that were closed may linger for a moment, so the address is filled up first.
        let refused = loop {
            let mut game = rig.target(transport).connect().await;
            game.send("p:1\n").await;
            let answer = game.line().await;
            if answer != "p:1" {
                game.is_closed().await;
                break answer;
            }
            games.push(game);
            assert!(games.len() <= 6);
        };
        assert!(refused.starts_with("ERR too_many_sockets - - your address has"), "{refused}");
        let before = rig.bus.of_kind(LineKind::Gone).len();
        drop(games);
        eventually("places are given back", || rig.bus.of_kind(LineKind::Gone).len() == before + 4)
            .await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn who_does_not_sign_in_in_time_is_closed_with_words() {
    let limits = Limits { sign_in_secs_max: 1, ..Limits::default() };
    let rig = Rig::with_limits(limits).await;
    for transport in Transport::ALL {
        let mut silent = rig.target(transport).connect().await;
        let mut signed_in = rig.target(transport).sign_in(KEY).await;
        let answer = silent.line().await;
        assert!(answer.starts_with("ERR idle - - no good sign-in"), "{transport:?}: {answer}");
        silent.is_closed().await;
        signed_in.hears_nothing_more().await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_socket_is_not_read_past_its_unsettled_lines() {
    let limits = Limits { unsettled_lines_max: 3, ..Limits::default() };
    let rig = Rig::with_limits(limits).await;
    for (round, transport) in Transport::ALL.into_iter().enumerate() {
        let mut game = rig.target(transport).sign_in(KEY).await;
        let before = round * 10;
        rig.bus.hold_publishes();
        for number in 0..10 {
            game.send(&format!("l:{KEY}:[{{}}]:{number}\n")).await;
        }
        let published = || rig.bus.lines(Stream::Logs).len() - before;
        eventually("three are published", || published() == 3).await;
        let mut other = rig.target(transport).sign_in(OTHER_KEY).await;
        other.hears_nothing_more().await;
        assert_eq!(published(), 3, "nothing more was taken");
        rig.bus.release_publishes();
        for _ in 0..10 {
            let answer = game.line().await;
            assert!(answer.starts_with("OK "), "{transport:?}: {answer}");
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_game_that_does_not_read_is_closed() {
    let limits = Limits { output_bytes_max: 10_000, ..Limits::default() };
    let rig = Rig::with_limits(limits).await;
    for transport in Transport::ALL {
        let mut game = rig.target(transport).sign_in(KEY).await;
        let echo = format!("p:{}\n", "x".repeat(3_000));
        let flood = async {
            use tokio::io::AsyncWriteExt as _;
            while game.socket.write_all(echo.as_bytes()).await.is_ok() {}
        };
        let closed = tokio::time::timeout(crate::game::WITHIN, flood).await;
        assert!(closed.is_ok(), "{transport:?} is closed");
    }
    rig.stop().await;
}

#[tokio::test]
async fn lines_under_way_are_answered_before_a_drained_socket_closes() {
    for transport in Transport::ALL {
        let rig = Rig::start().await;
        let mut game = rig.target(transport).sign_in(KEY).await;
        let mut stranger = rig.target(transport).connect().await;
        stranger.hears_nothing_more().await;
        rig.bus.hold_publishes();
        game.send(&format!("l:{KEY}:[{{}}]:a\n")).await;
        eventually("it is published", || rig.bus.lines(Stream::Logs).len() == 1).await;
        rig.shutdown.request();
        assert!(is_draining(&stranger.line().await), "{transport:?}");
        stranger.is_closed().await;
        rig.bus.release_publishes();
        assert_eq!(game.line().await, "OK a", "{transport:?}");
        assert!(is_draining(&game.line().await));
        game.is_closed().await;
        assert_eq!(rig.ended().await, Ok(()));
    }
}

#[tokio::test]
async fn who_is_still_shaking_hands_does_not_hold_the_gateway_up() {
    let rig = Rig::start().await;
    let _half = [crate::game::tcp(rig.tls).await, crate::game::tcp(rig.web).await];
    rig.stop().await;
}
