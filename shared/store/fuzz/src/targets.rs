//! What must hold of the parsers of Elasticsearch's answers, whatever the bytes are. A fuzzer calls these
//! functions, and so do the ordinary tests (`tests/corpus.rs`), over the corpus that is checked in.

#[path = "../../src/elastic/items.rs"]
#[allow(dead_code)] // The store uses the rest of it.
mod items;

use items::{Verdict, read_stored, read_there};

/// A parser under test.
pub type Target = fn(&[u8]);

/// Every target, by the name of its folder in the corpus.
pub const TARGETS: [(&str, Target); 2] = [("stored", stored), ("there", there)];

/// Ids that were sent, one of them twice.
const IDS: [&str; 4] = ["r1-000", "r1-001", "é\"2", "r1-000"];

/// Longest reason that is kept, in bytes: what is quoted, and the name of the error.
const REASON_BYTES_MAX: usize = 512;

/// An answer to a `_bulk` is believed whole or not at all, and a record is settled only by an item that
/// bears its id. The first byte says how many documents were sent.
pub fn stored(bytes: &[u8]) {
    let Some((ids, text)) = sent(bytes) else { return };
    let Ok(verdicts) = read_stored(text, ids) else { return };
    assert_eq!(verdicts.len(), ids.len());
    // Read as anybody would: as many items as documents, and each id as often as it was sent.
    let items = all(text, "items");
    let mut told: Vec<&str> =
        items.iter().filter_map(|item| item["create"]["_id"].as_str()).collect();
    let mut asked = ids.to_vec();
    told.sort_unstable();
    asked.sort_unstable();
    assert_eq!(told, asked);
    let status = |wanted: &[u64]| {
        let is = |item: &&serde_json::Value| {
            item["create"]["status"].as_u64().is_some_and(|status| wanted.contains(&status))
        };
        items.iter().filter(is).count()
    };
    let settled = |wanted: &Verdict| verdicts.iter().filter(|verdict| *verdict == wanted).count();
    assert_eq!(settled(&Verdict::New), status(&[200, 201]));
    assert_eq!(settled(&Verdict::Duplicate), status(&[409]));
    let refused = verdicts.iter().filter_map(|verdict| match verdict {
        Verdict::Refused(words) => Some(words.len()),
        Verdict::New | Verdict::Duplicate | Verdict::Later | Verdict::NoIndex => None,
    });
    assert!(refused.clone().count() <= status(&[400, 413]));
    assert!(refused.max().unwrap_or_default() <= REASON_BYTES_MAX + text.len());
}

/// An answer to an `_mget` says of each document that it is there, that it is not, or nothing.
pub fn there(bytes: &[u8]) {
    let Some((ids, text)) = sent(bytes) else { return };
    let Ok(there) = read_there(text, ids) else { return };
    assert_eq!(there.len(), ids.len());
    let docs = all(text, "docs");
    assert_eq!(docs.len(), ids.len());
    for (place, id) in ids.iter().enumerate() {
        let mut own = docs.iter().filter(|doc| doc["_id"] == *id);
        let said = |doc: &serde_json::Value| doc["found"].as_bool();
        if there[place] == Some(true) {
            assert!(own.any(|doc| said(doc) == Some(true)), "{id}");
        } else {
            assert!(own.any(|doc| said(doc) != Some(true)), "{id}");
        }
    }
}

/// The ids that were sent, and the answer.
fn sent(bytes: &[u8]) -> Option<(&'static [&'static str], &str)> {
    let (count, text) = bytes.split_first()?;
    Some((&IDS[..usize::from(*count) % (IDS.len() + 1)], std::str::from_utf8(text).ok()?))
}

fn all(text: &str, of: &str) -> Vec<serde_json::Value> {
    let whole: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    whole[of].as_array().cloned().unwrap_or_default()
}
