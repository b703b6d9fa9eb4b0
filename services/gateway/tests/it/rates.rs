//! Who sends or connects faster than it may is told when to come back, and costs little meanwhile.

use std::time::Duration;

use futures_util::future::select_all;
use observer_bus::Stream;
use observer_wire::Limits;
use tokio::io::AsyncReadExt as _;
use tokio::time::{sleep, timeout};

use crate::game::{Game, WITHIN, tcp};
use crate::rig::{KEY, OTHER_KEY, Rig};
use crate::transport::Transport;

/// Tries to be refused that may succeed before one is: a rate of one a second is met long before, unless
/// the machine needs a second for each.
const TRIES_MAX: usize = 100;

/// The time that an `ERR` tells, and the words behind it.
fn retry(answer: &str) -> (Duration, &str) {
    let fields: Vec<&str> = answer.splitn(5, ' ').collect();
    let [_, _, _, retry_ms, words] = fields[..] else { panic!("{answer}") };
    (Duration::from_millis(retry_ms.parse().expect(answer)), words)
}

#[tokio::test]
async fn a_line_past_the_rate_is_refused_and_accepted_after_the_time_told() {
    let limits = Limits { key_lines_s_max: 1, ..Limits::default() };
    for transport in Transport::ALL {
        let rig = Rig::with_limits(limits.clone()).await;
        let mut game = rig.target(transport).sign_in(KEY).await;
        let line = |mid: usize| format!("l:{KEY}:[{{}}]:{mid}\n");
        game.send(&(0..3).map(line).collect::<String>()).await;
        let mut answers = [game.line().await, game.line().await, game.line().await];
        answers.sort();
        let [refused, first, second] = &answers;
        assert_eq!((first.as_str(), second.as_str()), ("OK 0", "OK 1"), "{transport:?}");
        assert!(refused.starts_with("ERR rate 2 "), "{refused}");
        let (time, words) = retry(refused);
        assert!(Duration::ZERO < time && time <= Duration::from_secs(1), "{refused}");
        assert!(words.contains("limits.key_lines_s_max"), "{refused}");
        let mut other = rig.target(transport).sign_in(OTHER_KEY).await;
        other.send(&format!("l:{OTHER_KEY}:[{{}}]:other\n")).await;
        assert_eq!(other.line().await, "OK other", "each key has its own");
        sleep(time).await;
        game.send(&line(2)).await;
        assert_eq!(game.line().await, "OK 2", "{transport:?}");
        assert_eq!(rig.bus.lines(Stream::Logs).len(), 4, "what was refused is not published");
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_socket_over_its_rate_is_not_read_until_its_next_line_may_come() {
    let rig = Rig::with_limits(Limits { key_lines_s_max: 1, ..Limits::default() }).await;
    let mut game = rig.game().await;
    // All in one piece. Read on at once, all but two would be refused.
    let lines: Vec<_> = (0..8).map(|mid| format!("l:{KEY}:[{{}}]:{mid}\n")).collect();
    game.send(&lines.concat()).await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(game.line().await);
    }
    let is_refused =
        |mid: usize| answers.iter().any(|a| a.starts_with(&format!("ERR rate {mid} ")));
    assert!(is_refused(2), "{answers:?}");
    let in_a_row = (0..7).filter(|mid| is_refused(*mid) && is_refused(mid + 1)).count();
    assert_eq!(in_a_row, 0, "{answers:?}");
    rig.stop().await;
}

#[tokio::test]
async fn every_line_is_answered_however_many_sockets_are_over_the_rate() {
    const SOCKETS: usize = 5;
    const LINES: usize = 20;
    let rig = Rig::with_limits(Limits { key_lines_s_max: 10, ..Limits::default() }).await;
    let mut games = Vec::new();
    for _ in 0..SOCKETS {
        games.push(rig.game().await);
    }
    for game in &mut games {
        game.send(&format!("l:{KEY}:[{{}}]:m\n").repeat(LINES)).await;
    }
    let mut refused = 0;
    for game in &mut games {
        for _ in 0..LINES {
            let answer = game.line().await;
            let is_refused = answer.starts_with("ERR rate m ");
            assert!(is_refused || answer == "OK m", "{answer}");
            refused += usize::from(is_refused);
        }
    }
    assert!(refused > 0);
    rig.stop().await;
}

#[tokio::test]
async fn bytes_have_a_rate_of_their_own() {
    const BYTES: usize = 100;
    let limits = Limits { line_bytes_max: 2 * BYTES, key_bytes_s_max: BYTES, ..Limits::default() };
    let rig = Rig::with_limits(limits).await;
    let mut game = rig.game().await;
    let around = format!("l:{KEY}:[{{\"m\":\"\"}}]:0").len();
    let line = |mid: usize, bytes: usize| {
        format!("l:{KEY}:[{{\"m\":\"{}\"}}]:{mid}\n", "x".repeat(bytes - around))
    };
    game.send(&[line(0, 2 * BYTES), line(1, BYTES)].concat()).await;
    let mut answers = [game.line().await, game.line().await];
    answers.sort();
    assert_eq!(answers[1], "OK 0", "the longest line is let through at once");
    assert!(answers[0].starts_with("ERR rate 1 "), "{}", answers[0]);
    let (time, words) = retry(&answers[0]);
    assert!(words.contains("limits.key_bytes_s_max"), "{words}");
    sleep(time).await;
    game.send(&line(1, BYTES)).await;
    assert_eq!(game.line().await, "OK 1");
    rig.stop().await;
}

#[tokio::test]
async fn every_kind_of_line_counts_also_one_that_is_none() {
    let rig = Rig::with_limits(Limits { key_lines_s_max: 1, ..Limits::default() }).await;
    let mut game = rig.game().await;
    game.send("p:1\nwhat\np:2\n").await;
    assert_eq!(game.line().await, "p:1");
    assert!(game.line().await.starts_with("ERR unknown_line - - "));
    assert!(game.line().await.starts_with("ERR rate - "));
    rig.stop().await;
}

#[tokio::test]
async fn who_is_not_signed_in_has_the_rate_of_its_address() {
    let rig = Rig::with_limits(Limits { address_lines_s_max: 1, ..Limits::default() }).await;
    let mut stranger = Game::connect(rig.address).await;
    stranger.send("p:1\np:2\np:3\n").await;
    assert_eq!(stranger.line().await, "p:1");
    assert_eq!(stranger.line().await, "p:2");
    let refused = stranger.line().await;
    assert!(refused.starts_with("ERR rate - "), "{refused}");
    sleep(retry(&refused).0).await;
    stranger.send(&format!("v:{KEY}\n")).await;
    assert_eq!(stranger.line().await, "OK", "it may still sign in");
    stranger.send("p:4\np:5\np:6\n").await;
    for echo in ["p:4", "p:5", "p:6"] {
        assert_eq!(stranger.line().await, echo, "from now on its key counts");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_key_that_signs_in_too_often_is_told_when_to_come_back_at_both_levels() {
    let rig = Rig::with_limits(Limits { key_connects_s_max: 1, ..Limits::default() }).await;
    for (line, good, refused) in [
        (format!("v:{KEY}\n"), "OK", "ERR too_many_sockets - "),
        (format!("h:{OTHER_KEY}:{{}}\n"), "h:", "x:too_many_sockets:"),
    ] {
        let mut tries = 0;
        let answer = loop {
            let mut game = Game::connect(rig.address).await;
            game.send(&line).await;
            let answer = game.line().await;
            if !answer.starts_with(good) {
                game.is_closed().await;
                break answer;
            }
            tries += 1;
            assert!(tries < TRIES_MAX);
        };
        assert!(tries >= 2, "two seconds' worth come at once");
        let rest = answer.strip_prefix(refused).expect(&answer);
        let ms: u64 = rest.split(' ').next().unwrap().parse().expect(&answer);
        assert!((1..=1_000).contains(&ms), "{answer}");
        sleep(Duration::from_millis(ms)).await;
        let mut game = Game::connect(rig.address).await;
        game.send(&line).await;
        let answer = game.line().await;
        assert!(answer.starts_with(good), "{answer}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn an_address_that_connects_too_often_is_told_so_on_plain_sockets() {
    let rig = Rig::with_limits(Limits { address_connects_s_max: 1, ..Limits::default() }).await;
    let mut tries = 0;
    let answer = loop {
        let mut game = Game::connect(rig.address).await;
        game.send("p:1\n").await;
        let answer = game.line().await;
        if answer != "p:1" {
            game.is_closed().await;
            break answer;
        }
        tries += 1;
        assert!(tries < TRIES_MAX);
    };
    assert!(tries >= 2, "two seconds' worth come at once");
    assert!(answer.starts_with("ERR too_many_sockets - "), "{answer}");
    let (time, words) = retry(&answer);
    assert!(words.contains("limits.address_connects_s_max"), "{answer}");
    sleep(time).await;
    Game::sign_in(rig.address, KEY).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_handshake_past_the_rate_is_not_begun() {
    let limits =
        Limits { address_handshakes_s_max: 1, handshake_secs_max: 600, ..Limits::default() };
    let rig = Rig::with_limits(limits).await;
    for address in [rig.tls, rig.web] {
        let mut silent = Vec::new();
        for _ in 0..10 {
            silent.push(tcp(address).await);
        }
        // Whoever is served is waited for; who is not is closed though it has said nothing.
        let reads = silent.iter_mut().map(|socket| {
            Box::pin(async {
                let mut byte = [0];
                socket.read(&mut byte).await
            })
        });
        let (closed, ..) = timeout(WITHIN, select_all(reads)).await.expect("one is closed");
        assert!(matches!(closed, Ok(0) | Err(_)), "nothing is said in plain");
    }
    Game::sign_in(rig.address, KEY).await; // What needs no handshake is served.
    rig.stop().await;
}
