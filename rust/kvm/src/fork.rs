// SPDX-License-Identifier: MIT OR Apache-2.0
//! Freezing a booted machine, forking workers from it, and rolling them back.

use std::collections::HashMap;
use std::sync::Arc;

use kvm_bindings::kvm_sregs;
use serde::{Deserialize, Serialize};

use crate::context::At;
use crate::error::{CreateError, FreezeError, MemoryError, RunError};
use crate::host::Host;
use crate::kernel;
use crate::layout::{DOORBELL, PAGE_SIZE, SHARED_PHYSICAL, TRAMPOLINE, USER_END};
use crate::ledger::{Hold, Purpose};
use crate::machine::{Inbox, Machine, Regs};
use crate::memory::{Content, Memory, SealedMemory};
use crate::space::{Birth, Changes, Origin};
use crate::tables::{Entry, Prot, Tables};
use crate::translations::Translations;
use crate::vcpu::{Start, Vcpu};

/// What every worker of an image shares.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) memory: Arc<SealedMemory>,
    pub(crate) tables: Tables,
    pub(crate) inbox: Inbox,
    pub(crate) stack_frame: u64,
    /// What workers find in RAX.
    pub(crate) entry_value: u64,
}

/// A frozen machine: immutable, shared by its workers.
#[derive(Debug, Clone)]
pub struct Image {
    pub(crate) host: Host,
    pub(crate) frozen: Arc<Frozen>,
}

/// A page that a worker has made private, as advice for the next fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Learned {
    address: u64,
    prot: u8,
    source: Source,
}

/// What the page holds at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
enum Source {
    Image,
    Zero,
    /// What this frame of a file holds.
    File(u64),
}

/// What one reset did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResetReport {
    /// Pages whose content was restored.
    pub pages: u64,
    /// Table entries that were put back.
    pub entries: u64,
}

/// Pages that a worker has from the start: its control line, its stack, tables.
const FIRST_PAGES: u64 = 16;
/// A table of more changes than this is made smaller after the request.
const KEPT_CHANGES: usize = 16_384;
/// Pages for which a worker needs a table of its own, about.
const PAGES_A_TABLE: u64 = 8;

/// Control word of a worker: the doorbell does not return, but enters the trampoline.
const REWIND: u64 = 1;

const XSTATE_BV: usize = 512;
const X87: u64 = 1;
const XCOMP_BV: usize = 520;

impl Image {
    /// Freezes a machine whose last exit was [`crate::Exit::Doorbell`], or whose registers were set since by
    /// [`Machine::set_context`]: workers go on behind it, with `result` in RAX.
    ///
    /// # Errors
    ///
    /// [`FreezeError`]; the machine is gone in any case.
    pub fn freeze(mut machine: Machine, result: u64) -> Result<Self, FreezeError> {
        if machine.changes.recorded {
            return Err(FreezeError::State("it is a worker".into()));
        }
        let regs = machine.vcpu.complete_exit()?;
        let sregs = machine.vcpu.get_sregs()?;
        if sregs.cs.selector != kernel::USER_CODE || sregs.cs.l != 1 || regs.rip >= USER_END + PAGE_SIZE * 16 {
            return Err(FreezeError::State(format!("cs {:#x}, rip {:#x}", sregs.cs.selector, regs.rip)));
        }
        let resume = machine.tables.entry(&machine.memory, DOORBELL).frame().map(|frame| frame * PAGE_SIZE);
        let resume = resume.ok_or_else(|| FreezeError::State("the doorbell page is gone".into()))?;
        let xsave = machine.vcpu.xsave()?;
        let mut area: Vec<u8> = xsave.region.iter().flat_map(|word| word.to_le_bytes()).collect();
        area.truncate((kernel::RESUME_REGS - kernel::RESUME_XSAVE) as usize);
        // Only components that `xrstor` may name here; the standard format, whatever KVM's buffer says.
        let mut components = [0; 8];
        components.copy_from_slice(&area[XSTATE_BV..XSTATE_BV + 8]);
        let mut components = u64::from_le_bytes(components) & machine.host.guest_xcr0() & crate::cpuid::XCR0_ALLOWED;
        let rip = kernel::frozen_rip(regs.rip);
        if rip != regs.rip {
            // Frozen inside a call of the doorbell: by the System V ABI vector registers are the callee's to change. They come back
            // as zero, which is quicker than loading them; x87 state and MXCSR, which `xrstor` loads all the same, are kept.
            components &= X87;
        }
        area[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&components.to_le_bytes());
        area[XCOMP_BV..XCOMP_BV + 56].fill(0);
        machine.memory.slice(resume + kernel::RESUME_XSAVE, area.len()).copy_from(&area[..]);
        let regs = Regs { rax: result, rip, ..regs };
        let words = kernel::resume_words(&regs, sregs.fs.base, sregs.gs.base);
        for (word, at) in words.into_iter().zip((resume + kernel::RESUME_REGS..).step_by(8)) {
            machine.memory.write_u64(at, word);
        }

        let Machine { vcpu, mut memory, tables, host, inbox, stack_frame, .. } = machine;
        // Shadow tables and TLBs go with the VM: entries may be downgraded freely from here on.
        drop(vcpu);
        let whole = memory.bytes();
        let read_only = tables.for_each(&mut memory, 0, USER_END, &mut |memory, _, slot, entry| {
            if let Some(frame) = entry.frame().filter(|frame| memory.is_file(*frame))
                && let Some(files) = memory.files_mut()
            {
                files.mark(frame);
            }
            if entry.is_writable() {
                memory.write_u64(slot, entry.read_only().0);
            }
            Ok(())
        });
        debug_assert!(read_only.is_ok(), "the visitor does not fail");
        debug_assert!(stack_frame * PAGE_SIZE < whole);
        if let Some(files) = memory.files_mut() {
            files.drop_unmarked();
        }
        let memory = Arc::new(memory.seal()?);
        Ok(Self { host, frozen: Arc::new(Frozen { memory, tables, inbox, stack_frame, entry_value: result }) })
    }

    /// Size of the image in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.frozen.memory.frames() * PAGE_SIZE
    }
}

/// The frames that a worker writes before its program has run, or is known to write.
fn first_writes(frozen: &Frozen, memory: &Memory, learned: &[Learned]) -> Vec<u64> {
    let mut frames = vec![frozen.inbox.first_frame];
    for page in learned {
        let (table, leaf) = frozen.tables.image_frames(memory, page.address);
        frames.extend(table.into_iter().chain(leaf.filter(|_| page.source == Source::Image)));
    }
    frames
}

impl Machine {
    /// Forks a worker that may have up to `private_pages` pages of its own; `learned` ones are made private now.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if KVM or the kernel refuses.
    pub fn fork(image: &Image, private_pages: u64, learned: &[Learned]) -> Result<Self, CreateError> {
        let frozen = &image.frozen;
        let mut hold = Hold::new(image.host.account(), Purpose::Fork);
        // What is known beforehand, and a table for each few of these pages.
        let known = FIRST_PAGES + learned.len() as u64;
        if !hold.cover_machine() || !hold.cover(hold.overhead() + known + known / PAGES_A_TABLE) {
            return Err(MemoryError::Full.into());
        }
        let mut memory = Memory::fork(&frozen.memory, private_pages, hold)?;
        memory.serve_requests();
        memory.populate(&mut first_writes(frozen, &memory, learned));
        let vcpu = Vcpu::create(&image.host, image.host.variant(), &memory, frozen.tables.cr3(), Start::Fork)?;
        let mut machine = Self {
            vcpu,
            memory,
            tables: frozen.tables,
            translations: Translations::new(),
            changes: Changes::in_worker(private_pages),
            host: image.host.clone(),
            variant: image.host.variant(),
            inbox: frozen.inbox,
            inbox_used_pages: 0,
            host_pages: 0,
            stack_frame: frozen.stack_frame,
            frozen: Some(Arc::clone(frozen)),
            at: At::User,
        };
        machine.write_control();
        for page in learned {
            machine.prepare(*page);
        }
        machine.rewind();
        Ok(machine)
    }

    /// Makes a learned page private ahead of its first write. Advice only: what does not fit is left to the fault.
    fn prepare(&mut self, page: Learned) {
        let Some(prot) = Prot::from_bits(page.prot.into()) else { return };
        let done = match page.source {
            Source::Image => self.make_writable(page.address, Origin::Snapshot),
            Source::Zero => self.map_zero(page.address, prot, Origin::Snapshot),
            Source::File(frame) => self.prepare_file_copy(page.address, prot, frame),
        };
        if done.is_ok()
            && page.source == Source::Zero
            && let Some(page) = self.changes.work.last()
        {
            self.memory.populate(&mut vec![page.frame]);
        }
    }

    /// Makes the next run enter the frozen program, if the last exit was at the doorbell: no system call. [`Machine::enter_frozen`] does so
    /// from anywhere.
    ///
    /// A vCPU that stands behind the doorbell's `out` gets there by itself.
    #[inline]
    pub fn rewind(&mut self) {
        match self.at {
            At::Doorbell if kernel::rewinds_by_itself(&self.vcpu.regs(), self.variant) => {}
            At::Doorbell | At::User => self.enter_trampoline(),
            // Setting registers is not enough here: see `enter_frozen`.
            At::Syscall | At::Exception { .. } | At::Anywhere => {}
        }
    }

    /// Makes the next run enter the frozen program even where the doorbell would return: to be called after [`Machine::reset`].
    #[inline]
    pub fn enter_trampoline(&mut self) {
        self.at = At::User;
        self.vcpu.set_regs(&kernel::user_regs(TRAMPOLINE, 0));
    }

    /// Makes the vCPU ready for [`Machine::reset`] where the last run was interrupted and the program is not to go on: general registers
    /// alone would be set then, while it may stand at CPL 0, or have an exception about to be delivered. Some ioctls.
    ///
    /// # Errors
    ///
    /// [`RunError`] if one of them fails; the machine must be dropped then.
    pub fn abandon(&mut self) -> Result<(), RunError> {
        // The processor may have pushed a frame that no exit told of.
        self.changes.stack_used = true;
        let sregs = self.user_sregs()?;
        self.vcpu.start_over(&sregs)?;
        self.at = At::User;
        Ok(())
    }

    /// Special registers for user mode.
    pub(crate) fn user_sregs(&self) -> Result<kvm_sregs, RunError> {
        let base = self.host.known_sregs().map_or_else(|| self.vcpu.get_sregs(), Ok)?;
        Ok(kernel::sregs(base, self.host.features(), self.variant, self.tables.cr3()))
    }

    /// Writes a worker's control line as it is at a fork.
    fn write_control(&mut self) {
        self.memory.write_u64(self.inbox.control(), REWIND);
        let value = self.frozen.as_ref().map_or(0, |frozen| frozen.entry_value);
        self.set_entry_value(value);
    }

    /// What the trampoline puts into RAX.
    #[inline]
    pub(crate) fn set_entry_value(&mut self, value: u64) {
        self.memory.write_u64(self.inbox.control() + kernel::CONTROL_RAX, value);
    }

    /// Chooses what the doorbell does in this worker: rewind, as after a fork, or return to its caller.
    pub fn set_rewinds(&mut self, rewinds: bool) {
        self.memory.write_u64(self.inbox.control(), if rewinds { REWIND } else { 0 });
    }

    /// Pages of the work set, as advice for the next fork.
    pub fn learned(&self) -> impl Iterator<Item = Learned> + '_ {
        self.changes.work.iter().map(|page| Learned {
            address: page.address,
            prot: page.prot.bits(),
            source: match page.birth {
                Birth::Image => Source::Image,
                Birth::Zero => Source::Zero,
                Birth::File { frame, .. } => Source::File(frame),
            },
        })
    }

    /// Number of pages in the work set.
    #[inline]
    #[must_use]
    pub fn work_pages(&self) -> usize {
        self.changes.work.len()
    }

    /// Takes back every change since the fork, in memory and in the tables, and rewinds the registers.
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
        if self.changes.stack_used && self.changes.recorded {
            self.memory.restore(self.stack_frame);
        }
        self.rewind();
        Ok(ResetReport { pages: self.changes.work.len() as u64, entries })
    }

    /// Puts back the table entries that the request changed, and gives its frames back.
    #[cold]
    fn undo(&mut self) -> Result<u64, MemoryError> {
        self.translations.clear();
        let entries = self.changes.undo.len() as u64;
        // What loses access, and what loses its content with it.
        let mut stale = std::mem::take(&mut self.changes.scratch);
        stale.clear();
        let mut written = self.memory.take_dirty();
        written.append(&mut self.changes.request_frames);
        let released = written.len();
        for (slot, old) in self.changes.undo.drain() {
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
        self.changes.undo.shrink_to(KEPT_CHANGES);
        self.changes.request_image_frames.shrink_to(KEPT_CHANGES);
        let result = self.memory.take_back(&mut stale, Content::Keep);
        self.changes.scratch = stale;
        result?;
        let mut free = written.get(..released).unwrap_or_default().to_vec();
        self.memory.take_back(&mut written, Content::Drop)?;
        for frame in free.drain(..) {
            self.memory.release(frame);
        }
        self.settle();
        Ok(entries)
    }

    /// Gives back what the machine has taken of the process's memory and does not use.
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
        for page in &self.changes.work {
            if let Some(slot) = self.tables.slot(&self.memory, page.address) {
                let entry = Entry(self.memory.read_u64(slot));
                let pristine = match page.birth {
                    Birth::Image => entry.read_only(),
                    Birth::Zero => Entry::EMPTY,
                    Birth::File { frame, .. } => Entry::user(frame, page.prot).read_only(),
                };
                self.memory.write_u64(slot, pristine.0);
            }
            frames.push(page.frame);
        }
        // The inbox's pages are written by the host alone; they go too.
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
        if self.changes.stack_used && self.changes.recorded {
            self.memory.restore(self.stack_frame);
        }
        self.rewind();
        Ok(ResetReport { pages, entries })
    }
}

/// A user page as a program would find it; see [`Machine::audit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditedPage {
    /// Address of the page.
    pub address: u64,
    /// Whether it may be executed.
    pub executable: bool,
    /// A digest of its content.
    pub digest: u64,
}

impl Machine {
    /// Every user page that differs from the image's, as the program would find it.
    ///
    /// After a reset the list is empty: a page of the snapshot has the image's entry and content but for the write permission
    /// that stays, and a page that the snapshot does not have reads as zero, as it would when first touched. Of shared memory and files
    /// only the entries are looked at; a copy of a file's page must be the file's.
    #[must_use]
    pub fn audit(&mut self) -> Vec<AuditedPage> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut found = Vec::new();
        let tables = self.tables;
        let inbox = self.inbox;
        let has_shared = self.memory.shared().is_some();
        let births: HashMap<u64, Birth> =
            self.changes.work.iter().map(|page| (page.frame, page.birth.clone())).collect();
        let visited = tables.for_each(&mut self.memory, 0, 1 << 47, &mut |memory, address, slot, entry| {
            let Some(frame) = entry.frame() else { return Ok(()) };
            let was = memory.image_u64(slot).map(Entry);
            if memory.is_file(frame) {
                let found_since = was.is_none_or(|was| was.frame().is_none());
                if was != Some(entry) && (!found_since || entry.is_writable()) {
                    found.push(AuditedPage { address, executable: entry.is_executable(), digest: 0 });
                }
                return Ok(());
            }
            if has_shared && frame >= SHARED_PHYSICAL / PAGE_SIZE {
                if was != Some(entry) {
                    found.push(AuditedPage { address, executable: entry.is_executable(), digest: 0 });
                }
                return Ok(());
            }
            let is_inbox = (inbox.first_frame..inbox.first_frame + inbox.pages).contains(&frame);
            let mut content = vec![0u8; PAGE_SIZE as usize];
            memory.slice(frame * PAGE_SIZE, content.len()).copy_to(&mut content[..]);
            let same = if memory.is_image(frame) {
                was.is_some_and(|was| was.read_only() == entry.read_only()) && (is_inbox || memory.equals_image(frame))
            } else if let Some(Birth::File { frame: from, content: pristine }) = births.get(&frame) {
                // Where the image has a page, it is this one of the file.
                let was = was.and_then(Entry::frame);
                was.is_none_or(|was| was == *from) && content == **pristine
            } else {
                content.iter().all(|byte| *byte == 0)
            };
            if !same {
                let mut hasher = DefaultHasher::new();
                content.hash(&mut hasher);
                found.push(AuditedPage { address, executable: entry.is_executable(), digest: hasher.finish() });
            }
            Ok(())
        });
        debug_assert!(visited.is_ok(), "the visitor does not fail");
        // Pages that the image has and this machine has lost.
        let image: Vec<(u64, u64)> = self.image_slots();
        for (address, slot) in image {
            if Entry(self.memory.read_u64(slot)).frame().is_none() {
                found.push(AuditedPage { address, executable: false, digest: 0 });
            }
        }
        found
    }

    /// Address and slot of every leaf entry that the image has.
    fn image_slots(&self) -> Vec<(u64, u64)> {
        let Some(frozen) = &self.frozen else { return Vec::new() };
        let Ok(mut pristine) = Memory::fork(&frozen.memory, 0, Hold::new(self.host.account(), Purpose::Request)) else {
            return Vec::new();
        };
        let mut slots = Vec::new();
        let visited = frozen.tables.for_each(&mut pristine, 0, 1 << 47, &mut |_, address, slot, _| {
            slots.push((address, slot));
            Ok(())
        });
        debug_assert!(visited.is_ok(), "the visitor does not fail");
        slots
    }
}
