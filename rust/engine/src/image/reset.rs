// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resets a worker to its image.

use mayfly_machine::layout::CONTROL_RAX;
use mayfly_machine::{MemoryError, RunError};
use mayfly_memory::tables::Entry;
use mayfly_memory::take_back::Content;

use crate::image::fork::KEPT_CHANGES;
use crate::machine::changes::Birth;
use crate::machine::machine::Machine;

impl Machine {
    /// Makes the next run enter the frozen program, if the last exit was at the doorbell: no system call.
    /// [`Machine::enter_frozen`] does so from anywhere.
    #[inline]
    pub fn rewind(&mut self) {
        self.processor.rewind();
    }

    /// Makes the next run enter the frozen program even where the doorbell would return. Call it after
    /// [`Machine::reset`].
    #[inline]
    pub fn enter_trampoline(&mut self) {
        self.processor.enter_trampoline();
    }

    /// Makes the processor ready for [`Machine::reset`] where the last run was interrupted and the program must not go
    /// on. Costs some system calls.
    ///
    /// # Errors
    ///
    /// [`RunError`] if one of them fails; the machine must be dropped then.
    pub fn abandon(&mut self) -> Result<(), RunError> {
        self.processor.abandon()
    }

    /// Writes a worker's control line as it is at a fork.
    pub(crate) fn write_control(&mut self) {
        self.set_rewinds(true);
        let value = self.frozen.as_ref().map_or(0, |frozen| frozen.entry_value);
        self.set_entry_value(value);
    }

    /// What the trampoline puts into RAX.
    #[inline]
    pub(crate) fn set_entry_value(&mut self, value: u64) {
        self.memory.write_u64(self.inbox.control() + CONTROL_RAX, value);
    }

    /// Chooses what the doorbell does in this worker: rewind, as after a fork, or return to its caller.
    pub fn set_rewinds(&mut self, rewinds: bool) {
        self.rewinds = rewinds;
        self.processor.set_rewinds(rewinds);
        self.memory.write_u64(self.inbox.control(), if rewinds { REWIND } else { 0 });
    }

    /// Whether the doorbell rewinds: see [`Machine::set_rewinds`].
    #[inline]
    #[must_use]
    pub fn rewinds(&self) -> bool {
        self.rewinds
    }

    /// Whether the last exit was at the doorbell, which returns to its caller when the machine runs again:
    /// [`Machine::return_from_doorbell`] says with what.
    #[inline]
    #[must_use]
    pub fn is_in_returning_doorbell(&self) -> bool {
        !self.rewinds && self.processor.is_at_doorbell()
    }

    /// Undoes every change since the fork, in memory and in the tables, and rewinds the registers.
    ///
    /// In the steady state, with no change but writes to the work set, this is one copy a page and no system call.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Host`] if the kernel refuses to take pages back; the machine must be dropped then.
    #[inline]
    pub fn reset(&mut self) -> Result<ResetReport, MemoryError> {
        let host_pages = std::mem::take(&mut self.host_pages);
        let entries = if self.changes.undo.is_empty() { 0 } else { self.undo()? };
        if host_pages != 0 {
            self.settle();
        }
        for page in &self.changes.work {
            match &page.birth {
                Birth::Image => self.memory.restore(page.frame),
                Birth::Zero => self.memory.zero(page.frame),
                Birth::File { content, .. } => self.memory.fill(page.frame, content),
            }
        }
        self.clean()?;
        self.rewind();
        Ok(ResetReport { pages: self.changes.work.len() as u64, entries, gave_back: false })
    }

    /// Erases what lies in pages of the engine's own, and has the processor forget what it must.
    #[inline]
    fn clean(&mut self) -> Result<(), MemoryError> {
        if let Some(frame) = self.processor.used_stack_frame()
            && self.changes.recorded
        {
            self.memory.restore(frame);
        }
        // Orders name addresses of the request's: they go last.
        self.processor.settle(&self.memory, self.tables)?;
        if self.has_shared_files() {
            // After the stub has unmapped them: what it has mapped keeps a file open, and its last close takes its
            // time.
            self.end_shared_files()?;
        }
        self.processor.clean();
        Ok(())
    }

    /// Puts back the table entries that the request changed, and gives its frames back.
    #[cold]
    fn undo(&mut self) -> Result<u64, MemoryError> {
        self.translations.clear();
        let entries = self.changes.undo.len() as u64;
        // Frames that lose access, and frames that lose their content with it.
        let mut stale = std::mem::take(&mut self.changes.scratch);
        stale.clear();
        let mut written = self.memory.take_dirty();
        written.append(&mut self.changes.request_frames);
        let released = written.len();
        for (slot, (address, old)) in self.changes.undo.drain() {
            self.processor.forget(address);
            let now = Entry(self.memory.read_u64(slot));
            // An image page that became writable must lose its content.
            if now.is_writable() {
                written.extend(now.frame());
            } else if !now.is_upgrade_to(old) {
                stale.extend(now.frame());
            }
            self.memory.write_u64(slot, old.0);
        }
        written.extend(self.changes.request_image_frames.drain());
        // Those that the request has made, and those that it has removed.
        self.forget_aliases(&written);
        if let Some(frozen) = &self.frozen {
            self.changes.aliases = frozen.aliases.clone();
        }
        self.forget_aliases(&written);
        self.changes.undo.shrink_to(KEPT_CHANGES);
        self.changes.request_image_frames.shrink_to(KEPT_CHANGES);
        let result = self.memory.take_back(&mut stale, Content::Keep);
        self.changes.scratch = stale;
        result?;
        let mut free = written.get(..released).unwrap_or_default().to_vec();
        self.memory.take_back(&mut written, Content::Drop)?;
        // The last one that is given back is handed out first: frames that are handed out in a row lie in a row.
        free.sort_unstable();
        for frame in free.drain(..).rev() {
            self.memory.release(frame);
        }
        self.settle();
        Ok(entries)
    }

    /// Gives back what the machine holds of the process's memory and does not use.
    fn settle(&mut self) {
        let used = self.private_pages().saturating_add(self.inbox_used_pages).saturating_add(self.host_pages);
        self.memory.settle(used);
    }

    /// Gives the work set back to the system instead of copying it, for workers that have grown too large.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Host`] if the kernel refuses; the machine must be dropped then.
    pub fn release_work_set(&mut self) -> Result<ResetReport, MemoryError> {
        self.translations.clear();
        let entries = if self.changes.undo.is_empty() { 0 } else { self.undo()? };
        let pages = self.changes.work.len() as u64;
        let mut frames = std::mem::take(&mut self.changes.scratch);
        frames.clear();
        let mut aliased = Vec::new();
        for page in &self.changes.work {
            if let Some(slot) = self.tables.slot(&self.memory, page.address) {
                let entry = Entry(self.memory.read_u64(slot));
                let pristine = match page.birth {
                    Birth::Image => entry.read_only(),
                    Birth::Zero => Entry::EMPTY,
                    Birth::File { frame, .. } => Entry::user(frame, page.prot).read_only(),
                };
                self.memory.write_u64(slot, pristine.0);
                self.processor.forget(page.address);
            }
            aliased.extend(Some(page.frame).filter(|frame| !self.changes.aliases.of(*frame).is_empty()));
            frames.push(page.frame);
        }
        for frame in aliased {
            self.protect_aliases(frame);
        }
        self.changes.work_aliases.clear();
        // Only the host writes the inbox's pages; they go too.
        frames.extend(self.inbox.first_frame..self.inbox.first_frame + self.inbox.pages);
        let result = self.memory.take_back(&mut frames, Content::Drop);
        self.write_control();
        self.changes.scratch = frames;
        result?;
        self.changes.work_image_pages = 0;
        for page in std::mem::take(&mut self.changes.work) {
            if page.birth != Birth::Image {
                self.memory.release(page.frame);
            }
        }
        (self.inbox_used_pages, self.host_pages) = (0, 0);
        self.settle();
        self.clean()?;
        self.rewind();
        Ok(ResetReport { pages, entries, gave_back: true })
    }
}

/// What one reset did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResetReport {
    /// Pages whose content was restored.
    pub pages: u64,
    /// Table entries that were put back.
    pub entries: u64,
    /// Whether the pages went back to the system, so that the next request that writes them takes faults again.
    pub gave_back: bool,
}

/// Control word of a worker: the doorbell does not return, but enters the trampoline.
const REWIND: u64 = 1;
