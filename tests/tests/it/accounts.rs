//! The suite of the account port: a named test for each clause of `AccountStore`'s contract, run
//! against every adapter.

use futures_util::future::join_all;
use observer_store::accounts::{AccountStore, Created, NewAccount};
use observer_store::redis::RedisAccountStore;
use observer_store::{StoreConfig, connect_accounts};
use observer_tests::servers::{Fsync, RedisOptions, RedisServer};
use observer_wire::ApiKey;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// A store with what it needs to live.
struct Opened {
    store: Arc<dyn AccountStore>,
    /// After the store, so that its file is closed first.
    _folder: Option<TempDir>,
}

async fn open_sqlite() -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig { data_dir: folder.path().into(), ..StoreConfig::default() };
    Opened { store: connect_accounts(&config).await.unwrap(), _folder: Some(folder) }
}

/// On one server for all tests: keys and addresses are random.
async fn open_redis() -> Opened {
    static SERVER: OnceCell<RedisServer> = OnceCell::const_new();
    let options = || RedisOptions { fsync: Fsync::Always, ..RedisOptions::default() };
    let server = SERVER.get_or_init(|| RedisServer::start(options())).await;
    let store = RedisAccountStore::connect(&server.url()).await.unwrap();
    Opened { store: Arc::new(store), _folder: None }
}

/// Runs each test of the suite against the store that `$open` makes.
macro_rules! suite {
    ($adapter:ident, $open:ident) => {
        mod $adapter {
            suite!(@tests $open:
                a_key_of_a_new_account_opens_its_project
                a_key_that_was_never_registered_opens_nothing
                registering_a_key_again_changes_nothing
                an_address_has_one_account
                a_key_belongs_to_one_account
                a_key_without_an_account_cannot_be_taken_over
                of_many_accounts_with_one_address_one_is_made
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
suite!(redis, open_redis);

fn random_key() -> ApiKey {
    let mut random = [0; 6];
    getrandom::fill(&mut random).unwrap();
    ApiKey::from_random(random)
}

/// An account that no other test has.
fn account() -> NewAccount {
    let key = random_key();
    NewAccount {
        email: format!("{}@example.com", random_key().as_str()),
        password_hash: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA".into(),
        key,
    }
}

async fn a_key_of_a_new_account_opens_its_project(store: &dyn AccountStore) {
    let account = account();
    assert_eq!(store.create_account(&account).await.unwrap(), Created::Now);
    assert_eq!(store.project_of(account.key).await.unwrap(), Some(account.key.founds()));
}

async fn a_key_that_was_never_registered_opens_nothing(store: &dyn AccountStore) {
    assert_eq!(store.project_of(random_key()).await.unwrap(), None);
}

async fn registering_a_key_again_changes_nothing(store: &dyn AccountStore) {
    let key = random_key();
    for _ in 0..2 {
        assert_eq!(store.register_key(key).await.unwrap(), key.founds());
        assert_eq!(store.project_of(key).await.unwrap(), Some(key.founds()));
    }
    let account = account();
    store.create_account(&account).await.unwrap();
    assert_eq!(store.register_key(account.key).await.unwrap(), account.key.founds());
    let again = NewAccount { key: random_key(), ..account };
    assert_eq!(store.create_account(&again).await.unwrap(), Created::EmailExists);
}

async fn an_address_has_one_account(store: &dyn AccountStore) {
    let first = account();
    store.create_account(&first).await.unwrap();
    let second = NewAccount { key: random_key(), ..first.clone() };
    assert_eq!(store.create_account(&second).await.unwrap(), Created::EmailExists);
    assert_eq!(store.project_of(second.key).await.unwrap(), None, "nothing was changed");
}

async fn a_key_belongs_to_one_account(store: &dyn AccountStore) {
    let first = account();
    store.create_account(&first).await.unwrap();
    let second = NewAccount { key: first.key, ..account() };
    assert_eq!(store.create_account(&second).await.unwrap(), Created::KeyExists);
    let third = NewAccount { key: random_key(), ..second };
    let created = store.create_account(&third).await.unwrap();
    assert_eq!(created, Created::Now, "the address is free still");
}

async fn a_key_without_an_account_cannot_be_taken_over(store: &dyn AccountStore) {
    let account = account();
    store.register_key(account.key).await.unwrap();
    assert_eq!(store.create_account(&account).await.unwrap(), Created::KeyExists);
}

async fn of_many_accounts_with_one_address_one_is_made(store: &dyn AccountStore) {
    let first = account();
    let rivals: Vec<_> =
        (0..16).map(|_| NewAccount { key: random_key(), ..first.clone() }).collect();
    let created = join_all(rivals.iter().map(|rival| store.create_account(rival))).await;
    let mut made = 0;
    for (rival, created) in rivals.iter().zip(created) {
        let now = created.unwrap() == Created::Now;
        made += usize::from(now);
        assert_eq!(store.project_of(rival.key).await.unwrap().is_some(), now);
    }
    assert_eq!(made, 1);
}

async fn a_store_that_runs_can_be_used(store: &dyn AccountStore) {
    store.check().await.unwrap();
}
