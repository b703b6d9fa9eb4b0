//! What Redis promises of accounts: the original's layout, and a server that is set to lose none.

#![cfg(test)] // Or the lints take it for no test.

use observer_store::accounts::{Created, NewAccount};
use observer_store::redis::RedisAccountStore;
use observer_store::{AccountStore, StoreError, StoreErrorKind};
use observer_tests::servers::{Fsync, RedisOptions, RedisServer};
use observer_wire::ApiKey;

async fn start() -> (RedisServer, RedisAccountStore) {
    let options = RedisOptions { fsync: Fsync::Always, ..RedisOptions::default() };
    start_with(options).await
}

async fn start_with(options: RedisOptions) -> (RedisServer, RedisAccountStore) {
    let server = RedisServer::start(options).await;
    let store = RedisAccountStore::connect(&server.url()).await.unwrap();
    (server, store)
}

async fn ask<T: redis::FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.unwrap()
}

fn key(last: u8) -> ApiKey {
    ApiKey::from_random([1, 2, 3, 4, 5, last])
}

fn account(email: &str, key: ApiKey) -> NewAccount {
    NewAccount { email: email.into(), password_hash: "$argon2id$hash".into(), key }
}

fn words(error: &StoreError) -> String {
    std::error::Error::source(error).unwrap().to_string()
}

#[tokio::test]
async fn account_stands_in_redis_as_the_original_had_it() {
    let (server, store) = start().await;
    let created = store.create_account(&account("anna@example.org", key(1))).await.unwrap();
    assert_eq!(created, Created::Now);
    let fields: Vec<String> = ask(&server, &["HMGET", key(1).as_str(), "email", "password"]).await;
    assert_eq!(fields, ["anna@example.org", "$argon2id$hash"]);
    assert_eq!(ask::<Vec<String>>(&server, &["SMEMBERS", "tokens"]).await, [key(1).as_str()]);
    assert_eq!(ask::<Vec<String>>(&server, &["SMEMBERS", "emails"]).await, ["anna@example.org"]);
    assert_eq!(store.project_of(key(1)).await.unwrap(), Some(key(1).founds()));
    assert_eq!(store.project_of(key(2)).await.unwrap(), None);
}

#[tokio::test]
async fn account_that_cannot_be_made_changes_nothing() {
    let (server, store) = start().await;
    store.create_account(&account("anna@example.org", key(1))).await.unwrap();
    let again = store.create_account(&account("anna@example.org", key(2))).await.unwrap();
    assert_eq!(again, Created::EmailExists);
    let taken = store.create_account(&account("bert@example.org", key(1))).await.unwrap();
    assert_eq!(taken, Created::KeyExists);
    let mut keys: Vec<String> = ask(&server, &["KEYS", "*"]).await;
    keys.sort();
    assert_eq!(keys, [key(1).as_str(), "emails", "tokens"]);
    assert_eq!(ask::<u64>(&server, &["SCARD", "emails"]).await, 1);
    let next = store.create_account(&account("bert@example.org", key(2))).await.unwrap();
    assert_eq!(next, Created::Now);
}

#[tokio::test]
async fn of_two_accounts_with_one_address_at_once_one_is_made() {
    let (server, store) = start().await;
    let other = RedisAccountStore::connect(&server.url()).await.unwrap();
    for round in 0..20 {
        let email = format!("{round}@example.org");
        let (first, second) = (account(&email, key(round)), account(&email, key(100 + round)));
        let (first, second) =
            tokio::join!(store.create_account(&first), other.create_account(&second));
        let outcomes = [first.unwrap(), second.unwrap()];
        assert!(outcomes.contains(&Created::Now), "{outcomes:?}");
        assert!(outcomes.contains(&Created::EmailExists), "{outcomes:?}");
    }
}

#[tokio::test]
async fn registered_key_opens_its_project_and_makes_no_account() {
    let (server, store) = start().await;
    assert_eq!(store.register_key(key(1)).await.unwrap(), key(1).founds());
    assert_eq!(store.register_key(key(1)).await.unwrap(), key(1).founds());
    assert_eq!(store.project_of(key(1)).await.unwrap(), Some(key(1).founds()));
    assert_eq!(ask::<Vec<String>>(&server, &["KEYS", "*"]).await, ["tokens"]);
    let taken = store.create_account(&account("anna@example.org", key(1))).await.unwrap();
    assert_eq!(taken, Created::KeyExists);
}

#[tokio::test]
async fn account_survives_a_crash_of_redis() {
    let (mut server, store) = start().await;
    store.create_account(&account("anna@example.org", key(1))).await.unwrap();
    server.kill();
    server.restart().await;
    assert!(store.project_of(key(1)).await.unwrap().is_some(), "the first call connects again");
    let again = store.create_account(&account("anna@example.org", key(2))).await.unwrap();
    assert_eq!(again, Created::EmailExists);
}

#[tokio::test]
async fn server_that_may_lose_accounts_is_named_but_works() {
    let (server, store) = start().await;
    store.check().await.unwrap();
    for (name, good, bad) in [
        ("appendonly", "yes", "no"),
        ("appendfsync", "always", "everysec"),
        ("maxmemory-policy", "noeviction", "volatile-lru"),
    ] {
        ask::<()>(&server, &["CONFIG", "SET", name, bad]).await;
        let error = store.check().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Refused);
        let words = words(&error);
        assert!(words.contains(&format!("{name} is {bad}, but must be {good}")), "{words}");
        store.register_key(key(1)).await.unwrap();
        ask::<()>(&server, &["CONFIG", "SET", name, good]).await;
        store.check().await.unwrap();
    }
}

#[tokio::test]
async fn server_that_hides_its_settings_is_not_ready_and_says_so() {
    let args = vec!["--rename-command".to_owned(), "CONFIG".to_owned(), String::new()];
    let options = RedisOptions { fsync: Fsync::Always, args };
    let (_server, store) = start_with(options).await;
    let error = store.check().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);
    assert!(words(&error).contains("CONFIG GET is forbidden"), "{}", words(&error));
    store.register_key(key(1)).await.unwrap();
}

#[tokio::test]
async fn wrong_password_is_refused() {
    let (server, _) = start().await;
    ask::<()>(&server, &["ACL", "SETUSER", "anna", "on", ">secret", "~*", "+@all"]).await;
    let url = |password| format!("redis://anna:{password}@{}", server.address());
    let refused = RedisAccountStore::connect(&url("wrong")).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Refused, "{}", words(&refused));
    RedisAccountStore::connect(&url("secret")).await.unwrap();
}
