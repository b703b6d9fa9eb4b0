//! T14: records that Elasticsearch refuses, or that no game could send, beside good ones in one batch.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use observer_tests::http::Api;
use observer_wire::ProjectId;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};

use super::published::{Line, Rig};

/// Time for what is stored to be found.
const FOUND_WITHIN: Duration = Duration::from_mins(1);

/// Pause between two searches.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Most deliveries of one event.
const DELIVERIES_MAX: u64 = 6;

/// Bytes of records that fill an event by themselves: the broker takes a megabyte.
const LARGE_BYTES_MIN: usize = 200_000;

/// What became of poison and its neighbours.
#[derive(Debug, Default)]
pub(crate) struct Poisoned {
    pub(crate) rounds: usize,
    pub(crate) good: usize,
    pub(crate) bad: usize,
    pub(crate) stored: usize,
    pub(crate) buried: usize,
    /// Reasons of the buried, without what they quote.
    pub(crate) reasons: BTreeSet<String>,
    pub(crate) events: u64,
    pub(crate) deliveries: u64,
}

impl fmt::Display for Poisoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, good, bad, stored, buried, reasons, events, deliveries } = self;
        write!(
            f,
            "T14 poison, {rounds} rounds: {good} good records and {bad} bad ones, {stored} stored, {buried} \
             buried for {reasons:?}, {deliveries} deliveries of {events} events"
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Good,
    /// To be stored, in the safe form if need be, or buried.
    Poison,
    /// To be buried: it can be stored in no form.
    Deadly,
}

/// So many rounds of every kind of poison, each between good records.
///
/// # Panics
///
/// When a good record is not stored, a bad one neither stored nor buried, or one is both; when an event
/// is delivered again and again.
pub(crate) async fn poison_beside_good_records(rounds: usize) -> Poisoned {
    let mut rig = Rig::start().await;
    let mut told = Poisoned { rounds, ..Poisoned::default() };
    let mut sent = Vec::new();
    for _ in 0..rounds {
        let project = rig.project().await;
        let lines = lines(project);
        let is_large = |line: &Line| LARGE_BYTES_MIN < line.records.concat().len();
        let (large, small): (Vec<_>, Vec<_>) =
            lines.iter().map(|(line, _)| line).partition(|line| is_large(line));
        rig.publish(project, &small).await;
        for line in large {
            rig.publish(project, &[line]).await;
        }
        rig.publish_bytes(project, b"no event at all".to_vec()).await;
        sent.push((project, lines));
    }
    told.deliveries = rig.settled().await;
    told.events = rig.events;
    assert!(told.deliveries < told.events + DELIVERIES_MAX, "{told:?}");
    let api = rig.cluster.api().await;
    for (project, lines) in sent {
        judge(&api, project, &lines, &mut told).await;
    }
    told
}

/// The poison between good records, each a line of its own, and a line of both.
fn lines(project: ProjectId) -> Vec<(Line, Kind)> {
    let now = i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let line = |number: usize, records: Vec<String>| Line {
        id: format!("r{project}{number:020}"),
        seq: number as u64,
        received: now,
        again: false,
        records,
    };
    let mut lines = Vec::new();
    for poison in poison() {
        lines.push((line(lines.len(), vec![good(lines.len())]), Kind::Good));
        lines.push((line(lines.len(), vec![poison]), Kind::Poison));
    }
    // Past what a number of Elasticsearch holds, in every form.
    for seq in [1 << 63, u64::MAX] {
        let deadly = Line { seq, ..line(lines.len(), vec![good(0)]) };
        lines.push((deadly, Kind::Deadly));
        lines.push((line(lines.len(), vec![good(lines.len())]), Kind::Good));
    }
    let many = vec![good(1), r#"{"":1}"#.to_owned(), good(2), r#"{"a..b":1}"#.to_owned(), good(3)];
    lines.push((line(lines.len(), many), Kind::Poison));
    lines
}

fn good(number: usize) -> String {
    format!(r#"{{"message":"good {number}","hp":{number}}}"#)
}

fn poison() -> Vec<String> {
    let fields: Vec<_> = (0..10_000).map(|n| format!(r#""f{n}":{n}"#)).collect();
    let deep = |depth| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    let mut poison: Vec<String> = [
        // One name, many types.
        r#"{"hp":{"a":1}}"#,
        r#"{"hp":"text"}"#,
        r#"{"hp":[1,"x",{}]}"#,
        r#"{"message":{"not":"text"},"level":42,"timestamp":"soon","tag":[]}"#,
        r#"{"timestamp":1e999}"#,
        r#"{"timestamp":-9223372036854775808}"#,
        // Names that Elasticsearch refuses.
        r#"{"":1}"#,
        r#"{" ":1}"#,
        r#"{".":1}"#,
        r#"{"a..b":1}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"a":{"b":1,"b":2}}"#,
        // Names that are ours.
        r#"{"observer":{"id":"x","project":"y"}}"#,
        r#"{"observer":7}"#,
        r#"{"observer.id":"x"}"#,
        r#"{"_id":"x","_source":{}}"#,
        // Characters.
        r#"{"a\u0000b":1}"#,
        r#"{"message":"nul \u0000 in it"}"#,
        r#"{"message":"\ud800","\udfff":1}"#,
    ]
    .map(str::to_owned)
    .into();
    poison.extend([
        format!(r#"{{"a":{}}}"#, "9".repeat(1_001)),
        format!(r#"{{"{}":1}}"#, "n".repeat(50_001)),
        format!("{{{}}}", fields.join(",")),
        deep(40),
        deep(100),
        format!(r#"{{"word":"{}"}}"#, "x".repeat(300 * 1024)),
        format!(r#"{{"message":"{}"}}"#, "x".repeat(1_000_000)),
        format!(r#"{{"message":"{}"}}"#, "word ".repeat(200_000)),
    ]);
    poison
}

/// Compares what was sent to a project with what the api shows.
async fn judge(api: &Api, project: ProjectId, lines: &[(Line, Kind)], told: &mut Poisoned) {
    let buried = buried(api, project).await;
    let mut sent = BTreeMap::new();
    for (line, kind) in lines {
        let ids = (0..line.records.len()).map(|number| format!("{}-{number:03}", line.id));
        sent.extend(ids.map(|id| (id, *kind)));
    }
    let kept = sent.len() - buried.len();
    let until = Instant::now() + FOUND_WITHIN;
    let stored = loop {
        let ids = stored(api, project).await;
        if ids.len() == kept || until < Instant::now() {
            break ids;
        }
        sleep(LOOK_EVERY).await;
    };
    let ids: BTreeSet<&str> = stored.iter().map(String::as_str).collect();
    assert_eq!(
        (stored.len(), ids.len()),
        (kept, kept),
        "some record is there twice, or is buried too"
    );
    for (id, kind) in &sent {
        match kind {
            Kind::Good => assert!(ids.contains(id.as_str()), "{id} was good and is not stored"),
            Kind::Poison => {}
            Kind::Deadly => assert!(!ids.contains(id.as_str()), "{id} is stored"),
        }
    }
    assert!(ids.iter().all(|id| sent.contains_key(*id)), "somebody else's record: {ids:?}");
    told.stored += kept;
    told.buried += buried.len();
    told.good += sent.values().filter(|kind| **kind == Kind::Good).count();
    told.bad += sent.values().filter(|kind| **kind != Kind::Good).count();
    told.reasons.extend(buried);
}

/// Why each buried record was.
async fn buried(api: &Api, project: ProjectId) -> Vec<String> {
    let path = format!("/api/v1/projects/{project}/dead-letters?limit=1000");
    let answer = api.get(&path).await.unwrap();
    let letters = answer.json["items"].as_array().unwrap_or_else(|| panic!("{}", answer.text));
    let reason = |letter: &Value| {
        let reason = letter["reason"].as_str().unwrap_or_default().split(':').next();
        let reason = reason.unwrap_or_default().to_owned();
        assert!(!reason.is_empty(), "{letter}");
        reason
    };
    letters.iter().filter(|letter| letter["kind"] == "record").map(reason).collect()
}

#[derive(Deserialize)]
struct Page<'a> {
    /// As text: numbers and characters of some are more than a reader of values takes.
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
    next: Option<String>,
}

/// Ids of a project's records.
async fn stored(api: &Api, project: ProjectId) -> Vec<String> {
    let start = format!(r#""observer":{{"id":"r{project}"#);
    let id = |item: &RawValue| {
        let (_, rest) = item.get().split_once(&start).unwrap_or_else(|| panic!("no id: {item}"));
        let (number, _) = rest.split_once('"').expect("a text ends");
        format!("r{project}{number}")
    };
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.logs(project.as_str(), &format!("limit=1000{cursor}")).await.unwrap();
        let page: Page<'_> = serde_json::from_str(&page.text).unwrap();
        ids.extend(page.items.into_iter().map(id));
        match page.next {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}
