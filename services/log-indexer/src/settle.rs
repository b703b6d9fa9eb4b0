//! Storing a batch, and settling each of its deliveries by what became of its records.
//!
//! "No log is lost" rests on this file: a delivery is acked only when each of its records is stored,
//! was stored before, or is kept among the dead; what the store did not take stays here and is sent
//! again, without limit and with growing pauses, while nothing more is pulled.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use observer_bus::{BusError, Consumer, Delivery, in_hand};
use observer_chassis::{Backoff, Shutdown, reason};
use observer_store::LogStore;
use observer_store::logs::Stored;
use observer_wire::event::{self, Event, EventError};
use tracing::warn;

use crate::batch::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Batch};
use crate::numbers::{Numbers, gauged};

/// First pause before records are sent to the store again, and the longest: half of the time within
/// which all must work again once the store is back.
const STORE_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Time that a store has for what it is asked already, once shutdown is requested. A shorter one would
/// only make more duplicates, a longer one could use up the whole grace.
const LAST_ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Pause before a delivery comes again that shutdown took from us: another process may have it now.
const HANDED_BACK_DELAY: Duration = Duration::from_millis(100);

/// Stores deliveries of one consumer.
pub(crate) struct Settler {
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) numbers: Arc<Numbers>,
    pub(crate) shutdown: Shutdown,
}

/// A delivery whose event was read, and which records of the batch are its.
type Readable = (Box<dyn Delivery>, Range<usize>);

/// What became of a batch.
#[derive(Clone, Copy)]
enum Outcome {
    /// Every record has a place to stay.
    Stored,
    /// Shutdown came first. The deliveries go back; what is stored already will be a duplicate.
    CutOff,
}

impl Settler {
    /// Takes deliveries and stores them, until shutdown is requested.
    pub(crate) async fn run(self, mut consumer: Box<dyn Consumer>) {
        loop {
            let first = tokio::select! {
                biased;
                () = self.shutdown.requested() => return,
                delivery = consumer.next() => delivery,
            };
            let deliveries = gather(consumer.as_mut(), first);
            self.store_deliveries(deliveries).await;
        }
    }

    /// Stores what the deliveries carry, a batch of records after the other, and settles each
    /// delivery exactly once, on every path.
    async fn store_deliveries(&self, deliveries: VecDeque<Box<dyn Delivery>>) {
        let payloads: Vec<Bytes> =
            deliveries.iter().map(|delivery| delivery.payload().clone()).collect();
        let (mut rest, mut payloads) = (deliveries, payloads.iter());
        while !rest.is_empty() {
            let mut taken = Vec::new();
            let mut records = 0;
            // Records are counted before any is read: small ones would fill the memory.
            while records < BATCH_RECORDS_MAX
                && let Some(delivery) = rest.pop_front()
                && let Some(payload) = payloads.next()
            {
                let event = Event::parse(payload);
                let lines = event.as_ref().map_or(&[][..], |event| &event.lines);
                records += lines.iter().map(|line| line.head.count as usize).sum::<usize>();
                taken.push((delivery, event));
            }
            if let Outcome::CutOff = self.store_group(taken, &rest).await {
                for delivery in rest.drain(..) {
                    note(delivery.retry(HANDED_BACK_DELAY).await);
                }
            }
        }
    }

    /// Stores the records of some deliveries, and settles each of them. Those that wait `behind` are
    /// kept in hand meanwhile.
    async fn store_group(
        &self,
        taken: Vec<(Box<dyn Delivery>, Result<Event<'_>, EventError>)>,
        behind: &VecDeque<Box<dyn Delivery>>,
    ) -> Outcome {
        let (deliveries, events): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
        let mut batch = Batch::default();
        let mut readable: Vec<Readable> = Vec::new();
        for (delivery, event) in deliveries.into_iter().zip(&events) {
            let read = match event {
                Ok(event) => batch.add(event).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match read {
                Ok(range) => readable.push((delivery, range)),
                Err(reason) => self.bury(delivery, &reason).await,
            }
        }
        let held = readable.iter().map(|(delivery, _)| delivery).chain(behind);
        let held = held.map(|delivery| delivery.as_ref() as &dyn Delivery);
        let outcome = in_hand(held, self.store_batch(&batch, &readable)).await;
        for (delivery, _) in readable {
            match outcome {
                Outcome::Stored => note(delivery.ack().await),
                Outcome::CutOff => note(delivery.retry(HANDED_BACK_DELAY).await),
            }
        }
        outcome
    }

    /// Buries a whole event that nobody can read: a bug of ours, or another release's format.
    async fn bury(&self, delivery: Box<dyn Delivery>, reason: &str) {
        let records = event::records_told(delivery.payload());
        let buried = delivery.bury(reason).await;
        if buried.is_ok() {
            self.numbers.events_buried.increment(1);
            self.numbers.buried.increment(records);
        }
        note(buried);
    }

    async fn store_batch(&self, batch: &Batch<'_>, deliveries: &[Readable]) -> Outcome {
        let mut waiting: Vec<usize> = (0..batch.len()).collect();
        let mut pauses = Backoff::new(STORE_PAUSES.0, STORE_PAUSES.1);
        let in_hand = &self.numbers.backlog_records;
        in_hand.increment(count(waiting.len()));
        let outcome = loop {
            let Some(later) = self.store_once(batch, &waiting, deliveries).await else {
                break Outcome::CutOff;
            };
            in_hand.decrement(count(waiting.len() - later.len()));
            if later.len() < waiting.len() {
                pauses.reset(); // The store takes some: what it asked for is a little less at once.
            }
            waiting = later;
            if waiting.is_empty() {
                break Outcome::Stored;
            }
            tokio::select! {
                () = self.shutdown.requested() => break Outcome::CutOff,
                () = tokio::time::sleep(pauses.next_delay()) => {}
            }
        };
        in_hand.decrement(count(waiting.len()));
        outcome
    }

    /// Sends the records `waiting` to the store; returns those that are to be sent again, or nothing
    /// when shutdown did not leave the time.
    async fn store_once(
        &self,
        batch: &Batch<'_>,
        waiting: &[usize],
        deliveries: &[Readable],
    ) -> Option<Vec<usize>> {
        let all = batch.records();
        let mut later = Vec::new();
        let mut chunks = waiting.chunks(BATCH_RECORDS_MAX);
        // Of records that wait it may be unknown whether they are stored. The same ones sent again, which
        // may stand behind them, must not be asked for until it is known.
        while later.is_empty()
            && let Some(chunk) = chunks.next()
        {
            let records: Vec<_> = chunk.iter().map(|index| all[*index].clone()).collect();
            let stored = tokio::select! {
                biased;
                stored = self.store.append(&records) => stored,
                () = self.cut_off() => return None,
            };
            match stored {
                Ok(stored) => {
                    assert_eq!(stored.len(), chunk.len(), "one answer a record");
                    for (index, stored) in chunk.iter().zip(stored) {
                        if !self.settled(*index, stored, batch, deliveries).await {
                            later.push(*index);
                        }
                    }
                }
                Err(error) => {
                    warn!(error = %reason(&error), "log store took no records");
                    later.extend_from_slice(chunk);
                }
            }
        }
        later.extend(chunks.flatten());
        Some(later)
    }

    /// Returns when shutdown was requested and the store has had its time.
    async fn cut_off(&self) {
        self.shutdown.requested().await;
        tokio::time::sleep(LAST_ANSWER_WITHIN).await;
    }

    /// Whether the record has a place to stay now; counts it if so.
    async fn settled(
        &self,
        index: usize,
        stored: Stored,
        batch: &Batch<'_>,
        deliveries: &[Readable],
    ) -> bool {
        let counter = match stored {
            Stored::Later => return false,
            Stored::New => &self.numbers.stored,
            Stored::Duplicate if 1 < delivery_of(index, deliveries).attempt() => {
                &self.numbers.redelivered
            }
            Stored::Duplicate => &self.numbers.duplicate,
            Stored::Never(why) => {
                let delivery = delivery_of(index, deliveries);
                if let Err(error) = delivery.bury_part(batch.alone(index).into(), &why).await {
                    warn!(error = %reason(&error), "record could not be buried");
                    return false;
                }
                &self.numbers.buried
            }
        };
        counter.increment(1);
        true
    }
}

/// The first delivery and those that are here already, up to the bytes of a batch.
fn gather(consumer: &mut dyn Consumer, first: Box<dyn Delivery>) -> VecDeque<Box<dyn Delivery>> {
    let mut bytes = first.payload().len();
    let mut deliveries = VecDeque::from([first]);
    while bytes < BATCH_BYTES_MAX {
        let Some(delivery) = consumer.try_next() else { break };
        bytes += delivery.payload().len();
        deliveries.push_back(delivery);
    }
    deliveries
}

/// The delivery that brought the record at `index`.
fn delivery_of(index: usize, deliveries: &[Readable]) -> &dyn Delivery {
    let at = deliveries.partition_point(|(_, range)| range.end <= index);
    deliveries[at].0.as_ref()
}

/// A failed settlement is no loss: the delivery comes again, and its records are duplicates then.
fn note(settled: Result<(), BusError>) {
    if let Err(error) = settled {
        warn!(error = %reason(&error), "delivery was not settled");
    }
}

fn count(records: usize) -> f64 {
    gauged(records as u64)
}

#[cfg(test)]
mod tests;
