//! The fake's documents, by index and id, and how `_bulk` and `_mget` name them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Documents of each index, by their ids.
#[derive(Debug, Default)]
pub(super) struct Kept(BTreeMap<String, BTreeMap<String, Value>>);

/// A document to be created.
#[derive(Debug)]
pub(super) struct Create {
    pub(super) index: String,
    pub(super) id: String,
    document: Value,
}

/// The operations of a `_bulk` body; nothing for one that creates no document. `None` for a body that is
/// none.
pub(super) fn operations(body: &[u8]) -> Option<Vec<Option<Create>>> {
    let mut lines = body.strip_suffix(b"\n")?.split(|byte| *byte == b'\n');
    let mut operations = Vec::new();
    while let Some(action) = lines.next() {
        let action: Value = serde_json::from_slice(action).ok()?;
        let document = serde_json::from_slice(lines.next()?).ok()?;
        let place = &action["create"];
        let name = |of: &str| place[of].as_str().map(str::to_owned);
        let create = match (name("_index"), name("_id")) {
            (Some(index), Some(id)) => Some(Create { index, id, document }),
            _ => None,
        };
        operations.push(create);
    }
    Some(operations)
}

impl Kept {
    /// False when the index is there already.
    pub(super) fn make_index(&mut self, name: &str) -> bool {
        let new = !self.0.contains_key(name);
        self.0.entry(name.to_owned()).or_default();
        new
    }

    /// False when its index has a document of this id.
    pub(super) fn create(&mut self, create: &Create) -> bool {
        let index = self.0.entry(create.index.clone()).or_default();
        let new = !index.contains_key(&create.id);
        if new {
            index.insert(create.id.clone(), create.document.clone());
        }
        new
    }

    pub(super) fn mget(&self, body: &[u8]) -> Value {
        let asked: Value = serde_json::from_slice(body).unwrap_or_default();
        let docs = asked["docs"].as_array().cloned().unwrap_or_default();
        let docs: Vec<Value> = docs.iter().map(|doc| self.doc(doc)).collect();
        json!({ "docs": docs })
    }

    fn doc(&self, asked: &Value) -> Value {
        let id = &asked["_id"];
        let index = asked["_index"].as_str().and_then(|index| self.0.get(index));
        match (index, id.as_str()) {
            (Some(index), Some(name)) => json!({ "_id": id, "found": index.contains_key(name) }),
            _ => json!({ "_id": id, "error": { "type": "index_not_found_exception" } }),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    pub(super) fn all(&self) -> BTreeMap<(String, String), Value> {
        let documents = self.0.iter().flat_map(|(index, documents)| {
            documents.iter().map(|(id, kept)| ((index.clone(), id.clone()), kept.clone()))
        });
        documents.collect()
    }
}
