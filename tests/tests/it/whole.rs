//! The whole product as processes: what a game, a page and a program see.

mod backup;
mod bad_input;
mod cluster;
mod command_line;
#[cfg(target_os = "linux")]
mod disk_full;
mod exchange;
mod foreign;
mod killed;
mod level2;
mod stored;
mod transcripts;

use std::time::Duration;

use observer_tests::game::Game;
use observer_tests::http::Api;
use observer_tests::stack::{Cluster, ClusterOptions, Embedded};
use observer_tests::wait::eventually;
use serde_json::{Value, json};

/// Time for what the product promises within two seconds, on a machine that is busy with builds.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// Either form of the product.
pub(crate) enum Stack {
    /// One process.
    Embedded(Embedded),
    /// Services over real servers.
    Cluster(Box<Cluster>),
}

impl Stack {
    pub(crate) async fn embedded() -> Self {
        Self::Embedded(Embedded::start().await)
    }

    pub(crate) async fn cluster() -> Self {
        Self::Cluster(Box::new(Cluster::start(ClusterOptions::default()).await))
    }

    pub(crate) async fn api(&mut self) -> Api {
        match self {
            Self::Embedded(embedded) => embedded.api().await,
            Self::Cluster(cluster) => cluster.api().await,
        }
    }

    /// A socket that sent nothing yet.
    pub(crate) async fn connect(&mut self) -> Game {
        let address = match self {
            Self::Embedded(embedded) => embedded.game_address().await,
            Self::Cluster(cluster) => cluster.gateways[0].address("gateway").await,
        };
        Game::connect(address).await.expect("the gateway listens")
    }

    /// A signed-in game.
    pub(crate) async fn game(&mut self, key: &str) -> Game {
        match self {
            Self::Embedded(embedded) => {
                let address = embedded.game_address().await;
                Game::sign_in(address, key).await.expect("the key is registered")
            }
            Self::Cluster(cluster) => cluster.game(0, key).await,
        }
    }

    /// Hits of a search in `logs-<key>`, as the original's users searched: in Elasticsearch itself,
    /// and through the api where there is none. Our own object is left out.
    pub(crate) async fn hits(&mut self, key: &str) -> Vec<Value> {
        match self {
            Self::Embedded(_) => fields(items(&self.api().await, key, "").await),
            Self::Cluster(cluster) => {
                let url = format!("{}/logs-{key}/_search?size=1000", cluster.elasticsearch.url());
                let client = reqwest::Client::builder().no_proxy().build().unwrap();
                let answer: Value = client.get(url).send().await.unwrap().json().await.unwrap();
                let hits = answer["hits"]["hits"].as_array().cloned().unwrap_or_default();
                fields(hits.into_iter().map(|mut hit| hit["_source"].take()).collect())
            }
        }
    }
}

/// The game's own fields of records.
fn fields(mut records: Vec<Value>) -> Vec<Value> {
    for record in &mut records {
        record.as_object_mut().expect("a record is an object").remove("observer");
    }
    records
}

/// All records that the api finds, page after page.
pub(crate) async fn items(api: &Api, key: &str, query: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api.logs(key, &format!("limit=1000{cursor}{query}")).await.unwrap();
        assert_eq!(page.status, 200, "{}", page.text);
        items.extend(page.json["items"].as_array().unwrap().iter().cloned());
        match page.json["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

/// Waits until the api finds as many records, and returns them.
pub(crate) async fn items_once(api: &Api, key: &str, count: usize) -> Vec<Value> {
    eventually(SOON, &format!("{count} records are found"), async || {
        let items = items(api, key, "").await;
        (items.len() >= count).then_some(items)
    })
    .await
}

/// The value that a device has, as the api shows it, and what became of the wanted one.
pub(crate) async fn receipts(api: &Api, key: &str, name: &str) -> Vec<(String, String)> {
    let vars = api.vars(key).await.unwrap();
    assert_eq!(vars.status, 200, "{}", vars.text);
    let devices = vars.json["devices"].as_array().unwrap();
    devices
        .iter()
        .map(|device| {
            let reported = device["reported"].as_array().unwrap();
            let value = reported.iter().find(|value| value["name"] == name);
            let value = value.map_or("", |value| value["value"].as_str().unwrap());
            let state = device["states"][name]["state"].as_str().unwrap_or_default();
            (value.to_owned(), state.to_owned())
        })
        .collect()
}

/// One edit of one variable, as the api takes it.
pub(crate) fn one_edit(name: &str, kind: &str, value: &str) -> Value {
    json!({ "edits": [{ "name": name, "type": kind, "value": value }] })
}
