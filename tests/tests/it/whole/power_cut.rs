//! A power cut at any moment loses nothing that was acknowledged: lines, values, edits, keys.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use observer_tests::child::folder;
use observer_tests::game::{Game, LINE_WITHIN};
use observer_tests::http::Api;
use observer_tests::powercut::{Journal, Unsynced, journalled};
use observer_tests::stack::Embedded;
use observer_tests::wait::eventually;
use serde_json::json;
use tokio::task::JoinSet;

use super::{items, one_edit};

/// Games that send at once.
const GAMES: usize = 6;

/// Lines that a game sends ahead of their answers.
const AHEAD: usize = 8;

/// Time for the disk of a cut to be opened and found sound, on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A run under load, whose power may be cut at any of its moments.
struct Run {
    journal: Journal,
    /// Where it ran.
    root: std::path::PathBuf,
    /// The project of its lines.
    key: String,
    /// Keys that were registered while it ran.
    keys: Vec<String>,
}

/// Starts on an empty folder, sends `lines` a game while values are reported, edits made and keys
/// registered, and is killed in the middle of it.
async fn run(lines: usize) -> Run {
    let kept = folder("journal");
    let settings = journalled(kept.path());
    let settings: Vec<_> = settings.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    let mut embedded = Embedded::start_with(&["serve"], &settings).await;
    let (api, address) = (embedded.api().await, embedded.game_address().await);
    let key = api.new_key().await;

    let mut games = JoinSet::new();
    for game in 0..GAMES {
        games.spawn(send(address, key.clone(), game, lines));
    }
    let mut others = JoinSet::new();
    others.spawn(report(address, key.clone()));
    others.spawn(edit(api.clone(), key.clone()));
    let keys = register(&api, GAMES).await;
    games.join_all().await;
    // An answer is in the journal before the next one is sent: the kill must not come in between.
    api.get("/users/tokens").await.unwrap();
    embedded.process.kill();
    drop(others);
    let root = embedded.process.folder().canonicalize().unwrap();
    Run { journal: Journal::read(kept.path()), root, key, keys }
}

async fn send(address: SocketAddr, key: String, number: usize, lines: usize) {
    let mut game = Game::sign_in(address, &key).await.unwrap();
    for line in 0..lines + AHEAD {
        if line < lines {
            let mid = format!("g{number}-{line}");
            let record = json!([{ "message": "to be kept", "sent": mid }]);
            game.log_with_mid(&record, &mid).await.unwrap();
        }
        if AHEAD <= line {
            let answer = game.answer(LINE_WITHIN).await.unwrap();
            assert!(answer.starts_with("OK "), "{answer}");
        }
    }
}

/// Reports a growing number, and has each answered, until it is aborted.
async fn report(address: SocketAddr, key: String) {
    let mut game = Game::sign_in(address, &key).await.unwrap();
    for number in 0_u64.. {
        let line = format!(
            r#"i:{key}:[{{"name":"count","type":"integer","value":"{number}"}}]:v{number}"#
        );
        game.send_line(&line).await.unwrap();
        assert_eq!(game.answer(LINE_WITHIN).await.unwrap(), format!("OK v{number}"));
    }
}

/// Edits a variable to its next revision, until it is aborted.
async fn edit(api: Api, key: String) {
    for number in 1_u64.. {
        let edited = api.edit(&key, &one_edit("speed", "integer", &number.to_string())).await;
        assert_eq!(edited.unwrap().json["revision"], number);
    }
}

async fn register(api: &Api, count: usize) -> Vec<String> {
    let mut keys = Vec::new();
    for number in 0..count {
        let key = format!("powercut-{number:03}");
        let answer = api.post("/users/tokens", &json!({ "token": key })).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
        keys.push(key);
    }
    keys
}

/// What had been told when the power went.
#[derive(Debug, Default)]
struct Told {
    lines: Vec<String>,
    revision: u64,
    value: Option<u64>,
    keys: Vec<String>,
    first_key: Option<String>,
}

impl Told {
    fn read(text: &str, run: &Run) -> Self {
        let mut told = Self::default();
        for line in text.lines() {
            if let Some(mid) = line.strip_prefix("OK ") {
                match mid.strip_prefix('v') {
                    Some(number) => told.value = told.value.max(number.parse().ok()),
                    None => told.lines.push(mid.to_owned()),
                }
            } else if let Some(key) = line.strip_prefix("Key   ") {
                told.first_key = Some(key.to_owned());
            }
            for part in line.split(r#"{"revision":"#).skip(1) {
                let number = part.split('}').next().unwrap_or_default().parse();
                told.revision = told.revision.max(number.unwrap_or_default());
            }
        }
        let registered = |key: &&String| text.contains(&format!(r#"{{"token":"{key}"}}"#));
        told.keys = run.keys.iter().filter(registered).cloned().collect();
        told
    }
}

/// What a disk lacks of what was told before its power went.
async fn lost(disk: &Path, told: &Told, key: &str) -> Vec<String> {
    let data = disk.join("data").display().to_string();
    let settings = [("OBSERVER_STORE__DATA_DIR", &data[..])];
    let mut embedded = Embedded::start_with(&["serve"], &settings).await;
    let (api, address) = (embedded.api().await, embedded.game_address().await);
    eventually(READY_WITHIN, "it is ready", async || {
        disk.join("data/ready.json").exists().then_some(())
    })
    .await;
    let mut lost = Vec::new();
    if !told.lines.is_empty() {
        lost.extend(lost_lines(&api, key, &told.lines).await);
    }
    let vars = api.vars(key).await.unwrap().json;
    if vars["revision"].as_u64().unwrap_or_default() < told.revision {
        lost.push(format!("revision {}", told.revision));
    }
    let devices = vars["devices"].as_array().cloned().unwrap_or_default();
    let values = devices.iter().filter_map(|device| device["reported"].as_array().cloned());
    let value = values.flatten().filter_map(|value| value["value"].as_str()?.parse::<u64>().ok());
    if value.max() < told.value {
        lost.push(format!("value {:?}", told.value));
    }
    for key in &told.keys {
        if let Err(error) = Game::sign_in(address, key).await {
            lost.push(format!("key {key}: {error}"));
        }
    }
    if let Some(first) = &told.first_key {
        let now = std::fs::read_to_string(disk.join("data/first-key")).unwrap_or_default();
        if now.trim() != first {
            lost.push(format!("first key {first}, now {now}"));
        }
    }
    assert_eq!(embedded.process.terminate(READY_WITHIN).await, Some(0));
    lost
}

/// Lines that are not found, and those found twice.
async fn lost_lines(api: &Api, key: &str, told: &[String]) -> Vec<String> {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for item in items(api, key, "").await {
        *found.entry(item["sent"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    let twice = found.iter().filter(|(_, count)| **count > 1);
    let missing = told.iter().filter(|line| !found.contains_key(*line));
    twice.map(|(line, _)| format!("twice: {line}")).chain(missing.cloned()).collect()
}

/// Cuts the power after each number of entries, once for a strict disk and once for a torn one, and
/// gives what was acknowledged by the last and all that was lost.
async fn cut(run: &Run, ends: &[usize], kinds: &[Unsynced]) -> (usize, Vec<String>) {
    let mut disks = Vec::new();
    run.journal.cut(ends, |moment| {
        for kind in kinds {
            let disk = folder("disk");
            moment.disk(&run.root, disk.path(), *kind);
            disks.push((disk, *kind, Told::read(&moment.told(), run)));
        }
    });
    let (mut acknowledged, mut all) = (0, Vec::new());
    for (number, (disk, kind, told)) in disks.into_iter().enumerate() {
        acknowledged = acknowledged.max(told.lines.len());
        let lost = lost(disk.path(), &told, &run.key).await;
        all.extend(lost.iter().map(|lost| format!("cut {number} {kind:?}: {lost}")));
    }
    (acknowledged, all)
}

/// Moments spread over a run, the last among them.
fn moments(run: &Run, count: usize) -> Vec<usize> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).unwrap();
    let (first, last) = (run.journal.first_told(), run.journal.len());
    let stride = (last - first) / count;
    let offset = usize::try_from(u64::from_ne_bytes(random) % (stride as u64)).unwrap();
    (0..count - 1).map(|step| first + step * stride + offset).chain([last]).collect()
}

/// Cuts the power at `cuts` moments of a run of `lines` a game, on both kinds of disks.
pub(crate) async fn nothing_acknowledged_is_lost(lines: usize, cuts: usize) -> usize {
    let run = run(lines).await;
    let ends = moments(&run, cuts);
    let kinds = [Unsynced::Lost, Unsynced::Torn(0x5eed_0000 + ends[0] as u64)];
    let (acknowledged, lost) = cut(&run, &ends, &kinds).await;
    assert!(lost.is_empty(), "cut after {ends:?} entries: {lost:#?}");
    assert_eq!(acknowledged, GAMES * lines, "the last cut came after all answers");
    acknowledged
}

#[tokio::test]
async fn a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged() {
    nothing_acknowledged_is_lost(60, 4).await;
}

/// What `synchronous=NORMAL` would do: the log of the database is not synced with each commit.
#[tokio::test]
async fn a_disk_that_does_not_sync_commits_loses_what_was_acknowledged() {
    let mut run = run(30).await;
    run.journal = run.journal.with_lies_about("logs.db-wal");
    let ends = moments(&run, 4);
    let (acknowledged, lost) = cut(&run, &ends, &[Unsynced::Lost]).await;
    assert_eq!(acknowledged, GAMES * 30);
    // What was folded into the database in between is safe there too.
    assert!(!lost.is_empty(), "the test above could not fail");
}
