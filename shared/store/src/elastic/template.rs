//! The index template: what every daily index is made from, and the only place that knows the mapping.
//!
//! It changes no index that exists. After an update the new mapping holds from the next day on.

use elasticsearch::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::day;
use super::server::{Request, Server};
use crate::StoreError;

/// Version of the mapping. Raise it with every change.
const VERSION: u32 = 1;

const PATH: &str = "/_index_template/observer-logs";

/// Longest keyword that is indexed, in characters; a longer one is stored and not found by its
/// filter. Elasticsearch refuses documents with a term of more than 32,766 bytes.
const KEYWORD_CHARS_MAX: u32 = 8_000;

/// Puts the template, unless a newer Observer has put its own.
pub(super) async fn put(server: &Server, replicas: u8) -> Result<(), StoreError> {
    const OPERATION: &str = "putting of the index template";
    let answer = server.ask(Request::new(OPERATION, Method::Get, PATH)).await?;
    if answer.status != 404 {
        let answer = answer.done()?;
        let there: There = answer.read()?;
        if there.version().is_some_and(|version| VERSION < version) {
            return Ok(());
        }
    }
    let request = Request::new(OPERATION, Method::Put, PATH).body(template(replicas).to_string());
    server.ask(request).await?.done()?;
    Ok(())
}

fn template(replicas: u8) -> Value {
    json!({
        "index_patterns": [day::ALL],
        "priority": 200,
        "_meta": {"observer_version": VERSION},
        "template": {
            "settings": {"index": {
                "number_of_shards": 1,
                "number_of_replicas": replicas,
                // Named, because without it an index that nobody searches is not refreshed.
                "refresh_interval": "1s",
                "translog": {"durability": "request"},
            }},
            "mappings": {
                // What a game sends never grows the mapping, whatever its names and types.
                "dynamic": false,
                "properties": {"observer": {"properties": properties()}},
            },
        },
    })
}

fn properties() -> Value {
    let keyword = json!({"type": "keyword", "ignore_above": KEYWORD_CHARS_MAX});
    json!({
        // A keyword beside `_id`, which cannot be sorted by.
        "id": {"type": "keyword"},
        "project": {"type": "keyword"},
        "key": keyword,
        "device": keyword,
        "session": keyword,
        "seq": {"type": "long"},
        "received": {"type": "date", "format": "epoch_millis"},
        "rev": {"type": "long"},
        "level": {"type": "keyword"},
        "tag": keyword,
        // A game may send any number as its time; that must not cost the record.
        "time": {"type": "date", "format": "epoch_millis", "ignore_malformed": true},
        // For people who search Elasticsearch directly. Our own search uses `text`.
        "message": {"type": "text", "norms": false},
        // Words in lower case with single spaces between them: nothing is left to analyse.
        "text": {"type": "text", "analyzer": "whitespace", "norms": false},
        "fields": keyword,
    })
}

#[derive(Deserialize)]
struct There {
    index_templates: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    index_template: Template,
}

#[derive(Deserialize)]
struct Template {
    #[serde(default, rename = "_meta")]
    meta: Meta,
}

#[derive(Default, Deserialize)]
struct Meta {
    observer_version: Option<u32>,
}

impl There {
    fn version(&self) -> Option<u32> {
        self.index_templates.first()?.index_template.meta.observer_version
    }
}
