use observer_wire::edit::{Change, EDIT_VERSION, Scope, TypedValue};
use observer_wire::event::GoneState;
use observer_wire::hello::About;

use super::*;
use crate::vars::{AppliedMark, GONE_DEVICES_MAX, ReportedValue, Stamp};

struct Store {
    store: SqliteVarStore,
    folder: tempfile::TempDir,
}

async fn open() -> Store {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig { data_dir: folder.path().into(), ..StoreConfig::default() };
    Store { store: SqliteVarStore::open(&config).await.unwrap(), folder }
}

fn project() -> ProjectId {
    "0123456789ab".parse().unwrap()
}

fn edit(rev: u64, name: &str, value: Option<&str>) -> Edit {
    let set = value.map(|value| TypedValue { kind: "float".into(), value: value.into() });
    Edit {
        v: EDIT_VERSION,
        project: project(),
        epoch: "abcd1234".into(),
        rev,
        edit_id: format!("e{rev}"),
        actor: "anna".into(),
        at: 1,
        note: None,
        changes: vec![Change { name: name.into(), scope: Scope::All, set }],
        raw: None,
    }
}

fn device(id: &str, epoch: u64) -> Device {
    Device {
        device: id.into(),
        named: false,
        about: About::default(),
        session: "s".into(),
        epoch,
        seq: 0,
        background: false,
        gone: GoneState::Lost,
        gateway: "g".into(),
        online: true,
        since: epoch.cast_signed(),
    }
}

fn report(id: &str, seq: u64, values: &[(&str, &str)]) -> Report {
    let value = |(name, value): &(&str, &str)| ReportedValue {
        name: (*name).into(),
        kind: "float".into(),
        value: (*value).into(),
        json: format!("{{\"name\":\"{name}\"}}"),
        at: 5,
        applied: None,
    };
    Report {
        project: project(),
        device: id.into(),
        stamp: Stamp { epoch: 1, seq },
        at: 5,
        reset: false,
        values: values.iter().map(value).collect(),
        withdrawn: Vec::new(),
        vars_max: 3,
    }
}

async fn values(store: &SqliteVarStore, id: &str) -> Vec<(String, String)> {
    let found = store.devices_by_id(project(), &[id.to_owned()]).await.unwrap();
    found[0].values.iter().map(|value| (value.name.clone(), value.value.clone())).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

#[tokio::test]
async fn edits_are_applied_in_their_order_each_once_and_survive() {
    let Store { store, folder } = open().await;
    let apply = async |edit: &Edit, sequence| store.apply_edit(edit, sequence).await.unwrap();
    assert_eq!(store.document(project()).await.unwrap(), StoredDocument::default());
    assert_eq!(apply(&edit(1, "a", Some("1")), 10).await, EditApplied::Now);
    assert_eq!(apply(&edit(1, "a", Some("1")), 10).await, EditApplied::Before);
    assert_eq!(apply(&edit(3, "a", Some("3")), 12).await, EditApplied::Gap { sequence: 10 });
    assert_eq!(apply(&edit(2, "b", Some("2")), 11).await, EditApplied::Now);
    assert_eq!(apply(&edit(3, "a", None), 12).await, EditApplied::Now);
    let document = store.document(project()).await.unwrap();
    assert_eq!((document.sequence, document.document.revision), (12, 3));
    drop(store);
    let config = StoreConfig { data_dir: folder.path().into(), ..StoreConfig::default() };
    let store = SqliteVarStore::open(&config).await.unwrap();
    assert_eq!(store.document(project()).await.unwrap(), document);
    assert_eq!(document.document.wanted.len(), 1);
}

#[tokio::test]
async fn an_older_report_changes_nothing() {
    let Store { store, folder: _folder } = open().await;
    store.sign_in(project(), &device("d", 1), 10).await.unwrap();
    let taken = store.report(&report("d", 2, &[("a", "2"), ("b", "2")])).await.unwrap().taken;
    assert_eq!(taken, ["a", "b"]);
    let taken = store.report(&report("d", 1, &[("a", "1"), ("c", "1")])).await.unwrap().taken;
    assert_eq!(taken, ["c"]);
    assert_eq!(values(&store, "d").await, pairs(&[("a", "2"), ("b", "2"), ("c", "1")]));
    let reported = store.report(&report("d", 3, &[("d", "3"), ("a", "3")])).await.unwrap();
    assert_eq!((reported.taken, reported.too_many), (vec!["a".to_owned()], 1));
}

#[tokio::test]
async fn what_was_reset_or_withdrawn_does_not_come_back() {
    let Store { store, folder: _folder } = open().await;
    store.report(&report("d", 1, &[("a", "1"), ("b", "1")])).await.unwrap();
    let withdraw = Report { withdrawn: vec!["a".into()], ..report("d", 3, &[]) };
    store.report(&withdraw).await.unwrap();
    store.report(&report("d", 2, &[("a", "2")])).await.unwrap();
    assert_eq!(values(&store, "d").await, pairs(&[("b", "1")]));
    let reset = Report { reset: true, ..report("d", 5, &[("c", "5")]) };
    store.report(&reset).await.unwrap();
    store.report(&report("d", 4, &[("b", "4")])).await.unwrap();
    assert_eq!(values(&store, "d").await, pairs(&[("c", "5")]));
    assert_eq!(store.last_values(project()).await.unwrap().len(), 1);
    let kinds = store.declared_types(project(), &["x".into(), "c".into()]).await.unwrap();
    assert_eq!(kinds, [None, Some("float".to_owned())]);
}

#[tokio::test]
async fn the_first_report_of_a_revision_stays() {
    let Store { store, folder: _folder } = open().await;
    let mark = async |seq, rev, ms| {
        let mut line = report("d", seq, &[("a", "1")]);
        line.values[0].applied = Some(AppliedMark { rev, ms: Some(ms) });
        store.report(&line).await.unwrap();
        let found = store.devices_by_id(project(), &["d".into()]).await.unwrap();
        found[0].values[0].applied.unwrap()
    };
    assert_eq!(mark(1, 7, 30).await.ms, Some(30));
    assert_eq!(mark(2, 7, 90).await.ms, Some(30));
    assert_eq!(mark(3, 8, 20).await.ms, Some(20));
}

#[tokio::test]
async fn devices_past_a_bound_are_forgotten_longest_gone_first() {
    let Store { store, folder: _folder } = open().await;
    for epoch in 1..=3 {
        store.sign_in(project(), &device(&format!("d{epoch}"), epoch), 3).await.unwrap();
    }
    store.sign_out(project(), "d2", &Ended::lost(2, 50)).await.unwrap();
    let forgotten = store.sign_in(project(), &device("d4", 4), 3).await.unwrap();
    assert_eq!(forgotten, ["d2"]);
    let forgotten = store.sign_in(project(), &device("d5", 5), 3).await.unwrap();
    assert_eq!(forgotten, ["d1"]);
    let devices = store.devices(project(), Some("d3"), 1).await.unwrap();
    assert_eq!(devices[0].device, device("d4", 4));
}

#[tokio::test]
async fn gone_devices_without_a_name_are_few() {
    let Store { store, folder: _folder } = open().await;
    let mut forgotten = Vec::new();
    for epoch in 1..=GONE_DEVICES_MAX as u64 + 1 {
        let id = format!("d{epoch}");
        store.sign_in(project(), &device(&id, epoch), 1_000).await.unwrap();
        forgotten.extend(
            store.sign_out(project(), &id, &Ended::lost(epoch, epoch.cast_signed())).await.unwrap(),
        );
    }
    assert_eq!(forgotten, ["d1"]);
}

#[tokio::test]
async fn the_order_in_which_sign_in_and_end_arrive_does_not_matter() {
    let Store { store, folder: _folder } = open().await;
    let online = async || {
        let found = store.devices_by_id(project(), &["d".into()]).await.unwrap();
        found.first().map(|found| found.device.online)
    };
    store.sign_out(project(), "d", &Ended::lost(5, 9)).await.unwrap();
    assert_eq!(online().await, None);
    store.sign_in(project(), &device("d", 5), 10).await.unwrap();
    assert_eq!(online().await, Some(false));
    store.sign_in(project(), &device("d", 6), 10).await.unwrap();
    store.sign_out(project(), "d", &Ended::lost(5, 9)).await.unwrap();
    store.sign_in(project(), &device("d", 5), 10).await.unwrap();
    assert_eq!(online().await, Some(true));
}

#[tokio::test]
async fn a_file_of_the_first_release_is_brought_up_to_date() {
    let Store { store, folder } = open().await;
    store.sign_in(project(), &device("d", 1), 10).await.unwrap();
    drop(store);
    let db = rusqlite::Connection::open(folder.path().join("vars.db")).unwrap();
    db.execute_batch(
        "ALTER TABLE devices ADD COLUMN name TEXT;
         ALTER TABLE devices DROP COLUMN seq;
         ALTER TABLE devices DROP COLUMN about;
         ALTER TABLE devices DROP COLUMN background;
         ALTER TABLE devices DROP COLUMN gone;
         PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(db);
    let config = StoreConfig { data_dir: folder.path().into(), ..StoreConfig::default() };
    let store = SqliteVarStore::open(&config).await.unwrap();
    let found = store.devices_by_id(project(), &["d".into()]).await.unwrap();
    assert_eq!(found[0].device, device("d", 1));
    store.sign_out(project(), "d", &Ended::lost(1, 5)).await.unwrap();
}
