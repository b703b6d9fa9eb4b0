//! What must hold of each parser that reads what games, people and other releases send, whatever the
//! bytes are. A fuzzer calls these functions, and so do the ordinary tests (`tests/corpus.rs`), over
//! the corpus that is checked in.

use observer_wire::answer::{Refusal, write_error};
use observer_wire::declare::{self, Declared};
use observer_wire::dropped::Dropped;
use observer_wire::event::{self, Event};
use observer_wire::frame::{Body, Frame};
use observer_wire::hello::{FIELD_BYTES_MAX, Hello};
use observer_wire::line::LineSplitter;
use observer_wire::records::Records;
use observer_wire::server::ServerLine;
use observer_wire::text::{self, Term};
use observer_wire::value::{self, VarType};
use observer_wire::{Limits, record};

/// A parser under test.
pub type Target = fn(&[u8]);

/// Every target, by the name of its folder in the corpus.
pub const TARGETS: [(&str, Target); 10] = [
    ("lines", lines),
    ("frame", frame),
    ("records", records),
    ("declare", declare),
    ("hello", hello),
    ("dropped", dropped),
    ("server", server),
    ("event", event),
    ("query", query),
    ("value", value),
];

/// Longest line of the splitter under test, in bytes: short, so that the bound is met often.
const LINE_BYTES_MAX: usize = 24;

/// Lines do not depend on how the bytes were cut, and no more is kept than the bound allows. The first
/// byte says where they are cut.
pub fn lines(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let (head, tail) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(split(&[head, tail]), split(&[bytes]));
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(split(&single), split(&[bytes]));
}

/// The lines until the end or the refusal, and whether there was one.
fn split(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
    let mut splitter = LineSplitter::new(LINE_BYTES_MAX);
    let mut lines = Vec::new();
    for chunk in chunks {
        let mut rest = *chunk;
        loop {
            match splitter.next_line(&mut rest) {
                Ok(Some(line)) => {
                    assert!(line.len() <= LINE_BYTES_MAX);
                    lines.push(line.to_vec());
                }
                Ok(None) => break,
                Err(_) => return (lines, true),
            }
        }
        // A carriage return may be the line's end.
        assert!(splitter.started_bytes() <= LINE_BYTES_MAX + 1);
    }
    (lines, false)
}

/// A line is read, or refused in one line of text; what it carries is checked as the gateway does.
pub fn frame(bytes: &[u8]) {
    let line = bytes.trim_ascii();
    if line.is_empty() || line.contains(&b'\n') {
        return;
    }
    match Frame::parse(line) {
        Ok(Frame::Logs(body)) => body_of(&body, records_of),
        Ok(Frame::Vars(body)) => body_of(&body, declared_of),
        Ok(Frame::Hello(body)) => body_of(&body, hello_of),
        Ok(Frame::Dropped(body)) => body_of(&body, dropped_of),
        Ok(_) => {}
        Err(refused) => one_line(&refused.refusal),
    }
}

/// A hello is within its bounds, or refused in one line of text.
pub fn hello(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        hello_of(text);
    }
}

fn hello_of(json: &str) {
    match Hello::read(json, &Limits::default()) {
        Ok(hello) => {
            let texts = [&hello.device, &hello.session, &hello.epoch, &hello.about.name];
            for text in texts.into_iter().flatten().chain(&hello.about.labels) {
                assert!(text.len() <= FIELD_BYTES_MAX);
            }
            let ids = [&hello.device, &hello.session];
            assert!(ids.into_iter().flatten().all(|id| !id.contains(char::is_control)));
        }
        Err(refusal) => one_line(&refusal),
    }
}

/// A report of drops becomes one good record, or is refused in one line of text.
pub fn dropped(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        dropped_of(text);
    }
}

fn dropped_of(json: &str) {
    match Dropped::read(json, &Limits::default()) {
        Ok(dropped) => {
            let mut records = Records::default();
            let gap = dropped.gap_json("by the game");
            assert!(records.check(&gap, &Limits::default()).is_ok());
            assert_eq!((records.count, records.odd.len()), (1, 0));
        }
        Err(refusal) => one_line(&refusal),
    }
}

/// A line to a game is read or ignored.
pub fn server(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _read = ServerLine::parse(text);
    }
}

fn body_of(body: &Body<'_>, check: fn(&str)) {
    let mut decoded = Vec::new();
    match body.payload.decode(&mut decoded) {
        Ok(json) => check(json),
        Err(refusal) => one_line(&refusal),
    }
}

fn one_line(refusal: &Refusal) {
    let mut out = Vec::new();
    write_error(&mut out, refusal, None, None);
    let text = std::str::from_utf8(&out).expect("an answer is text");
    assert!(text.starts_with("ERR ") && text.ends_with('\n'));
    assert_eq!(text.matches('\n').count(), 1);
}

/// The payload of an `l:` line is refused, or is records that the indexer can read.
pub fn records(bytes: &[u8]) {
    if let Ok(json) = std::str::from_utf8(bytes) {
        records_of(json);
    }
}

fn records_of(json: &str) {
    let limits = Limits::default();
    let mut records = Records::default();
    if let Err(refusal) = records.check(json, &limits) {
        return one_line(&refusal);
    }
    assert!(records.count as usize <= limits.line_records_max);
    let split = record::split(json).expect("what was accepted can be split");
    assert_eq!(split.len(), records.count as usize);
    assert!(records.odd.iter().all(|odd| *odd < records.count));
    for (place, raw) in (0_u32..).zip(split) {
        let mut search = String::new();
        record::read(raw.get(), &mut search);
        // Normalising may lengthen a character; it never grows without bound.
        assert!(search.len() <= 4 * raw.get().len() + 4);
        let names = serde_json::from_str::<serde_json::Map<_, _>>(raw.get());
        let forged =
            names.is_ok_and(|names| names.keys().any(|name| name.starts_with("observer.")));
        assert!(!forged || records.odd.contains(&place), "a forged name is noted");
    }
}

/// The payload of an `i:` line is refused, or is variables within their bounds.
pub fn declare(bytes: &[u8]) {
    if let Ok(json) = std::str::from_utf8(bytes) {
        declared_of(json);
    }
}

fn declared_of(json: &str) {
    let limits = Limits::default();
    let declared = match declare::read(json, &limits) {
        Ok(declared) => declared,
        Err(refusal) => return one_line(&refusal),
    };
    assert!(declared.len() <= limits.line_vars_max);
    for one in declared {
        match one {
            Declared::Value(value) => {
                assert!(!value.name.is_empty() && value.name.len() <= limits.name_bytes_max);
                assert!(value.value.len() <= limits.value_bytes_max);
                assert!(matches!(value.bits, 32 | 64));
            }
            Declared::Withdrawn { name } => assert!(name.len() <= limits.name_bytes_max),
            Declared::Reset => {}
        }
    }
}

/// A message of the bus is refused, or reads the same once it is written again.
pub fn event(bytes: &[u8]) {
    let Ok(event) = Event::parse(bytes) else { return };
    let mut again = Vec::new();
    event::start(&mut again, event.project);
    for line in &event.lines {
        event::push_line(&mut again, line.head.clone(), line.json);
    }
    let again = Event::parse(&again).expect("what was written can be read");
    let parts = |event: &Event<'_>| -> Vec<String> {
        event.lines.iter().map(|line| format!("{:?} {}", line.head, line.json)).collect()
    };
    assert_eq!((event.project, parts(&event)), (again.project, parts(&again)));
}

/// Any text is a query, and its words are words of the same kind that stored text is cut into.
pub fn query(bytes: &[u8]) {
    let query = String::from_utf8_lossy(bytes);
    for term in text::parse_query(&query) {
        match term {
            Term::Phrase(words) | Term::Prefix(words) => {
                assert!(!words.is_empty());
                for word in words {
                    assert_eq!(text::words(&word), [word]);
                }
            }
            Term::Field { name, value: _ } => assert!(!name.is_empty()),
        }
    }
}

/// A value has one canonical text, which means the same. The first byte says its type.
pub fn value(bytes: &[u8]) {
    const KINDS: [VarType; 9] = [
        VarType::String,
        VarType::Integer,
        VarType::Float,
        VarType::Boolean,
        VarType::Enum,
        VarType::Color,
        VarType::Vector,
        VarType::Json,
        VarType::Unknown,
    ];
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let kind = KINDS[usize::from(*kind) % KINDS.len()];
    let Ok(canonical) = value::canonical(kind, text) else { return };
    assert_eq!(value::canonical(kind, &canonical).as_ref(), Ok(&canonical), "of {text:?}");
    for bits in [32, 64] {
        assert!(value::equal(kind, bits, text, &canonical), "{text:?} and {canonical:?}");
    }
}
