// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program break: `brk(2)`.

use mayfly_machine::{PAGE_SIZE, Prot};

use super::AddressSpace;
use crate::base::pages::{self, PageRange};
use crate::mm::vma::{Vma, VmaKind};

impl AddressSpace {
    /// Sets the heap's start; the heap is empty.
    pub(crate) fn start_heap(&mut self, start: u64) {
        self.heap_start = start;
        self.heap_break = start;
    }

    /// Where the heap starts.
    #[cfg(test)]
    pub(crate) fn heap_start(&self) -> u64 {
        self.heap_start
    }

    /// The current break.
    pub(crate) fn heap_break(&self) -> u64 {
        self.heap_break
    }

    /// Moves the break to `wanted` if possible. Returns the break and what the caller has to unmap. As on Linux there
    /// is no error: a program compares the result with what it asked for.
    pub(crate) fn set_break(&mut self, wanted: u64) -> (u64, Option<PageRange>) {
        match self.try_set_break(wanted) {
            Some(unmapped) => {
                self.heap_break = wanted;
                (wanted, unmapped)
            }
            None => (self.heap_break, None),
        }
    }

    /// `None` if the break cannot be moved there.
    fn try_set_break(&mut self, wanted: u64) -> Option<Option<PageRange>> {
        if wanted < self.heap_start {
            return None;
        }
        let (old, new) = (pages::align_up(self.heap_break)?, pages::align_up(wanted)?);
        if new < old {
            let range = PageRange::new(new, old)?;
            self.unmap(range).ok()?;
            return Some(Some(range));
        }
        let range = PageRange::new(old, new)?;
        if range.is_empty() {
            return Some(None);
        }
        // One page stays free below the next mapping, as on Linux.
        let with_gap = PageRange::new(old, new.checked_add(PAGE_SIZE)?)?;
        if with_gap.end() > mayfly_machine::layout::USER_END || !self.is_free(with_gap) {
            return None;
        }
        let heap = Vma { range, prot: Prot::READ | Prot::WRITE, kind: VmaKind::Private, origin: self.origin };
        self.rewrite(range, |_| None, Some(heap)).ok()?;
        Some(None)
    }
}
