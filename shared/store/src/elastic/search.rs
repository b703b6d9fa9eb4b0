//! Search: a query becomes a filter of exact terms, and hits become records. No text of an operator is
//! ever read by Elasticsearch as a query, and aliases have no part in it.
//!
//! What Elasticsearch can only say roughly (a phrase whose last word goes on, words longer than its
//! tokens) it says too widely, and [`holds`] decides on the stored text.

use std::time::Duration;

use elasticsearch::http::Method;
use observer_wire::record::Level;
use observer_wire::text::{Term, prefix};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tracing::warn;

use super::day;
use super::document::{self, Found, field_term};
use super::server::{Answer, Request, Server};
use crate::StoreError;
use crate::logs::{LogPage, LogQuery, PAGE_MAX, Position};

/// Most documents of one answer. A document takes up to a megabyte, so an answer takes up to 128 MiB.
const ANSWER_HITS_MAX: usize = 128;

/// Most bytes of an answer: twice what its documents take, so that no true one gets there.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes of records after which a page is full before its limit.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Most requests for one page. Terms that are decided here pass over up to 8,192 documents a page.
const REQUESTS_MAX: usize = 64;

/// How often a search is tried while a shard is missing.
const TRIES_MAX: u32 = 10;

/// Pause between two tries: an index is created within about a tenth of a second.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// Longest word that is one token: the analyzer cuts at 255 UTF-16 units.
const TOKEN_BYTES_MAX: usize = 255;

/// All daily indices; none is no error. An answer without some shard's hits would be a page with
/// holes, so it is refused. No `filter_path`: it writes `_source` anew.
const OPTIONS: &str =
    "ignore_unavailable=true&allow_no_indices=true&allow_partial_search_results=false";

/// Finds records, newest first.
pub(super) async fn search(server: &Server, query: &LogQuery) -> Result<LogPage, StoreError> {
    let wanted = query.limit.min(PAGE_MAX);
    let mut page = LogPage::default();
    if wanted == 0 {
        return Ok(page);
    }
    let mut before = query.before.clone();
    let mut bytes = 0;
    for _ in 0..REQUESTS_MAX {
        // One more than wanted shows whether there are more.
        let size = (wanted - page.hits.len() + 1).min(ANSWER_HITS_MAX);
        let answer = ask(server, query, before.as_ref(), size).await?;
        let last = answer.len() < size;
        for (position, found) in answer {
            if page.hits.len() == wanted {
                page.next = before;
                return Ok(page);
            }
            before = Some(position);
            let Some(found) = found.filter(|found| query.terms.iter().all(|t| holds(t, found)))
            else {
                continue;
            };
            bytes += found.hit.json.len();
            page.hits.push(found.hit);
        }
        if last {
            return Ok(page);
        }
        if PAGE_BYTES_MAX <= bytes {
            break;
        }
    }
    page.next = before;
    Ok(page)
}

/// Asks for the next `size` documents; each with its position, and the record unless it is none.
async fn ask(
    server: &Server,
    query: &LogQuery,
    before: Option<&Position>,
    size: usize,
) -> Result<Vec<(Position, Option<Found>)>, StoreError> {
    let path = format!("/{}/_search?{OPTIONS}", day::ALL);
    let body = body(query, before, size).to_string();
    let answer = ask_whole(server, &path, &body).await?;
    let read: Hits<'_> = answer.read()?;
    let hits = read.hits.hits.into_iter().map(|hit| {
        let (received, seq, id) = hit.sort;
        let found = document::read(hit.source.get());
        if found.is_none() {
            warn!(id, "a document among the logs is not of Observer's form");
        }
        (Position { received, seq, id }, found)
    });
    Ok(hits.collect())
}

/// Asks until all shards answer. An index that is just being created, the next day's at midnight, has
/// no shard for some milliseconds, and all searches would fail with it.
async fn ask_whole(server: &Server, path: &str, body: &str) -> Result<Answer, StoreError> {
    let mut tries = 1;
    loop {
        let mut request = Request::new("search of log records", Method::Post, path).body(body);
        request.answer_bytes_max = ANSWER_BYTES_MAX;
        let answer = server.ask(request).await?;
        if answer.status != 503 || tries == TRIES_MAX {
            return answer.done();
        }
        tries += 1;
        tokio::time::sleep(TRY_EVERY).await;
    }
}

#[derive(Deserialize)]
struct Hits<'a> {
    #[serde(borrow)]
    hits: HitList<'a>,
}

#[derive(Deserialize)]
struct HitList<'a> {
    #[serde(borrow)]
    hits: Vec<Hit<'a>>,
}

#[derive(Deserialize)]
struct Hit<'a> {
    #[serde(borrow, rename = "_source")]
    source: &'a RawValue,
    sort: (i64, u64, String),
}

fn body(query: &LogQuery, before: Option<&Position>, size: usize) -> Value {
    let mut filter = vec![json!({"term": {"observer.project": query.project.as_str()}})];
    if query.since.is_some() || query.until.is_some() {
        let mut range = serde_json::Map::new();
        range.extend(query.since.map(|since| ("gte".to_owned(), since.into())));
        range.extend(query.until.map(|until| ("lt".to_owned(), until.into())));
        filter.push(json!({"range": {"observer.received": range}}));
    }
    if let Some(least) = query.level {
        let levels: Vec<_> = Level::ALL.iter().filter(|level| least <= **level).collect();
        filter.push(json!({"terms": {"observer.level": levels}}));
    }
    if let Some(device) = &query.device {
        filter.push(json!({"term": {"observer.device": device}}));
    }
    query.terms.iter().for_each(|term| push_term(&mut filter, term));
    let mut body = json!({
        "size": size,
        "query": {"bool": {"filter": filter}},
        "sort": [
            {"observer.received": "desc"},
            {"observer.seq": "desc"},
            {"observer.id": "desc"},
        ],
        "track_total_hits": false,
    });
    if let Some(Position { received, seq, id }) = before {
        body["search_after"] = json!([received, seq, id]);
    }
    body
}

fn push_term(filter: &mut Vec<Value>, term: &Term) {
    let phrase = |words: &[String]| json!({"match_phrase": {"observer.text": words.join(" ")}});
    match term {
        Term::Phrase(words) => filter.push(phrase(words)),
        Term::Prefix(words) => {
            let Some((last, whole)) = words.split_last() else {
                return;
            };
            if !whole.is_empty() {
                filter.push(phrase(whole));
            }
            // Not `match_phrase_prefix`: it goes on with fifty words of the index and leaves out the rest.
            let last = prefix(last, TOKEN_BYTES_MAX);
            filter.push(json!({"prefix": {"observer.text": last}}));
        }
        Term::Field { name, value } => {
            filter.push(json!({"term": {"observer.fields": field_term(name, value)}}));
        }
    }
}

/// Whether a record that Elasticsearch found has `term`, where its answer may be too wide.
fn holds(term: &Term, found: &Found) -> bool {
    // A word as long as a token may be the front part of one that is longer.
    let long = |words: &[String]| words.iter().any(|word| TOKEN_BYTES_MAX <= word.len());
    match term {
        Term::Prefix(words) if 1 < words.len() || long(words) => {
            has_words(&found.text, words, |word, last| word.starts_with(last))
        }
        Term::Phrase(words) if long(words) => {
            has_words(&found.text, words, |word, last| word == last)
        }
        Term::Prefix(_) | Term::Phrase(_) | Term::Field { .. } => true,
    }
}

/// Whether `words` stand in `text` next to each other; `same` compares the last one.
fn has_words(text: &str, words: &[String], same: fn(&str, &str) -> bool) -> bool {
    let Some((last, whole)) = words.split_last() else {
        return true;
    };
    let text: Vec<&str> = text.split_whitespace().collect();
    text.windows(words.len())
        .any(|part| part[..whole.len()] == *whole && same(part[whole.len()], last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_phrase_may_go_on_in_its_last_word_only() {
        let has = |query: &str| {
            has_words("the player spawned here", &words(query), |word, last| word.starts_with(last))
        };
        assert!(has("player spa"));
        assert!(has("the player spawned here"));
        assert!(has("her"));
        assert!(!has("play spawned"));
        assert!(!has("player here"));
        assert!(!has("the player spawned here too"));
    }

    #[test]
    fn a_query_is_only_ever_exact_terms() {
        let mut filter = Vec::new();
        push_term(&mut filter, &Term::Prefix(words("out now")));
        push_term(&mut filter, &Term::Field { name: "a.*".into(), value: "b\"".into() });
        assert_eq!(
            Value::from(filter),
            json!([
                {"match_phrase": {"observer.text": "out"}},
                {"prefix": {"observer.text": "now"}},
                {"term": {"observer.fields": "a.*\tb\""}},
            ])
        );
    }
}
