//! Storing a batch, and settling each of its deliveries by what became of its records.
//!
//! "No log is lost" rests on this file: a delivery is acked only when each of its records is stored,
//! was stored before, or is kept among the dead; what the store did not take stays here and is sent
//! again, without limit and with growing pauses, while nothing more is pulled.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use observer_bus::{BusError, Consumer, Delivery};
use observer_chassis::{Backoff, Shutdown};
use observer_store::LogStore;
use observer_store::logs::Stored;
use observer_wire::event::Event;
use tracing::warn;

use crate::batch::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Batch};

/// First pause before records are sent to the store again, and the longest.
const STORE_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Pause before a delivery comes again that shutdown took from us: another process may have it now.
const HANDED_BACK_DELAY: Duration = Duration::from_millis(100);

/// Takes deliveries and stores them, until shutdown is requested.
pub(crate) async fn store_until_shutdown(
    mut consumer: Box<dyn Consumer>,
    store: Arc<dyn LogStore>,
    shutdown: Shutdown,
) {
    loop {
        let first = tokio::select! {
            biased;
            () = shutdown.requested() => return,
            delivery = consumer.next() => delivery,
        };
        let deliveries = gather(consumer.as_mut(), first);
        store_deliveries(store.as_ref(), deliveries, &shutdown).await;
    }
}

/// The first delivery and those that are here already, up to the bounds of a batch.
fn gather(consumer: &mut dyn Consumer, first: Box<dyn Delivery>) -> Vec<Box<dyn Delivery>> {
    let mut bytes = first.payload().len();
    let mut deliveries = vec![first];
    // Records are counted once they are read; a delivery holds few of those bounds.
    while bytes < BATCH_BYTES_MAX && deliveries.len() < BATCH_RECORDS_MAX {
        let Some(delivery) = consumer.try_next() else { break };
        bytes += delivery.payload().len();
        deliveries.push(delivery);
    }
    deliveries
}

/// Stores what the deliveries carry, and settles each exactly once, on every path.
async fn store_deliveries(
    store: &dyn LogStore,
    deliveries: Vec<Box<dyn Delivery>>,
    shutdown: &Shutdown,
) {
    let payloads: Vec<Bytes> =
        deliveries.iter().map(|delivery| delivery.payload().clone()).collect();
    let events: Vec<_> = payloads.iter().map(|payload| Event::parse(payload)).collect();
    let mut batch = Batch::default();
    let mut readable: Vec<(Box<dyn Delivery>, Range<usize>)> = Vec::new();
    for (delivery, event) in deliveries.into_iter().zip(&events) {
        let read = match event {
            Ok(event) => batch.add(event).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(range) => readable.push((delivery, range)),
            Err(reason) => {
                // A whole event that nobody can read: a bug of ours, or another release's format.
                metrics::counter!("observer_events_buried_total").increment(1);
                note(delivery.bury(&reason).await);
            }
        }
    }
    let outcome = store_batch(store, &batch, &readable, shutdown).await;
    for (delivery, _) in readable {
        match outcome {
            Outcome::Stored => note(delivery.ack().await),
            Outcome::CutOff => note(delivery.retry(HANDED_BACK_DELAY).await),
        }
    }
}

/// What became of a batch.
#[derive(Clone, Copy)]
enum Outcome {
    /// Every record has a place to stay.
    Stored,
    /// Shutdown came first. The deliveries go back; what is stored already will be a duplicate.
    CutOff,
}

async fn store_batch(
    store: &dyn LogStore,
    batch: &Batch<'_>,
    deliveries: &[(Box<dyn Delivery>, Range<usize>)],
    shutdown: &Shutdown,
) -> Outcome {
    let all = batch.records();
    let mut waiting: Vec<usize> = (0..all.len()).collect();
    let mut pauses = Backoff::new(STORE_PAUSES.0, STORE_PAUSES.1);
    metrics::gauge!("observer_backlog_records").increment(count(batch.len()));
    while !waiting.is_empty() {
        let mut later = Vec::new();
        for chunk in waiting.chunks(BATCH_RECORDS_MAX) {
            let records: Vec<_> = chunk.iter().map(|index| all[*index].clone()).collect();
            match store.append(&records).await {
                Ok(stored) => {
                    assert_eq!(stored.len(), chunk.len(), "one answer a record");
                    for (index, stored) in chunk.iter().zip(stored) {
                        if !settled(*index, stored, all[*index].json, deliveries).await {
                            later.push(*index);
                        }
                    }
                }
                Err(error) => {
                    warn!(error = %observer_chassis::reason(&error), "log store took no records");
                    later.extend_from_slice(chunk);
                }
            }
        }
        metrics::gauge!("observer_backlog_records").decrement(count(waiting.len() - later.len()));
        waiting = later;
        if waiting.is_empty() {
            break;
        }
        for (delivery, _) in deliveries {
            note(delivery.in_progress().await);
        }
        tokio::select! {
            () = shutdown.requested() => {
                metrics::gauge!("observer_backlog_records").decrement(count(waiting.len()));
                return Outcome::CutOff;
            }
            () = tokio::time::sleep(pauses.next_delay()) => {}
        }
    }
    Outcome::Stored
}

/// Whether the record has a place to stay now; counts it if so.
async fn settled(
    index: usize,
    stored: Stored,
    json: &str,
    deliveries: &[(Box<dyn Delivery>, Range<usize>)],
) -> bool {
    let outcome = match stored {
        Stored::Later => return false,
        // observer_records_stored_total: records that the log store took, each once.
        Stored::New => "observer_records_stored_total",
        // observer_records_duplicate_total: records that were stored before and came again.
        Stored::Duplicate => "observer_records_duplicate_total",
        Stored::Never(reason) => {
            let (delivery, _) = deliveries
                .iter()
                .find(|(_, range)| range.contains(&index))
                .expect("each record came in a delivery");
            let part = Bytes::copy_from_slice(json.as_bytes());
            if let Err(error) = delivery.bury_part(part, &reason).await {
                warn!(error = %observer_chassis::reason(&error), "record could not be buried");
                return false;
            }
            // observer_records_buried_total: records that no store takes, kept among the dead.
            "observer_records_buried_total"
        }
    };
    metrics::counter!(outcome).increment(1);
    true
}

/// A failed settlement is no loss: the delivery comes again, and its records are duplicates then.
fn note(settled: Result<(), BusError>) {
    if let Err(error) = settled {
        warn!(error = %observer_chassis::reason(&error), "delivery was not settled");
    }
}

#[expect(clippy::cast_precision_loss, reason = "batches are far smaller than 2^52")]
fn count(records: usize) -> f64 {
    records as f64
}
