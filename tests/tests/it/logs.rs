//! The suite of the log port: a named test for each clause of `LogStore`'s contract, run against
//! every adapter. Each test has a project of its own, so that a shared server will do.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use observer_store::config::{LogsConfig, LogsType};
use observer_store::logs::{LogHit, LogPage, LogQuery, LogStore, NewRecord, Position, Stored};
use observer_store::{StoreConfig, connect_logs};
use observer_tests::eventually;
use observer_tests::servers::Elasticsearch;
use observer_wire::record::{self, Level};
use observer_wire::records::Records;
use observer_wire::text::parse_query;
use observer_wire::{ApiKey, Limits, ProjectId};
use tempfile::TempDir;

/// Time until a stored record is found: the promise, and room for a busy machine.
const FOUND_WITHIN: Duration = Duration::from_secs(30);

/// A store with what it needs to live.
struct Opened {
    store: Arc<dyn LogStore>,
    /// After the store, so that its file is closed first.
    _folder: Option<TempDir>,
}

async fn open_sqlite() -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig { data_dir: folder.path().into(), ..StoreConfig::default() };
    Opened { store: connect_logs(&config).await.unwrap(), _folder: Some(folder) }
}

async fn open_elastic() -> Opened {
    let url = Elasticsearch::shared().await.url();
    let kind = LogsType::Elasticsearch;
    let logs = LogsConfig { kind, url: Some(url.into()), replicas: 0, ..LogsConfig::default() };
    let config = StoreConfig { logs, ..StoreConfig::default() };
    Opened { store: connect_logs(&config).await.unwrap(), _folder: None }
}

/// Runs each test of the suite against the store that `$open` makes.
macro_rules! suite {
    ($adapter:ident, $open:ident) => {
        mod $adapter {
            suite!(@tests $open:
                a_record_is_found_byte_for_byte
                a_stored_record_is_found_within_two_seconds
                a_record_stored_again_is_a_duplicate_and_the_first_stays
                an_id_twice_in_one_batch_is_stored_once
                of_many_writers_of_one_record_one_stores_it
                an_empty_batch_has_an_empty_answer
                a_large_batch_is_stored_whole
                a_word_is_found_wherever_it_stands
                the_last_word_may_go_on
                a_phrase_is_found_in_its_order
                words_of_any_script_are_found
                a_field_is_found_by_its_exact_value
                a_field_in_another_is_no_field_of_the_record
                a_level_finds_itself_and_what_is_more_severe
                a_device_finds_its_own_records
                since_is_included_and_until_is_not
                all_conditions_must_hold
                pages_are_newest_first_and_have_each_record_once
                pages_of_a_search_have_each_hit_once
                a_full_last_page_is_the_last
                records_of_another_project_are_never_found
                odd_names_lose_no_record_and_change_no_byte
                a_forged_name_is_not_seen_in_another_project
                a_field_may_change_its_type
                a_long_value_is_kept_whole
                a_store_that_runs_can_be_used
            );
        }
    };
    (@tests $open:ident: $($test:ident)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                let opened = super::$open().await;
                super::$test(&*opened.store).await;
            }
        )*
    };
}

suite!(sqlite, open_sqlite);
suite!(elastic, open_elastic);

/// A project that no other test has.
fn random_project() -> ProjectId {
    let mut random = [0; 6];
    getrandom::fill(&mut random).unwrap();
    ApiKey::from_random(random).founds()
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// A record as the indexer makes it, owning its texts.
#[derive(Clone, Debug)]
struct Record {
    id: String,
    project: ProjectId,
    device: String,
    seq: u64,
    received: i64,
    json: String,
    text: String,
    hit: LogHit,
    odd: bool,
}

/// Records of one project, a millisecond apart, the first the oldest.
struct Game {
    project: ProjectId,
    start: i64,
    count: u64,
}

impl Game {
    fn new() -> Self {
        // Some time ago, so that no record comes from the future.
        Self { project: random_project(), start: now() - 60_000, count: 0 }
    }

    fn record(&mut self, json: &str) -> Record {
        self.record_of(json, "device-1")
    }

    fn record_of(&mut self, json: &str, device: &str) -> Record {
        self.count += 1;
        self.record_at(json, device, self.start + self.count.cast_signed())
    }

    fn record_at(&mut self, json: &str, device: &str, received: i64) -> Record {
        self.count += 1;
        let mut checked = Records::default();
        checked.check(json, &Limits::default()).unwrap_or_else(|why| panic!("{why:?}: {json:.80}"));
        let mut text = String::new();
        let recognised = record::read(json, &mut text);
        let (id, seq) = (format!("r{}{:020}-000", self.project, self.count), 1_000 + self.count);
        let hit = LogHit {
            position: Position { received, seq, id: id.clone() },
            key: self.project.to_string(),
            device: device.to_owned(),
            session: "session-1".to_owned(),
            rev: 7,
            level: recognised.level,
            message: recognised.message.map(Into::into),
            tag: recognised.tag.map(Into::into),
            time: recognised.time,
            json: json.to_owned(),
        };
        let odd = !checked.odd.is_empty();
        let (project, json) = (self.project, json.to_owned());
        Record { id, project, device: device.to_owned(), seq, received, json, text, hit, odd }
    }

    /// Stores records made of `jsons`, and returns once they are found.
    async fn store(&mut self, store: &dyn LogStore, jsons: &[&str]) -> Vec<Record> {
        let records: Vec<_> = jsons.iter().map(|json| self.record(json)).collect();
        self.store_all(store, &records).await;
        records
    }

    async fn store_all(&self, store: &dyn LogStore, records: &[Record]) {
        assert_eq!(append(store, records).await, vec![Stored::New; records.len()]);
        self.found(store, records.len()).await;
    }

    /// All records of the project, as soon as there are `count`.
    async fn found(&self, store: &dyn LogStore, count: usize) -> LogPage {
        found(store, &all(self.project), count, FOUND_WITHIN).await
    }

    /// Messages of the records that `query` finds, oldest first.
    async fn messages(&self, store: &dyn LogStore, query: &str) -> Vec<String> {
        let query = LogQuery { terms: parse_query(query), ..all(self.project) };
        messages(store, &query).await
    }
}

impl Record {
    fn as_new(&self) -> NewRecord<'_> {
        NewRecord {
            id: &self.id,
            project: self.project,
            key: &self.hit.key,
            device: &self.device,
            session: &self.hit.session,
            seq: self.seq,
            received: self.received,
            rev: self.hit.rev,
            level: self.hit.level,
            message: self.hit.message.as_deref(),
            tag: self.hit.tag.as_deref(),
            time: self.hit.time,
            text: &self.text,
            json: &self.json,
            odd: self.odd,
            again: false,
        }
    }
}

async fn append(store: &dyn LogStore, records: &[Record]) -> Vec<Stored> {
    let batch: Vec<_> = records.iter().map(Record::as_new).collect();
    store.append(&batch).await.unwrap()
}

fn all(project: ProjectId) -> LogQuery {
    LogQuery {
        project,
        terms: Vec::new(),
        since: None,
        until: None,
        level: None,
        device: None,
        limit: 1_000,
        before: None,
    }
}

async fn found(
    store: &dyn LogStore,
    query: &LogQuery,
    count: usize,
    deadline: Duration,
) -> LogPage {
    eventually(deadline, &format!("{count} hits"), async || {
        let page = store.search(query).await.unwrap();
        (count.min(query.limit) <= page.hits.len()).then_some(page)
    })
    .await
}

async fn messages(store: &dyn LogStore, query: &LogQuery) -> Vec<String> {
    let hits = store.search(query).await.unwrap().hits;
    hits.into_iter().rev().map(|hit| hit.message.unwrap_or_default()).collect()
}

async fn a_record_is_found_byte_for_byte(store: &dyn LogStore) {
    let mut game = Game::new();
    let json = "{ \"message\" :\"Tür\\u0020\\/ \\\"x\\\"\",\"level\":\"Warning\",\t\"n\":1.50e+1,\
         \"tag\":\"net\",\"timestamp\":123123123, \"deep\":{\"b\":[],\"a\":null}, \"z\":-0 }";
    let records = game.store(store, &[json]).await;
    let page = game.found(store, 1).await;
    assert_eq!(page, LogPage { hits: vec![records[0].hit.clone()], next: None });
    assert_eq!(page.hits[0].time, Some(123_123_123_000));
}

async fn a_stored_record_is_found_within_two_seconds(store: &dyn LogStore) {
    let mut game = Game::new();
    let records = [game.record(r#"{"message":"soon"}"#)];
    assert_eq!(append(store, &records).await, [Stored::New]);
    let query = LogQuery { terms: parse_query("soon"), ..all(game.project) };
    found(store, &query, 1, Duration::from_secs(2)).await;
}

async fn a_record_stored_again_is_a_duplicate_and_the_first_stays(store: &dyn LogStore) {
    let mut game = Game::new();
    let first = game.store(store, &[r#"{"message":"once"}"#]).await;
    let mut again = game.record(r#"{"message":"once"}"#);
    again.id.clone_from(&first[0].id);
    let fresh = game.record(r#"{"message":"fresh"}"#);
    assert_eq!(append(store, &[again, fresh]).await, [Stored::Duplicate, Stored::New]);
    let hits = game.found(store, 2).await.hits;
    assert_eq!(hits.len(), 2);
    assert_eq!(hits[1], first[0].hit);
}

async fn an_id_twice_in_one_batch_is_stored_once(store: &dyn LogStore) {
    let mut game = Game::new();
    let first = game.record(r#"{"message":"once"}"#);
    let mut again = game.record(r#"{"message":"once"}"#);
    again.id.clone_from(&first.id);
    let last = game.record(r#"{"message":"last"}"#);
    let stored = append(store, &[first.clone(), again, last]).await;
    assert_eq!(stored, [Stored::New, Stored::Duplicate, Stored::New]);
    let hits = game.found(store, 2).await.hits;
    assert_eq!((hits.len(), &hits[1]), (2, &first.hit));
}

async fn of_many_writers_of_one_record_one_stores_it(store: &dyn LogStore) {
    let mut game = Game::new();
    let records: Vec<_> = (0..20).map(|_| game.record(r#"{"message":"race"}"#)).collect();
    let stored = join_all((0..8).map(|_| append(store, &records))).await;
    let new = stored.iter().flatten().filter(|stored| **stored == Stored::New).count();
    let duplicate = stored.iter().flatten().filter(|stored| **stored == Stored::Duplicate).count();
    assert_eq!((new, duplicate), (20, 140));
    assert_eq!(game.found(store, 20).await.hits.len(), 20);
}

async fn an_empty_batch_has_an_empty_answer(store: &dyn LogStore) {
    assert_eq!(append(store, &[]).await, []);
}

async fn a_large_batch_is_stored_whole(store: &dyn LogStore) {
    let mut game = Game::new();
    let jsons: Vec<_> = (0..2_000).map(|n| format!("{{\"message\":\"line {n}\"}}")).collect();
    let records: Vec<_> = jsons.iter().map(|json| game.record(json)).collect();
    assert_eq!(append(store, &records).await, vec![Stored::New; records.len()]);
    game.found(store, 1_000).await;
    let oldest = LogQuery { terms: parse_query("\"line 0\""), ..all(game.project) };
    assert_eq!(found(store, &oldest, 1, FOUND_WITHIN).await.hits[0], records[0].hit);
}

async fn a_word_is_found_wherever_it_stands(store: &dyn LogStore) {
    let mut game = Game::new();
    let jsons = [
        r#"{"message":"a","text":"Player.Spawn(x=17)"}"#,
        r#"{"message":"b","in":{"list":["deep",{"er":"SPAWN"}]}}"#,
        r#"{"message":"c","n":17,"tag":"spawner"}"#,
        r#"{"message":"d","spawn":"name only"}"#,
    ];
    game.store(store, &jsons).await;
    assert_eq!(game.messages(store, "spawn ").await, ["a", "b"]);
    assert_eq!(game.messages(store, "17 ").await, ["a", "c"]);
    assert_eq!(game.messages(store, "17 spawn ").await, ["a"]);
    assert_eq!(game.messages(store, "player.spawn ").await, ["a"]);
    assert_eq!(game.messages(store, "player.deep ").await, [""; 0]);
}

async fn the_last_word_may_go_on(store: &dyn LogStore) {
    let mut game = Game::new();
    let jsons =
        [r#"{"message":"open doors"}"#, r#"{"message":"open window"}"#, r#"{"message":"wide"}"#];
    game.store(store, &jsons).await;
    assert_eq!(game.messages(store, "doo").await, ["open doors"]);
    assert_eq!(game.messages(store, "w").await, ["open window", "wide"]);
    assert_eq!(game.messages(store, "open w").await, ["open window"]);
    assert_eq!(game.messages(store, "open.w").await, ["open window"]);
    assert_eq!(game.messages(store, "w ").await, [""; 0]);
    assert_eq!(game.messages(store, "oor").await, [""; 0]);
}

async fn a_phrase_is_found_in_its_order(store: &dyn LogStore) {
    let mut game = Game::new();
    let jsons = [
        r#"{"message":"request timed out now"}"#,
        r#"{"message":"out, timed"}"#,
        r#"{"message":"timed it out"}"#,
    ];
    game.store(store, &jsons).await;
    assert_eq!(game.messages(store, "\"Timed OUT\"").await, ["request timed out now"]);
    assert_eq!(game.messages(store, "\"timed out\" reque").await, ["request timed out now"]);
    assert_eq!(game.messages(store, "out timed ").await.len(), 3);
    assert_eq!(game.messages(store, "\"timed ou\"").await, [""; 0]);
}

async fn words_of_any_script_are_found(store: &dyn LogStore) {
    let mut game = Game::new();
    let jsons = [
        r#"{"message":"Größe ÄNDERN"}"#,
        r#"{"message":"नमस्ते दुनिया"}"#,
        r#"{"message":"Привет, мир"}"#,
        r#"{"message":"東京 タワー"}"#,
        r#"{"message":"İstanbul ①② ꟼ"}"#,
    ];
    game.store(store, &jsons).await;
    for (query, count) in [
        ("größe ", 1),
        ("grosse ", 0),
        ("grö", 1),
        ("groß", 0),
        ("ändern ", 1),
        ("andern ", 0),
        ("दुनिया ", 1),
        ("दु", 1),
        ("ПРИВЕТ ", 1),
        ("東京 ", 1),
        ("東", 1),
        ("東 ", 0),
        ("İstanbul ", 1),
        ("①② ", 1),
        ("① ", 0),
        ("ꟼ ", 1),
    ] {
        assert_eq!(game.messages(store, query).await.len(), count, "{query}");
    }
}

async fn a_field_is_found_by_its_exact_value(store: &dyn LogStore) {
    let mut game = Game::new();
    let jsons = [
        r#"{"message":"a","hp":10,"name":"Anna Bell","up":true,"ratio":1.50}"#,
        r#"{"message":"b","hp":"10","name":"Anna","up":false,"ratio":15}"#,
        r#"{"message":"c","hp":100,"name":"anna bell","up":null,"x":-1}"#,
        r#"{"message":"d","h":10,"NAME":"Anna Bell","x":"--","tag":"net","level":"warn"}"#,
        r#"{"message":"e","na\u006de":"Bell \"Anna\"","x y":"z","x":1}"#,
    ];
    game.store(store, &jsons).await;
    for (query, expected) in [
        ("hp:10", &["a", "b"][..]),
        ("hp:1", &[]),
        ("name:\"Anna Bell\"", &["a"]),
        ("name:Anna", &["b"]),
        ("up:true", &["a"]),
        ("up:null", &[]),
        ("ratio:1.50", &["a"]),
        ("x:-1", &["c"]),
        ("x:1", &["e"]),
        ("x:--", &["d"]),
        ("tag:net", &["d"]),
        ("level:warn", &["d"]),
        ("message:a", &["a"]),
        ("hp:10 name:Anna", &["b"]),
        ("hp:10 bell ", &["a"]),
    ] {
        assert_eq!(game.messages(store, query).await, expected, "{query}");
    }
}

async fn a_field_in_another_is_no_field_of_the_record(store: &dyn LogStore) {
    let mut game = Game::new();
    let jsons = [
        r#"{"message":"a","scene":"Cave"}"#,
        r#"{"message":"b","where":{"scene":"Cave"}}"#,
        r#"{"message":"c","scene":{"name":"Cave"}}"#,
    ];
    game.store(store, &jsons).await;
    assert_eq!(game.messages(store, "scene:Cave").await, ["a"]);
    assert_eq!(game.messages(store, "name:Cave").await, [""; 0]);
}

async fn a_level_finds_itself_and_what_is_more_severe(store: &dyn LogStore) {
    let mut game = Game::new();
    let jsons = Level::ALL.map(|level| {
        let name = level.name();
        format!("{{\"message\":\"{name}\",\"level\":\"{name}\"}}")
    });
    game.store(store, &jsons.each_ref().map(String::as_str)).await;
    for (index, level) in Level::ALL.into_iter().enumerate() {
        let query = LogQuery { level: Some(level), ..all(game.project) };
        let expected: Vec<_> = Level::ALL[index..].iter().map(|level| level.name()).collect();
        assert_eq!(messages(store, &query).await, expected);
    }
}

async fn a_device_finds_its_own_records(store: &dyn LogStore) {
    let mut game = Game::new();
    let devices = ["phone", "Phone", "phone 2", "phone-2", ""];
    let records = devices.map(|device| {
        let json = format!("{{\"message\":\"{device}\"}}");
        game.record_of(&json, device)
    });
    game.store_all(store, &records).await;
    for device in devices {
        let query = LogQuery { device: Some(device.to_owned()), ..all(game.project) };
        assert_eq!(messages(store, &query).await, [device]);
    }
}

async fn since_is_included_and_until_is_not(store: &dyn LogStore) {
    let mut game = Game::new();
    let records = game
        .store(store, &[r#"{"message":"x a"}"#, r#"{"message":"x b"}"#, r#"{"message":"x c"}"#])
        .await;
    let middle = records[1].received;
    for terms in [Vec::new(), parse_query("x ")] {
        let query = LogQuery { since: Some(middle), terms, ..all(game.project) };
        assert_eq!(messages(store, &query).await, ["x b", "x c"]);
        let query = LogQuery { since: None, until: Some(middle), ..query };
        assert_eq!(messages(store, &query).await, ["x a"]);
        let query = LogQuery { since: Some(middle), until: Some(middle + 1), ..query };
        assert_eq!(messages(store, &query).await, ["x b"]);
        let query = LogQuery { since: Some(middle), until: Some(middle), ..query };
        assert_eq!(messages(store, &query).await, [""; 0]);
    }
}

async fn all_conditions_must_hold(store: &dyn LogStore) {
    let mut game = Game::new();
    let good = r#"{"message":"good shot","level":"error","weapon":"bow"}"#;
    let records = [
        game.record_of(good, "far"),
        game.record_of(good, "near"),
        game.record_of(r#"{"message":"bad shot","level":"error","weapon":"bow"}"#, "near"),
        game.record_of(r#"{"message":"good shot","level":"info","weapon":"bow"}"#, "near"),
        game.record_of(r#"{"message":"good shot","level":"error","weapon":"axe"}"#, "near"),
        game.record_of(good, "near"),
    ];
    game.store_all(store, &records).await;
    let query = LogQuery {
        terms: parse_query("weapon:bow \"good shot\" sho"),
        since: Some(records[0].received),
        until: Some(records[5].received),
        level: Some(Level::Warn),
        device: Some("near".to_owned()),
        ..all(game.project)
    };
    assert_eq!(store.search(&query).await.unwrap().hits, [records[1].hit.clone()]);
}

/// Records many of which have the same arrival, and some the same sequence, in a random order.
async fn crowd(store: &dyn LogStore, game: &mut Game) -> Vec<LogHit> {
    let mut records = Vec::new();
    for number in 0..60_u64 {
        let received = game.start + (number / 25).cast_signed();
        let json = format!("{{\"message\":\"crowd {number}\"}}");
        let mut record = game.record_at(&json, "device-1", received);
        record.seq = 1_000 + number % 7;
        record.hit.position.seq = record.seq;
        records.push(record);
    }
    records.sort_by_key(|record| record.json.bytes().rev().collect::<Vec<_>>());
    game.store_all(store, &records).await;
    let mut hits: Vec<_> = records.into_iter().map(|record| record.hit).collect();
    hits.sort_by(|left, right| right.position.cmp(&left.position));
    hits
}

async fn pages(store: &dyn LogStore, query: &LogQuery) -> Vec<LogHit> {
    let (mut hits, mut query) = (Vec::new(), query.clone());
    loop {
        let page = store.search(&query).await.unwrap();
        assert!(page.hits.len() <= query.limit);
        hits.extend(page.hits);
        query.before = page.next;
        if query.before.is_none() {
            return hits;
        }
    }
}

async fn pages_are_newest_first_and_have_each_record_once(store: &dyn LogStore) {
    let mut game = Game::new();
    let expected = crowd(store, &mut game).await;
    for limit in [1, 7, 59, 60, 61] {
        let query = LogQuery { limit, ..all(game.project) };
        assert_eq!(pages(store, &query).await, expected, "pages of {limit}");
    }
}

async fn pages_of_a_search_have_each_hit_once(store: &dyn LogStore) {
    let mut game = Game::new();
    let mut expected = crowd(store, &mut game).await;
    let query = LogQuery { limit: 4, terms: parse_query("crowd 1"), ..all(game.project) };
    expected.retain(|hit| hit.message.as_ref().unwrap().starts_with("crowd 1"));
    assert_eq!(expected.len(), 11);
    let query = LogQuery { terms: parse_query("\"crowd\" 1"), ..query };
    assert_eq!(pages(store, &query).await, expected);
}

async fn a_full_last_page_is_the_last(store: &dyn LogStore) {
    let mut game = Game::new();
    game.store(store, &[r#"{"a":1}"#, r#"{"a":2}"#]).await;
    let page = store.search(&LogQuery { limit: 2, ..all(game.project) }).await.unwrap();
    assert_eq!((page.hits.len(), page.next), (2, None));
}

async fn records_of_another_project_are_never_found(store: &dyn LogStore) {
    let (mut mine, mut other) = (Game::new(), Game::new());
    other.store(store, &[r#"{"message":"shared word","hp":1,"level":"fatal"}"#]).await;
    let records = mine.store(store, &[r#"{"message":"shared word","hp":1}"#]).await;
    let any = all(mine.project);
    for query in [
        any.clone(),
        LogQuery { terms: parse_query("shared "), ..any.clone() },
        LogQuery { terms: parse_query("sh"), ..any.clone() },
        LogQuery { terms: parse_query("hp:1"), ..any.clone() },
        LogQuery { terms: parse_query("\"shared word\""), ..any.clone() },
        LogQuery { device: Some("device-1".to_owned()), ..any.clone() },
    ] {
        assert_eq!(store.search(&query).await.unwrap().hits, [records[0].hit.clone()]);
    }
    let query = LogQuery { level: Some(Level::Warn), ..any };
    assert_eq!(store.search(&query).await.unwrap().hits, []);
}

/// What games send by mistake or on purpose.
fn odd_records(victim: ProjectId) -> Vec<String> {
    let many: Vec<_> = (0..10_000).map(|n| format!("\"field{n}\":{n}")).collect();
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(30), "]".repeat(30));
    let deep_objects = format!("{}1{}", "{\"a\":".repeat(31), "}".repeat(31));
    let mut records = vec![
        format!("{{\"observer.key\":\"{victim}\",\"observer.project\":\"{victim}\"}}"),
        format!("{{\"\\u006fbserver.key\":\"{victim}\"}}"),
        format!("{{\"observer\":{{\"key\":\"{victim}\",\"project\":\"{victim}\",\"id\":\"x\"}}}}"),
        format!("{{\"observer\":\"{victim}\",\"project\":\"{victim}\",\"key\":\"{victim}\"}}"),
        format!("{{\"observer.project\":[\"{victim}\"],\"obser\\u0076er.project\":\"{victim}\"}}"),
        format!("{{{}}}", many.join(",")),
        deep,
        deep_objects,
        format!("{{\"long\":\"{}\"}}", "long ".repeat(60 * 1024)),
        format!("{{\"word\":\"{}\"}}", "w".repeat(300 * 1024)),
        format!("{{\"{}\":1}}", "n".repeat(40_000)),
        format!("{{\"digits\":{}}}", "9".repeat(1_001)),
    ];
    let small = [
        r#"{"_id":"x","_index":"y","_routing":"z"}"#,
        r#"{"_source":{"message":"not this"}}"#,
        r#"{"a\u0000b":1,"\u0000":"c\u0000d"}"#,
        r#"{"twice":1,"twice":2}"#,
        r#"{"twice":1,"tw\u0069ce":{"a":2}}"#,
        r#"{"":"empty"}"#,
        r#"{" ":1,"\t":2}"#,
        r#"{".":1}"#,
        r#"{"...":1}"#,
        r#"{"a..b":1,".a":2,"a.":3}"#,
        r#"{"a":1,"a.b":2}"#,
        r#"{"in":{"":1,".":2,"a..b":{"":3},"_id":4,"observer":5,"observer.key":6}}"#,
        r#"{"lone":"a\ud800b","trail":"\udc00"}"#,
        r#"{"pair":"\ud83d\ude00"}"#,
        r#"{"huge":1e999,"tiny":1e-999,"minus":-1E+999,"zero":-0.0}"#,
        r#"{"int":18446744073709551616,"far":123456789012345678901234567890}"#,
        r#"{"message":{"not":"text"},"level":[1],"timestamp":"soon","tag":null,"seq":{}}"#,
        r#"{"timestamp":99999999999999999999}"#,
        r#"{"mixed":[1,"a",{"b":[null,[]]},true,1.5]}"#,
        r#"{"$where":"x","a*b":"{}","<script>":"</script>"}"#,
        r"{}",
        r#"{ "spaces" : [ 1 , 2 ] }"#,
    ];
    records.extend(small.map(str::to_owned));
    records
}

async fn odd_names_lose_no_record_and_change_no_byte(store: &dyn LogStore) {
    let mut game = Game::new();
    let victim = random_project();
    let mut records = Vec::new();
    for json in odd_records(victim) {
        records.push(game.record(r#"{"message":"neighbour"}"#));
        records.push(game.record(&json));
    }
    game.store_all(store, &records).await;
    let hits = game.found(store, records.len()).await.hits;
    let expected: Vec<_> = records.iter().rev().map(|record| record.hit.clone()).collect();
    assert_eq!(hits.len(), expected.len());
    for (hit, expected) in hits.iter().zip(&expected) {
        let shown = expected.json.chars().take(60).collect::<String>();
        assert!(hit.json == expected.json, "bytes of {shown} changed");
        assert!(hit == expected, "the stamp of {shown} changed");
    }
    assert_eq!(game.messages(store, "neighbour ").await.len(), records.len() / 2);
    assert_eq!(append(store, &records).await, vec![Stored::Duplicate; records.len()]);
}

async fn a_forged_name_is_not_seen_in_another_project(store: &dyn LogStore) {
    let (mut game, mut victim) = (Game::new(), Game::new());
    let odd = odd_records(victim.project);
    game.store(store, &odd.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let own = victim.store(store, &[r#"{"message":"own"}"#]).await;
    let any = all(victim.project);
    let own_project = format!("{} ", victim.project);
    for terms in [Vec::new(), parse_query(&own_project), parse_query("empty "), parse_query("a:1")]
    {
        let hits = store.search(&LogQuery { terms, ..any.clone() }).await.unwrap().hits;
        let others = hits.iter().filter(|hit| **hit != own[0].hit).count();
        assert_eq!(others, 0);
    }
    let ids: HashSet<_> =
        game.found(store, odd.len()).await.hits.into_iter().map(|hit| hit.position.id).collect();
    assert_eq!(ids.len(), odd.len());
}

async fn a_field_may_change_its_type(store: &dyn LogStore) {
    let mut game = Game::new();
    let values =
        ["1", "\"one\"", "1.5", "true", "null", "[1,\"a\"]", "{\"b\":1}", "\"2024-01-01\"", "[{}]"];
    let jsons = values.map(|value| format!("{{\"message\":{value},\"x\":{value}}}"));
    let records = game.store(store, &jsons.each_ref().map(String::as_str)).await;
    let hits = game.found(store, values.len()).await.hits;
    let expected: Vec<_> = records.iter().rev().map(|record| record.hit.clone()).collect();
    assert_eq!(hits, expected);
    assert_eq!(game.messages(store, "x:one").await, ["one"]);
}

async fn a_long_value_is_kept_whole(store: &dyn LogStore) {
    let mut game = Game::new();
    let json = format!(
        "{{\"message\":\"begin {}end\",\"after\":\"last\",\"hp\":7}}",
        "filler ".repeat(40 * 1024)
    );
    let records = game.store(store, &[&json, r#"{"message":"short","after":"last"}"#]).await;
    let query = LogQuery { terms: parse_query("begin "), ..all(game.project) };
    assert!(store.search(&query).await.unwrap().hits == [records[0].hit.clone()]);
    let query = LogQuery { terms: parse_query("after:last"), ..all(game.project) };
    assert_eq!(store.search(&query).await.unwrap().hits.len(), 2);
}

async fn a_store_that_runs_can_be_used(store: &dyn LogStore) {
    store.check().await.unwrap();
}
