//! Hop 4 of a log record, distributed: log records in Elasticsearch.
//!
//! The only folder that knows Elasticsearch. [`append`](LogStore::append) sees to the day's index and
//! the project's alias (`aliases`), asks the indices of the days beside it for records that may be there,
//! sends the rest with `_bulk` (`bulk`) as documents (`document`), and reads the answer item by item (`items`).
//! [`search`](LogStore::search) reads them back (`search`). What it does not do: it sends nothing
//! again but what was refused, in halves and in the safe form below; when to send again is the caller's business. It deletes nothing.
//!
//! # A record as a document
//!
//! `{"observer":{…},<the game's object without its first brace>`: the game's bytes are copied, never
//! parsed and written anew. Elasticsearch gives `_source` back as it was sent, as long as neither
//! `_source.excludes` nor `filter_path` touches it, so what stands behind `observer` is the record,
//! byte for byte. That is why nothing is excluded from `_source`: excludes write it anew (`1e2` becomes
//! `100.0`), and the record would have to be kept a second time as text. Measured with 8.17, records of
//! 107 bytes in batches of 5,000, one connection:
//!
//! | form | records/s | bytes on disk a record |
//! | --- | --- | --- |
//! | flattened copy of the record, copies excluded, text kept beside | 28,000 | 236 |
//! | flattened copy, nothing excluded | 34,000 | 184 |
//! | `observer.fields` as keywords, nothing excluded (this one) | 42,000 | 173 |
//!
//! `observer.fields` has one keyword a top-level text, number or truth value: the name, a tab, the
//! value. It is exactly what [`Term::Field`](observer_wire::text::Term::Field) asks for; a flattened
//! copy would also find nested objects and arrays, and refuses records that are too deep or too long.
//!
//! The *safe form* has no fields at the root, only `observer` with the record's own text in
//! `observer.raw`. It is for records whose names could be mistaken for ours, and for what
//! Elasticsearch refuses (names that are empty or dots, names twice, numbers of 1,001 digits).
//!
//! # What survives
//!
//! A record is reported stored when Elasticsearch has synced its translog (`durability: request`,
//! set in the template): it survives `kill -9` and a power cut of the node, and the loss of the node
//! when `replicas` is 1.

mod aliases;
mod bulk;
mod day;
mod document;
mod items;
mod search;
mod server;
mod template;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use self::aliases::Aliases;
use self::bulk::BodyBytes;
use self::server::Server;
use crate::StoreError;
use crate::logs::{LogPage, LogQuery, LogStore, NewRecord, Stored};

/// Settings of the Elasticsearch log store.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ElasticConfig {
    /// Address of one node or of a balancer before many, with user and password if it wants them:
    /// `https://user:password@search.example:9200`.
    pub url: String,
    /// Most projects that get an alias `logs-<key>`. Each alias of each day is part of the cluster
    /// state, which every node holds; projects beyond are stored and searched all the same.
    pub aliases_max: usize,
    /// Copies of each index beside the first, for the days to come. 0 for a single node.
    pub replicas: u8,
    /// Time a request may take, in milliseconds; all but `_bulk`.
    pub request_timeout_ms: u64,
    /// Time a `_bulk` request may take, in milliseconds.
    pub bulk_timeout_ms: u64,
}

impl Default for ElasticConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:9200".to_owned(),
            aliases_max: 1_000,
            replicas: 1,
            request_timeout_ms: 10_000,
            bulk_timeout_ms: 30_000,
        }
    }
}

impl fmt::Debug for ElasticConfig {
    /// Hides `url`, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ElasticConfig")
            .field("aliases_max", &self.aliases_max)
            .field("replicas", &self.replicas)
            .field("request_timeout_ms", &self.request_timeout_ms)
            .field("bulk_timeout_ms", &self.bulk_timeout_ms)
            .finish_non_exhaustive()
    }
}

/// Log records in Elasticsearch 8 or 9.
#[derive(Debug)]
pub struct ElasticLogStore {
    server: Server,
    aliases: Aliases,
    bulk_timeout: Duration,
    body_bytes: BodyBytes,
}

impl ElasticLogStore {
    /// Connects, checks the server's version and puts the index template.
    ///
    /// # Errors
    ///
    /// [`Refused`](crate::StoreErrorKind::Refused) when the server is not Elasticsearch 8 or 9, the
    /// address is none, or credentials are missing; else as every call.
    pub async fn connect(config: &ElasticConfig) -> Result<Self, StoreError> {
        let timeout = Duration::from_millis(config.request_timeout_ms);
        let server = Server::new(&config.url, timeout)?;
        server.check_version().await?;
        template::put(&server, config.replicas).await?;
        Ok(Self {
            server,
            aliases: Aliases::new(config.aliases_max),
            bulk_timeout: Duration::from_millis(config.bulk_timeout_ms),
            body_bytes: BodyBytes::new(),
        })
    }
}

#[async_trait]
impl LogStore for ElasticLogStore {
    async fn append(&self, batch: &[NewRecord<'_>]) -> Result<Vec<Stored>, StoreError> {
        self.aliases.cover(&self.server, batch).await?;
        bulk::append(self, batch).await
    }

    async fn search(&self, query: &LogQuery) -> Result<LogPage, StoreError> {
        search::search(&self.server, query).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.server.check_health().await?;
        self.aliases.check()
    }
}
