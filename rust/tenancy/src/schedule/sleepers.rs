// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sleeping items, ordered by wake-up time. Times are `CLOCK_MONOTONIC` in nanoseconds. The caller bounds the number of
//! sleepers.

use std::collections::{BTreeMap, HashMap};

/// Sleepers. The earliest wakes first; of those with the same time, the one that was added first. Each has a number, by
/// which it can be woken.
#[derive(Debug)]
pub(crate) struct Sleepers<T> {
    /// By wake-up time and number, so that no two keys are equal.
    in_order: BTreeMap<(u64, u64), T>,
    /// Wake-up times by number.
    times: HashMap<u64, u64>,
    next: u64,
}

impl<T> Sleepers<T> {
    /// The number that the next item will have.
    pub(crate) fn next_number(&self) -> u64 {
        self.next
    }

    pub(crate) fn push(&mut self, until_ns: u64, item: T) {
        self.in_order.insert((until_ns, self.next), item);
        self.times.insert(self.next, until_ns);
        self.next = self.next.wrapping_add(1);
    }

    /// The earliest wake-up time.
    pub(crate) fn earliest_ns(&self) -> Option<u64> {
        self.in_order.first_key_value().map(|(&(until_ns, _), _)| until_ns)
    }

    /// Takes the next item whose time has come.
    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<T> {
        self.earliest_ns().filter(|earliest| *earliest <= now_ns)?;
        let ((_, number), item) = self.in_order.pop_first()?;
        self.times.remove(&number);
        Some(item)
    }

    /// Has the next item whose time has come sleep again, until `until_ns`. Returns it with its number.
    pub(crate) fn put_off_due(&mut self, now_ns: u64, until_ns: u64) -> Option<(u64, &T)> {
        let (&(_, number), _) = self.in_order.first_key_value().filter(|((due_ns, _), _)| *due_ns <= now_ns)?;
        self.move_to(number, until_ns);
        self.in_order.get(&(until_ns, number)).map(|item| (number, item))
    }

    /// Has the item with this number sleep until `until_ns`, if it still sleeps. Returns whether it does.
    pub(crate) fn move_to(&mut self, number: u64, until_ns: u64) -> bool {
        let Some(item) = self.remove(number) else { return false };
        self.in_order.insert((until_ns, number), item);
        self.times.insert(number, until_ns);
        true
    }

    /// Takes the item with this number before its time, if it still sleeps.
    pub(crate) fn remove(&mut self, number: u64) -> Option<T> {
        let until_ns = self.times.remove(&number)?;
        self.in_order.remove(&(until_ns, number))
    }

    /// Takes all items.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.times.clear();
        std::mem::take(&mut self.in_order).into_values()
    }
}

impl<T> Default for Sleepers<T> {
    fn default() -> Self {
        Self { in_order: BTreeMap::new(), times: HashMap::new(), next: 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn none_wakes_early() {
        let mut sleepers = Sleepers::default();
        assert_eq!((sleepers.earliest_ns(), sleepers.pop_due(u64::MAX)), (None, None));
        sleepers.push(20, 'b');
        sleepers.push(10, 'a');
        assert_eq!(sleepers.earliest_ns(), Some(10));
        assert_eq!(sleepers.pop_due(9), None);
        assert_eq!(sleepers.pop_due(10), Some('a'));
        assert_eq!(sleepers.pop_due(10), None);
        sleepers.push(u64::MAX, 'c');
        assert_eq!(sleepers.take_all().count(), 2);
        assert_eq!(sleepers.earliest_ns(), None);
    }

    #[test]
    fn one_can_be_woken_early_and_only_once() {
        let mut sleepers = Sleepers::default();
        let first = sleepers.next_number();
        sleepers.push(10, 'a');
        let second = sleepers.next_number();
        sleepers.push(10, 'b');
        assert_eq!((sleepers.remove(second), sleepers.remove(second)), (Some('b'), None));
        assert_eq!(sleepers.pop_due(10), Some('a'));
        assert_eq!(sleepers.remove(first), None);
        sleepers.push(10, 'c');
        assert_eq!(sleepers.remove(first), None, "a number is not reused");
    }

    #[test]
    fn one_that_is_put_off_keeps_its_number() {
        let mut sleepers = Sleepers::default();
        let number = sleepers.next_number();
        sleepers.push(10, 'a');
        assert_eq!(sleepers.put_off_due(9, 50), None);
        assert_eq!(sleepers.put_off_due(10, 50), Some((number, &'a')));
        assert_eq!((sleepers.earliest_ns(), sleepers.put_off_due(49, 60)), (Some(50), None));
        assert!(sleepers.move_to(number, 5));
        assert_eq!(sleepers.pop_due(5), Some('a'));
        assert!(!sleepers.move_to(number, 5));
    }

    proptest! {
        #[test]
        fn they_wake_in_the_order_of_their_times_and_then_of_their_arrival(times in prop::collection::vec(0..20_u64, 0..50)) {
            let mut sleepers = Sleepers::default();
            for (arrival, time) in times.iter().enumerate() {
                sleepers.push(*time, (*time, arrival));
            }
            let woken: Vec<_> = std::iter::from_fn(|| sleepers.pop_due(u64::MAX)).collect();
            let mut expected: Vec<_> = times.into_iter().enumerate().map(|(arrival, time)| (time, arrival)).collect();
            expected.sort_unstable();
            prop_assert_eq!(woken, expected);
        }
    }
}
