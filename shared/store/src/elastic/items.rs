//! What Elasticsearch says of each document that it was sent or asked for. No I/O, and nothing else of
//! this crate: the fuzzer takes the file as it is.
//!
//! An answer is believed whole or not at all. Items are matched by `_id`, never by their place alone: an
//! answer in another order, or to another request, must not settle a record that is not stored.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use observer_wire::text;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Bytes of the server's words that are kept with a record: reasons quote it.
const REASON_BYTES_MAX: usize = 512;

/// What an item with status 400 may also be: the index's fault, which an operator can mend.
const INDEX_FAULTS: [&str; 4] = [
    "index_closed_exception",
    // No more shards fit into the cluster, so the day's index cannot be created.
    "validation_exception",
    "invalid_index_name_exception",
    "cluster_block_exception",
];

/// What an item says of its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is stored.
    New,
    /// It had been stored before.
    Duplicate,
    /// It was not stored, and is to be sent again.
    Later,
    /// The day's index is gone, and is not created by itself.
    NoIndex,
    /// It is the document's fault, and here is why.
    Refused(String),
}

/// Why nothing of an answer is believed. What became of each document is unknown then.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// It was cut off, comes from something in between, or tells of a document that nobody sent.
    #[error("not the answer to what was sent: {0}")]
    Json(#[from] serde_json::Error),
    /// It tells of some documents only.
    #[error("an answer of {told} items to {sent} documents")]
    Short {
        /// Items of the answer.
        told: usize,
        /// Documents that were sent.
        sent: usize,
    },
}

/// Reads the answer to a `_bulk` of documents to be created, with these ids; a verdict each, in their
/// order.
///
/// # Errors
///
/// [`Unreadable`] unless each document has one item, and no item is of another one.
pub(super) fn read_stored(answer: &str, ids: &[&str]) -> Result<Vec<Verdict>, Unreadable> {
    #[derive(Deserialize)]
    struct Items<'a> {
        #[serde(borrow)]
        items: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Operation<'a> {
        #[serde(borrow)]
        create: Item<'a>,
    }
    let Items { items } = serde_json::from_str(answer)?;
    match_items(items, ids, |Operation { create }| create.verdict())
}

/// Reads the answer to an `_mget` of these ids; whether each is there, in their order. `None` when that is
/// not known.
///
/// # Errors
///
/// As [`read_stored`].
pub(super) fn read_there(answer: &str, ids: &[&str]) -> Result<Vec<Option<bool>>, Unreadable> {
    #[derive(Deserialize)]
    struct Docs<'a> {
        #[serde(borrow)]
        docs: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Doc<'a> {
        #[serde(borrow, rename = "_id")]
        id: Cow<'a, str>,
        found: Option<bool>,
        error: Option<Reason>,
    }
    let Docs { docs } = serde_json::from_str(answer)?;
    match_items(docs, ids, |doc: Doc<'_>| match (doc.found, doc.error) {
        (Some(found), _) => (doc.id, Some(found)),
        // Nothing was stored on that day.
        (None, Some(error)) if error.kind == "index_not_found_exception" => (doc.id, Some(false)),
        (None, _) => (doc.id, None),
    })
}

/// Whether a request that failed as a whole with status 400 failed for its documents.
pub(super) fn is_fault_of_documents(error_type: Option<&str>) -> bool {
    error_type.is_none_or(|kind| !INDEX_FAULTS.contains(&kind))
}

/// What Elasticsearch says of one document.
#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, rename = "_id")]
    id: Cow<'a, str>,
    status: u16,
    error: Option<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(rename = "type")]
    kind: String,
    reason: Option<String>,
}

impl<'a> Item<'a> {
    fn verdict(self) -> (Cow<'a, str>, Verdict) {
        let kind = self.error.as_ref().map(|error| error.kind.as_str());
        let verdict = match self.status {
            200 | 201 => Verdict::New,
            409 => Verdict::Duplicate,
            404 => Verdict::NoIndex,
            400 | 413 if is_fault_of_documents(kind) => {
                Verdict::Refused(self.error.map_or_else(String::new, Reason::words))
            }
            // 429, 5xx, a block, missing rights: of the server, not of the record. Whatever else a
            // status may mean, a record that was not stored is not given up.
            _ => Verdict::Later,
        };
        (self.id, verdict)
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

/// Reads the JSON array `items`, of which each names an id of `ids`; what it says, in the order of `ids`.
///
/// What is kept while reading is bound by `ids`, not by the answer.
fn match_items<'a, I, T>(
    items: &'a RawValue,
    ids: &[&str],
    read: impl Fn(I) -> (Cow<'a, str>, T),
) -> Result<Vec<T>, Unreadable>
where
    I: Deserialize<'a>,
{
    let said = ids.iter().map(|_| None).collect();
    let matching = Matching { places: Places::new(ids), said, read, item: PhantomData };
    let said = serde_json::Deserializer::from_str(items.get()).deserialize_seq(matching)?;
    let told = said.iter().flatten().count();
    let whole: Option<Vec<T>> = said.into_iter().collect();
    whole.ok_or(Unreadable::Short { told, sent: ids.len() })
}

/// Reads items one by one and keeps what each says at the place of its id.
struct Matching<'s, I, T, R> {
    places: Places<'s>,
    said: Vec<Option<T>>,
    read: R,
    item: PhantomData<I>,
}

impl<'de, I, T, R> Visitor<'de> for Matching<'_, I, T, R>
where
    I: Deserialize<'de>,
    R: Fn(I) -> (Cow<'de, str>, T),
{
    type Value = Vec<Option<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item for each document")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Self::Value, A::Error> {
        while let Some(item) = items.next_element()? {
            let (id, said) = (self.read)(item);
            let Some(place) = self.places.take(&id) else {
                return Err(A::Error::custom("an item of a document that was not sent"));
            };
            self.said[place] = Some(said);
        }
        Ok(self.said)
    }
}

/// Where ids stand among those that were sent. One that was sent twice has two places, and each is taken
/// once.
struct Places<'s> {
    ids: &'s [&'s str],
    taken: Vec<bool>,
    /// The first place that is not taken, as long as items come in order.
    next: usize,
    /// All places, last ones first; made once an item comes out of order.
    by_id: Option<HashMap<&'s str, Vec<usize>>>,
}

impl<'s> Places<'s> {
    fn new(ids: &'s [&'s str]) -> Self {
        Self { ids, taken: vec![false; ids.len()], next: 0, by_id: None }
    }

    /// The first free place of `id`; `None` when there is none.
    fn take(&mut self, id: &str) -> Option<usize> {
        let place = if self.by_id.is_none() && self.ids.get(self.next) == Some(&id) {
            self.next
        } else {
            self.find(id)?
        };
        self.taken[place] = true;
        self.next = place + 1;
        Some(place)
    }

    fn find(&mut self, id: &str) -> Option<usize> {
        let by_id = self.by_id.get_or_insert_with(|| {
            let mut by_id: HashMap<_, Vec<usize>> = HashMap::new();
            for (place, id) in self.ids.iter().enumerate().rev() {
                by_id.entry(*id).or_default().push(place);
            }
            by_id
        });
        let places = by_id.get_mut(id)?;
        loop {
            let place = places.pop()?;
            if !self.taken[place] {
                return Some(place);
            }
        }
    }
}

#[cfg(test)]
#[path = "items/tests.rs"] // Where the fuzzer, which takes this file, finds it too.
mod tests;
