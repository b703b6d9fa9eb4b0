//! `_bulk`: a batch becomes requests, day by day, and each item of the answers becomes what became of a
//! record.
//!
//! Nothing is sent a second time here but what Elasticsearch refused: a request that it refused as a
//! whole, in halves, and a document once more, in the safe form. What is to be sent again later is told
//! to the caller.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use elasticsearch::http::Method;
use serde::Serialize;
use tracing::warn;

use super::ElasticLogStore;
use super::day::Day;
use super::document::{self, Form};
use super::items::{self, Unreadable, Verdict};
use super::server::{Answer, Request};
use crate::logs::{NewRecord, Stored};
use crate::{StoreError, StoreErrorKind};

/// Bytes after which a `_bulk` body is sent; one more document may stand behind them. Larger bodies
/// gain nothing and are taken from the memory that the node has for indexing.
const BODY_BYTES_MAX: usize = 5 * 1024 * 1024;

/// Bytes below which bodies are not made smaller for good, whatever was refused: a request for each
/// record would take all day.
const BODY_BYTES_FLOOR: usize = 256 * 1024;

/// Most ids of one `_mget`, so that an answer stays below a megabyte.
const MGET_IDS_MAX: usize = 1_000;

const OPERATION: &str = "storing of log records";

/// The answer without what we know already: most of its bytes.
const BULK_PATH: &str =
    "/_bulk?filter_path=items.*._id,items.*.status,items.*.error.type,items.*.error.reason";

const MGET_PATH: &str =
    "/_mget?_source=false&filter_path=docs._id,docs.found,docs.error.type,docs.error.reason";

/// Bytes after which a body is sent, as far as this process has learnt what gets through.
#[derive(Debug)]
pub(super) struct BodyBytes {
    /// What nothing on the way refuses.
    most: AtomicUsize,
    /// What was answered in time, of late.
    now: AtomicUsize,
}

impl BodyBytes {
    pub(super) fn new() -> Self {
        Self { most: AtomicUsize::new(BODY_BYTES_MAX), now: AtomicUsize::new(BODY_BYTES_MAX) }
    }

    fn max(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// A body of so many bytes was too large for something on the way: a proxy, say. It will be so next
    /// time.
    fn too_large(&self, bytes: usize) {
        let less = (bytes / 2).max(BODY_BYTES_FLOOR);
        let before = self.most.fetch_min(less, Ordering::Relaxed);
        self.now.fetch_min(less, Ordering::Relaxed);
        if less < before {
            warn!(bytes, bytes_max = less, "a request was too large; the next ones are smaller");
        }
    }

    /// A body of so many bytes had no answer. Were it too much for the time it has, so it would be again,
    /// without end. Of a small one the size is not the reason.
    fn unanswered(&self, bytes: usize) {
        if BODY_BYTES_FLOOR < bytes {
            self.now.fetch_min((bytes / 2).max(BODY_BYTES_FLOOR), Ordering::Relaxed);
        }
    }

    /// A body of so many bytes was answered in time: after one that was full, the next may be larger. By
    /// little: what is too much again costs the time of an answer that does not come.
    fn answered(&self, bytes: usize) {
        let (now, most) = (self.max(), self.most.load(Ordering::Relaxed));
        if now <= bytes && now < most {
            self.now.store((now + now / 8).min(most), Ordering::Relaxed);
        }
    }
}

/// Stores `batch`, of which indices and aliases are there.
///
/// Day by day, the oldest first: a line and the same line sent again may stand on both sides of
/// midnight, and the second is only found once the first is stored.
pub(super) async fn append(
    store: &ElasticLogStore,
    batch: &[NewRecord<'_>],
) -> Result<Vec<Stored>, StoreError> {
    let mut days: BTreeMap<Day, Vec<usize>> = BTreeMap::new();
    for (at, record) in batch.iter().enumerate() {
        days.entry(Day::of(record.received)).or_default().push(at);
    }
    let mut append = Append { store, batch, outcomes: vec![None; batch.len()] };
    for (day, records) in days {
        if let Err(error) = append.store_day(day, records).await {
            if append.outcomes.iter().all(Option::is_none) {
                return Err(error);
            }
            // The caller learns it as records to be sent later, but not why.
            let reason = error.source();
            warn!(error = &error as &dyn Error, reason, "batch stored in part");
            break;
        }
    }
    Ok(append.outcomes.into_iter().map(|outcome| outcome.unwrap_or(Stored::Later)).collect())
}

/// One call of [`append`].
struct Append<'a> {
    store: &'a ElasticLogStore,
    batch: &'a [NewRecord<'a>],
    /// What became of each record; `None` as long as nothing is known.
    outcomes: Vec<Option<Stored>>,
}

/// A record that was refused as a document.
struct Refused {
    at: usize,
    reason: String,
    /// Not by an item of an answer, but with the whole request, in which it was alone.
    alone: bool,
}

/// What came of a request.
enum Posted {
    /// A verdict for each record.
    Each(Vec<Verdict>),
    /// It was refused as it is, and here is why.
    Whole(String),
}

impl Append<'_> {
    /// Stores the records of one day.
    ///
    /// # Errors
    ///
    /// Nothing more can be done now; records without an outcome are to be sent again.
    async fn store_day(&mut self, day: Day, records: Vec<usize>) -> Result<(), StoreError> {
        self.look_around(day, &records).await?;
        let index = day.index();
        let refused = self.send(&index, &self.open(&records), Form::Spliced).await?;
        let refused: Vec<usize> = refused.into_iter().map(|refused| refused.at).collect();
        let refused = self.send(&index, &refused, Form::Safe).await?;
        if refused.iter().any(|refused| refused.alone) {
            self.check_requests(&index).await?;
        }
        for Refused { at, reason, .. } in refused {
            self.outcomes[at] = Some(Stored::Never(reason));
        }
        Ok(())
    }

    /// Those of `records` of which nothing is known.
    fn open(&self, records: &[usize]) -> Vec<usize> {
        records.iter().copied().filter(|at| self.outcomes[*at].is_none()).collect()
    }

    /// Finds the records that are stored on a day beside their own: before it, when they were sent again;
    /// behind it, when they waited here over midnight and what was sent again did not.
    ///
    /// Stored twice on one day they meet the same `_id`; the index of another day knows nothing of it.
    async fn look_around(&mut self, day: Day, records: &[usize]) -> Result<(), StoreError> {
        let again = records.iter().copied().filter(|at| self.batch[*at].again).collect::<Vec<_>>();
        self.look_in(day.before(), &again).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        if let Some(after) = day.after(i64::try_from(now).unwrap_or(i64::MAX)) {
            self.look_in(after, &self.open(records)).await?;
        }
        Ok(())
    }

    async fn look_in(&mut self, day: Day, which: &[usize]) -> Result<(), StoreError> {
        let index = day.index();
        for part in which.chunks(MGET_IDS_MAX) {
            let ids = self.ids(part);
            let docs = ids.iter().map(|id| Place { index: &index, id }).collect();
            let body = serde_json::to_vec(&Asked { docs }).expect("text can always be written");
            let operation = "looking for records sent again";
            let request = Request::new(operation, Method::Post, MGET_PATH).body(body);
            let answer = self.store.server.ask(request).await?.done()?;
            let there = items::read_there(&answer.text, &ids).map_err(|e| answer.unreadable(e))?;
            for (at, there) in part.iter().zip(there) {
                match there {
                    Some(true) => self.outcomes[*at] = Some(Stored::Duplicate),
                    Some(false) => {}
                    // Not knowing is no reason to store it twice.
                    None => self.outcomes[*at] = Some(Stored::Later),
                }
            }
        }
        Ok(())
    }

    /// Sends the records `which` in requests of a bounded size, in order; returns those that were refused.
    /// A request that was refused as a whole is sent in halves, until the record that spoils it is alone.
    async fn send(
        &mut self,
        index: &str,
        which: &[usize],
        form: Form,
    ) -> Result<Vec<Refused>, StoreError> {
        let (mut rest, mut most, mut refused) = (which, usize::MAX, Vec::new());
        while !rest.is_empty() {
            let (count, body) = self.fill(index, rest, most, form);
            let (part, behind) = rest.split_at(count);
            match self.post(part, body).await? {
                Posted::Each(verdicts) => {
                    for (at, verdict) in part.iter().zip(verdicts) {
                        refused.extend(self.settle(*at, verdict).await);
                    }
                    most = most.saturating_mul(2);
                }
                Posted::Whole(_) if 1 < count => {
                    most = count / 2;
                    continue;
                }
                Posted::Whole(reason) => {
                    refused.push(Refused { at: part[0], reason, alone: true });
                }
            }
            rest = behind;
        }
        Ok(refused)
    }

    /// Writes records from the front of `rest` into a body, at most `most`; returns how many.
    fn fill(&self, index: &str, rest: &[usize], most: usize, form: Form) -> (usize, Vec<u8>) {
        let bytes_max = self.store.body_bytes.max();
        let (mut count, mut body) = (0, Vec::new());
        while body.len() < bytes_max && count < most.min(rest.len()) {
            let record = &self.batch[rest[count]];
            let action = Action { create: Place { index, id: record.id } };
            serde_json::to_writer(&mut body, &action).expect("text can always be written");
            body.push(b'\n');
            document::write(record, form, &mut body);
            count += 1;
        }
        (count, body)
    }

    async fn post(&self, part: &[usize], body: Vec<u8>) -> Result<Posted, StoreError> {
        let bytes = body.len();
        let mut request = Request::new(OPERATION, Method::Post, BULK_PATH).body(body);
        request.timeout = Some(self.store.bulk_timeout);
        let answer = match self.store.server.ask(request).await {
            Ok(answer) => answer,
            Err(error) => {
                self.store.body_bytes.unanswered(bytes);
                return Err(error);
            }
        };
        if answer.refuses_documents() {
            if answer.status == 413 && 1 < part.len() {
                self.store.body_bytes.too_large(bytes);
            }
            return Ok(Posted::Whole(answer.words()));
        }
        let answer = answer.done()?;
        self.store.body_bytes.answered(bytes);
        let verdicts = items::read_stored(&answer.text, &self.ids(part));
        verdicts.map(Posted::Each).map_err(|error| answer.unreadable(error))
    }

    /// Keeps what became of a record; returns it when it was refused.
    async fn settle(&mut self, at: usize, verdict: Verdict) -> Option<Refused> {
        self.outcomes[at] = Some(match verdict {
            Verdict::New => Stored::New,
            Verdict::Duplicate => Stored::Duplicate,
            Verdict::Later => Stored::Later,
            Verdict::NoIndex => {
                self.store.aliases.forget(Day::of(self.batch[at].received)).await;
                Stored::Later
            }
            Verdict::Refused(reason) => return Some(Refused { at, reason, alone: false }),
        });
        None
    }

    /// Sends a request that does nothing: no record is given up because no request at all gets through.
    async fn check_requests(&self, index: &str) -> Result<(), StoreError> {
        // There is no such record, and it is not made.
        let body =
            format!("{{\"update\":{{\"_index\":\"{index}\",\"_id\":\"-\"}}}}\n{{\"doc\":{{}}}}\n");
        let request = Request::new("check of requests", Method::Post, BULK_PATH).body(body);
        self.store.server.ask(request).await?.done().map(drop)
    }

    fn ids(&self, which: &[usize]) -> Vec<&str> {
        which.iter().map(|at| self.batch[*at].id).collect()
    }
}

impl Answer {
    /// Whether the request was refused for what it holds; if so, less of it may be taken.
    fn refuses_documents(&self) -> bool {
        match self.status {
            413 => true,
            400 => items::is_fault_of_documents(self.error_type().as_deref()),
            _ => false,
        }
    }

    /// What became of each document is unknown.
    fn unreadable(&self, error: Unreadable) -> StoreError {
        self.error(StoreErrorKind::Unavailable, error)
    }
}

#[derive(Serialize)]
struct Action<'a> {
    create: Place<'a>,
}

/// Where a document is.
#[derive(Serialize)]
struct Place<'a> {
    #[serde(rename = "_index")]
    index: &'a str,
    #[serde(rename = "_id")]
    id: &'a str,
}

#[derive(Serialize)]
struct Asked<'a> {
    docs: Vec<Place<'a>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_refused_for_its_documents_or_for_something_else() {
        let refuses = |status, text| Answer::canned(status, text).refuses_documents();
        assert!(refuses(413, "<html>"));
        assert!(refuses(400, "<html>"));
        assert!(refuses(400, r#"{"error":{"type":"illegal_argument_exception"}}"#));
        assert!(!refuses(400, r#"{"error":{"type":"cluster_block_exception"}}"#));
        for status in [200, 302, 401, 403, 404, 429, 503] {
            assert!(!refuses(status, "{}"), "{status}");
        }
    }

    #[test]
    fn bodies_become_smaller_down_to_the_floor_and_never_larger() {
        let bytes = BodyBytes::new();
        assert_eq!(bytes.max(), BODY_BYTES_MAX);
        bytes.too_large(2 * BODY_BYTES_FLOOR + 2);
        assert_eq!(bytes.max(), BODY_BYTES_FLOOR + 1);
        bytes.too_large(BODY_BYTES_MAX);
        assert_eq!(bytes.max(), BODY_BYTES_FLOOR + 1);
        bytes.answered(BODY_BYTES_MAX);
        assert_eq!(bytes.max(), BODY_BYTES_FLOOR + 1);
        bytes.too_large(10);
        assert_eq!(bytes.max(), BODY_BYTES_FLOOR);
    }

    #[test]
    fn bodies_without_an_answer_become_smaller_and_full_ones_with_one_larger_again() {
        let bytes = BodyBytes::new();
        bytes.unanswered(BODY_BYTES_MAX);
        assert_eq!(bytes.max(), BODY_BYTES_MAX / 2);
        bytes.unanswered(BODY_BYTES_FLOOR);
        assert_eq!(bytes.max(), BODY_BYTES_MAX / 2, "a server that is away says nothing of sizes");
        bytes.unanswered(BODY_BYTES_FLOOR + 1);
        assert_eq!(bytes.max(), BODY_BYTES_FLOOR);
        bytes.answered(BODY_BYTES_FLOOR - 1);
        assert_eq!(bytes.max(), BODY_BYTES_FLOOR, "it was not full");
        bytes.answered(BODY_BYTES_FLOOR);
        assert_eq!(bytes.max(), BODY_BYTES_FLOOR / 8 * 9);
        for _ in 0..30 {
            bytes.answered(bytes.max());
        }
        assert_eq!(bytes.max(), BODY_BYTES_MAX);
    }
}
