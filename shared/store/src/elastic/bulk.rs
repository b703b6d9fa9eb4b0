//! `_bulk`: a batch becomes requests, and each item of the answers becomes what became of a record.
//!
//! Nothing is sent a second time here but what Elasticsearch refused as a document: that once, in
//! the safe form. What is to be sent again later is told to the caller.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use elasticsearch::http::Method;
use observer_wire::text;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::ElasticLogStore;
use super::day::Day;
use super::document::{self, Form};
use super::server::{Answer, REASON_BYTES_MAX, Request, Server};
use crate::logs::{NewRecord, Stored};
use crate::{StoreError, StoreErrorKind};

/// Bytes after which a `_bulk` body is sent; one more document may stand behind them. Larger bodies
/// gain nothing and are taken from the memory that the node has for indexing.
const BODY_BYTES_MAX: usize = 5 * 1024 * 1024;

/// Most ids of one `_mget`, so that an answer stays below a megabyte.
const MGET_IDS_MAX: usize = 1_000;

/// The answer without what we know already: most of its bytes.
const BULK_PATH: &str = "/_bulk?filter_path=items.*.status,items.*.error.type,items.*.error.reason";

const MGET_PATH: &str =
    "/_mget?_source=false&filter_path=docs.found,docs.error.type,docs.error.reason";

/// What an item with status 400 may also be: the index's fault, which an operator can mend.
const INDEX_FAULTS: [&str; 4] = [
    "index_closed_exception",
    // No more shards fit into the cluster, so the day's index cannot be created.
    "validation_exception",
    "invalid_index_name_exception",
    "cluster_block_exception",
];

/// Stores `batch`, of which indices and aliases are there.
pub(super) async fn append(
    store: &ElasticLogStore,
    batch: &[NewRecord<'_>],
) -> Result<Vec<Stored>, StoreError> {
    let outcomes = vec![None; batch.len()];
    let mut append = Append { store, batch, days: HashMap::new(), outcomes };

    append.look_for_again().await?;
    let open: Vec<usize> = append.open().collect();
    let refused = match append.send(&open, Form::Spliced).await {
        Sent { lost: Some(error), .. } if append.open().count() == batch.len() => {
            return Err(error);
        }
        sent => sent.settled_but_refused(),
    };
    let retried: Vec<usize> = refused.iter().map(|(at, _)| *at).collect();
    for (at, reason) in append.send(&retried, Form::Safe).await.settled_but_refused() {
        append.outcomes[at] = Some(Stored::Never(reason));
    }
    Ok(append.outcomes.into_iter().map(|outcome| outcome.unwrap_or(Stored::Later)).collect())
}

/// One call of [`append`].
struct Append<'a> {
    store: &'a ElasticLogStore,
    batch: &'a [NewRecord<'a>],
    /// Names of indices, made once.
    days: HashMap<Day, String>,
    /// What became of each record; `None` as long as nothing is known.
    outcomes: Vec<Option<Stored>>,
}

/// What sending left over.
#[derive(Default)]
struct Sent {
    /// Records that were refused as documents, and why.
    refused: Vec<(usize, String)>,
    /// The request that failed as a whole; nothing was sent after it.
    lost: Option<StoreError>,
}

impl Sent {
    fn settled_but_refused(self) -> Vec<(usize, String)> {
        if let Some(error) = self.lost {
            // The caller learns it as records to be sent later, but not why.
            let reason = std::error::Error::source(&error);
            warn!(error = &error as &dyn std::error::Error, reason, "batch stored in part");
        }
        self.refused
    }
}

impl Append<'_> {
    /// Records of which nothing is known.
    fn open(&self) -> impl Iterator<Item = usize> {
        self.outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_none()).map(|(at, _)| at)
    }

    /// Finds the records that were stored on the day before they arrived again.
    ///
    /// Stored twice on one day they meet the same `_id`; the index of another day knows nothing of it.
    async fn look_for_again(&mut self) -> Result<(), StoreError> {
        let again: Vec<usize> = (0..self.batch.len()).filter(|at| self.batch[*at].again).collect();
        for part in again.chunks(MGET_IDS_MAX) {
            let places = part.iter().map(|at| {
                let record = &self.batch[*at];
                Place { index: Day::of(record.received).before().index(), id: record.id }
            });
            let found = ask_for(&self.store.server, places.collect()).await?;
            for (at, outcome) in part.iter().zip(found) {
                self.outcomes[*at] = outcome;
            }
        }
        Ok(())
    }

    /// Sends the records `which` in requests of a bounded size, in order.
    async fn send(&mut self, which: &[usize], form: Form) -> Sent {
        let mut sent = Sent::default();
        let mut rest = 0..which.len();
        while !rest.is_empty() {
            let (part, body) = self.fill(which, &mut rest, form);
            let timeout = self.store.bulk_timeout;
            let items = match send_body(&self.store.server, body, timeout, part.len()).await {
                Ok(items) => items,
                Err(error) => {
                    sent.lost = Some(error);
                    break;
                }
            };
            for (at, item) in which[part].iter().zip(items) {
                match item.verdict() {
                    Verdict::Is(stored) => self.outcomes[*at] = Some(stored),
                    Verdict::NoIndex => {
                        self.store.aliases.forget(Day::of(self.batch[*at].received)).await;
                        self.outcomes[*at] = Some(Stored::Later);
                    }
                    Verdict::Refused(reason) => sent.refused.push((*at, reason)),
                }
            }
        }
        sent
    }

    /// Writes records from the front of `rest` into a body, and takes them off it.
    fn fill(
        &mut self,
        which: &[usize],
        rest: &mut Range<usize>,
        form: Form,
    ) -> (Range<usize>, Vec<u8>) {
        let start = rest.start;
        let mut body = Vec::new();
        while body.len() < BODY_BYTES_MAX
            && let Some(next) = rest.next()
        {
            let record = &self.batch[which[next]];
            let day = Day::of(record.received);
            let index = self.days.entry(day).or_insert_with(|| day.index());
            let action = Action { create: Place { index: &*index, id: record.id } };
            serde_json::to_writer(&mut body, &action).expect("text can always be written");
            body.push(b'\n');
            document::write(record, form, &mut body);
        }
        (start..rest.start, body)
    }
}

#[derive(Serialize)]
struct Action<'a> {
    create: Place<'a, &'a str>,
}

/// Where a document is.
#[derive(Serialize)]
struct Place<'a, I> {
    #[serde(rename = "_index")]
    index: I,
    #[serde(rename = "_id")]
    id: &'a str,
}

async fn send_body(
    server: &Server,
    body: Vec<u8>,
    timeout: Duration,
    count: usize,
) -> Result<Vec<Item>, StoreError> {
    let mut request = Request::new("storing of log records", Method::Post, BULK_PATH).body(body);
    request.timeout = Some(timeout);
    read_items(&server.ask(request).await?.done()?, count)
}

/// Reads an answer to `count` documents, item by item.
fn read_items(answer: &Answer, count: usize) -> Result<Vec<Item>, StoreError> {
    #[derive(Deserialize)]
    struct Items {
        items: Vec<Operation>,
    }
    #[derive(Deserialize)]
    struct Operation {
        create: Item,
    }
    let items: Items = answer.read()?;
    answer.expect_count(items.items.len(), count)?;
    Ok(items.items.into_iter().map(|operation| operation.create).collect())
}

/// What Elasticsearch says of one document.
#[derive(Debug, Deserialize)]
struct Item {
    status: u16,
    error: Option<Reason>,
}

#[derive(Debug, Deserialize)]
struct Reason {
    #[serde(rename = "type")]
    kind: String,
    reason: Option<String>,
}

/// What an item means.
#[derive(Debug, PartialEq)]
enum Verdict {
    Is(Stored),
    /// The day's index is gone, and is not created by itself.
    NoIndex,
    /// It is the document's fault.
    Refused(String),
}

impl Item {
    fn verdict(self) -> Verdict {
        let kind = self.error.as_ref().map_or("", |error| error.kind.as_str());
        match self.status {
            200 | 201 => Verdict::Is(Stored::New),
            409 => Verdict::Is(Stored::Duplicate),
            404 => Verdict::NoIndex,
            400 | 413 if !INDEX_FAULTS.contains(&kind) => {
                Verdict::Refused(self.error.map_or_else(String::new, Reason::words))
            }
            // 429, 5xx, a block, missing rights: of the server, not of the record. Whatever else a
            // status may mean, a record that was not stored is not given up.
            _ => Verdict::Is(Stored::Later),
        }
    }
}

impl Reason {
    fn words(self) -> String {
        let mut words = self.kind;
        if let Some(reason) = self.reason {
            words.push_str(": ");
            words.push_str(text::prefix(&reason, REASON_BYTES_MAX));
        }
        words
    }
}

/// Asks whether documents exist; `None` for one that does not.
async fn ask_for(
    server: &Server,
    docs: Vec<Place<'_, String>>,
) -> Result<Vec<Option<Stored>>, StoreError> {
    #[derive(Serialize)]
    struct Asked<'a> {
        docs: Vec<Place<'a, String>>,
    }
    let count = docs.len();
    let body = serde_json::to_vec(&Asked { docs }).expect("text can always be written");
    let request = Request::new("looking for records sent again", Method::Post, MGET_PATH);
    read_found(&server.ask(request.body(body)).await?.done()?, count)
}

fn read_found(answer: &Answer, count: usize) -> Result<Vec<Option<Stored>>, StoreError> {
    #[derive(Deserialize)]
    struct Found {
        docs: Vec<Doc>,
    }
    #[derive(Deserialize)]
    struct Doc {
        found: Option<bool>,
        error: Option<Reason>,
    }
    let found: Found = answer.read()?;
    answer.expect_count(found.docs.len(), count)?;
    let outcome = |doc: Doc| match (doc.found, doc.error) {
        (Some(true), _) => Some(Stored::Duplicate),
        (Some(false), _) => None,
        // Nothing was stored on that day.
        (None, Some(error)) if error.kind == "index_not_found_exception" => None,
        // Not knowing is no reason to store it twice.
        (None, _) => Some(Stored::Later),
    };
    Ok(found.docs.into_iter().map(outcome).collect())
}

impl Answer {
    /// An answer about another number of documents is not the answer to what was sent.
    fn expect_count(&self, told: usize, asked: usize) -> Result<(), StoreError> {
        if told == asked {
            return Ok(());
        }
        let words = format!("an answer of {told} items to {asked} documents");
        Err(self.error(StoreErrorKind::Unavailable, words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(item: &str) -> Verdict {
        let answer = Answer::canned(200, &format!(r#"{{"items":[{{"create":{item}}}]}}"#));
        read_items(&answer, 1).unwrap().remove(0).verdict()
    }

    fn later(item: &str) {
        assert_eq!(verdict(item), Verdict::Is(Stored::Later), "{item}");
    }

    #[test]
    fn each_item_is_settled_by_its_own_status() {
        assert_eq!(verdict(r#"{"status":201}"#), Verdict::Is(Stored::New));
        assert_eq!(
            verdict(
                r#"{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"[r1]:
                version conflict, document already exists (current version [1])"}}"#
                    .replace('\n', " ")
                    .as_str()
            ),
            Verdict::Is(Stored::Duplicate)
        );
        assert_eq!(
            verdict(
                r#"{"status":404,"error":{"type":"index_not_found_exception","reason":"no such index"}}"#
            ),
            Verdict::NoIndex
        );
    }

    #[test]
    fn what_is_the_servers_fault_is_sent_again_later() {
        later(
            r#"{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"rejected execution of coordinating operation"}}"#,
        );
        later(
            r#"{"status":403,"error":{"type":"cluster_block_exception","reason":"index [x] blocked by: [FORBIDDEN/8/index write (api)];"}}"#,
        );
        later(
            r#"{"status":503,"error":{"type":"unavailable_shards_exception","reason":"primary shard is not active"}}"#,
        );
        later(r#"{"status":400,"error":{"type":"index_closed_exception","reason":"closed"}}"#);
        later(
            r#"{"status":400,"error":{"type":"validation_exception","reason":"Validation Failed: 1: this action would add [1] shards, but this cluster currently has [1000]/[1000] maximum normal shards open;"}}"#,
        );
        later(r#"{"status":500}"#);
        later(r#"{"status":401}"#);
        later(r#"{"status":302}"#);
    }

    #[test]
    fn what_is_the_documents_fault_is_refused_with_the_reason() {
        assert_eq!(
            verdict(
                r#"{"status":400,"error":{"type":"document_parsing_exception","reason":"[1:60] failed to parse: field name cannot be an empty string"}}"#
            ),
            Verdict::Refused(
                "document_parsing_exception: [1:60] failed to parse: field name cannot be an empty string"
                    .to_owned()
            )
        );
        let long = "é".repeat(REASON_BYTES_MAX);
        let Verdict::Refused(words) = verdict(&format!(
            r#"{{"status":400,"error":{{"type":"mapper_parsing_exception","reason":"{long}"}}}}"#
        )) else {
            panic!("not refused");
        };
        assert!(words.len() < REASON_BYTES_MAX + 64);
    }

    #[test]
    fn of_an_answer_that_cannot_be_read_nothing_is_believed() {
        let whole = r#"{"items":[{"create":{"status":201}},{"create":{"status":201}}]}"#;
        assert_eq!(read_items(&Answer::canned(200, whole), 2).unwrap().len(), 2);
        for (text, count) in [
            (whole, 1),
            (whole, 3),
            (&whole[..40], 2),
            ("", 1),
            ("{}", 1),
            ("<html>bad gateway</html>", 1),
            (r#"{"items":[{"index":{"status":201}}]}"#, 1),
            (r#"{"items":[{"create":{"status":"201"}}]}"#, 1),
            (r#"{"items":[{"create":{}}]}"#, 1),
        ] {
            let error = read_items(&Answer::canned(200, text), count).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{text}");
        }
    }

    #[test]
    fn a_record_of_yesterday_is_a_duplicate_and_an_unknown_one_waits() {
        let text = r#"{"docs":[{"found":true},{"found":false},
            {"error":{"type":"index_not_found_exception","reason":"no such index [x]"}},
            {"error":{"type":"no_shard_available_action_exception","reason":null}}]}"#;
        let found = read_found(&Answer::canned(200, text), 4).unwrap();
        assert_eq!(found, [Some(Stored::Duplicate), None, None, Some(Stored::Later)]);
        assert!(read_found(&Answer::canned(200, text), 3).is_err());
    }
}
