//! Deliveries become records: each event is cut into its lines, each line into its records, and the
//! recognised fields of each are read. Nothing is stored or settled here.

use std::ops::Range;

use observer_store::logs::NewRecord;
use observer_wire::event::{self, Event, EventError, Line, LineHead, LineKind};
use observer_wire::record::{self, Recognised};
use observer_wire::{ProjectId, ids};

/// Records of a batch, past which no further delivery is added: what a store takes in one call, and what
/// is held in memory. The last delivery may bring some more.
pub(crate) const BATCH_RECORDS_MAX: usize = 5_000;

/// Most bytes of events of a batch, past which no further delivery is added.
pub(crate) const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Records of several deliveries, ready to be stored.
#[derive(Default)]
pub(crate) struct Batch<'a> {
    records: Vec<Prepared<'a>>,
    /// Ids and search texts of all records, one behind the other: no allocation a record.
    arena: String,
    /// Search text of the record at hand.
    scratch: String,
}

/// A record that waits for the arena to be whole before it can borrow from it.
struct Prepared<'a> {
    project: ProjectId,
    /// The line that brought it.
    line: &'a LineHead<'a>,
    /// Its index in the line's payload.
    place: u32,
    id: Range<usize>,
    text: Range<usize>,
    recognised: Recognised<'a>,
    json: &'a str,
}

impl<'a> Batch<'a> {
    /// Number of records.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Adds the records of a delivery; the range says which are its.
    ///
    /// # Errors
    ///
    /// [`EventError`] when the delivery is no event; nothing was added.
    pub(crate) fn add(&mut self, event: &'a Event<'a>) -> Result<Range<usize>, EventError> {
        let start = self.records.len();
        for line in &event.lines {
            if let Err(error) = self.add_line(event.project, line) {
                self.records.truncate(start);
                return Err(EventError::Malformed(error.to_string().into()));
            }
        }
        Ok(start..self.records.len())
    }

    fn add_line(
        &mut self,
        project: ProjectId,
        line: &'a Line<'a>,
    ) -> Result<(), serde_json::Error> {
        let head = &line.head;
        if head.kind != LineKind::Logs {
            return Ok(()); // A later release may send more through this stream.
        }
        for (place, raw) in (0_u32..).zip(record::split(line.json)?) {
            let id_start = self.arena.len();
            ids::write_record_id(&head.id, head.index + place, &mut self.arena);
            let text_start = self.arena.len();
            self.scratch.clear();
            let recognised = record::read(raw.get(), &mut self.scratch);
            self.arena.push_str(self.scratch.trim_end());
            self.records.push(Prepared {
                project,
                line: head,
                place,
                id: id_start..text_start,
                text: text_start..self.arena.len(),
                recognised,
                json: raw.get(),
            });
        }
        Ok(())
    }

    /// The records, in the order they were added.
    pub(crate) fn records(&self) -> Vec<NewRecord<'_>> {
        self.records.iter().map(|prepared| self.record(prepared)).collect()
    }

    fn record<'s>(&'s self, prepared: &'s Prepared<'a>) -> NewRecord<'s> {
        let Prepared { project, line, place, recognised, json, .. } = prepared;
        NewRecord {
            id: &self.arena[prepared.id.clone()],
            project: *project,
            key: line.key.as_str(),
            device: &line.device,
            session: &line.session,
            seq: line.seq + u64::from(*place),
            received: line.received,
            rev: line.rev,
            level: recognised.level,
            message: recognised.message.as_deref(),
            tag: recognised.tag.as_deref(),
            time: recognised.time,
            text: &self.arena[prepared.text.clone()],
            json,
            odd: line.odd.contains(place),
            again: line.again,
        }
    }

    /// The record at `index` as an event of its own: consumed again, it becomes the same record.
    pub(crate) fn alone(&self, index: usize) -> Vec<u8> {
        let record = &self.records[index];
        event::of_record(record.project, record.line, record.place, record.json)
    }
}

#[cfg(test)]
mod tests {
    use observer_wire::record::Level;

    use super::*;

    fn event_of(payloads: &[&str], odd: &[u32]) -> Vec<u8> {
        let mut out = Vec::new();
        event::start(&mut out, "0123456789ab".parse().unwrap());
        for (seq, payload) in (1000_u64..).step_by(10).zip(payloads) {
            let head = LineHead {
                kind: LineKind::Logs,
                id: "rX".into(),
                key: "0123456789ab".parse().unwrap(),
                device: "s-1".into(),
                named: false,
                session: "1".into(),
                epoch: 1,
                seq,
                received: 5,
                mid: None,
                index: 0,
                count: 0,
                rev: 3,
                again: false,
                odd: odd.to_vec().into(),
                len: 0,
            };
            event::push_line(&mut out, head, payload);
        }
        out
    }

    #[test]
    fn each_record_of_an_event_has_its_own_id_sequence_and_text() {
        let bytes =
            event_of(&[r#"[{"message":"One","level":"warn"},{"a":2}]"#, r#"{"b":"x"}"#], &[1]);
        let event = Event::parse(&bytes).unwrap();
        let mut batch = Batch::default();
        assert_eq!(batch.add(&event).unwrap(), 0..3);
        let records = batch.records();
        let seen: Vec<_> = records.iter().map(|r| (r.id, r.seq, r.text, r.json, r.odd)).collect();
        assert_eq!(
            seen,
            [
                ("rX-000", 1000, "one", r#"{"message":"One","level":"warn"}"#, false),
                ("rX-001", 1001, "2", r#"{"a":2}"#, true),
                ("rX-000", 1010, "x", r#"{"b":"x"}"#, false),
            ]
        );
        assert_eq!((records[0].level, records[0].message), (Level::Warn, Some("One")));
    }

    #[test]
    fn a_record_alone_becomes_the_same_record_again() {
        let bytes = event_of(&[r#"[{"message":"One"},{"a":2}]"#, r#"{"b":"x"}"#], &[1]);
        let event = Event::parse(&bytes).unwrap();
        let mut batch = Batch::default();
        batch.add(&event).unwrap();
        for (index, record) in batch.records().into_iter().enumerate() {
            let alone = batch.alone(index);
            let event = Event::parse(&alone).unwrap();
            let mut again = Batch::default();
            assert_eq!(again.add(&event).unwrap(), 0..1);
            assert_eq!(format!("{:?}", again.records()[0]), format!("{record:?}"));
        }
    }

    #[test]
    fn an_event_that_cannot_be_read_adds_nothing() {
        let bytes = event_of(&["[{}]", "[{"], &[]);
        let event = Event::parse(&bytes).unwrap();
        let mut batch = Batch::default();
        assert!(batch.add(&event).is_err());
        assert_eq!(batch.len(), 0);
    }
}
