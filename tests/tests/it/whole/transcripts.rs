//! The transcripts of PROTOCOL.md, played against the product: the page tells the truth.

use observer_tests::game::{Game, LINE_WITHIN};

use super::Stack;

const PROTOCOL: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/wire/PROTOCOL.md"));

/// The key that the page is written with.
const KEY: &str = "0123456789ab";

/// Transcripts that can be played: those in which nobody edits a value.
fn transcripts() -> Vec<&'static str> {
    let blocks = PROTOCOL.split("```text\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap());
    blocks.filter(|block| !block.contains("< v:")).collect()
}

#[tokio::test]
async fn transcripts_of_the_protocol_are_what_happens() {
    let transcripts = transcripts();
    assert!(transcripts.len() >= 4, "the page has lost its transcripts");
    let mut stack = Stack::embedded().await;
    let api = stack.api().await;
    for transcript in transcripts {
        let key = api.new_key().await;
        let mut game = stack.connect().await;
        if !transcript.contains("> v:") {
            game.send_line(&format!("v:{key}")).await.unwrap();
            assert_eq!(game.read_line(LINE_WITHIN).await.unwrap(), "OK");
        }
        play(&mut game, &transcript.replace(KEY, &key)).await;
    }
}

/// Sends what stands behind `>`, and reads what stands behind `<`, line by line.
async fn play(game: &mut Game, transcript: &str) {
    for line in transcript.lines() {
        if let Some(sent) = line.strip_prefix("> ") {
            game.send_line(sent).await.unwrap();
        } else if let Some(expected) = line.strip_prefix("< ") {
            assert_eq!(game.read_line(LINE_WITHIN).await.unwrap(), expected, "in\n{transcript}");
        }
    }
}
