//! The counting law: every line in has exactly one outcome. A binary of its own, as the numbers of a
//! process are one.
#![expect(clippy::disallowed_methods, reason = "tests join what they spawn")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "it/fake_bus.rs"]
#[expect(dead_code, reason = "shared with the other tests")]
mod fake_bus;
#[path = "it/game.rs"]
#[expect(dead_code, reason = "shared with the other tests")]
mod game;
#[path = "it/rig.rs"]
#[expect(dead_code, reason = "shared with the other tests")]
mod rig;
#[path = "it/transport.rs"]
#[expect(dead_code, reason = "shared with the other tests")]
mod transport;

use observer_bus::{PublishError, Stream};
use observer_chassis::{LogConfig, start_telemetry};
use observer_wire::event::LineKind;
use rig::{KEY, OTHER_KEY, Rig, eventually};

/// Sum of a number over all its labels.
fn sum(rendered: &str, name: &str) -> i64 {
    let of_name =
        |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values = rendered.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next());
    values.map(|value| value.parse::<i64>().unwrap()).sum()
}

/// Three lines: sent again; taken by a first try that nobody answered; taken or not, nobody knows.
async fn sent_again(rig: &Rig, game: &mut game::Game) {
    let timeout = || PublishError::Timeout;
    for (fates, line, answer) in [
        (vec![], format!("l:{KEY}:[{{}},{{}},{{}}]:a"), "OK a"),
        (vec![timeout()], format!("l:{KEY}:[{{}}]:g"), "OK g"),
        (vec![timeout(), timeout()], format!("l:{KEY}:[{{}},{{}}]:h"), "ERR timeout h"),
    ] {
        rig.bus.fail(fates);
        game.send(&format!("{line}\n")).await;
        let heard = game.line().await;
        assert!(heard.starts_with(answer), "{heard}");
    }
}

/// A sign-in, and a line of two records that is shed. The log is told in one, at the latest when the
/// gateway stops.
async fn pressed(rig: &Rig) {
    rig.bus.fill(Stream::Logs, Some(100));
    let mut pressed = game::Game::sign_in(rig.address, OTHER_KEY).await;
    pressed.send(&format!("l:{OTHER_KEY}:[{{}},{{}}]:z\n")).await;
    assert!(pressed.line().await.starts_with("ERR shed z - "));
}

#[tokio::test]
async fn every_line_in_has_exactly_one_outcome() {
    let metrics = start_telemetry("gateway-test", &LogConfig::default()).unwrap().metrics();
    let rig = Rig::start().await;
    let mut stranger = game::Game::connect(rig.address).await;
    stranger.send("l:x:[]\nv:nosuchkey000\n").await;
    assert!(stranger.line().await.starts_with("ERR not_signed_in"));
    assert!(stranger.line().await.starts_with("ERR unknown_key"));

    let mut game = rig.game().await;
    eventually("the sign-in is told", || !rig.bus.messages().is_empty()).await;
    let lines = [
        format!("l:{KEY}:[{{}},{{}},{{}}]:a"),
        format!("l:{KEY}:[]:b"),
        format!("i:{KEY}:[{{\"name\":\"a\",\"value\":1}}]:c"),
        format!("l:{OTHER_KEY}:[{{}}]:d"),
        format!("l:{KEY}:[7]:e"),
        "what".into(),
        "p:1".into(),
        format!("v:{KEY}"),
    ];
    for line in &lines {
        game.send(&format!("{line}\n\n")).await;
        game.line().await;
    }
    // Level 2: a hello, a bad one, a drop report, a bad one, a state, a bad one, and a later release's.
    let level_2 = [
        format!("h:{KEY}:{{}}"),
        format!("h:{KEY}:[]"),
        format!("n:{KEY}:{{\"dropped\":{{\"queue\":2}}}}:g"),
        format!("n:{KEY}:{{}}"),
        format!("d:{KEY}:sleep"),
        "a:x:1".into(),
    ];
    for line in &level_2 {
        game.send(&format!("{line}\n")).await;
        game.line().await;
    }
    game.send(&format!("d:{KEY}:back\n")).await;
    // What is told of this must not meet the failures that follow.
    eventually("it is told", || rig.bus.of_kind(LineKind::SignIn).len() == 3).await;
    for (error, start) in
        [(PublishError::Full, "ERR busy"), (PublishError::Refused("no".into()), "ERR busy")]
    {
        rig.bus.fail([error]);
        game.send(&format!("l:{KEY}:[{{}}]:f\n")).await;
        assert!(game.line().await.starts_with(start));
    }
    sent_again(&rig, &mut game).await;
    let (shed, signed_in, gap) = (1, 1, 1);
    pressed(&rig).await;
    rig.stop().await;

    let rendered = metrics.render();
    let lines_in = sum(&rendered, "observer_lines_in_total");
    let accepted = sum(&rendered, "observer_lines_accepted_total");
    let refused = sum(&rendered, "observer_refused_total");
    let expected = i64::try_from(lines.len() + level_2.len() + 1).unwrap() + 2 + 1 + 2 + 3;
    let expected = expected + shed + signed_in;
    assert_eq!(lines_in, expected, "{rendered}");
    assert_eq!(accepted + refused, expected, "{rendered}");
    assert_eq!(accepted, 11 + signed_in, "{rendered}");
    assert_eq!(sum(&rendered, "observer_records_accepted_total"), 8 + gap, "no variables");
    assert_eq!(sum(&rendered, "observer_records_duplicate_total"), 3);
    assert_eq!(sum(&rendered, "observer_records_unknown_total"), 2);
    assert_eq!(sum(&rendered, "observer_records_shed_total"), 2);
    assert_eq!(sum(&rendered, "observer_records_shed_untold_total"), 0);
    assert_eq!(sum(&rendered, "observer_sockets"), 0);
}
