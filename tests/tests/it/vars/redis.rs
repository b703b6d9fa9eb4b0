//! What only Redis promises: the original's layout, one slot a project, and a life after each way in
//! which a server can leave.

use std::sync::Arc;
use std::time::{Duration, Instant};

use observer_store::redis::RedisVarStore;
use observer_store::vars::{Device, EditApplied, Ended, Report};
use observer_store::{StoreError, StoreErrorKind, VarStore};
use observer_tests::eventually;
use observer_tests::servers::{Fsync, RedisOptions, RedisServer, free_port};
use observer_wire::ProjectId;
use redis::aio::MultiplexedConnection;
use tokio::sync::OnceCell;

use super::suite::{device, edit, project, report, sign_in, values};
use super::{Rig, within};

const SOON: Duration = Duration::from_secs(30);

/// One server for the whole suite: it outlives the tests, and its watchdog ends it.
static SERVER: OnceCell<RedisServer> = OnceCell::const_new();

pub(super) async fn rig() -> Rig {
    let server = SERVER.get_or_init(|| RedisServer::start(RedisOptions::default())).await;
    let (one, other) = tokio::join!(connect(server), connect(server));
    Rig { one: Arc::new(one), other: Arc::new(other), _world: Box::new(()) }
}

async fn connect(server: &RedisServer) -> RedisVarStore {
    RedisVarStore::connect(&server.url()).await.unwrap()
}

/// A look from outside.
async fn outside(server: &RedisServer) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn ask<T: redis::FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]).query_async(&mut outside(server).await).await.unwrap()
}

/// Every kind of key that a project has.
async fn fill(store: &dyn VarStore, project: ProjectId) {
    sign_in(store, project, &device("device", 7)).await;
    let mut line = report(project, 1, &[("testing1", "example"), ("testing2", "-1")]);
    line.withdrawn.push("gone".into());
    store.report(&line).await.unwrap();
    let socket = Device { named: false, ..device("socket", 7) };
    sign_in(store, project, &socket).await;
    store.sign_out(project, "socket", &Ended::lost(7, 1)).await.unwrap();
    let first = edit(project, 1, &[("testing1", Some("example"))]);
    assert_eq!(store.apply_edit(&first, 1).await.unwrap(), EditApplied::Now);
}

fn kind<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> StoreErrorKind {
    outcome.unwrap_err().kind()
}

fn chain(error: &StoreError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string);
    format!("{error}: {}", source.unwrap_or_default())
}

#[tokio::test]
async fn two_variables_stand_in_redis_as_the_original_had_them() {
    let server = RedisServer::start(RedisOptions::default()).await;
    let (store, project) = (connect(&server).await, project());
    fill(&store, project).await;
    let key = format!("{project}:vs");
    let mut fields: Vec<String> = ask(&server, &["HKEYS", &key]).await;
    fields.sort();
    assert_eq!(fields, ["testing1:type", "testing1:value", "testing2:type", "testing2:value"]);
    let value: String = ask(&server, &["HGET", &key, "testing1:value"]).await;
    assert_eq!(value, "example");
}

#[tokio::test]
async fn a_project_lives_in_one_slot_of_a_cluster() {
    // Left alone it takes a port ten thousand further, which may be another test's.
    let bus_port = free_port().to_string();
    let args = ["--cluster-enabled", "yes", "--cluster-port", &bus_port].map(str::to_owned).into();
    let server = RedisServer::start(RedisOptions { args, ..RedisOptions::default() }).await;
    ask::<()>(&server, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    eventually(SOON, "the cluster is whole", async || {
        let info: String = ask(&server, &["CLUSTER", "INFO"]).await;
        info.contains("cluster_state:ok").then_some(())
    })
    .await;
    let (store, project) = (connect(&server).await, project());
    fill(&store, project).await; // A script over two slots would be refused here.
    assert_eq!(store.devices(project, None, 10).await.unwrap().len(), 2);
    store.document(project).await.unwrap();

    let keys: Vec<String> = ask(&server, &["KEYS", "*"]).await;
    let home: u32 = ask(&server, &["CLUSTER", "KEYSLOT", &format!("{project}:vs")]).await;
    // state, wanted, devices, ids, online, gone, unnamed, writers, reported, withdrawn, <key>:vs.
    assert_eq!(keys.len(), 11, "{keys:?}");
    for key in keys {
        let slot: u32 = ask(&server, &["CLUSTER", "KEYSLOT", &key]).await;
        assert_eq!(slot, home, "{key}");
    }
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_crash_of_redis() {
    let options = RedisOptions { fsync: Fsync::Always, ..RedisOptions::default() };
    let mut server = RedisServer::start(options).await;
    let (store, project) = (connect(&server).await, project());
    fill(&store, project).await;
    let document = store.document(project).await.unwrap();
    let devices = store.devices(project, None, 10).await.unwrap();
    server.kill();
    server.restart().await;
    assert_eq!(store.document(project).await.ok(), Some(document), "the first call connects again");
    assert_eq!(store.devices(project, None, 10).await.unwrap(), devices);
    // The restart forgot the scripts too.
    let next = edit(project, 2, &[]);
    assert_eq!(store.apply_edit(&next, 2).await.unwrap(), EditApplied::Now);
}

#[tokio::test]
async fn demoted_master_is_unavailable_until_it_is_promoted_again() {
    let server = RedisServer::start(RedisOptions::default()).await;
    let (store, project) = (connect(&server).await, project());
    fill(&store, project).await;
    // A master that is not there: the replica keeps what it has.
    ask::<()>(&server, &["REPLICAOF", "127.0.0.1", "1"]).await;
    let line = report(project, 2, &[("testing1", "later")]);
    assert_eq!(kind(store.report(&line).await), StoreErrorKind::Unavailable);
    assert_eq!(kind(store.check().await), StoreErrorKind::Unavailable);
    ask::<()>(&server, &["REPLICAOF", "NO", "ONE"]).await;
    store.report(&line).await.unwrap();
    store.check().await.unwrap();
    assert_eq!(values(&store, project).await[0].1, "later");
}

/// A proxy that leads each new connection to the server chosen last, as one in front of a master
/// does; open connections stay where they are.
async fn proxy(target: tokio::sync::watch::Receiver<String>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = tokio_util::task::TaskTracker::new();
    let within = tasks.clone();
    tasks.spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let address = target.borrow().clone();
            within.spawn(async move {
                let Ok(mut far) = tokio::net::TcpStream::connect(address).await else { return };
                tokio::io::copy_bidirectional(&mut near, &mut far).await.ok();
            });
        }
    });
    format!("redis://{address}")
}

#[tokio::test]
async fn behind_a_proxy_the_call_that_meets_a_demoted_master_reaches_the_new_one() {
    let (old, new) = tokio::join!(
        RedisServer::start(RedisOptions::default()),
        RedisServer::start(RedisOptions::default())
    );
    let (lead, target) = tokio::sync::watch::channel(old.address());
    let store = RedisVarStore::connect(&proxy(target).await).await.unwrap();
    let project = project();
    fill(&store, project).await;
    lead.send(new.address()).unwrap();
    ask::<()>(&old, &["REPLICAOF", "127.0.0.1", &new.port().to_string()]).await;
    let line = report(project, 2, &[("testing1", "later")]);
    assert_eq!(store.report(&line).await.unwrap().taken, ["testing1"]);
    let key = format!("{project}:vs");
    let value: String = ask(&new, &["HGET", &key, "testing1:value"]).await;
    assert_eq!(value, "later");
}

#[tokio::test]
async fn silent_redis_is_unavailable_within_three_seconds_and_works_again_after() {
    let mut server = RedisServer::start(RedisOptions::default()).await;
    let (store, project) = (connect(&server).await, project());
    fill(&store, project).await;
    server.stop();
    for _ in 0..2 {
        let asked = Instant::now();
        assert_eq!(kind(store.document(project).await), StoreErrorKind::Unavailable);
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    }
    server.cont();
    assert_eq!(store.document(project).await.unwrap().document.revision, 1);
}

#[tokio::test]
async fn killed_redis_is_unavailable_within_three_seconds_and_works_again_after() {
    let mut server = RedisServer::start(RedisOptions::default()).await;
    let (store, project) = (connect(&server).await, project());
    fill(&store, project).await;
    server.kill();
    for _ in 0..3 {
        let asked = Instant::now();
        assert_eq!(kind(store.check().await), StoreErrorKind::Unavailable);
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    }
    server.restart().await;
    store.check().await.unwrap();
    store.document(project).await.unwrap();
}

#[tokio::test]
async fn redis_that_is_down_at_the_start_is_unavailable() {
    let url = format!("redis://127.0.0.1:{}", observer_tests::servers::free_port());
    within(async {
        let connected = RedisVarStore::connect(&url).await.map(|_| ());
        assert_eq!(kind(connected), StoreErrorKind::Unavailable);
    })
    .await;
    let connected = RedisVarStore::connect("no address").await.map(|_| ());
    assert_eq!(kind(connected), StoreErrorKind::Refused);
}

#[tokio::test]
async fn redis_that_would_delete_variables_is_not_ready_but_works() {
    let args = vec!["--maxmemory-policy".to_owned(), "allkeys-lru".to_owned()];
    let server = RedisServer::start(RedisOptions { args, ..RedisOptions::default() }).await;
    let (store, project) = (connect(&server).await, project());
    let error = store.check().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);
    assert!(chain(&error).contains("maxmemory-policy is allkeys-lru"), "{}", chain(&error));
    fill(&store, project).await;
}

#[tokio::test]
async fn full_redis_asks_for_less_and_keeps_what_it_has() {
    let server = RedisServer::start(RedisOptions::default()).await;
    let (store, project) = (connect(&server).await, project());
    fill(&store, project).await;
    let devices = store.devices(project, None, 10).await.unwrap();
    ask::<()>(&server, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let line = report(project, 2, &[("testing1", "later"), ("testing3", "new")]);
    assert_eq!(kind(store.report(&line).await), StoreErrorKind::Throttled);
    assert_eq!(store.devices(project, None, 10).await.unwrap(), devices);
    ask::<()>(&server, &["CONFIG", "SET", "maxmemory", "0"]).await;
    store.report(&line).await.unwrap();
}

#[tokio::test]
async fn key_of_another_type_refuses_a_call_whole() {
    let server = RedisServer::start(RedisOptions::default()).await;
    let (store, project) = (connect(&server).await, project());
    ask::<()>(&server, &["SET", &format!("{project}:vs"), "not ours"]).await;
    sign_in(&store, project, &device("device", 7)).await;
    let line = report(project, 1, &[("a", "1")]);
    assert_eq!(kind(store.report(&line).await), StoreErrorKind::Refused);
    assert_eq!(values(&store, project).await, []);
}

fn names(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|index| format!("v{index:05}")).collect()
}

#[tokio::test]
async fn withdrawn_names_are_remembered_up_to_the_limit() {
    let server = RedisServer::start(RedisOptions::default()).await;
    let (store, project) = (connect(&server).await, project());
    let remembered = async || -> usize {
        let keys: Vec<String> = ask(&server, &["KEYS", "*:withdrawn:*"]).await;
        ask(&server, &["HLEN", &keys[0]]).await
    };
    let thousand = Report { withdrawn: names(0..1_000), ..report(project, 2, &[]) };
    store.report(&thousand).await.unwrap();
    assert_eq!(remembered().await, 1_000);
    store.report(&report(project, 1, &[("v00000", "1")])).await.unwrap();
    assert_eq!(values(&store, project).await, []);
    let one_more = Report { withdrawn: names(1_000..1_001), ..report(project, 3, &[]) };
    store.report(&one_more).await.unwrap();
    assert_eq!(remembered().await, 500, "half of them are forgotten, the oldest");
    store.report(&report(project, 1, &[("v01000", "1")])).await.unwrap();
    assert_eq!(values(&store, project).await, []);
}

#[tokio::test]
async fn last_values_are_kept_of_ten_thousand_names() {
    let server = RedisServer::start(RedisOptions::default()).await;
    let (store, project) = (connect(&server).await, project());
    for (start, seq) in (0..10_000).step_by(2_500).zip(1..) {
        let names = names(start..start + 2_500);
        let values: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
        let line = Report { vars_max: 20_000, ..report(project, seq, &values) };
        assert_eq!(store.report(&line).await.unwrap().taken.len(), 2_500);
    }
    let more = [("one more", "2"), ("v00000", "2")];
    let line = Report { vars_max: 20_000, ..report(project, 9, &more) };
    assert_eq!(store.report(&line).await.unwrap().taken.len(), 2, "the device has them all");
    let last = store.last_values(project).await.unwrap();
    assert_eq!((last.len(), last[0].value.as_str()), (10_000, "2"));
    // One that goes makes room.
    let withdrawn = vec!["v00001".into()];
    let line = Report { withdrawn, vars_max: 20_000, ..report(project, 10, &[]) };
    store.report(&line).await.unwrap();
    let line = Report { vars_max: 20_000, ..report(project, 11, &[("one more", "3")]) };
    store.report(&line).await.unwrap();
    let last = store.last_values(project).await.unwrap();
    assert_eq!((last.len(), last[0].name.as_str()), (10_000, "one more"));
}

#[tokio::test]
async fn lowered_devices_limit_is_reached_in_steps() {
    let server = RedisServer::start(RedisOptions::default()).await;
    let (store, project) = (connect(&server).await, project());
    for index in 0..100 {
        sign_in(&store, project, &device(&format!("d{index}"), 7)).await;
    }
    for (id, removed) in [("x", 64), ("y", 35), ("z", 1)] {
        let gone = store.sign_in(project, &device(id, 7), 3).await.unwrap();
        assert_eq!(gone.len(), removed, "{id}");
    }
    assert_eq!(store.devices(project, None, 10).await.unwrap().len(), 3);
}

#[tokio::test]
async fn withdrawal_leaves_the_last_value_of_another_device() {
    let server = RedisServer::start(RedisOptions::default()).await;
    let (store, project) = (connect(&server).await, project());
    store.report(&report(project, 1, &[("a", "1")])).await.unwrap();
    let other = Report { device: "other".into(), ..report(project, 1, &[("a", "2")]) };
    store.report(&other).await.unwrap();
    let withdrawn = vec!["a".into()];
    store.report(&Report { withdrawn, ..report(project, 2, &[]) }).await.unwrap();
    assert_eq!(store.last_values(project).await.unwrap()[0].value, "2");
}

#[tokio::test]
async fn removed_device_leaves_nothing_behind() {
    let server = RedisServer::start(RedisOptions::default()).await;
    let (store, project) = (connect(&server).await, project());
    fill(&store, project).await;
    let keys = async || -> Vec<String> { ask(&server, &["KEYS", "*:vs}:[rw]*:*"]).await };
    assert_eq!(keys().await.len(), 2, "{:?}", keys().await);
    store.sign_in(project, &device("only", 7), 1).await.unwrap();
    assert_eq!(keys().await, [""; 0]);
}

#[tokio::test]
async fn removed_device_whose_values_are_still_there_comes_back_without_them() {
    let server = RedisServer::start(RedisOptions::default()).await;
    let (store, project) = (connect(&server).await, project());
    let removed = format!("{{{project}:vs}}:removed");
    let old = report(project, 5, &[("old", "1")]);
    let new = report(project, 1, &[("new", "1")]);

    store.report(&old).await.unwrap();
    // As a process leaves it that ended between removal and deletion.
    ask::<()>(&server, &["SADD", &removed, "device"]).await;
    sign_in(&store, project, &device("device", 8)).await;
    assert_eq!(values(&store, project).await, []);

    store.report(&old).await.unwrap();
    ask::<()>(&server, &["SADD", &removed, "device"]).await;
    store.report(&new).await.unwrap();
    assert_eq!(values(&store, project).await, [("new".to_owned(), "1".to_owned())]);
}
