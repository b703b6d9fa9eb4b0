//! The gateway's numbers, each described where it is made. No number has a label for each key or
//! device: their count is not ours to choose.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use observer_wire::Code;

/// What kind a line is, as far as its first letter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `l:`.
    Logs,
    /// `i:`.
    Vars,
    /// `v:`.
    SignIn,
    /// `h:`.
    Hello,
    /// `n:`.
    Dropped,
    /// `d:`.
    State,
    /// `p:`.
    Ping,
    /// Anything else.
    Other,
}

impl Kind {
    const NAMES: [&str; 8] =
        ["logs", "vars", "sign_in", "hello", "dropped", "state", "ping", "other"];
}

/// Why a connection never became a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotGreeted {
    /// It took too long.
    Late,
    /// Newer ones took its place.
    Displaced,
    /// It does not speak TLS as we do.
    Tls,
    /// It asked for something else than our WebSocket, or left before it had asked.
    Http,
}

impl NotGreeted {
    const NAMES: [&str; 4] = ["late", "displaced", "tls", "http"];

    /// The label of the metric.
    pub(crate) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// Handles to the gateway's numbers; made once, as looking them up takes a lock.
pub(crate) struct Numbers {
    lines_in: [Counter; Kind::NAMES.len()],
    refused: [Counter; Code::ALL.len()],
    closed: [Counter; Code::ALL.len()],
    not_greeted: [Counter; NotGreeted::NAMES.len()],
    /// Lines that are safe, or needed nothing to be so.
    pub(crate) lines_accepted: Counter,
    /// Records of accepted `l:` lines.
    pub(crate) records_accepted: Counter,
    /// Records of accepted `l:` lines that the bus had already.
    pub(crate) records_duplicate: Counter,
    /// Records of `l:` lines that were answered `timeout`.
    pub(crate) records_unknown: Counter,
    /// Records of lines that were shed.
    pub(crate) records_shed: Counter,
    /// Records that were shed and that no gap record tells of.
    pub(crate) records_untold: Counter,
    /// Requests for keys.
    pub(crate) keys_asked: Counter,
    /// Requests for wanted documents.
    pub(crate) documents_asked: Counter,
    /// Frames with edits or documents.
    pub(crate) pushed: Counter,
    /// Messages published.
    pub(crate) messages: Counter,
    /// Accepts that the system refused.
    pub(crate) accept_failed: Counter,
    /// Connections that came too soon after others of their address.
    pub(crate) address_connects_refused: Counter,
    /// Connections for which too few files may be open.
    pub(crate) connects_without_file: Counter,
    /// Sign-ins that came too soon after others with their key.
    pub(crate) key_connects_refused: Counter,
    /// Sign-ins and ends of sockets that could not be told.
    pub(crate) presence_lost: Counter,
    publish_seconds: Histogram,
    sockets: Gauge,
    sockets_open: AtomicUsize,
    /// Bytes that wait; set now and then.
    pub(crate) waiting_bytes: Gauge,
}

impl Numbers {
    pub(crate) fn new() -> Self {
        describe();
        Self {
            lines_in: Kind::NAMES.map(|kind| counter!("observer_lines_in_total", "kind" => kind)),
            refused: Code::ALL
                .map(|code| counter!("observer_refused_total", "reason" => code.name())),
            closed: Code::ALL
                .map(|code| counter!("observer_sockets_closed_total", "reason" => code.name())),
            not_greeted: NotGreeted::NAMES
                .map(|reason| counter!("observer_handshakes_failed_total", "reason" => reason)),
            lines_accepted: counter!("observer_lines_accepted_total"),
            records_accepted: counter!("observer_records_accepted_total"),
            records_duplicate: counter!("observer_records_duplicate_total"),
            records_unknown: counter!("observer_records_unknown_total"),
            records_shed: counter!("observer_records_shed_total"),
            records_untold: counter!("observer_records_shed_untold_total"),
            keys_asked: counter!("observer_keys_asked_total"),
            documents_asked: counter!("observer_documents_asked_total"),
            pushed: counter!("observer_pushed_total"),
            messages: counter!("observer_messages_published_total"),
            accept_failed: counter!("observer_accept_failed_total"),
            address_connects_refused: counter!("observer_connects_refused_total", "by" => "address"),
            connects_without_file: counter!("observer_connects_refused_total", "by" => "files"),
            key_connects_refused: counter!("observer_connects_refused_total", "by" => "key"),
            presence_lost: counter!("observer_presence_lost_total"),
            publish_seconds: histogram!("observer_publish_seconds"),
            sockets: gauge!("observer_sockets"),
            sockets_open: AtomicUsize::new(0),
            waiting_bytes: gauge!("observer_waiting_bytes"),
        }
    }

    /// A line came in.
    pub(crate) fn line_in(&self, kind: Kind) {
        self.lines_in[kind as usize].increment(1);
    }

    /// A line was refused.
    pub(crate) fn refused(&self, code: Code) {
        if let Some(at) = place(code) {
            self.refused[at].increment(1);
        }
    }

    /// The gateway closed a socket.
    pub(crate) fn closed(&self, code: Code) {
        if let Some(at) = place(code) {
            self.closed[at].increment(1);
        }
    }

    /// A connection never became a socket.
    pub(crate) fn not_greeted(&self, why: NotGreeted) {
        self.not_greeted[why as usize].increment(1);
    }

    /// A message's fate was known after `time`.
    pub(crate) fn published_in(&self, time: Duration) {
        self.publish_seconds.record(time.as_secs_f64());
    }

    /// A socket was taken on.
    pub(crate) fn socket_opened(&self) {
        self.sockets_open.fetch_add(1, Ordering::Relaxed);
        self.sockets.increment(1.0);
    }

    /// A socket ended.
    pub(crate) fn socket_ended(&self) {
        self.sockets_open.fetch_sub(1, Ordering::Relaxed);
        self.sockets.decrement(1.0);
    }

    /// Sockets that are open.
    pub(crate) fn sockets_open(&self) -> usize {
        self.sockets_open.load(Ordering::Relaxed)
    }
}

fn place(code: Code) -> Option<usize> {
    Code::ALL.iter().position(|one| *one == code)
}

fn describe() {
    describe_counter!(
        "observer_lines_in_total",
        "Lines that games sent, blank ones left out, by kind. Each is accepted or refused once."
    );
    describe_counter!(
        "observer_lines_accepted_total",
        "Lines that are safe, or needed no storing."
    );
    describe_counter!(
        "observer_refused_total",
        "Lines that were not accepted, by reason. `busy` and `timeout` are sent again by the game."
    );
    describe_counter!(
        "observer_records_accepted_total",
        "Log records in accepted lines, and gap records of the gateway: over all processes the sum of stored, duplicate, buried and \
         what is on its way; but for the records that are unknown or redelivered, and for dead \
         letters that were replayed, which have an outcome once more."
    );
    describe_counter!(
        "observer_records_duplicate_total",
        "Records that were sent again and had been stored before"
    );
    describe_counter!(
        "observer_records_unknown_total",
        "Log records in lines that were answered `timeout`. Any of them may be stored, and is then \
         no record of an accepted line."
    );
    describe_counter!(
        "observer_records_shed_total",
        "Log records in lines that were shed: dropped for good, as the bus was nearly full."
    );
    describe_counter!(
        "observer_records_shed_untold_total",
        "Of these, records that no gap record tells of: the gateway ended before the bus took one."
    );
    describe_counter!(
        "observer_sockets_closed_total",
        "Sockets that the gateway closed, by reason."
    );
    describe_counter!(
        "observer_handshakes_failed_total",
        "Connections that got through no TLS or WebSocket handshake, by reason."
    );
    describe_counter!("observer_keys_asked_total", "Requests for keys that were in no cache.");
    describe_counter!("observer_documents_asked_total", "Requests for wanted documents.");
    describe_counter!("observer_pushed_total", "Edits and documents queued for a socket.");
    describe_counter!("observer_messages_published_total", "Messages that the bus took.");
    describe_counter!("observer_accept_failed_total", "Accepts that the system refused.");
    describe_counter!(
        "observer_connects_refused_total",
        "Connections and sign-ins that came faster than their address or key may, and connections for \
         which the system lets too few files be open."
    );
    describe_counter!(
        "observer_presence_lost_total",
        "Sign-ins and ends of sockets that no store was told of: the bus was away for too long."
    );
    describe_histogram!(
        "observer_publish_seconds",
        "From the first try to publish a message to its known fate, a second try included."
    );
    describe_gauge!("observer_sockets", "Open sockets of games.");
    describe_gauge!("observer_waiting_bytes", "Bytes of lines that wait for their outcome.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_number() {
        for code in Code::ALL {
            assert!(place(code).is_some());
        }
    }

    #[test]
    fn kinds_and_their_names_stand_in_the_same_order() {
        assert_eq!(Kind::NAMES[Kind::Logs as usize], "logs");
        assert_eq!(Kind::NAMES[Kind::Other as usize], "other");
        assert_eq!(NotGreeted::Late.name(), "late");
        assert_eq!(NotGreeted::Http.name(), "http");
    }
}
