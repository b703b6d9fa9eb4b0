//! The log indexer's numbers. Records that it got are stored, duplicate, buried, or in hand; those that
//! wait on the bus are counted there, as events.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

/// Handles to the numbers; made once, as looking them up takes a lock.
pub(crate) struct Numbers {
    /// Records that the log store took, each once.
    pub(crate) stored: Counter,
    /// Records that were stored before and came again.
    pub(crate) duplicate: Counter,
    /// Records that were stored before and came again with their delivery: a process had died or was
    /// slow. Nobody sent them again, so they are no part of the counting law.
    pub(crate) redelivered: Counter,
    /// Records that no store takes, kept among the dead; those of whole events included.
    pub(crate) buried: Counter,
    /// Whole events that nobody can read, kept among the dead.
    pub(crate) events_buried: Counter,
    /// Records in hand.
    pub(crate) backlog_records: Gauge,
    /// Events on the bus that are not settled.
    pub(crate) backlog_events: Gauge,
    /// Letters of all projects, and their bytes; the same in each log indexer.
    pub(crate) dead_letters: Gauge,
    pub(crate) dead_letters_bytes: Gauge,
}

impl Numbers {
    pub(crate) fn new() -> Self {
        describe();
        Self {
            stored: counter!("observer_records_stored_total"),
            duplicate: counter!("observer_records_duplicate_total"),
            redelivered: counter!("observer_records_redelivered_total"),
            buried: counter!("observer_records_buried_total"),
            events_buried: counter!("observer_events_buried_total"),
            backlog_records: gauge!("observer_backlog_records"),
            backlog_events: gauge!("observer_backlog_events"),
            dead_letters: gauge!("observer_dead_letters"),
            dead_letters_bytes: gauge!("observer_dead_letters_bytes"),
        }
    }
}

fn describe() {
    describe_counter!("observer_records_stored_total", "Records that the log store took");
    describe_counter!(
        "observer_records_duplicate_total",
        "Records that were sent again and had been stored before"
    );
    describe_counter!(
        "observer_records_redelivered_total",
        "Records that the bus delivered again and that had been stored before"
    );
    describe_counter!(
        "observer_records_buried_total",
        "Records kept among the dead, those of whole events included"
    );
    describe_counter!("observer_events_buried_total", "Whole events kept among the dead");
    describe_gauge!("observer_backlog_records", "Records in hand that are not stored yet");
    describe_gauge!("observer_backlog_events", "Log events on the bus that are not settled");
    describe_gauge!("observer_dead_letters", "Dead letters of all projects");
    describe_gauge!("observer_dead_letters_bytes", "Bytes of dead letters of all projects");
}

/// A number of records, for a gauge.
#[expect(clippy::cast_precision_loss, reason = "a gauge has no other type")]
pub(crate) fn gauged(records: u64) -> f64 {
    records as f64
}
