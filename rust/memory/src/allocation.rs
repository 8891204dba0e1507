// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hands out a machine's frames, and takes them again.

use crate::layout::Reach;
use crate::memory::Memory;

impl Memory {
    /// Frames that have ever been handed out, counted from 0.
    pub fn used_frames(&self) -> u64 {
        self.in_use.next
    }

    /// Frames that exist only in this machine, whether or not they have been touched.
    pub fn private_in_use(&self) -> u64 {
        let kernels = if self.reach() == Reach::Files { self.tables } else { 0 };
        self.in_use.count() - self.image_frames + kernels
    }

    /// A zeroed frame for a page table. A processor with mappings of its own has a table of the kernel's for it, too.
    pub(crate) fn allocate_table(&mut self) -> Option<u64> {
        let frame = self.allocate()?;
        self.tables += 1;
        Some(frame)
    }

    /// A zeroed frame, or `None` when the machine's memory is used up.
    pub fn allocate(&mut self) -> Option<u64> {
        if let Some(frame) = self.in_use.free.pop() {
            return Some(frame);
        }
        if let Some(frame) = self.in_use.dirty.pop() {
            self.zero(frame);
            return Some(frame);
        }
        (self.in_use.next < self.frames).then(|| {
            self.in_use.next += 1;
            self.in_use.next - 1
        })
    }

    /// The frame that all pages share which the program has only read, and which read as zero. Callers map it without
    /// write access. `None` when the machine's memory is used up.
    pub fn zero_frame(&mut self) -> Option<u64> {
        if self.in_use.zeroes.is_none() {
            self.in_use.zeroes = self.allocate();
        }
        self.in_use.zeroes
    }

    /// Whether `frame` is [`Memory::zero_frame`].
    #[inline]
    #[must_use]
    pub fn is_zero_frame(&self, frame: u64) -> bool {
        self.in_use.zeroes == Some(frame)
    }

    /// `count` zeroed frames in a row, or `None`.
    pub fn allocate_run(&mut self, count: u64) -> Option<u64> {
        let end = self.in_use.next.checked_add(count)?;
        (end <= self.frames).then(|| std::mem::replace(&mut self.in_use.next, end))
    }

    /// Gives back frames that [`Memory::take_back`] has emptied.
    pub fn release(&mut self, frame: u64) {
        debug_assert!(frame >= self.image_frames && frame < self.in_use.next);
        self.in_use.free.push(frame);
    }

    /// Gives back frames that have kept their content. They are zeroed when they are handed out again.
    pub fn release_dirty(&mut self, frame: u64) {
        debug_assert!(frame >= self.image_frames && frame < self.in_use.next);
        self.in_use.dirty.push(frame);
    }

    /// Hands out all free frames that have kept their content, to be emptied and given back.
    pub fn take_dirty(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.in_use.dirty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::PAGE;

    #[test]
    fn a_frame_that_kept_its_content_is_handed_out_zeroed() {
        let mut boot = Memory::boot(4, &crate::ledger::Account::default(), crate::layout::Reach::Mapping).unwrap();
        boot.allocate().unwrap();
        let image = std::sync::Arc::new(boot.seal().unwrap());
        let mut fork = Memory::fork(
            &image,
            2,
            crate::ledger::Hold::new(&crate::ledger::Account::default(), crate::ledger::Purpose::Fork),
        )
        .unwrap();
        let frame = fork.allocate().unwrap();
        fork.write_u64(frame * PAGE as u64, 7);
        fork.release_dirty(frame);
        assert_eq!(fork.private_in_use(), 0);
        assert_eq!(fork.allocate(), Some(frame));
        assert_eq!(fork.read_u64(frame * PAGE as u64), 0);
    }
}
