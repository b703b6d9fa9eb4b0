//! What waits for one listener: bounded, and when it runs over it is emptied and says so.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::Notify;

use crate::lock;

/// Items that wait for one listener at most.
const ITEMS_MAX: usize = 4_096;

/// Bytes that wait for one listener at most. Listeners fan out within their process, so there are
/// few; a listener that is this far behind is better served with the whole state.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// The mailbox of one listener.
pub(crate) struct Mailbox<T> {
    waiting: Mutex<Waiting<T>>,
    arrived: Notify,
}

struct Waiting<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    lost: Option<Lost>,
}

/// What was lost before the next item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Items known to be lost.
    known: u64,
    /// Whether there may be more.
    more: bool,
}

/// What a listener finds.
pub(crate) enum Mail<T> {
    Item(T),
    /// Items were lost: how many, when known.
    Lost(Option<u64>),
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        let waiting = Waiting { items: VecDeque::new(), bytes: 0, lost: None };
        Self { waiting: Mutex::new(waiting), arrived: Notify::new() }
    }
}

impl<T> Mailbox<T> {
    /// Adds an item of so many bytes.
    pub(crate) fn put(&self, item: T, bytes: usize) {
        let mut waiting = lock(&self.waiting);
        waiting.bytes += bytes;
        waiting.items.push_back((item, bytes));
        if ITEMS_MAX < waiting.items.len() || BYTES_MAX < waiting.bytes {
            waiting.lose_all();
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Items were lost on the way here, nobody knows how many. What waits is given up too: who has
    /// to ask for the whole state needs no older news.
    pub(crate) fn lose(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.lose_all().more = true;
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Waits for the next item. For one listener only.
    ///
    /// # Cancel safety
    ///
    /// Safe: an item is taken only when it is returned.
    pub(crate) async fn next(&self) -> Mail<T> {
        loop {
            if let Some(mail) = self.try_next() {
                return mail;
            }
            self.arrived.notified().await; // It keeps a permit, and none else takes it.
        }
    }

    fn try_next(&self) -> Option<Mail<T>> {
        let mut waiting = lock(&self.waiting);
        if let Some(lost) = waiting.lost.take() {
            return Some(Mail::Lost((!lost.more).then_some(lost.known)));
        }
        let (item, bytes) = waiting.items.pop_front()?;
        waiting.bytes -= bytes;
        Some(Mail::Item(item))
    }
}

impl<T> Waiting<T> {
    fn lose_all(&mut self) -> &mut Lost {
        let lost = self.lost.get_or_insert_default();
        lost.known += self.items.len() as u64;
        self.items.clear();
        self.bytes = 0;
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mailbox: &Mailbox<u32>) -> Vec<Result<u32, Option<u64>>> {
        let mails = std::iter::from_fn(|| mailbox.try_next());
        let found = mails.map(|mail| match mail {
            Mail::Item(item) => Ok(item),
            Mail::Lost(count) => Err(count),
        });
        found.collect()
    }

    #[test]
    fn bytes_at_the_bound_are_kept_and_one_more_loses_all() {
        let mailbox = Mailbox::default();
        mailbox.put(1, BYTES_MAX - 1);
        mailbox.put(2, 1);
        assert_eq!(found(&mailbox), [Ok(1), Ok(2)]);

        mailbox.put(1, BYTES_MAX);
        mailbox.put(2, 1);
        mailbox.put(3, 1);
        assert_eq!(found(&mailbox), [Err(Some(2)), Ok(3)]);
    }

    #[test]
    fn items_at_the_bound_are_kept_and_one_more_loses_all() {
        let mailbox = Mailbox::default();
        (0..4_096).for_each(|item| mailbox.put(item, 0));
        assert_eq!(found(&mailbox).len(), ITEMS_MAX);
        (0..4_097).for_each(|item| mailbox.put(item, 0));
        assert_eq!(found(&mailbox), [Err(Some(4_097))]);
    }

    #[test]
    fn loss_of_unknown_size_stays_unknown() {
        let mailbox = Mailbox::default();
        mailbox.put(1, 1);
        mailbox.lose();
        mailbox.put(2, 1);
        assert_eq!(found(&mailbox), [Err(None), Ok(2)]);
    }
}
