//! `_bulk` by its script, and the fixed answers to what else the store asks at its start.

use serde_json::{Value, json};

use super::http::{Delivery, Reply};
use super::kept::{Create, operations};
use super::{Act, Answer, Items, Sent, State};
use crate::device::below;

pub(super) fn root() -> Value {
    json!({ "version": { "number": "8.17.0" } })
}

pub(super) fn health() -> Value {
    json!({ "status": "green" })
}

pub(super) fn done() -> Value {
    json!({ "acknowledged": true })
}

pub(super) fn none() -> Value {
    json!({ "index_templates": [] })
}

pub(super) fn there() -> Value {
    json!({ "error": { "type": "resource_already_exists_exception" } })
}

pub(super) fn no_hits() -> Value {
    json!({ "hits": { "hits": [] } })
}

impl State {
    pub(super) fn bulk(&mut self, body: &[u8]) -> Reply {
        let Some(operations) = operations(body) else {
            let error = json!({ "error": { "type": "illegal_argument_exception" } });
            return Reply::json(400, &error);
        };
        let creates: Vec<Create> = operations.into_iter().flatten().collect();
        if creates.is_empty() {
            // The store's question whether requests get through at all: it names no document.
            if let Answer::Status(status) = self.usual.answer {
                return Reply::text(status, "{}");
            }
            let item = json!({ "update": { "_id": "-", "status": 404 } });
            return Reply::json(200, &json!({ "items": [item] }));
        }
        for create in &creates {
            *self.sends.entry(create.id.clone()).or_default() += 1;
        }
        let reply = self.reply(body, &creates);
        let status = if reply.delivery == Delivery::Never { 0 } else { reply.status };
        self.sent.push(Sent { documents: creates.len(), bytes: body.len(), status });
        reply
    }

    fn reply(&mut self, body: &[u8], creates: &[Create]) -> Reply {
        if self.body_bytes_max.is_some_and(|max| max < body.len()) {
            return Reply::text(413, "<html>413 Request Entity Too Large</html>");
        }
        if self.answered_bytes_max.is_some_and(|max| max < body.len()) {
            let delivery = Delivery::Never;
            return Reply { delivery, ..Reply::text(200, "") };
        }
        let refused = self.refused_text.as_deref().is_some_and(|text| holds(body, text));
        if refused {
            return Reply::text(400, "<html>400 Bad Request</html>");
        }
        let Act { items, answer } = self.script.pop_front().unwrap_or(self.usual);
        if let Answer::Status(status) = answer {
            return Reply::json(status, &json!({ "error": { "type": "scripted" } }));
        }
        let items = creates.iter().map(|create| self.item(create, items)).collect();
        deliver(items, answer)
    }

    fn item(&mut self, create: &Create, items: Items) -> Value {
        self.counted += 1;
        let status = match items {
            Items::Half(status) if self.counted.is_multiple_of(2) => {
                self.refused += 1;
                status
            }
            Items::Dropped => 201,
            Items::Half(_) | Items::Stored if self.kept.create(create) => 201,
            Items::Half(_) | Items::Stored => {
                self.known += 1;
                409
            }
        };
        let item = json!({ "_index": create.index, "_id": create.id, "status": status });
        json!({ "create": item })
    }
}

fn holds(body: &[u8], text: &str) -> bool {
    memchr::memmem::find(body, text.as_bytes()).is_some()
}

/// The answer of these items, as it comes.
fn deliver(mut items: Vec<Value>, answer: Answer) -> Reply {
    match answer {
        Answer::OneShort => drop(items.pop()),
        Answer::OneOver => items.extend(items.last().cloned()),
        Answer::Stranger => {
            if let Some(last) = items.last_mut() {
                last["create"]["_id"] = json!("nobody");
            }
        }
        Answer::Shuffled => {
            for last in (1..items.len()).rev() {
                items.swap(last, below(last + 1));
            }
        }
        Answer::Whole
        | Answer::Status(_)
        | Answer::Hang
        | Answer::Cut
        | Answer::Garbage
        | Answer::Truncated
        | Answer::Slow(_)
        | Answer::Huge(_) => {}
    }
    let mut reply = Reply::json(200, &json!({ "errors": true, "items": items }));
    match answer {
        Answer::Hang => reply.delivery = Delivery::Never,
        Answer::Cut => reply.delivery = Delivery::Half,
        Answer::Slow(pause) => reply.delivery = Delivery::After(pause),
        Answer::Garbage => reply.body = b"<html>welcome to the hotel</html>".to_vec(),
        Answer::Truncated => reply.body.truncate(reply.body.len() / 2),
        Answer::Huge(bytes) => {
            let mut body = vec![b' '; bytes.saturating_sub(reply.body.len())];
            body.append(&mut reply.body);
            reply.body = body;
        }
        Answer::Whole
        | Answer::Status(_)
        | Answer::OneShort
        | Answer::OneOver
        | Answer::Stranger
        | Answer::Shuffled => {}
    }
    reply
}
