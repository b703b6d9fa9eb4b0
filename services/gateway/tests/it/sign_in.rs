//! Who may sign in, and what becomes of those who may not.

use observer_wire::Limits;
use observer_wire::event::{LineKind, SignIn};

use crate::game::Game;
use crate::rig::{KEY, OTHER_KEY, Rig, eventually};

#[tokio::test]
async fn an_unknown_key_is_told_so_and_closed() {
    let rig = Rig::start().await;
    for key in ["nosuchkey000", "short", "", "012345678*ab"] {
        let mut game = Game::connect(rig.address).await;
        // What follows is never read, and must not take the answer away.
        game.send(&format!("v:{key}\nl:{key}:[{{}}]\n")).await;
        assert!(game.line().await.starts_with("ERR unknown_key - - "), "{key}");
        game.is_closed().await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_key_that_was_just_registered_is_good_at_once() {
    let rig = Rig::start().await;
    let mut game = Game::connect(rig.address).await;
    game.send("v:brand-new-ke\n").await;
    assert!(game.line().await.starts_with("ERR unknown_key"));
    rig.bus.register("brand-new-ke");
    Game::sign_in(rig.address, "brand-new-ke").await;
    rig.stop().await;
}

#[tokio::test]
async fn a_key_is_asked_for_once_however_many_games_bring_it() {
    let rig = Rig::start().await;
    rig.bus.hold_lookups();
    let mut games = Vec::new();
    for _ in 0..20 {
        let mut game = Game::connect(rig.address).await;
        game.send(&format!("v:{KEY}\n")).await;
        games.push(game);
    }
    eventually("the key is asked for", || rig.bus.keys_asked() == 1).await;
    rig.bus.release_lookups();
    for game in &mut games {
        assert_eq!(game.line().await, "OK");
    }
    Game::sign_in(rig.address, KEY).await;
    assert_eq!(rig.bus.keys_asked(), 1);
    eventually("documents are asked for", || rig.bus.documents_asked() >= 1).await;
    rig.stop().await;
}

#[tokio::test]
async fn while_nobody_answers_known_keys_stay_good_and_others_are_busy() {
    let rig = Rig::start().await;
    rig.game().await;
    rig.bus.silence_keys(true);
    rig.game().await;
    let mut game = Game::connect(rig.address).await;
    game.send(&format!("v:{OTHER_KEY}\n")).await;
    assert!(game.line().await.starts_with("ERR busy - 1000 "));
    rig.bus.silence_keys(false);
    game.send(&format!("v:{OTHER_KEY}\n")).await;
    assert_eq!(game.line().await, "OK", "the socket stays, and may try again");
    rig.stop().await;
}

#[tokio::test]
async fn the_socket_is_not_read_while_its_key_is_asked_for() {
    let rig = Rig::start().await;
    rig.bus.hold_lookups();
    let mut game = Game::connect(rig.address).await;
    game.send(&format!("v:{KEY}\nl:{KEY}:[{{}}]:a\nv:{KEY}\n")).await;
    eventually("the key is asked for", || rig.bus.keys_asked() == 1).await;
    rig.bus.release_lookups();
    let mut answers = [game.line().await, game.line().await, game.line().await];
    assert_eq!(answers[0], "OK");
    answers.sort();
    assert_eq!(answers, ["OK", "OK", "OK a"], "a second sign-in is answered too");
    rig.stop().await;
}

#[tokio::test]
async fn a_key_and_an_address_have_a_bounded_number_of_sockets() {
    let limits = Limits { key_sockets_max: 2, address_sockets_max: 4, ..Limits::default() };
    let rig = Rig::with_limits(limits).await;
    let first = rig.game().await;
    let _second = rig.game().await;
    let mut third = Game::connect(rig.address).await;
    third.send(&format!("v:{KEY}\n")).await;
    assert!(third.line().await.starts_with("ERR too_many_sockets - - the key has"));
    third.is_closed().await;
    drop(third);

    // Sockets that were closed may linger for a moment, so the address is filled up first.
    let mut waiting = Vec::new();
    loop {
        let mut game = Game::connect(rig.address).await;
        game.send("p:1\n").await;
        let answer = game.line().await;
        if answer.starts_with("ERR too_many_sockets - - your address has") {
            game.is_closed().await;
            break;
        }
        assert_eq!(answer, "p:1");
        waiting.push(game);
        assert!(waiting.len() <= 2);
    }
    drop((first, waiting));
    eventually("the end is told", || !rig.bus.of_kind(LineKind::Gone).is_empty()).await;
    let mut again = Game::connect(rig.address).await;
    again.send(&format!("v:{KEY}\n")).await;
    assert_eq!(again.line().await, "OK", "a place that became free is given again");
    rig.stop().await;
}

#[tokio::test]
async fn coming_and_going_are_told() {
    let rig = Rig::start().await;
    let game = rig.game().await;
    eventually("the sign-in is told", || rig.bus.of_kind(LineKind::SignIn).len() == 1).await;
    let came = rig.bus.of_kind(LineKind::SignIn).remove(0);
    let sign_in: SignIn = serde_json::from_str(&came.json).unwrap();
    assert!(sign_in.gateway.starts_with("g-"));
    assert!(came.device.starts_with("s-") && came.device.len() == 18, "{}", came.device);
    drop(game);
    eventually("the end is told", || rig.bus.of_kind(LineKind::Gone).len() == 1).await;
    let went = rig.bus.of_kind(LineKind::Gone).remove(0);
    assert_eq!((&went.device, went.epoch), (&came.device, came.epoch));
    assert!(came.seq < went.seq);
    rig.stop().await;
}

#[tokio::test]
async fn coming_is_told_again_when_the_bus_did_not_take_it() {
    let rig = Rig::start().await;
    rig.bus.fail([observer_bus::PublishError::Unavailable]);
    let _game = rig.game().await;
    eventually("it is told twice", || rig.bus.of_kind(LineKind::SignIn).len() == 2).await;
    rig.stop().await;
}

#[tokio::test]
async fn who_does_not_sign_in_in_time_is_closed() {
    let limits = Limits { sign_in_secs_max: 1, started_line_secs_max: 1, ..Limits::default() };
    let rig = Rig::with_limits(limits).await;
    let mut silent = Game::connect(rig.address).await;
    let mut signed_in = rig.game().await;
    let mut slow = rig.game().await;
    slow.send(&format!("l:{KEY}:[{{")).await;
    assert!(silent.line().await.starts_with("ERR idle - - no good sign-in"));
    silent.is_closed().await;
    assert!(slow.line().await.starts_with("ERR idle - - the line that was started"));
    slow.is_closed().await;
    signed_in.hears_nothing_more().await;
    rig.stop().await;
}

#[tokio::test]
async fn the_gateway_says_that_it_lives_and_is_ready() {
    let rig = Rig::start().await;
    eventually("a sign of life", || rig.bus.signs_of_life() >= 1).await;
    eventually("ready", || rig.readiness.is_ready()).await;
    rig.stop().await;
}
