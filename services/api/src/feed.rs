//! Log events from the bus become records that viewers can be shown: once a process, whatever the
//! number of viewers.

use observer_bus::Cursor;
use observer_wire::event::{Event, EventError, LineKind};
use observer_wire::ids::write_record_id;
use observer_wire::record::{self, Level};
use observer_wire::time::to_rfc3339;

use crate::item::Stamp;

/// The records of one event.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) records: Vec<Record>,
    /// Where the event stands; a viewer that saw it continues behind it.
    pub(crate) cursor: Cursor,
}

/// A live record.
#[derive(Debug)]
pub(crate) struct Record {
    /// What the game sent.
    pub(crate) json: String,
    /// What we know of it: our object `observer`.
    pub(crate) observer: String,
    pub(crate) device: String,
    pub(crate) level: Level,
    /// Normalised text of all values, for searches.
    pub(crate) text: String,
}

impl Record {
    /// Bytes that it adds to a frame.
    pub(crate) fn bytes(&self) -> usize {
        self.json.len() + self.observer.len()
    }
}

impl Batch {
    /// Reads an event.
    ///
    /// # Errors
    ///
    /// When it is none; then nobody knows how many records it has.
    pub(crate) fn read(payload: &[u8], cursor: Cursor) -> Result<Self, EventError> {
        let event = Event::parse(payload)?;
        let mut records = Vec::new();
        for line in event.lines.iter().filter(|line| line.head.kind == LineKind::Logs) {
            let split = record::split(line.json);
            let split = split.map_err(|error| EventError::Malformed(error.to_string().into()))?;
            for (index, json) in (0_u32..).zip(split) {
                let head = &line.head;
                let mut text = String::new();
                let read = record::read(json.get(), &mut text);
                let mut id = String::new();
                write_record_id(&head.id, head.index + index, &mut id);
                let stamp = Stamp {
                    id: &id,
                    key: head.key.as_str(),
                    device: &head.device,
                    session: &head.session,
                    seq: head.seq + u64::from(index),
                    received: to_rfc3339(head.received),
                    rev: head.rev,
                    level: read.level,
                    tag: read.tag.as_deref(),
                    time: read.time.map(to_rfc3339),
                    message: read.message.as_deref(),
                };
                records.push(Record {
                    observer: stamp.to_json(),
                    json: json.get().to_owned(),
                    device: head.device.to_string(),
                    level: read.level,
                    text,
                });
            }
        }
        Ok(Self { records, cursor })
    }
}
