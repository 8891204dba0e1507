// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks that belong to an open file: `flock(2)`, and "open file description locks" of `fcntl(2)`.
//!
//! They conflict between open files, also of one process. They are a part of the open file: they end with it, a
//! duplicate of a descriptor shares them, and a reset restores them with it. Record locks of a process (F_SETLK) never
//! conflict inside the process, and there is no other.

use serde::{Deserialize, Serialize};

use crate::base::errno::Errno;

/// Most locked ranges of an open file.
const RANGES_MAX: usize = 1024;
/// Most locked ranges of all open files together.
const ALL_RANGES_MAX: usize = 4096;

/// A file's device and inode number.
pub(crate) type FileIdentity = (u32, u64);

/// How a file, or a part of it, is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LockKind {
    Shared,
    Exclusive,
}

impl LockKind {
    fn conflicts_with(self, other: Self) -> bool {
        self == Self::Exclusive || other == Self::Exclusive
    }
}

/// A locked part of a file: bytes `start..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LockedRange {
    pub(crate) start: u64,
    pub(crate) last: u64,
    pub(crate) kind: LockKind,
}

impl LockedRange {
    fn overlaps(&self, other: &Self) -> bool {
        self.start <= other.last && other.start <= self.last
    }
}

/// The locks of an open file.
///
/// # Invariants
///
/// Ranges are ascending and disjoint, and adjacent ones differ in kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Locks {
    /// The file, as of the first lock.
    file: FileIdentity,
    whole: Option<LockKind>,
    ranges: Vec<LockedRange>,
}

impl Locks {
    pub(crate) fn new(file: FileIdentity) -> Self {
        Self { file, ..Self::default() }
    }

    pub(crate) fn is_of(&self, file: FileIdentity) -> bool {
        self.file == file
    }

    /// Number of locked ranges.
    pub(crate) fn ranges(&self) -> usize {
        self.ranges.len()
    }

    /// Whether a range is locked exclusively.
    pub(crate) fn has_exclusive_range(&self) -> bool {
        self.ranges.iter().any(|range| range.kind == LockKind::Exclusive)
    }

    /// The lock on the whole file, by `flock`.
    pub(crate) fn whole(&self) -> Option<LockKind> {
        self.whole
    }

    pub(crate) fn set_whole(&mut self, kind: Option<LockKind>) {
        self.whole = kind;
    }

    /// Whether a lock of another open file on the whole file conflicts.
    pub(crate) fn excludes_whole(&self, kind: LockKind) -> bool {
        self.whole.is_some_and(|own| own.conflicts_with(kind))
    }

    /// The first range that conflicts with `wanted` of another open file.
    pub(crate) fn conflict(&self, wanted: &LockedRange) -> Option<LockedRange> {
        self.ranges.iter().copied().find(|own| own.overlaps(wanted) && own.kind.conflicts_with(wanted.kind))
    }

    /// Locks bytes `start..=last`, or unlocks them (`None`). The kind that they had before does not matter. The other
    /// open files have `others` locked ranges.
    ///
    /// # Errors
    ///
    /// `ENOLCK` if there would be too many ranges: unlocking the middle of one makes two of it.
    pub(crate) fn set_range(
        &mut self,
        start: u64,
        last: u64,
        kind: Option<LockKind>,
        others: usize,
    ) -> Result<(), Errno> {
        let mut ranges = Vec::with_capacity(self.ranges.len().saturating_add(2));
        for own in &self.ranges {
            if own.start < start {
                ranges.push(LockedRange { last: own.last.min(start.saturating_sub(1)), ..*own });
            }
            if own.last > last {
                ranges.push(LockedRange { start: own.start.max(last.saturating_add(1)), ..*own });
            }
        }
        ranges.extend(kind.map(|kind| LockedRange { start, last, kind }));
        ranges.sort_by_key(|range| range.start);
        ranges.dedup_by(|next, one| {
            let merges = one.kind == next.kind && one.last.checked_add(1) == Some(next.start);
            if merges {
                one.last = next.last;
            }
            merges
        });
        let too_many = ranges.len() > RANGES_MAX || ranges.len().saturating_add(others) > ALL_RANGES_MAX;
        if too_many && ranges.len() > self.ranges.len() {
            return Err(Errno::ENOLCK);
        }
        self.ranges = ranges;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds() -> impl Strategy<Value = Option<LockKind>> {
        prop_oneof![Just(None), Just(Some(LockKind::Shared)), Just(Some(LockKind::Exclusive))]
    }

    proptest! {
        /// Each byte has the kind that was set last, and the list is as short as possible.
        #[test]
        fn ranges_are_what_was_set_last(steps in prop::collection::vec((0_u64..20, 0_u64..20, kinds()), 0..30)) {
            let mut locks = Locks::new((1, 2));
            let mut model = [None; 40];
            for (start, len, kind) in steps {
                let last = start + len;
                locks.set_range(start, last, kind, 0).unwrap();
                model[start as usize..=last as usize].fill(kind);
            }
            let mut seen = [None; 40];
            for range in &locks.ranges {
                prop_assert!(range.start <= range.last);
                seen[range.start as usize..=range.last as usize].fill(Some(range.kind));
            }
            prop_assert_eq!(seen, model);
            for pair in locks.ranges.windows(2) {
                prop_assert!(pair[0].last < pair[1].start);
                prop_assert!(pair[0].kind != pair[1].kind || pair[0].last + 1 < pair[1].start);
            }
        }
    }

    #[test]
    fn ranges_reach_to_the_end_and_are_bounded() {
        let mut locks = Locks::new((1, 2));
        locks.set_range(0, u64::MAX, Some(LockKind::Exclusive), 0).unwrap();
        locks.set_range(10, u64::MAX, None, 0).unwrap();
        assert_eq!(locks.ranges, [LockedRange { start: 0, last: 9, kind: LockKind::Exclusive }]);
        let results: Vec<_> = (10..2000).map(|at| locks.set_range(2 * at, 2 * at, Some(LockKind::Shared), 0)).collect();
        assert!(results.contains(&Err(Errno::ENOLCK)));
        assert!(locks.ranges.len() <= RANGES_MAX);
    }

    #[test]
    fn unlocking_in_the_middle_counts_and_unlocking_all_never_fails() {
        let mut locks = Locks::new((1, 2));
        let others = ALL_RANGES_MAX - 1;
        locks.set_range(0, 99, Some(LockKind::Exclusive), others).unwrap();
        assert_eq!(locks.set_range(50, 50, None, others), Err(Errno::ENOLCK));
        assert_eq!(locks.set_range(50, 50, Some(LockKind::Shared), others), Err(Errno::ENOLCK));
        assert_eq!(locks.set_range(200, 200, Some(LockKind::Shared), others), Err(Errno::ENOLCK));
        assert_eq!(locks.ranges, [LockedRange { start: 0, last: 99, kind: LockKind::Exclusive }]);
        locks.set_range(50, 99, None, others).unwrap();
        locks.set_range(0, 99, None, 2 * ALL_RANGES_MAX).unwrap();
        assert_eq!(locks.ranges(), 0);
    }

    #[test]
    fn only_readers_share() {
        let mut locks = Locks::new((1, 2));
        locks.set_range(5, 9, Some(LockKind::Shared), 0).unwrap();
        let wanted = |start, last, kind| LockedRange { start, last, kind };
        assert_eq!(locks.conflict(&wanted(0, 100, LockKind::Shared)), None);
        assert_eq!(locks.conflict(&wanted(0, 4, LockKind::Exclusive)), None);
        assert!(locks.conflict(&wanted(9, 9, LockKind::Exclusive)).is_some());
        locks.set_whole(Some(LockKind::Shared));
        assert!(!locks.excludes_whole(LockKind::Shared) && locks.excludes_whole(LockKind::Exclusive));
    }
}
