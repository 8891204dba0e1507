// SPDX-License-Identifier: MIT OR Apache-2.0
//! What sleeps, by the time at which it is to wake. Times are `CLOCK_MONOTONIC` in nanoseconds. How many may sleep is bounded by whoever
//! lets them.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Sleepers. The earliest wakes first; of those with one time, the one that came first.
#[derive(Debug)]
pub(crate) struct Sleepers<T> {
    heap: BinaryHeap<Sleeper<T>>,
    arrivals: u64,
}

#[derive(Debug)]
struct Sleeper<T> {
    /// When it wakes, and which one it was to come: no two are equal. Reversed, since the heap has its greatest first.
    order: Reverse<(u64, u64)>,
    item: T,
}

impl<T> Sleepers<T> {
    pub(crate) fn push(&mut self, until_ns: u64, item: T) {
        self.arrivals = self.arrivals.wrapping_add(1);
        self.heap.push(Sleeper { order: Reverse((until_ns, self.arrivals)), item });
    }

    /// When the next one wakes.
    pub(crate) fn earliest_ns(&self) -> Option<u64> {
        self.heap.peek().map(|sleeper| sleeper.order.0.0)
    }

    /// The next one whose time has come.
    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<T> {
        self.earliest_ns().filter(|earliest| *earliest <= now_ns)?;
        self.heap.pop().map(|sleeper| sleeper.item)
    }

    /// Everybody, whatever their time, in no order.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.heap).into_iter().map(|sleeper| sleeper.item)
    }
}

impl<T> Default for Sleepers<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), arrivals: 0 }
    }
}

impl<T> Ord for Sleeper<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order.cmp(&other.order)
    }
}

impl<T> PartialOrd for Sleeper<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Eq for Sleeper<T> {}

impl<T> PartialEq for Sleeper<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

/// The time by that clock.
pub(crate) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nobody_wakes_early() {
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
