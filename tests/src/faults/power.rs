//! The power is cut under load, at any moment of a run: what was told must be on the disk.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::child::folder;
use crate::device::below;
use crate::eventually;
use crate::game::{Game, LINE_WITHIN};
use crate::http::Api;
use crate::powercut::{Journal, Unsynced, journalled};
use crate::stack::Embedded;

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
    root: PathBuf,
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
    api.get("/users/tokens").await.expect("the api is up");
    embedded.process.kill();
    drop(others);
    let root = embedded.process.folder().canonicalize().expect("it is there");
    Run { journal: Journal::read(kept.path()), root, key, keys }
}

async fn send(address: SocketAddr, key: String, number: usize, lines: usize) {
    let mut game = Game::sign_in(address, &key).await.expect("the key is registered");
    for line in 0..lines + AHEAD {
        if line < lines {
            let mid = format!("g{number}-{line}");
            let record = json!([{ "message": "to be kept", "sent": mid }]);
            game.log_with_mid(&record, &mid).await.expect("the server runs");
        }
        if AHEAD <= line {
            let answer = game.answer(LINE_WITHIN).await.expect("each line is answered");
            assert!(answer.starts_with("OK "), "{answer}");
        }
    }
}

/// Reports a growing number, and has each answered, until it is aborted.
async fn report(address: SocketAddr, key: String) {
    let mut game = Game::sign_in(address, &key).await.expect("the key is registered");
    for number in 0_u64.. {
        let line = format!(
            r#"i:{key}:[{{"name":"count","type":"integer","value":"{number}"}}]:v{number}"#
        );
        game.send_line(&line).await.expect("the server runs");
        assert_eq!(
            game.answer(LINE_WITHIN).await.expect("each line is answered"),
            format!("OK v{number}")
        );
    }
}

/// Edits a variable to its next revision, until it is aborted.
async fn edit(api: Api, key: String) {
    for number in 1_u64.. {
        let edited = api.edit(&key, &json!({ "edits": [{ "name": "speed", "type": "integer", "value": number.to_string() }] })).await;
        assert_eq!(edited.expect("the api is up").json["revision"], number);
    }
}

async fn register(api: &Api, count: usize) -> Vec<String> {
    let mut keys = Vec::new();
    for number in 0..count {
        let key = format!("powercut-{number:03}");
        let answer =
            api.post("/users/tokens", &json!({ "token": key })).await.expect("the api is up");
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
    let vars = api.vars(key).await.expect("the api is up").json;
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
    for item in items(api, key).await {
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
    let (first, last) = (run.journal.first_told(), run.journal.len());
    let stride = (last - first) / count;
    let offset = below(stride);
    (0..count - 1).map(|step| first + step * stride + offset).chain([last]).collect()
}

/// What power cuts did.
#[derive(Debug)]
pub struct Cuts {
    /// Disks that were started on.
    pub disks: usize,
    /// Lines acknowledged before the last cut.
    pub acknowledged: usize,
    /// What had been told and was not found on its disk, or was found twice.
    pub lost: Vec<String>,
}

/// Cuts the power at `moments` moments of a run of `lines` lines a game, and starts on what is left:
/// on a strict disk and on a torn one.
///
/// # Panics
///
/// When a disk cannot be started on.
pub async fn power_is_cut(lines: usize, cuts: usize) -> Cuts {
    let run = run(lines).await;
    let ends = moments(&run, cuts);
    let kinds = [Unsynced::Lost, Unsynced::Torn(0x5eed_0000 + ends[0] as u64)];
    let (acknowledged, lost) = cut(&run, &ends, &kinds).await;
    assert_eq!(acknowledged, GAMES * lines, "the last cut came after all answers");
    Cuts { disks: ends.len() * kinds.len(), acknowledged, lost }
}

/// The same on a disk that answers the syncs of the log database's commits and does not carry them
/// out, as `synchronous=NORMAL` would not ask for them.
///
/// # Panics
///
/// As [`power_is_cut`].
pub async fn power_is_cut_on_a_lying_disk(lines: usize, cuts: usize) -> Cuts {
    let mut run = run(lines).await;
    run.journal = run.journal.with_lies_about("logs.db-wal");
    let ends = moments(&run, cuts);
    let (acknowledged, lost) = cut(&run, &ends, &[Unsynced::Lost]).await;
    assert_eq!(acknowledged, GAMES * lines, "the last cut came after all answers");
    Cuts { disks: ends.len(), acknowledged, lost }
}

/// All records that a search finds, page after page.
async fn items(api: &Api, key: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api.logs(key, &format!("limit=1000{cursor}")).await.expect("the api is up");
        assert_eq!(page.status, 200, "{}", page.text);
        items.extend(page.json["items"].as_array().cloned().unwrap_or_default());
        match page.json["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}
