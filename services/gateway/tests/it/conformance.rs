//! Every case of `shared/wire/conformance.jsonl`, which SDK authors use too.

use serde::Deserialize;

use crate::game::Game;
use crate::rig::Rig;

const CASES: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/wire/conformance.jsonl"));

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    talk: Vec<String>,
}

#[tokio::test]
async fn every_case_of_the_conformance_file_is_what_happens() {
    let rig = Rig::start().await;
    let cases: Vec<Case> = CASES.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() >= 40, "the file has lost its cases");
    for case in cases {
        let mut game = Game::connect(rig.address).await;
        for line in &case.talk {
            play(&mut game, &case.name, line).await;
        }
    }
    rig.stop().await;
}

async fn play(game: &mut Game, name: &str, line: &str) {
    if let Some(sent) = line.strip_prefix("> ") {
        game.send(&format!("{sent}\n")).await;
    } else if line == "<(closed)" {
        game.is_closed().await;
    } else {
        let expected = line.strip_prefix("< ").expect(name);
        let read = game.line().await;
        assert!(fits(&read, expected), "{name}: expected {expected}\nand read {read}");
    }
}

/// Whether `line` is `pattern`, in which `…` is any text.
fn fits(line: &str, pattern: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('…') else { return line == pattern };
    let Some(line) = line.strip_prefix(start) else { return false };
    (0..=line.len()).filter(|at| line.is_char_boundary(*at)).any(|at| fits(&line[at..], rest))
}
