// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page arithmetic: ranges of whole pages in the lower half of the address space.
//!
//! Guests choose addresses and sizes, so this file does every sum and rounding of them, checked. Outside of it a
//! [`PageRange`] cannot be misaligned, inverted or wrapped.

use mayfly_machine::PAGE_SIZE;
use serde::{Deserialize, Serialize};

/// The first address past what Linux lets any process map on x86-64 (`TASK_SIZE`).
///
/// A program's own address space ends earlier, at [`mayfly_machine::layout::USER_END`]. This limit distinguishes
/// addresses that are merely unmapped from those that calls refuse as invalid.
pub(crate) const TASK_SIZE: u64 = 0x7fff_ffff_f000;

/// Size of a page, as the length of a buffer.
pub(crate) const PAGE_BYTES: usize = 4096;
const _: () = assert!(PAGE_BYTES as u64 == PAGE_SIZE);

/// Rounds `address` down to a page boundary.
pub(crate) const fn align_down(address: u64) -> u64 {
    address & !(PAGE_SIZE - 1)
}

/// Rounds `value` up to a page boundary, unless that overflows.
pub(crate) const fn align_up(value: u64) -> Option<u64> {
    match value.checked_add(PAGE_SIZE - 1) {
        Some(sum) => Some(align_down(sum)),
        None => None,
    }
}

/// Whether `address` is a page boundary.
pub(crate) const fn is_aligned(address: u64) -> bool {
    address.is_multiple_of(PAGE_SIZE)
}

/// A range `start..end` of whole pages.
///
/// # Invariants
///
/// `start` and `end` are page boundaries and `start <= end <= TASK_SIZE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub(crate) struct PageRange {
    start: u64,
    end: u64,
}

impl TryFrom<(u64, u64)> for PageRange {
    type Error = &'static str;

    fn try_from((start, end): (u64, u64)) -> Result<Self, Self::Error> {
        Self::new(start, end).ok_or("not a range of pages")
    }
}

impl From<PageRange> for (u64, u64) {
    fn from(range: PageRange) -> Self {
        (range.start, range.end)
    }
}

impl PageRange {
    /// `start..end`, if that keeps the invariants.
    pub(crate) const fn new(start: u64, end: u64) -> Option<Self> {
        if is_aligned(start) && is_aligned(end) && start <= end && end <= TASK_SIZE {
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// `len` bytes from `start`; `len` is rounded up to whole pages.
    pub(crate) const fn at(start: u64, len: u64) -> Option<Self> {
        let Some(len) = align_up(len) else { return None };
        match start.checked_add(len) {
            Some(end) => Self::new(start, end),
            None => None,
        }
    }

    pub(crate) const fn start(self) -> u64 {
        self.start
    }

    pub(crate) const fn end(self) -> u64 {
        self.end
    }

    /// Size in bytes.
    pub(crate) const fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.start == self.end
    }

    pub(crate) const fn contains(self, address: u64) -> bool {
        self.start <= address && address < self.end
    }

    pub(crate) const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The intersection with `other`; `None` if they are disjoint.
    pub(crate) fn intersection(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Self { start, end })
    }

    /// The part below `address`, a page boundary; empty if there is none.
    pub(crate) fn before(self, address: u64) -> Self {
        debug_assert!(is_aligned(address));
        Self { start: self.start, end: address.clamp(self.start, self.end) }
    }

    /// The part from `address` on, a page boundary; empty if there is none.
    pub(crate) fn after(self, address: u64) -> Self {
        debug_assert!(is_aligned(address));
        Self { start: address.clamp(self.start, self.end), end: self.end }
    }
}

impl std::fmt::Display for PageRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_wrap_or_leave_the_lower_half_do_not_exist() {
        assert_eq!(PageRange::at(0x1000, u64::MAX), None);
        assert_eq!(PageRange::at(0x1000, u64::MAX - 0x1fff), None);
        assert_eq!(PageRange::at(u64::MAX - 0xfff, 0x1000), None);
        assert_eq!(PageRange::at(TASK_SIZE, 1), None);
        assert_eq!(PageRange::new(0x2000, 0x1000), None);
        assert_eq!(PageRange::at(0x1001, 0x1000), None);
    }

    #[test]
    fn lengths_round_up_to_pages() {
        let range = PageRange::at(0x1000, 1).unwrap();
        assert_eq!((range.start(), range.end(), range.len()), (0x1000, 0x2000, 0x1000));
        assert!(PageRange::at(0x1000, 0).unwrap().is_empty());
    }

    #[test]
    fn splitting_keeps_both_halves() {
        let range = PageRange::at(0x1000, 0x3000).unwrap();
        assert_eq!(range.before(0x2000).len() + range.after(0x2000).len(), range.len());
        assert!(range.before(0x1000).is_empty());
        assert_eq!(range.after(0), range);
        assert_eq!(range.intersection(PageRange::at(0x4000, 0x1000).unwrap()), None);
    }
}
