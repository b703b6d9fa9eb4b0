//! The event that travels on the bus: lines of one project, each with who sent it and when, its
//! JSON copied as it came.
//!
//! A message is text that a person can read with any bus client. Its first line says version and
//! project; then each line of a game takes a head (JSON, one line) and its payload (`len` bytes and
//! a newline):
//!
//! ```text
//! {"v":1,"project":"0123456789ab"}
//! {"kind":"logs","id":"r…","key":"0123456789ab","device":"s-…",…,"count":2,"len":42}
//! [{"message":"a"},{"message":"b"}]
//! ```
//!
//! Readers ignore fields that they do not know, so that old and new services can share a bus.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::hello::About;
use crate::key::{ApiKey, ProjectId};

/// Version of the format. A reader refuses any other.
pub const EVENT_VERSION: u32 = 1;

/// Lines of one key are gathered into messages of up to this many bytes.
///
/// Measured: 16 KiB messages carry three times the bytes a second that 1 KiB ones do; 64 KiB, fewer.
pub const MESSAGE_BYTES_TARGET: usize = 16 * 1024;

/// What a line of an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    /// Log records, from `l:`.
    Logs,
    /// Variables as they are on the device, from `i:`.
    Reported,
    /// A device signed in; the payload is a [`SignIn`].
    SignIn,
    /// A device's socket ended; the payload is a [`Gone`].
    Gone,
}

/// Who sent a line, when, and how to tell it from every other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineHead<'a> {
    /// What the payload is.
    pub kind: LineKind,
    /// Id of the line: [`crate::ids::LineId`].
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// The key that the socket signed in with.
    pub key: ApiKey,
    /// The device: from its hello, else made by the gateway for the socket.
    #[serde(borrow)]
    pub device: Cow<'a, str>,
    /// Whether `device` came from a hello and outlives the socket.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub named: bool,
    /// One run of the game, from its hello, else made by the gateway for the socket.
    #[serde(borrow)]
    pub session: Cow<'a, str>,
    /// When this device signed in, in microseconds of the gateway's clock: a newer socket of the
    /// same device has a higher one.
    pub epoch: u64,
    /// Sequence of the line's first record on its socket; the following records follow.
    pub seq: u64,
    /// Arrival, in Unix milliseconds of the gateway's clock.
    pub received: i64,
    /// The game's message id.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub mid: Option<Cow<'a, str>>,
    /// Index of the first record: 0, as no line is split today.
    #[serde(default)]
    pub index: u32,
    /// Records or variables in the payload.
    pub count: u32,
    /// Variable revision in force on the device, 0 when unknown.
    #[serde(default)]
    pub rev: u64,
    /// The line may have been sent before, on another day: see the log indexer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// Indices of records whose own field names could be mistaken for ours.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub odd: Cow<'a, [u32]>,
    /// Bytes of the payload.
    pub len: u32,
}

#[expect(clippy::ptr_arg, reason = "serde passes the field as it is")]
fn is_empty(list: &Cow<'_, [u32]>) -> bool {
    list.is_empty()
}

/// Payload of [`LineKind::SignIn`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignIn {
    /// The gateway that holds the socket; while it announces itself, the device is online.
    pub gateway: String,
    /// What its hello said, for people.
    #[serde(flatten)]
    pub about: About,
    /// The game is in the background.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub background: bool,
}

/// Payload of [`LineKind::Gone`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// How it went.
    #[serde(default)]
    pub state: GoneState,
}

/// How a socket ended, as far as the game said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoneState {
    /// Nobody said that it would.
    #[default]
    Lost,
    /// The game was in the background: phones end such sockets.
    Suspended,
    /// The game said goodbye.
    Ended,
}

impl GoneState {
    /// The word for it, in events, stores and answers. Never reworded.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Suspended => "suspended",
            Self::Ended => "ended",
        }
    }

    /// The state of that word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        [Self::Lost, Self::Suspended, Self::Ended].into_iter().find(|state| state.name() == word)
    }
}

/// Id of an entry in the list of devices: a device that names itself has one for each session of its
/// that lives, any other is its socket's.
///
/// The parts hold no control characters, so the tab keeps them apart.
#[must_use]
pub fn entry_id(head: &LineHead<'_>) -> String {
    if head.named { format!("{}\t{}", head.device, head.session) } else { head.device.to_string() }
}

/// The device of an entry's id.
#[must_use]
pub fn device_of_entry(id: &str) -> &str {
    id.split_once('\t').map_or(id, |(device, _)| device)
}

#[derive(Serialize, Deserialize)]
struct EventHead {
    v: u32,
    project: ProjectId,
}

/// Why a message is not an event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// A head is missing, cut off or no JSON. The message can only be buried.
    #[error("event is malformed: {0}")]
    Malformed(Cow<'static, str>),
    /// Written by a newer release. Bury it, or update this process.
    #[error("event has version {0}, this process reads version {EVENT_VERSION}")]
    Version(u32),
}

/// Begins a message in an empty buffer.
pub fn start(out: &mut Vec<u8>, project: ProjectId) {
    write_head(out, &EventHead { v: EVENT_VERSION, project });
}

/// Adds a line. `head.len` is set here.
///
/// # Panics
///
/// When `json` is larger than 4 GiB, which no line is.
pub fn push_line(out: &mut Vec<u8>, mut head: LineHead<'_>, json: &str) {
    head.len = u32::try_from(json.len()).expect("a line is far smaller than 4 GiB");
    write_head(out, &head);
    out.extend_from_slice(json.as_bytes());
    out.push(b'\n');
}

/// One record of a line as an event of its own, with the record's own id, sequence and stamps:
/// `place` is its index in the payload, `json` its text. What is done with it is done with that
/// record alone.
///
/// # Panics
///
/// As [`push_line`] does.
#[must_use]
pub fn of_record(project: ProjectId, line: &LineHead<'_>, place: u32, json: &str) -> Vec<u8> {
    let odd: &[u32] = if line.odd.contains(&place) { &[0] } else { &[] };
    let head = LineHead {
        seq: line.seq + u64::from(place),
        index: line.index + place,
        count: 1,
        odd: odd.into(),
        ..line.clone()
    };
    let mut out = Vec::with_capacity(json.len() + 512);
    start(&mut out, project);
    push_line(&mut out, head, json);
    out
}

/// Log records that the heads of `message` tell of, as far as they can be read: for counting an event
/// that cannot be read as a whole. A payload that looks like a head is counted too.
#[must_use]
pub fn records_told(message: &[u8]) -> u64 {
    let heads = message.split(|byte| *byte == b'\n');
    let heads = heads.filter_map(|line| serde_json::from_slice::<LineHead<'_>>(line).ok());
    heads.filter(|head| head.kind == LineKind::Logs).map(|head| u64::from(head.count)).sum()
}

fn write_head(out: &mut Vec<u8>, head: &impl Serialize) {
    serde_json::to_writer(&mut *out, head).expect("plain structs into memory always serialise");
    out.push(b'\n');
}

/// A message that was read: its project and its lines, still borrowed.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// The project that all lines belong to.
    pub project: ProjectId,
    /// The lines, in order.
    pub lines: Vec<Line<'a>>,
}

/// One line of an event.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// Who, when and how much.
    pub head: LineHead<'a>,
    /// The payload: JSON, as the game sent it.
    pub json: &'a str,
}

impl<'a> Event<'a> {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`EventError`]; then nothing of the message is known.
    pub fn parse(message: &'a [u8]) -> Result<Self, EventError> {
        let text = std::str::from_utf8(message).map_err(|_| malformed("it is no UTF-8"))?;
        let (head, mut rest) = text.split_once('\n').ok_or_else(|| malformed("no head"))?;
        let head: EventHead = read_head(head)?;
        if head.v != EVENT_VERSION {
            return Err(EventError::Version(head.v));
        }
        let mut lines = Vec::new();
        while !rest.is_empty() {
            let (head, tail) =
                rest.split_once('\n').ok_or_else(|| malformed("a line's head is cut off"))?;
            let head: LineHead<'a> = read_head(head)?;
            let len = head.len as usize;
            let json = tail.get(..len).ok_or_else(|| malformed("a payload is cut off"))?;
            rest = tail[len..]
                .strip_prefix('\n')
                .ok_or_else(|| malformed("a payload does not end where its head says"))?;
            lines.push(Line { head, json });
        }
        Ok(Self { project: head.project, lines })
    }
}

fn read_head<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, EventError> {
    serde_json::from_str(text).map_err(|error| EventError::Malformed(error.to_string().into()))
}

fn malformed(words: &'static str) -> EventError {
    EventError::Malformed(words.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(mid: Option<&str>, odd: Vec<u32>) -> LineHead<'_> {
        LineHead {
            kind: LineKind::Logs,
            id: "r1".into(),
            key: "0123456789ab".parse().unwrap(),
            device: "s-1".into(),
            named: false,
            session: "1".into(),
            epoch: 5,
            seq: 7,
            received: 1_700_000_000_000,
            mid: mid.map(Cow::Borrowed),
            index: 0,
            count: 2,
            rev: 0,
            again: false,
            odd: odd.into(),
            len: 0,
        }
    }

    fn message(lines: &[(LineHead<'_>, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        start(&mut out, "0123456789ab".parse().unwrap());
        for (head, json) in lines {
            push_line(&mut out, head.clone(), json);
        }
        out
    }

    #[test]
    fn payloads_come_back_byte_for_byte() {
        let payloads = ["[{\"a\":\n1.50}]", "{\"ü\":\"\\u0041\"}"];
        let bytes =
            message(&[(head(Some("m"), vec![]), payloads[0]), (head(None, vec![1]), payloads[1])]);
        let event = Event::parse(&bytes).unwrap();
        assert_eq!(event.lines.iter().map(|line| line.json).collect::<Vec<_>>(), payloads);
        assert_eq!(event.lines[0].head.mid.as_deref(), Some("m"));
        assert_eq!(event.lines[1].head.odd.as_ref(), [1]);
    }

    #[test]
    fn sessions_of_a_named_device_are_entries_of_their_own() {
        let made = head(None, vec![]);
        assert_eq!(entry_id(&made), "s-1");
        let named = LineHead { named: true, ..made };
        assert_eq!(entry_id(&named), "s-1\t1");
        assert_eq!(device_of_entry("s-1\t1"), "s-1");
        assert_eq!(device_of_entry("s-1"), "s-1");
    }

    #[test]
    fn a_record_alone_keeps_its_place_and_sequence() {
        let line = head(Some("m"), vec![1]);
        for (place, seq, odd) in [(0, 7, &[][..]), (1, 8, &[0])] {
            let bytes = of_record("0123456789ab".parse().unwrap(), &line, place, "{\"a\": 1}");
            let event = Event::parse(&bytes).unwrap();
            let [alone] = &event.lines[..] else { panic!("one line") };
            assert_eq!((alone.head.index, alone.head.seq, alone.head.count), (place, seq, 1));
            assert_eq!((alone.head.odd.as_ref(), alone.json), (odd, "{\"a\": 1}"));
            assert_eq!((&alone.head.id, &alone.head.mid), (&line.id, &line.mid));
        }
    }

    #[test]
    fn records_of_an_event_that_cannot_be_read_are_counted_as_far_as_it_tells() {
        let whole = message(&[(head(None, vec![]), "[1]"), (head(Some("x"), vec![]), "[2]")]);
        assert_eq!(records_told(&whole), 4);
        assert_eq!(records_told(&whole[..whole.len() - 4]), 4);
        assert_eq!(records_told(&whole[..whole.len() / 2 - 20]), 0);
        assert_eq!(records_told(b"rubbish"), 0);
    }

    #[test]
    fn how_a_socket_went_has_one_word_in_events_and_stores() {
        for state in [GoneState::Lost, GoneState::Suspended, GoneState::Ended] {
            assert_eq!(GoneState::named(state.name()), Some(state));
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{}\"", state.name()));
        }
        assert_eq!(GoneState::named("gone"), None);
    }

    #[test]
    fn an_event_of_another_version_is_refused() {
        let bytes = b"{\"v\":2,\"project\":\"0123456789ab\",\"more\":1}\n";
        assert!(matches!(Event::parse(bytes), Err(EventError::Version(2))));
    }

    #[test]
    fn a_head_with_unknown_fields_is_read() {
        let bytes = b"{\"v\":1,\"project\":\"0123456789ab\",\"more\":1}\n";
        assert!(Event::parse(bytes).unwrap().lines.is_empty());
    }

    proptest! {
        #[test]
        fn a_cut_message_is_refused_or_shorter_but_never_wrong(cut in 0..400_usize) {
            let bytes = message(&[(head(None, vec![]), "[1]"), (head(Some("x"), vec![]), "[2]")]);
            if let Ok(event) = Event::parse(&bytes[..cut.min(bytes.len())]) {
                let whole = Event::parse(&bytes).unwrap();
                for (line, expected) in event.lines.iter().zip(&whole.lines) {
                    prop_assert_eq!(line.json, expected.json);
                }
            }
        }

        #[test]
        fn rubbish_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(Event::parse(&bytes).is_err());
        }
    }
}
