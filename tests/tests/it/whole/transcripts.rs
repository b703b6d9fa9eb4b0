//! The transcripts of PROTOCOL.md, played against the product: the page tells the truth.

use std::collections::BTreeMap;

use observer_tests::game::{Game, LINE_WITHIN};
use observer_tests::http::Api;
use observer_tests::stack::Embedded;

use super::{Stack, one_edit};

const PROTOCOL: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/wire/PROTOCOL.md"));

/// The key that the page is written with.
const KEY: &str = "0123456789ab";

fn transcripts() -> Vec<&'static str> {
    let blocks = PROTOCOL.split("```text\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap()).collect()
}

#[tokio::test]
async fn transcripts_of_the_protocol_are_what_happens() {
    let transcripts = transcripts();
    assert!(transcripts.len() >= 18, "the page has lost its transcripts");
    let mut stack = Stack::embedded().await;
    let api = stack.api().await;
    for transcript in transcripts {
        let key = api.new_key().await;
        let mut games = BTreeMap::new();
        let mut game = stack.connect().await;
        if !transcript.contains("> v:") && !transcript.contains("> h:") {
            game.send_line(&format!("v:{key}")).await.unwrap();
            assert_eq!(game.read_line(LINE_WITHIN).await.unwrap(), "OK");
        }
        games.insert("", game);
        if transcript.contains(">2 ") {
            games.insert("2", stack.connect().await);
        }
        let transcript = transcript.replace(KEY, &key);
        for line in transcript.lines() {
            play(&api, &key, &mut games, line).await;
        }
    }
}

/// A transcript whose fence names a limit: what is sent in a row goes in one write.
#[tokio::test]
async fn transcripts_that_name_a_limit_are_what_happens_with_it() {
    let blocks: Vec<_> = PROTOCOL.split("```text limits.").skip(1).collect();
    assert!(!blocks.is_empty(), "the page has lost its transcripts");
    for block in blocks {
        let (limit, rest) = block.split_once('\n').unwrap();
        let (name, value) = limit.split_once('=').unwrap();
        let name = format!("OBSERVER_LIMITS__{}", name.to_uppercase());
        let mut embedded = Embedded::start_with(&["serve"], &[(&name, value)]).await;
        let key = embedded.api().await.new_key().await;
        let mut game = Game::connect(embedded.game_address().await).await.unwrap();
        let transcript = rest.split("```").next().unwrap().replace(KEY, &key);
        let mut sent = String::new();
        for line in transcript.lines() {
            if let Some(line) = line.strip_prefix("> ") {
                sent.extend([line, "\n"]);
                continue;
            }
            game.send(std::mem::take(&mut sent).as_bytes()).await.unwrap();
            let expected = line.strip_prefix("< ").unwrap();
            let read = game.read_line(LINE_WITHIN).await.unwrap();
            assert!(fits(&read, expected), "expected {expected}\nand read {read}");
        }
    }
}

/// Sends what stands behind `>`, reads what stands behind `<`, sets what stands behind `=`.
async fn play(api: &Api, key: &str, games: &mut BTreeMap<&str, Game>, line: &str) {
    if let Some(set) = line.strip_prefix("= ") {
        let [name, kind, value] = set.split(' ').collect::<Vec<_>>()[..] else {
            panic!("= name type value, not {line}");
        };
        let edited = api.edit(key, &one_edit(name, kind, value)).await.unwrap();
        assert_eq!(edited.status, 200, "{}", edited.text);
        return;
    }
    let Some((socket, said)) = line[1..].split_once([' ', '(']) else { return };
    let game = games.get_mut(socket).unwrap_or_else(|| panic!("no socket for {line}"));
    match (&line[..1], said) {
        (">", sent) => game.send_line(sent).await.unwrap(),
        ("<", "closed)") => assert!(game.read_line(LINE_WITHIN).await.is_err(), "{line}"),
        ("<", expected) => {
            let read = game.read_line(LINE_WITHIN).await.unwrap();
            assert!(fits(&read, expected), "expected {expected}\nand read {read}");
        }
        _ => {}
    }
}

/// Whether `line` is `pattern`, in which `…` is any text.
fn fits(line: &str, pattern: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('…') else { return line == pattern };
    let Some(line) = line.strip_prefix(start) else { return false };
    (0..=line.len()).filter(|at| line.is_char_boundary(*at)).any(|at| fits(&line[at..], rest))
}

#[test]
fn any_text_stands_where_the_page_says_so() {
    for (line, pattern, good) in [
        ("OK", "OK", true),
        ("OK 1", "OK", false),
        ("h:k:{\"a\":1}", "h:k:{…}", true),
        ("h:k:{\"a\":1}", "h:k:{…\"a\"…", true),
        ("h:k:{\"a\":1}", "h:k:{…\"b\"…", false),
    ] {
        assert_eq!(fits(line, pattern), good, "{line} {pattern}");
    }
}
