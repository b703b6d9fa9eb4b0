//! What a line costs before anything is sent or published: decoded, checked, given its id and copied
//! into a message. One thread, in memory, CPU time of that thread.

use std::borrow::Cow;
use std::hint::black_box;
use std::time::Duration;

use observer_tests::game::to_base64;
use observer_wire::event::{self, LineHead, LineKind, MESSAGE_BYTES_TARGET};
use observer_wire::frame::{Body, Frame};
use observer_wire::ids::LineId;
use observer_wire::records::Records;
use observer_wire::{ApiKey, Limits};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use crate::{RECORDS, records};

/// Lines that take turns, so that no branch predictor knows one by heart.
const LINES: usize = 512;

/// Rounds over all lines in one run: about a tenth of a second.
const PASSES: usize = 20;

/// Runs; the table has their median and minimum.
const RUNS: usize = 15;

const KEY: &str = "0123456789ab";

/// What is done with each line, one step more each time.
const STEPS: [(&str, Step); 4] = [
    ("decode", Step::Decode),
    ("decode, check", Step::Check),
    ("decode, check, id", Step::Id),
    ("decode, check, id, message", Step::Message),
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Decode,
    Check,
    Id,
    Message,
}

/// Prints a row for each step.
pub(crate) fn print_table() {
    let key: ApiKey = KEY.parse().expect("it is one");
    let lines: Vec<String> = (0..LINES)
        .map(|number| format!("l:{KEY}:{}:m{number}", to_base64(&json!(records(number)))))
        .collect();
    let mut work =
        Work { key, limits: Limits::default(), decoded: Vec::new(), records: Records::default() };
    println!("| one thread, in memory | ns a record | records/s | least ns a record |");
    println!("| --- | --- | --- | --- |");
    for (name, step) in STEPS {
        let mut runs: Vec<f64> = (0..RUNS).map(|_| work.run(step, &lines)).collect();
        runs.sort_by(f64::total_cmp);
        let median = runs[RUNS / 2];
        println!("| {name} | {median:.1} | {:.0} | {:.1} |", 1e9 / median, runs[0]);
    }
}

struct Work {
    key: ApiKey,
    limits: Limits,
    decoded: Vec<u8>,
    records: Records,
}

impl Work {
    /// Nanoseconds a record.
    fn run(&mut self, step: Step, lines: &[String]) -> f64 {
        let mut message = Vec::with_capacity(2 * MESSAGE_BYTES_TARGET);
        let begun = thread_cpu();
        for _ in 0..PASSES {
            for line in lines {
                let Ok(Frame::Logs(body)) = Frame::parse(line.as_bytes()) else {
                    unreachable!("it is a log line")
                };
                self.line(step, &body, &mut message);
                if MESSAGE_BYTES_TARGET <= message.len() {
                    black_box(&message);
                    message.clear();
                }
            }
        }
        let nanoseconds = thread_cpu().saturating_sub(begun).as_secs_f64() * 1e9;
        #[expect(clippy::cast_precision_loss, reason = "a hundred thousand")]
        let records = (PASSES * lines.len()) as f64 * RECORDS as f64;
        nanoseconds / records
    }

    fn line(&mut self, step: Step, body: &Body<'_>, message: &mut Vec<u8>) {
        let json = body.payload.decode(&mut self.decoded).expect("it is base64");
        if step < Step::Check {
            black_box(json);
            return;
        }
        self.records.check(json, &self.limits).expect("it is good");
        if step < Step::Id {
            black_box(&self.records);
            return;
        }
        let mid = body.mid.expect("it has one");
        let id = LineId::of_message(self.key.founds(), "", mid, json.as_bytes());
        if step < Step::Message {
            black_box(id.as_str());
            return;
        }
        if message.is_empty() {
            event::start(message, self.key.founds());
        }
        let head = LineHead {
            kind: LineKind::Logs,
            id: Cow::Borrowed(id.as_str()),
            key: self.key,
            device: Cow::Borrowed("s-0123456789abcdef"),
            named: false,
            session: Cow::Borrowed("s-0123456789abcdef"),
            epoch: 1_700_000_000_000_000,
            seq: 1_000,
            received: 1_700_000_000_000,
            mid: Some(Cow::Borrowed(mid.as_str())),
            index: 0,
            count: self.records.count,
            rev: 0,
            again: false,
            odd: Cow::Borrowed(&self.records.odd),
            len: 0,
        };
        event::push_line(message, head, json);
    }
}

/// CPU time of this thread so far.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("below a second"))
}
