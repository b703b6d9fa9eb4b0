//! Lines of a device, from the moment it has something to say until the server has answered.
//!
//! Log lines keep their message id when they are sent again, so that each is stored once. What was
//! said of variables is never sent again: by then it may be old, so they are reported anew.

use std::collections::VecDeque;

use observer_wire::ApiKey;
use serde::Serialize;
use tokio::time::{Duration, Instant};

use super::values::Variable;

/// Most lines sent and not answered: past it the server stops reading the socket.
const UNANSWERED_LINES_MAX: usize = 32;

/// Most lines that wait to be sent. Then the oldest goes: a device must not grow while it is offline.
const WAITING_LINES_MAX: usize = 512;

/// Most variables in one line; the server takes no more.
pub(crate) const LINE_VARIABLES_MAX: usize = 200;

/// Pause when the server asks for one without saying how long.
const RETRY_DEFAULT: Duration = Duration::from_millis(500);

/// Longest pause that a server may ask for.
const RETRY_MAX: Duration = Duration::from_mins(1);

/// Codes of refusals that mean "send it again".
const AGAIN: [&str; 4] = ["busy", "timeout", "rate", "quota"];

/// Lines that wait to be sent or answered.
pub(crate) struct Outbox {
    key: ApiKey,
    boot: String,
    mids: u64,
    waiting: VecDeque<Line>,
    unanswered: VecDeque<Line>,
    held_until: Option<Instant>,
    dropped: u64,
}

struct Line {
    /// Message id; a raw line has none that we know, and so no answer.
    mid: Option<String>,
    /// The line, with its end.
    text: String,
    /// Variables that it reports; none for other lines.
    names: Vec<String>,
}

impl Outbox {
    /// Nothing waits. `boot` makes message ids unique among all devices of the key.
    pub(crate) fn new(key: ApiKey, boot: &str) -> Self {
        Self {
            key,
            boot: boot.to_owned(),
            mids: 0,
            waiting: VecDeque::new(),
            unanswered: VecDeque::new(),
            held_until: None,
            dropped: 0,
        }
    }

    /// The key of all its lines.
    pub(crate) fn key(&self) -> ApiKey {
        self.key
    }

    /// Queues a line of log records.
    pub(crate) fn push_records<T: Serialize>(&mut self, records: &[T]) {
        self.push_body('l', &to_json(records), Vec::new());
    }

    /// Queues a line of variables.
    pub(crate) fn push_variables(&mut self, names: &[String], declared: &[&Variable]) {
        self.push_body('i', &to_json(declared), names.to_vec());
    }

    /// Queues a line as it is.
    pub(crate) fn push_raw(&mut self, line: &str) {
        self.push(Line { mid: None, text: format!("{line}\n"), names: Vec::new() });
    }

    fn push_body(&mut self, tag: char, json: &str, names: Vec<String>) {
        self.mids += 1;
        let mid = format!("{}-{}", self.boot, self.mids);
        let text = format!("{tag}:{}:{json}:{mid}\n", self.key.as_str());
        self.push(Line { mid: Some(mid), text, names });
    }

    fn push(&mut self, line: Line) {
        if self.waiting.len() == WAITING_LINES_MAX {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        self.waiting.push_back(line);
    }

    /// The next line to be sent, or `None` while there is none or the server wants a pause.
    pub(crate) fn next_to_send(&mut self, now: Instant) -> Option<String> {
        if self.held_until.is_some_and(|until| now < until) {
            return None;
        }
        if UNANSWERED_LINES_MAX <= self.unanswered.len() {
            return None;
        }
        let line = self.waiting.pop_front()?;
        let text = line.text.clone();
        if line.mid.is_some() {
            self.unanswered.push_back(line);
        }
        Some(text)
    }

    /// A line is safe.
    pub(crate) fn done(&mut self, mid: &str) {
        self.take(mid);
    }

    /// A line was refused, for good or for now. Returns variables to be reported again.
    pub(crate) fn refused(
        &mut self,
        mid: &str,
        code: &str,
        retry_ms: Option<u64>,
        now: Instant,
    ) -> Vec<String> {
        let Some(line) = self.take(mid) else { return Vec::new() };
        if !AGAIN.contains(&code) {
            return Vec::new();
        }
        let pause = retry_ms.map_or(RETRY_DEFAULT, Duration::from_millis).min(RETRY_MAX);
        self.held_until = Some(now + pause);
        if line.names.is_empty() {
            self.waiting.push_front(line);
            return Vec::new();
        }
        line.names
    }

    fn take(&mut self, mid: &str) -> Option<Line> {
        let at = self.unanswered.iter().position(|line| line.mid.as_deref() == Some(mid))?;
        self.unanswered.remove(at)
    }

    /// The socket is a new one: what was not answered on the old one is sent again, in order.
    pub(crate) fn reconnected(&mut self) {
        self.held_until = None;
        while let Some(line) = self.unanswered.pop_back() {
            self.waiting.push_front(line);
        }
        // After the sign-in all variables are reported as they are then.
        self.waiting.retain(|line| line.names.is_empty());
    }

    /// Whether nothing waits, neither to be sent nor to be answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.unanswered.is_empty()
    }

    /// Lines that had to go since the last call.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

fn to_json<T: Serialize>(items: &[T]) -> String {
    serde_json::to_string(items).expect("plain values into memory always serialise")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> Outbox {
        Outbox::new("0123456789ab".parse().unwrap(), "b")
    }

    fn with_lines(count: usize) -> Outbox {
        let mut outbox = outbox();
        for number in 0..count {
            outbox.push_records(&[number]);
        }
        outbox
    }

    fn send_all(outbox: &mut Outbox, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| outbox.next_to_send(now)).collect()
    }

    #[test]
    fn a_line_carries_key_json_and_its_own_mid() {
        let lines = send_all(&mut with_lines(2), Instant::now());
        assert_eq!(lines, ["l:0123456789ab:[0]:b-1\n", "l:0123456789ab:[1]:b-2\n"]);
    }

    #[test]
    fn no_more_lines_are_sent_than_may_be_unanswered() {
        let mut outbox = with_lines(UNANSWERED_LINES_MAX + 1);
        assert_eq!(send_all(&mut outbox, Instant::now()).len(), UNANSWERED_LINES_MAX);
        outbox.done("b-7");
        assert_eq!(send_all(&mut outbox, Instant::now()).len(), 1);
    }

    #[test]
    fn what_was_not_answered_is_sent_again_in_order_with_its_mid() {
        let mut outbox = with_lines(3);
        let sent = send_all(&mut outbox, Instant::now());
        outbox.done("b-2");
        outbox.reconnected();
        assert_eq!(send_all(&mut outbox, Instant::now()), [sent[0].clone(), sent[2].clone()]);
        outbox.done("b-1");
        outbox.done("b-3");
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_busy_server_gets_the_line_again_after_its_pause() {
        let (mut outbox, now) = (with_lines(1), Instant::now());
        let sent = send_all(&mut outbox, now);
        assert_eq!(outbox.refused("b-1", "busy", Some(700), now), Vec::<String>::new());
        assert!(send_all(&mut outbox, now + Duration::from_millis(699)).is_empty());
        assert_eq!(send_all(&mut outbox, now + Duration::from_millis(700)), sent);
    }

    #[test]
    fn a_line_that_is_wrong_is_not_sent_again() {
        let (mut outbox, now) = (with_lines(1), Instant::now());
        send_all(&mut outbox, now);
        outbox.refused("b-1", "bad_json", None, now);
        assert!(outbox.is_empty());
    }

    #[test]
    fn the_oldest_line_goes_when_too_many_wait_and_is_counted() {
        let mut outbox = with_lines(WAITING_LINES_MAX);
        assert_eq!(outbox.take_dropped(), 0);
        outbox.push_records(&["one more"]);
        assert_eq!(outbox.take_dropped(), 1);
        assert_eq!(outbox.next_to_send(Instant::now()).unwrap(), "l:0123456789ab:[1]:b-2\n");
    }
}
