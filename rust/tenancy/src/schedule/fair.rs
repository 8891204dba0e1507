// SPDX-License-Identifier: MIT OR Apache-2.0
//! A bounded queue that is fair to tenants: it serves the first item of each, then the second of each, and so on.
//!
//! ```text
//!   round   1       1       2       2       3                       new, of B: round 3, behind B's last
//!          [A]     [B]     [A]     [B]     [A] [A] [A] ...           new, of C: the round after the last item taken
//! ```

use std::collections::VecDeque;

/// A queue; the caller of [`Self::push`] says which items have the same owner.
///
/// # Invariant
///
/// Rounds do not descend.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    waiting: VecDeque<(u64, T)>,
    /// The round of the last item taken.
    round: u64,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), round: 0 }
    }
}

impl<T> FairQueue<T> {
    /// Adds an item. If the queue already has `most`, returns the item that it has no room for: the last item of the
    /// owner with the most items, which may be the new one.
    pub(crate) fn push(&mut self, new: T, most: usize, has_same_owner: impl Fn(&T) -> bool) -> Option<T> {
        let last = self.waiting.iter().rfind(|(_, other)| has_same_owner(other)).map(|(round, _)| *round);
        let round = last.unwrap_or(self.round).max(self.round).saturating_add(1);
        if self.waiting.len() >= most {
            if self.waiting.back().is_none_or(|(last, _)| *last <= round) {
                return Some(new);
            }
            let refused = self.waiting.pop_back();
            self.insert(round, new);
            return refused.map(|(_, refused)| refused);
        }
        self.insert(round, new);
        None
    }

    fn insert(&mut self, round: u64, new: T) {
        let at = self.waiting.partition_point(|(other, _)| *other <= round);
        self.waiting.insert(at, (round, new));
    }

    /// Takes the next item.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let (round, next) = self.waiting.pop_front()?;
        self.round = round;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 8;

    /// Pushes an item for an owner; returns the refused item.
    fn push(queue: &mut FairQueue<(char, u32)>, owner: char, number: u32) -> Option<(char, u32)> {
        queue.push((owner, number), MOST, |(other, _)| *other == owner)
    }

    fn drained(queue: &mut FairQueue<(char, u32)>) -> String {
        std::iter::from_fn(|| queue.pop()).map(|(owner, number)| format!("{owner}{number} ")).collect()
    }

    #[test]
    fn owners_take_turns_and_keep_their_own_order() {
        let mut queue = FairQueue::default();
        for number in 0..5 {
            assert_eq!(push(&mut queue, 'a', number), None);
        }
        assert_eq!(queue.pop(), Some(('a', 0)));
        push(&mut queue, 'b', 0);
        push(&mut queue, 'b', 1);
        push(&mut queue, 'c', 0);
        assert_eq!(drained(&mut queue), "a1 b0 c0 a2 b1 a3 a4 ");
        push(&mut queue, 'a', 5);
        push(&mut queue, 'b', 2);
        assert_eq!(drained(&mut queue), "a5 b2 ");
    }

    #[test]
    fn an_owner_that_fills_the_queue_does_not_block_others() {
        let mut queue = FairQueue::default();
        for number in 0..MOST as u32 {
            assert_eq!(push(&mut queue, 'a', number), None);
        }
        assert_eq!(push(&mut queue, 'a', 8), Some(('a', 8)), "its own");
        assert_eq!(push(&mut queue, 'b', 0), Some(('a', 7)), "the last of the owner with most");
        for (number, refused) in [(1, 6), (2, 5), (3, 4)] {
            assert_eq!(push(&mut queue, 'b', number), Some(('a', refused)));
        }
        assert_eq!(push(&mut queue, 'b', 4), Some(('b', 4)), "as many as the other has");
        assert_eq!(drained(&mut queue), "a0 b0 a1 b1 a2 b2 a3 b3 ");
    }
}
