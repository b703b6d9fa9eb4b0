//! How many sockets one address, or one key, has at once. Nothing is said here about who asks.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A bound for each `K`. Holds an entry only for those that have a slot.
#[derive(Debug)]
pub(crate) struct Slots<K> {
    max: usize,
    taken: Mutex<HashMap<K, usize>>,
}

/// A place of `K`, given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot<K: Copy + Eq + Hash> {
    slots: Arc<Slots<K>>,
    owner: K,
}

impl<K: Copy + Eq + Hash> Slots<K> {
    /// Each owner may have `max` slots.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default() })
    }

    /// Takes a slot, or `None` when the owner has as many as it may.
    pub(crate) fn take(self: &Arc<Self>, owner: K) -> Option<Slot<K>> {
        self.take_below(self.max, owner)
    }

    /// As [`Slots::take`], with a bound that may be another each time.
    pub(crate) fn take_below(self: &Arc<Self>, max: usize, owner: K) -> Option<Slot<K>> {
        let mut taken = self.lock();
        let count = taken.entry(owner).or_default();
        if max <= *count {
            return None;
        }
        *count += 1;
        Some(Slot { slots: Arc::clone(self), owner })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner) // No update is half done.
    }
}

impl<K: Copy + Eq + Hash> Drop for Slot<K> {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        let Some(count) = taken.get_mut(&self.owner) else { return };
        *count -= 1;
        if *count == 0 {
            taken.remove(&self.owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_that_was_lowered_counts_from_now_on() {
        let slots = Slots::new(usize::MAX);
        let [first, _second] = [3, 3].map(|max| slots.take_below(max, ()).unwrap());
        assert!(slots.take_below(2, ()).is_none());
        drop(first);
        assert!(slots.take_below(1, ()).is_none());
        assert!(slots.take_below(2, ()).is_some());
    }

    #[test]
    fn an_owner_has_at_most_its_slots_and_gets_them_back() {
        let slots = Slots::new(2);
        let first = slots.take('a').unwrap();
        let _second = slots.take('a').unwrap();
        assert!(slots.take('a').is_none());
        let other = slots.take('b').unwrap();
        drop((first, other));
        assert!(slots.take('a').is_some());
        assert_eq!(slots.lock().len(), 1, "who has no slot has no entry");
    }
}
