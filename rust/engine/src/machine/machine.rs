// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine: one processor in user mode over one address space, run from exit to exit.
//!
//! `space.rs` has its pages; `crate::image` freezes, forks and resets machines.

use std::sync::Arc;

use mayfly_machine::layout::{CONTROL, CONTROL_BYTES, INBOX, INBOX_MAX, SHARED, page_ceil};
use mayfly_machine::{
    BadReturn, CreateError, Exit, MemoryError, PAGE_SIZE, Prot, Regs, RunError, SharedMemory, UserContext, layout,
};
use mayfly_memory::layout::SHARED_PHYSICAL;
use mayfly_memory::memory::Memory;
use mayfly_memory::tables::{Entry, Tables};
use mayfly_memory::translations::Translations;

use crate::host::Host;
use crate::machine::changes::Changes;
use crate::machine::frozen::{Frozen, Inbox};
use crate::processor::{Kicker, Processor};

/// One processor and its memory.
///
/// ```
/// use mayfly_engine::{Host, Machine};
/// use mayfly_machine::{Exit, Origin, Prot, Regs};
///
/// # let Ok(host) = Host::open() else { return Ok(()) }; // No engine runs here.
/// // mov edi, 7; syscall; jmp $
/// let code = [0xbf, 7, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xfe];
/// let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
/// machine.map_zero(0x40_0000, Prot::READ | Prot::EXEC, Origin::Snapshot)?;
/// machine.load(0x40_0000, &code)?;
/// machine.set_regs(&Regs { rip: 0x40_0000, ..Regs::default() });
/// assert_eq!(machine.run()?, Exit::Syscall);
/// assert_eq!(machine.regs().rdi, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Machine {
    // Dropped before the memory that it maps.
    pub(crate) processor: Processor,
    pub(crate) memory: Memory,
    pub(crate) tables: Tables,
    pub(crate) translations: Translations,
    pub(crate) changes: Changes,
    pub(crate) host: Host,
    pub(crate) inbox: Inbox,
    /// Pages of the inbox that the host has written, which are the machine's own since.
    pub(crate) inbox_used_pages: u64,
    /// Pages of the host's memory that hold data of the program, such as files that it writes.
    pub(crate) host_pages: u64,
    pub(crate) frozen: Option<Arc<Frozen>>,
    /// The control word: whether the doorbell enters the trampoline.
    pub(crate) rewinds: bool,
}

impl Machine {
    /// Creates a machine for a boot, with at most `memory_bytes` of memory of which `inbox_bytes` are the inbox.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if the kernel refuses, or if the engine's pages and the inbox do not fit into the memory.
    pub fn boot(host: &Host, memory_bytes: u64, inbox_bytes: u64) -> Result<Self, CreateError> {
        let range = MemoryError::Range { address: INBOX, len: inbox_bytes };
        if inbox_bytes > INBOX_MAX {
            return Err(range.into());
        }
        let pages = page_ceil(inbox_bytes + CONTROL_BYTES).ok_or(range)? / PAGE_SIZE;
        Self::bare(host, memory_bytes / PAGE_SIZE, pages)
    }

    fn bare(host: &Host, frames: u64, inbox_pages: u64) -> Result<Self, CreateError> {
        let limit = MemoryError::Limit { limit_pages: frames };
        let mut memory = Memory::boot(frames, host.account(), host.reach())?;
        let tables = Tables::new(&mut memory).ok_or(limit)?;
        tables.map_engine_pages(&mut memory, &host.engine_pages()).ok_or(limit)?;
        let first = memory.allocate_run(inbox_pages).ok_or(limit)?;
        if !memory.cover(memory.private_in_use()) {
            return Err(MemoryError::Full.into());
        }
        for page in 0..inbox_pages {
            let slot = tables.slot_or_create(&mut memory, CONTROL + page * PAGE_SIZE).ok_or(limit)?;
            memory.write_u64(slot, Entry::user(first + page, Prot::READ).0);
        }
        let processor = Processor::boot(host, &memory, tables)?;
        Ok(Self {
            processor,
            memory,
            tables,
            translations: Translations::new(),
            changes: Changes::at_boot(frames),
            host: host.clone(),
            inbox: Inbox { first_frame: first, pages: inbox_pages },
            inbox_used_pages: 0,
            host_pages: 0,
            frozen: None,
            // The memory is new, so the control word is 0.
            rewinds: false,
        })
    }

    /// Maps `shared` at [`SHARED`], for the program to read and write; every worker of the image will have it there
    /// too.
    ///
    /// ```
    /// # use mayfly_engine::{Host, Machine};
    /// # let Ok(host) = Host::open() else { return Ok(()) }; // No engine runs here.
    /// # let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
    /// use mayfly_machine::{SharedMemory, layout::SHARED};
    ///
    /// let shared = SharedMemory::anonymous(4096)?;
    /// machine.share(&shared)?;
    /// machine.write(SHARED + 8, b"hello")?;
    /// let mut seen = [0; 5];
    /// assert!(shared.read(8, &mut seen));
    /// assert_eq!(&seen, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CreateError::Memory`] if the machine is a worker or has a region already, or if the page tables, 1/512 of the
    /// region, do not fit; otherwise the kernel's refusal. The machine must not be used then.
    pub fn share(&mut self, shared: &SharedMemory) -> Result<(), CreateError> {
        if self.changes.recorded || self.memory.shared().is_some() {
            return Err(MemoryError::Exists { address: SHARED }.into());
        }
        let limit = MemoryError::Limit { limit_pages: self.memory.frames() };
        if self.memory.bytes() > SHARED_PHYSICAL {
            return Err(limit.into());
        }
        self.translations.clear();
        for page in 0..shared.bytes() / PAGE_SIZE {
            let slot = self.tables.slot_or_create(&mut self.memory, SHARED + page * PAGE_SIZE).ok_or(limit)?;
            let frame = SHARED_PHYSICAL / PAGE_SIZE + page;
            self.memory.write_u64(slot, Entry::user(frame, Prot::READ | Prot::WRITE).0);
        }
        self.memory.share(shared);
        self.processor.cover_shared(&self.memory)
    }

    /// Runs the program until its next exit.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the engine itself fails; the machine must not be used again then.
    #[inline]
    pub fn run(&mut self) -> Result<Exit, RunError> {
        loop {
            match self.processor.run(&mut self.memory, self.tables) {
                Err(error) => self.meet_lost_page(error)?,
                exit => return exit,
            }
        }
    }

    /// The general registers as of the last exit, or as set since.
    ///
    /// After [`Exit::PageFault`] and [`Exit::Exception`] they may be the engine's: see [`Machine::user_regs`].
    #[inline]
    #[must_use]
    pub fn regs(&self) -> Regs {
        self.processor.regs()
    }

    /// Sets the general registers for the next run, without a system call.
    ///
    /// Flags that user code may not own are dropped.
    #[inline]
    pub fn set_regs(&mut self, regs: &Regs) {
        self.processor.set_regs(regs);
    }

    /// The user's general registers as of the last exit; `None` where only [`Machine::context`] can find them.
    ///
    /// After a system call RAX is its number.
    #[must_use]
    pub fn user_regs(&self) -> Option<Regs> {
        self.processor.user_regs(&self.memory)
    }

    /// What a [`mayfly_machine::VectorState`] may hold: its components (XCR0), and the bytes that they take.
    #[must_use]
    pub fn vector_features(&self) -> (u64, usize) {
        self.processor.vector_features()
    }

    /// Takes the user's context out of the processor. `None` if it was interrupted where the context cannot be taken:
    /// run on, and try again at the next exit. After a context was taken, only [`Machine::set_context`] may be called.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the engine fails; the machine must not be used again then.
    pub fn context(&mut self) -> Result<Option<UserContext>, RunError> {
        self.processor.context(&self.memory)
    }

    /// Makes the next run go on with `context`, wherever the processor stands. Its former context is lost.
    ///
    /// ```
    /// # use mayfly_engine::{Host, Machine};
    /// # use mayfly_machine::{Exit, Origin, Prot, Regs};
    /// # let Ok(host) = Host::open() else { return Ok(()) }; // No engine runs here.
    /// // syscall; jmp $
    /// let code = [0x0f, 0x05, 0xeb, 0xfe];
    /// # let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
    /// # machine.map_zero(0x40_0000, Prot::READ | Prot::EXEC, Origin::Snapshot)?;
    /// # machine.load(0x40_0000, &code)?;
    /// # machine.set_regs(&Regs { rip: 0x40_0000, ..Regs::default() });
    /// let mut context = machine.context()?.ok_or("user code")?;
    /// context.regs.rsi = 5;
    /// machine.set_context(&context)?;
    /// assert_eq!(machine.run()?, Exit::Syscall);
    /// assert_eq!(machine.regs().rsi, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RunError`] if the engine fails, as for a context that is not valid; the machine must not be used again then.
    pub fn set_context(&mut self, context: &UserContext) -> Result<(), RunError> {
        self.processor.set_context(context)
    }

    /// Makes the next run enter the frozen program, with `rax` in RAX: no system call, unless the last run was
    /// interrupted.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the engine fails; the machine must be dropped then.
    #[inline]
    pub fn enter_frozen(&mut self, rax: u64) -> Result<(), RunError> {
        self.set_entry_value(rax);
        self.processor.enter_frozen()
    }

    /// Whether a program may be made to go on at `rip`: see [`layout::is_program_address`].
    #[must_use]
    pub fn is_program_address(rip: u64) -> bool {
        layout::is_program_address(rip)
    }

    /// Completes [`Exit::Doorbell`] where the program goes on behind it: `value` is what the doorbell returns.
    #[inline]
    pub fn return_from_doorbell(&mut self, value: u64) {
        self.processor.return_from_doorbell(value);
    }

    /// Completes [`Exit::Syscall`]: the program goes on behind its `syscall` with `value` in RAX.
    ///
    /// ```
    /// # use mayfly_engine::{Host, Machine};
    /// # use mayfly_machine::{Exit, Origin, Prot, Regs};
    /// # let Ok(host) = Host::open() else { return Ok(()) }; // No engine runs here.
    /// // syscall; mov rdi, rax; syscall; jmp $
    /// let code = [0x0f, 0x05, 0x48, 0x89, 0xc7, 0x0f, 0x05, 0xeb, 0xfe];
    /// # let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
    /// # machine.map_zero(0x40_0000, Prot::READ | Prot::EXEC, Origin::Snapshot)?;
    /// # machine.load(0x40_0000, &code)?;
    /// # machine.set_regs(&Regs { rip: 0x40_0000, ..Regs::default() });
    /// assert_eq!(machine.run()?, Exit::Syscall);
    /// machine.return_from_syscall(42)?;
    /// assert_eq!(machine.run()?, Exit::Syscall);
    /// assert_eq!(machine.regs().rdi, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`BadReturn`] if the return address is not in the program's half, or if the last exit was not a system call.
    #[inline]
    pub fn return_from_syscall(&mut self, value: u64) -> Result<(), BadReturn> {
        self.processor.return_from_syscall(value)
    }

    /// The FS base: the thread pointer of the System V ABI.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the engine fails.
    pub fn fs_base(&self) -> Result<u64, RunError> {
        Ok(self.processor.bases()?.0)
    }

    /// Sets the FS base.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the engine fails, as it does for a non-canonical base.
    pub fn set_fs_base(&mut self, base: u64) -> Result<(), RunError> {
        self.processor.set_bases(Some(base), None)
    }

    /// The GS base.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the engine fails.
    pub fn gs_base(&self) -> Result<u64, RunError> {
        Ok(self.processor.bases()?.1)
    }

    /// Sets the GS base.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the engine fails, as it does for a non-canonical base.
    pub fn set_gs_base(&mut self, base: u64) -> Result<(), RunError> {
        self.processor.set_bases(None, Some(base))
    }

    /// Size of the inbox in bytes.
    #[inline]
    #[must_use]
    pub fn inbox_bytes(&self) -> u64 {
        self.inbox.bytes()
    }

    /// Writes into the inbox; only the host can. Bytes past the inbox's end are not written, and `false` says so.
    ///
    /// ```
    /// # use mayfly_engine::{Host, Machine};
    /// # let Ok(host) = Host::open() else { return Ok(()) }; // No engine runs here.
    /// # let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
    /// use mayfly_machine::layout::INBOX;
    ///
    /// assert!(machine.write_inbox(0, b"request"));
    /// let mut seen = [0; 7];
    /// machine.read(INBOX, &mut seen)?;
    /// assert_eq!(&seen, b"request");
    /// assert!(machine.write(INBOX, b"the program cannot").is_err());
    /// assert!(!machine.write_inbox(machine.inbox_bytes(), b"past the end"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn write_inbox(&mut self, offset: u64, data: &[u8]) -> bool {
        let fits = offset.checked_add(data.len() as u64).is_some_and(|end| end <= self.inbox.bytes());
        if fits {
            self.memory.slice_mut(self.inbox.control() + CONTROL_BYTES + offset, data.len()).copy_from(data);
        }
        fits
    }

    /// Takes the memory for the first `len` bytes of the inbox from the process's bound, before they are written;
    /// `false` if the bound is reached.
    #[cold]
    pub fn cover_inbox(&mut self, len: u64) -> bool {
        let pages = len.saturating_add(CONTROL_BYTES).div_ceil(PAGE_SIZE).min(self.inbox.pages);
        if pages <= self.inbox_used_pages {
            return true;
        }
        let private = self.private_pages();
        let fits = self.memory.cover(private.saturating_add(pages).saturating_add(self.host_pages));
        if fits {
            self.inbox_used_pages = pages;
        }
        fits
    }

    /// Takes the memory that the host uses for the program besides its pages, such as files that it writes, from the
    /// process's bound; `false` if the bound is reached. Until the next reset the amount never shrinks.
    #[inline]
    pub fn cover_host_bytes(&mut self, bytes: u64) -> bool {
        let pages = bytes.div_ceil(PAGE_SIZE);
        pages <= self.host_pages || self.cover_host_pages(pages)
    }

    #[cold]
    fn cover_host_pages(&mut self, pages: u64) -> bool {
        let wanted = self.private_pages().saturating_add(self.inbox_used_pages).saturating_add(pages);
        let fits = self.memory.cover(wanted);
        if fits {
            self.host_pages = pages;
        }
        fits
    }

    /// Fills a part of the inbox with zeroes, up to its end at most.
    #[inline]
    pub fn zero_inbox(&mut self, offset: u64, len: u64) {
        const ZEROES: [u8; 1024] = [0; 1024];
        let end = offset.saturating_add(len).min(self.inbox.bytes());
        let mut at = offset;
        while at < end {
            let chunk = (end - at).min(ZEROES.len() as u64);
            self.write_inbox(at, &ZEROES[..chunk as usize]);
            at += chunk;
        }
    }

    /// The clock of CPU time that the program uses besides that of the thread that runs the machine, as
    /// clock_gettime(2) knows it: that of its process, if it is one.
    #[inline]
    #[must_use]
    pub fn cpu_clock(&self) -> Option<i32> {
        self.processor.cpu_clock()
    }

    /// Sets the nice value with which the program competes for processors. On KVM nothing happens: there it is that of
    /// the thread that runs the machine.
    ///
    /// # Errors
    ///
    /// What setpriority(2) says: without privilege, a value can only be raised.
    pub fn set_nice(&mut self, nice: i32) -> std::io::Result<()> {
        self.processor.set_nice(nice)
    }

    /// A handle with which a signal's handler can stop a run of this thread.
    pub fn kicker(&mut self) -> Kicker {
        self.processor.kicker()
    }

    /// Whether the process's bound on memory was the reason for the last refusal of a page.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.memory.hold().is_refused()
    }

    /// The host that this machine runs on.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }
}
