//! The Elasticsearch log store against a real node: the suite of its port, and what only this adapter
//! promises: aliases, the safe form, the mapping, days, and what the answers mean.

use std::net::SocketAddr;
use std::time::Duration;

use observer_store::elastic::{ElasticConfig, ElasticLogStore};
use observer_store::logs::{LogPage, LogQuery, NewRecord, PAGE_MAX, Stored};
use observer_store::{LogStore, StoreErrorKind};
use observer_tests::eventually;
use observer_tests::servers::{Elasticsearch, ElasticsearchOptions, free_port};
use observer_wire::ProjectId;
use observer_wire::key::ApiKey;
use observer_wire::record::{self, Level};
use observer_wire::text::parse_query;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

mod answers;

/// What the contract allows until a stored record is found, and time for a busy machine.
const FOUND_WITHIN: Duration = Duration::from_secs(30);

/// Noon of a day; each test that looks at an index has one of its own.
const NOON: i64 = 1_577_880_000_000;
const DAY: i64 = 24 * 60 * 60 * 1_000;

/// A node of the test's own, so that it may be killed.
async fn own_node() -> Elasticsearch {
    Elasticsearch::start(ElasticsearchOptions::default()).await
}

async fn store() -> ElasticLogStore {
    connect(&Elasticsearch::shared().await.url()).await
}

async fn connect(url: &str) -> ElasticLogStore {
    ElasticLogStore::connect(&config(url)).await.unwrap()
}

fn config(url: &str) -> ElasticConfig {
    ElasticConfig { url: url.to_owned(), replicas: 0, ..ElasticConfig::default() }
}

/// A project that no other test uses.
fn project() -> ProjectId {
    let mut random = [0; 6];
    getrandom::fill(&mut random).unwrap();
    ApiKey::from_random(random).founds()
}

/// A record as the indexer makes it, owning its text.
#[derive(Clone, Debug)]
struct Record {
    project: ProjectId,
    key: String,
    id: String,
    json: String,
    text: String,
    received: i64,
    seq: u64,
    again: bool,
}

fn record(project: ProjectId, received: i64, seq: u64, json: &str) -> Record {
    let mut text = String::new();
    record::read(json, &mut text);
    Record {
        project,
        key: project.as_str().to_owned(),
        id: format!("r{project}{seq:020}-000"),
        json: json.to_owned(),
        text,
        received,
        seq,
        again: false,
    }
}

impl Record {
    fn to_store(&self) -> NewRecord<'_> {
        NewRecord {
            id: &self.id,
            project: self.project,
            key: &self.key,
            device: "device",
            session: "session",
            seq: self.seq,
            received: self.received,
            rev: 7,
            level: Level::Info,
            message: None,
            tag: None,
            time: None,
            text: &self.text,
            json: &self.json,
            odd: false,
            again: self.again,
        }
    }
}

async fn append(store: &ElasticLogStore, records: &[Record]) -> Vec<Stored> {
    let batch: Vec<_> = records.iter().map(Record::to_store).collect();
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
        limit: PAGE_MAX,
        before: None,
    }
}

/// The page of a query, as soon as it has `count` hits.
async fn found(store: &ElasticLogStore, query: &LogQuery, count: usize) -> LogPage {
    eventually(FOUND_WITHIN, "records are found", async || {
        let page = store.search(query).await.unwrap();
        (page.hits.len() == count).then_some(page)
    })
    .await
}

/// A request to Elasticsearch itself, as somebody without Observer would send it.
async fn plain(url: &str, method: reqwest::Method, path: &str, body: &Value) -> Value {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.request(method, format!("{url}{path}"));
    let request = if body.is_null() { request } else { request.json(body) };
    request.send().await.unwrap().json().await.unwrap()
}

async fn get(path: &str) -> Value {
    let url = Elasticsearch::shared().await.url();
    plain(&url, reqwest::Method::GET, path, &Value::Null).await
}

#[tokio::test]
async fn alias_finds_exactly_the_two_logs_of_its_project_with_their_fields_unchanged() {
    let (store, mine, other) = (store().await, project(), project());
    let texts = [
        r#"{"message":"testing1","timestamp":123123123,"pos":[1.0,2e3],"in":{"a":null}}"#,
        r#"{"message":"testing2","timestamp":"soon"}"#,
    ];
    let records = [
        record(mine, NOON, 1, texts[0]),
        record(other, NOON, 1, r#"{"message":"other"}"#),
        record(mine, NOON + DAY, 2, texts[1]),
    ];
    assert_eq!(append(&store, &records).await, [Stored::New, Stored::New, Stored::New]);

    let hits = eventually(FOUND_WITHIN, "two hits", async || {
        let answer = get(&format!("/logs-{mine}/_search")).await;
        let hits = answer["hits"]["hits"].as_array()?.clone();
        (hits.len() == 2).then_some(hits)
    });
    let mut sources: Vec<_> = hits.await.into_iter().map(|hit| hit["_source"].clone()).collect();
    sources.sort_by_key(|source| source["observer"]["seq"].as_u64());
    for (mut source, text) in sources.into_iter().zip(texts) {
        let ours = source.as_object_mut().unwrap().remove("observer").unwrap();
        assert_eq!(ours["project"], mine.as_str());
        assert_eq!(source, serde_json::from_str::<Value>(text).unwrap());
    }
}

#[tokio::test]
async fn what_elasticsearch_refuses_is_stored_in_the_safe_form() {
    let (store, project, other) = (store().await, project(), project());
    let digits = "9".repeat(1_001);
    let name = "n".repeat(50_001);
    let refused = [
        r#"{"":1}"#.to_owned(),
        r#"{" ":1}"#.to_owned(),
        r#"{".":1}"#.to_owned(),
        r#"{"a..b":1}"#.to_owned(),
        r#"{"a":1,"a":2}"#.to_owned(),
        r#"{"a":{"b":1,"b":2}}"#.to_owned(),
        format!(r#"{{"a":{digits}}}"#),
        format!(r#"{{"{name}":1}}"#),
    ];
    let ours = [
        format!(r#"{{"observer.project":"{other}"}}"#),
        format!(r#"{{"\u006fbserver.project":"{other}"}}"#),
        format!(r#"{{"observer":{{"project":"{other}"}}}}"#),
        format!(r#"{{"observer.":{{"project":"{other}"}}}}"#),
        r#"{"_id":"x"}"#.to_owned(),
        r#"{"_source":"x"}"#.to_owned(),
        r#"{"observer.\ud800":"x"}"#.to_owned(),
        r#"{"a\u0000b":"x"}"#.to_owned(),
    ];
    let records: Vec<_> = refused
        .iter()
        .chain(&ours)
        .zip(1..)
        .map(|(json, seq)| record(project, NOON, seq, json))
        .collect();
    assert_eq!(append(&store, &records).await, vec![Stored::New; records.len()]);
    assert_eq!(append(&store, &records).await, vec![Stored::Duplicate; records.len()]);

    let page = found(&store, &all(project), records.len()).await;
    let came: Vec<_> = page.hits.iter().rev().map(|hit| hit.json.as_str()).collect();
    assert_eq!(came, records.iter().map(|record| record.json.as_str()).collect::<Vec<_>>());
    assert_eq!(store.search(&all(other)).await.unwrap(), LogPage::default());
    let answer = get(&format!("/logs-{project}/_search?size=100")).await;
    let hits = answer["hits"]["hits"].as_array().unwrap();
    assert_eq!(hits.len(), records.len());
    for hit in hits {
        assert_eq!(hit["_source"].as_object().unwrap().len(), 1, "{hit}");
    }
    let forged = get(&format!("/observer-logs-*/_search?q=observer.project:{other}")).await;
    assert_eq!(forged["hits"]["total"]["value"], 0);
}

#[tokio::test]
async fn a_record_that_no_form_saves_is_given_up_with_the_reason() {
    let (store, project) = (store().await, project());
    let good = record(project, NOON, 1, r#"{"a":1}"#);
    // Past what a long of Elasticsearch holds; a socket's sequence never gets there.
    let bad = Record { seq: u64::MAX, ..record(project, NOON, 2, r#"{"a":2}"#) };
    let outcomes = append(&store, &[bad, good]).await;
    let Stored::Never(reason) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert!(reason.contains("observer.seq"), "{reason}");
    assert_eq!(outcomes[1], Stored::New);
}

#[tokio::test]
async fn ten_thousand_fields_do_not_grow_the_mapping() {
    let (store, project) = (store().await, project());
    let noon = NOON + 10 * DAY;
    append(&store, &[record(project, noon, 1, r#"{"a":1}"#)]).await;
    let mapping = "/observer-logs-2020.01.11/_mapping";
    let before = get(mapping).await;
    assert!(before["observer-logs-2020.01.11"]["mappings"]["properties"]["observer"].is_object());

    let fields: Vec<_> = (0..10_000).map(|n| format!(r#""f{n}":{n}"#)).collect();
    let wide = format!("{{{}}}", fields.join(","));
    let deep = format!("{}1{}", r#"{"a":"#.repeat(32), "}".repeat(32));
    let long = format!(r#"{{"a":"{}"}}"#, "long ".repeat(60 * 1024));
    let word = format!(r#"{{"a":"{}"}}"#, "x".repeat(300 * 1024));
    let texts = [wide.as_str(), &deep, &long, &word, r#"{"a":"text"}"#, r#"{"a":{"b":[]}}"#];
    let records: Vec<_> =
        texts.iter().zip(2..).map(|(json, seq)| record(project, noon, seq, json)).collect();
    assert_eq!(append(&store, &records).await, [const { Stored::New }; 6]);

    let page = found(&store, &all(project), 7).await;
    let came: Vec<_> = page.hits.iter().rev().skip(1).map(|hit| hit.json.as_str()).collect();
    assert_eq!(came, texts);
    let query = LogQuery { terms: parse_query("f9999:9999 "), ..all(project) };
    assert_eq!(store.search(&query).await.unwrap().hits.len(), 1);
    assert_eq!(get(mapping).await, before);
}

#[tokio::test]
async fn a_record_sent_again_after_midnight_is_a_duplicate() {
    let (store, project) = (store().await, project());
    let midnight = NOON + 20 * DAY + DAY / 2;
    let first = record(project, midnight - 1, 1, r#"{"a":1}"#);
    assert_eq!(append(&store, std::slice::from_ref(&first)).await, [Stored::New]);

    let again = |record: Record| Record { received: midnight, again: true, ..record };
    let batch = [again(first), again(record(project, midnight, 2, r#"{"a":2}"#))];
    assert_eq!(append(&store, &batch).await, [Stored::Duplicate, Stored::New]);
    assert_eq!(append(&store, &batch).await, [Stored::Duplicate, Stored::Duplicate]);
    // Of a day without an index nothing can be there.
    let early = Record { again: true, ..record(project, NOON - 300 * DAY, 3, "{}") };
    assert_eq!(append(&store, &[early]).await, [Stored::New]);

    let page = found(&store, &all(project), 3).await;
    assert_eq!(page.hits[1].position.received, midnight - 1);
}

#[tokio::test]
async fn while_an_index_takes_nothing_records_are_to_be_sent_later() {
    let (store, project) = (store().await, project());
    let url = Elasticsearch::shared().await.url();
    let noon = NOON + 30 * DAY;
    append(&store, &[record(project, noon, 1, r#"{"a":1}"#)]).await;
    let next = [record(project, noon, 2, r#"{"a":2}"#), record(project, NOON, 3, r#"{"a":3}"#)];
    let index = "/observer-logs-2020.01.31";
    let set = async |name: &str, value: Value| {
        let path = format!("{index}/{name}");
        let answer = plain(&url, reqwest::Method::PUT, &path, &value).await;
        assert_eq!(answer["acknowledged"], true, "{answer}");
    };

    set("_settings", json!({"index.blocks.write": true})).await;
    assert_eq!(append(&store, &next).await, [Stored::Later, Stored::New]);
    set("_settings", json!({"index.blocks.write": false})).await;
    assert_eq!(append(&store, &next).await, [Stored::New, Stored::Duplicate]);
}

#[tokio::test]
async fn projects_past_the_bound_are_stored_without_an_alias_and_the_check_says_so() {
    let url = Elasticsearch::shared().await.url();
    let config = ElasticConfig { aliases_max: 1, ..config(&url) };
    let store = ElasticLogStore::connect(&config).await.unwrap();
    let (first, second) = (project(), project());
    append(&store, &[record(first, NOON, 1, "{}"), record(first, NOON + DAY, 2, "{}")]).await;
    store.check().await.unwrap();

    assert_eq!(append(&store, &[record(second, NOON, 1, "{}")]).await, [Stored::New]);
    assert_eq!(store.check().await.unwrap_err().kind(), StoreErrorKind::Refused);
    found(&store, &all(second), 1).await;
    assert_eq!(get(&format!("/_alias/logs-{first}")).await.as_object().unwrap().len(), 2);
    assert_eq!(get(&format!("/_alias/logs-{second}")).await["status"], 404);
}

#[tokio::test]
async fn an_alias_that_cannot_be_costs_no_record_and_no_other_alias() {
    let (store, taken, free) = (store().await, project(), project());
    let url = Elasticsearch::shared().await.url();
    let path = format!("/logs-{taken}");
    plain(&url, reqwest::Method::PUT, &path, &json!({"settings": {"number_of_replicas": 0}})).await;

    let batch = [record(taken, NOON, 1, "{}"), record(free, NOON, 1, "{}")];
    assert_eq!(append(&store, &batch).await, [Stored::New, Stored::New]);
    assert_eq!(get(&format!("/_alias/logs-{free}")).await.as_object().unwrap().len(), 1);
    found(&store, &all(taken), 1).await;
    plain(&url, reqwest::Method::DELETE, &path, &Value::Null).await;
}

#[tokio::test]
async fn a_word_being_typed_finds_all_that_begin_so() {
    let (store, project) = (store().await, project());
    let records: Vec<_> = (0..300)
        .map(|n| record(project, NOON, n, &format!(r#"{{"message":"player spawn{n:03} here"}}"#)))
        .collect();
    append(&store, &records).await;
    found(&store, &all(project), 300).await;
    for (query, count) in [
        ("spa", 300),
        ("player.spa", 300),
        ("player.spawn1", 100),
        ("player.spawn123", 1),
        ("\"player spa\"", 0),
        ("here.spa", 0),
        ("spawn123.her", 1),
    ] {
        let query = LogQuery { terms: parse_query(query), ..all(project) };
        assert_eq!(store.search(&query).await.unwrap().hits.len(), count, "{:?}", query.terms);
    }
    let few = LogQuery { terms: parse_query("player.spa"), limit: 7, ..all(project) };
    let page = store.search(&few).await.unwrap();
    assert_eq!(page.hits.len(), 7);
    let rest = LogQuery { limit: PAGE_MAX, before: page.next, ..few };
    assert_eq!(store.search(&rest).await.unwrap().hits.len(), 293);
}

#[tokio::test]
async fn words_longer_than_a_token_are_words() {
    let (store, project) = (store().await, project());
    let (a, b) = ("a".repeat(255), "b".repeat(100));
    let joined = record(project, NOON, 1, &format!(r#"{{"message":"{a}{b}"}}"#));
    let apart = record(project, NOON, 2, &format!(r#"{{"message":"{a} {b}"}}"#));
    append(&store, &[joined, apart]).await;
    found(&store, &all(project), 2).await;
    for (query, seq) in [
        (format!("{a}{b} "), 1),
        (format!("{a}bb"), 1),
        (format!("\"{a} {b}\""), 2),
        (format!("{a} "), 2),
    ] {
        let query = LogQuery { terms: parse_query(&query), ..all(project) };
        let hits = store.search(&query).await.unwrap().hits;
        let seqs: Vec<_> = hits.iter().map(|hit| hit.position.seq).collect();
        assert_eq!(seqs, [seq], "{:?}", query.terms);
    }
}

#[tokio::test]
async fn a_page_of_long_records_ends_early_and_goes_on() {
    let (store, project) = (store().await, project());
    let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(300 * 1024));
    let records: Vec<_> = (0..140).map(|seq| record(project, NOON, seq, &long)).collect();
    assert_eq!(append(&store, &records).await, vec![Stored::New; records.len()]);
    let last = LogQuery { limit: 1, ..all(project) };
    eventually(FOUND_WITHIN, "the last record", async || {
        let page = store.search(&last).await.unwrap();
        page.hits.first().is_some_and(|hit| hit.position.seq == 139).then_some(())
    })
    .await;

    let (mut query, mut seqs) = (all(project), Vec::new());
    loop {
        let page = store.search(&query).await.unwrap();
        seqs.extend(page.hits.iter().map(|hit| hit.position.seq));
        query.before = page.next;
        if query.before.is_none() {
            break;
        }
        assert!(page.hits.len() < 140);
    }
    assert_eq!(seqs, (0..140).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn records_survive_a_killed_node_and_a_node_that_is_down_is_unavailable() {
    let mut node = own_node().await;
    let (store, project) = (connect(&node.url()).await, project());
    let records: Vec<_> =
        (0..100).map(|seq| record(project, NOON, seq, r#"{"message":"kept"}"#)).collect();
    assert_eq!(append(&store, &records).await, vec![Stored::New; 100]);

    node.kill();
    let batch: Vec<_> = records.iter().map(Record::to_store).collect();
    let unavailable = Some(StoreErrorKind::Unavailable);
    assert_eq!(store.append(&batch).await.err().map(|error| error.kind()), unavailable);
    assert_eq!(store.search(&all(project)).await.err().map(|error| error.kind()), unavailable);
    assert_eq!(store.check().await.err().map(|error| error.kind()), unavailable);

    node.restart().await;
    store.check().await.unwrap();
    found(&store, &all(project), 100).await;
    assert_eq!(append(&store, &records).await, vec![Stored::Duplicate; 100]);

    // A newer Observer's template stays.
    let path = "/_index_template/observer-logs";
    let mut newer =
        plain(&node.url(), reqwest::Method::GET, path, &Value::Null).await["index_templates"][0]
            ["index_template"]
            .take();
    newer["_meta"]["observer_version"] = json!(1_000);
    plain(&node.url(), reqwest::Method::PUT, path, &newer).await;
    connect(&node.url()).await;
    let kept = plain(&node.url(), reqwest::Method::GET, path, &Value::Null).await;
    let version = &kept["index_templates"][0]["index_template"]["_meta"]["observer_version"];
    assert_eq!(version, 1_000);
}

#[tokio::test]
async fn a_server_that_is_not_elasticsearch_8_or_9_is_refused_by_name_and_version() {
    let root = |version: Value| json!({"version": version}).to_string();
    for (root, named) in [
        (root(json!({"number": "7.17.9"})), "elasticsearch 7.17.9"),
        (root(json!({"number": "10.0.0"})), "elasticsearch 10.0.0"),
        (root(json!({"number": "2.11.0", "distribution": "opensearch"})), "opensearch 2.11.0"),
        ("<html>".to_owned(), "does not answer as Elasticsearch"),
    ] {
        let fake = Fake::start(move |_| (200, root.clone())).await;
        let error = ElasticLogStore::connect(&config(&fake.url())).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Refused);
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(named), "{source}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_used_says_what_to_do() {
    let nobody = config(&format!("http://user:secret@127.0.0.1:{}", free_port()));
    let error = ElasticLogStore::connect(&nobody).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(!format!("{error:?} {nobody:?}").contains("secret"));
    let error = ElasticLogStore::connect(&config("no address")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);
    let stranger = Fake::start(|_| (401, "{}".to_owned())).await;
    let error = ElasticLogStore::connect(&config(&stranger.url())).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);
}

#[tokio::test]
async fn of_a_bulk_answer_that_is_cut_off_or_missing_nothing_is_believed() {
    for (status, bulk, kind) in [
        (200, Some(r#"{"items":[{"create":{"stat"#), StoreErrorKind::Unavailable),
        (200, Some(r#"{"items":[]}"#), StoreErrorKind::Unavailable),
        (502, Some("<html>"), StoreErrorKind::Unavailable),
        (429, Some(r#"{"error":{"type":"x"}}"#), StoreErrorKind::Throttled),
        (413, Some(""), StoreErrorKind::Refused),
        (200, None, StoreErrorKind::Unavailable),
    ] {
        let record = record(project(), NOON, 1, "{}");
        let elsewhere = json!({"docs": [{"_id": record.id, "found": false}]}).to_string();
        let fake = Fake::start(move |line| match (line, bulk) {
            (line, _) if line.starts_with("POST /_mget") => (200, elsewhere.clone()),
            (line, None) if line.starts_with("POST /_bulk") => (200, String::new()),
            (line, Some(bulk)) if line.starts_with("POST /_bulk") => (status, bulk.to_owned()),
            _ => (200, json!({"version": {"number": "8.17.0"}, "index_templates": []}).to_string()),
        });
        let fake = fake.await;
        let config = ElasticConfig { bulk_timeout_ms: 200, ..config(&fake.url()) };
        let store = ElasticLogStore::connect(&config).await.unwrap();
        let error = store.append(&[record.to_store()]).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status} {bulk:?}");
    }
}

/// A server that answers every request with what a function says; an empty answer is none at all.
struct Fake {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Fake {
    async fn start(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = TaskTracker::new().spawn(async move {
            // One connection after the other: each request is answered on one of its own.
            while let Ok((socket, _)) = listener.accept().await {
                serve(socket, &answer).await;
            }
        });
        Self { address, _task: AbortOnDropHandle::new(task) }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn serve(mut socket: TcpStream, answer: &impl Fn(&str) -> (u16, String)) {
    let (mut request, mut part) = (String::new(), [0; 4096]);
    // The head and the body of a small request come at once or soon after.
    loop {
        let read = socket.read(&mut part).await.unwrap_or(0);
        request.push_str(&String::from_utf8_lossy(&part[..read]));
        let whole = request.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.to_lowercase().lines().find_map(|line| {
                line.strip_prefix("content-length:").and_then(|length| length.trim().parse().ok())
            });
            length.unwrap_or(0) <= body.len()
        });
        if whole || read == 0 {
            break;
        }
    }
    let (status, body) = answer(request.lines().next().unwrap_or_default());
    if body.is_empty() && status == 200 {
        // Until the client gives up.
        while socket.read(&mut part).await.is_ok_and(|read| 0 < read) {}
        return;
    }
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).await.ok();
}
