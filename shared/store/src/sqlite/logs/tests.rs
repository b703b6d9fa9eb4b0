use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use observer_wire::ProjectId;
use observer_wire::record::{self, Level};
use observer_wire::text::parse_query;
use tokio::time::timeout;

use super::*;
use crate::StoreErrorKind;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

fn config(folder: &Path) -> StoreConfig {
    StoreConfig { data_dir: folder.into(), ..StoreConfig::default() }
}

fn project() -> ProjectId {
    "0123456789ab".parse().unwrap()
}

/// Appends one record for each number in `numbers`, a millisecond apart.
async fn append(
    store: &SqliteLogStore,
    start: i64,
    numbers: std::ops::Range<i64>,
) -> Result<Vec<Stored>, StoreError> {
    let texts: Vec<_> = numbers
        .clone()
        .map(|number| {
            let json = format!("{{\"message\":\"number {number}\",\"pad\":\"{number:0200}\"}}");
            let mut text = String::new();
            record::read(&json, &mut text);
            (format!("r{start}-{number}"), json, text)
        })
        .collect();
    let batch: Vec<_> = texts
        .iter()
        .zip(numbers)
        .map(|((id, json, text), number)| NewRecord {
            id,
            project: project(),
            key: "0123456789ab",
            device: "device",
            session: "session",
            seq: number.cast_unsigned(),
            received: start + number,
            rev: 0,
            level: Level::Info,
            message: None,
            tag: None,
            time: None,
            text,
            json,
            odd: false,
            again: false,
        })
        .collect();
    store.append(&batch).await
}

fn query(words: &str, limit: usize) -> LogQuery {
    LogQuery {
        project: project(),
        terms: parse_query(words),
        since: None,
        until: None,
        level: None,
        device: None,
        limit,
        before: None,
    }
}

async fn page(store: &SqliteLogStore, words: &str) -> LogPage {
    store.search(&query(words, 1_000)).await.unwrap()
}

/// Asks until it is so.
async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let within = Duration::from_mins(1);
    assert!(timeout(within, asking).await.is_ok(), "not within {within:?}: {what}");
}

fn sources(folder: &Path) -> i64 {
    let db = file::open_reader(&folder.join("logs.db")).unwrap();
    db.query_row("SELECT count(*) FROM sources", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn records_past_their_days_are_forgotten_and_younger_ones_stay() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig { retention_days: 1, ..config(folder.path()) };
    let store = SqliteLogStore::open(&config).await.unwrap();
    append(&store, now() - 3 * DAY_MS, 0..5_000).await.unwrap();
    append(&store, now() - DAY_MS / 2, 0..10).await.unwrap();
    drop(store);
    let store = SqliteLogStore::open(&config).await.unwrap();
    eventually("10 records stay", async || page(&store, "").await.hits.len() == 10).await;
    assert_eq!(page(&store, "number ").await.hits.len(), 10);
    eventually("sources of old days go", async || sources(folder.path()) == 1).await;
}

#[tokio::test]
async fn the_oldest_records_go_when_the_file_is_too_large() {
    const BYTES_MAX: u64 = 1024 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig { retention_bytes_max: BYTES_MAX, ..config(folder.path()) };
    let store = SqliteLogStore::open(&config).await.unwrap();
    let start = now() - DAY_MS;
    for part in 0..20_i64 {
        append(&store, start, part * 500..(part + 1) * 500).await.unwrap();
    }
    drop(store); // The file is folded together and has its size.
    let store = SqliteLogStore::open(&config).await.unwrap();
    let pages = async || {
        let read = |db: &rusqlite::Connection| {
            let query = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
            Ok(db.query_row(query, [], |row| row.get::<_, i64>(0))?)
        };
        let bytes = store.readers.read(SEARCH_DEADLINE, read).await.unwrap();
        bytes.cast_unsigned()
    };
    eventually("the file is small", async || pages().await <= BYTES_MAX).await;
    let hits = page(&store, "").await.hits;
    assert!(!hits.is_empty(), "no more than needed goes");
    let expected: Vec<_> = (0..10_000).rev().take(hits.len()).collect();
    let found: Vec<_> = hits.iter().map(|hit| hit.position.seq).collect();
    assert_eq!(found, expected, "the newest stay");
    assert_eq!(page(&store, "number ").await.hits.len(), hits.len());
}

#[tokio::test]
async fn a_full_disk_is_told_and_the_store_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig { retention_bytes_max: 512 * 1024, ..config(folder.path()) };
    let Opened { path, db, lock, inspection } = file::open(folder.path(), &SCHEMA).await.unwrap();
    db.execute_batch("PRAGMA max_page_count = 512").unwrap(); // 2 MiB: less than the batch.
    let records = Records::new(Retention::new(&config));
    let sound = inspection.soundness().clone();
    let writer = Writer::start(SCHEMA.name, db, (lock, sound.clone()), records).unwrap();
    let store = SqliteLogStore { readers: Readers::new(path, sound), inspection, writer };
    let refused = append(&store, now(), 0..5_000).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Throttled);
    for part in 0..20_i64 {
        let numbers = part * 250..(part + 1) * 250;
        eventually("a smaller batch is stored", async || {
            append(&store, now(), numbers.clone()).await.is_ok()
        })
        .await;
    }
    store.check().await.unwrap();
    // In so small a file retention may take the newest with the oldest: until it is quiet.
    eventually("what is stored is found", async || {
        append(&store, now(), 5_000..5_001).await.is_ok()
            && page(&store, "\"number 5000\"").await.hits.len() == 1
    })
    .await;
}

/// A closed database of 5,000 records, with its middle overwritten.
async fn damaged(folder: &Path) {
    let store = SqliteLogStore::open(&config(folder)).await.unwrap();
    append(&store, now(), 0..5_000).await.unwrap();
    drop(store);
    assert!(std::fs::read(folder.join("logs.lock")).unwrap().is_empty(), "closed");
    let path = folder.join("logs.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64 * 1024].fill(0xee);
    std::fs::write(&path, bytes).unwrap();
}

#[tokio::test]
async fn damage_is_found_after_an_unclean_stop_and_nothing_more_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    damaged(folder.path()).await;
    std::fs::write(folder.path().join("logs.lock"), "open\n").unwrap();
    // The second start follows one that closed the file, which is no reason to believe it.
    for _ in 0..2 {
        let store = SqliteLogStore::open(&config(folder.path())).await.unwrap();
        eventually("damage is told", async || store.check().await.is_err()).await;
        let told = store.check().await.unwrap_err();
        assert_eq!(told.kind(), StoreErrorKind::Refused);
        let why = std::error::Error::source(&told).unwrap().to_string();
        assert!(why.contains("logs.db is damaged, restore it or move it away"), "{why}");
        let refused = append(&store, now(), 9_000..9_001).await.unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::Refused);
        drop(store);
        assert_eq!(std::fs::read(folder.path().join("logs.lock")).unwrap(), b"open\n");
    }
}

#[tokio::test]
async fn damage_that_a_read_meets_is_told_and_stays_told() {
    let folder = tempfile::tempdir().unwrap();
    damaged(folder.path()).await;
    let store = SqliteLogStore::open(&config(folder.path())).await.unwrap();
    let mut pages = query("", 1_000);
    let met = loop {
        match store.search(&pages).await {
            Ok(page) => pages.before = Some(page.next.expect("damage comes before the end")),
            Err(met) => break met,
        }
    };
    assert_eq!(met.kind(), StoreErrorKind::Refused);
    assert_eq!(store.check().await.unwrap_err().kind(), StoreErrorKind::Refused);
    assert!(append(&store, now(), 9_000..9_001).await.is_err());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_by_name_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logs.db");
    let rubbish = vec![0xee; 8_192];
    std::fs::write(&path, &rubbish).unwrap();
    let refused = SqliteLogStore::open(&config(folder.path())).await.unwrap_err();
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert!(why.contains("logs.db is damaged, restore it or move it away"), "{why}");
    assert_eq!(std::fs::read(&path).unwrap(), rubbish);
}

#[tokio::test]
async fn a_file_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _first = SqliteLogStore::open(&config(folder.path())).await.unwrap();
    let refused = SqliteLogStore::open(&config(folder.path())).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Refused);
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert!(why.contains("another process uses this data folder"), "{why}");
}

#[tokio::test]
async fn a_schema_of_a_later_release_is_refused_by_its_version() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteLogStore::open(&config(folder.path())).await.unwrap());
    let db = rusqlite::Connection::open(folder.path().join("logs.db")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let refused = SqliteLogStore::open(&config(folder.path())).await.unwrap_err();
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert!(why.contains("schema version 99") && why.contains("version 1:"), "{why}");
}

#[tokio::test]
async fn an_arrival_that_is_no_time_is_refused_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteLogStore::open(&config(folder.path())).await.unwrap();
    let stored = append(&store, -2, 0..4).await.unwrap();
    assert!(matches!(stored[..2], [Stored::Never(_), Stored::Never(_)]), "{stored:?}");
    assert_eq!(stored[2..], [Stored::New, Stored::New]);
}
