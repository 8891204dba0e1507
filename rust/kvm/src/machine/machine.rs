// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine: one vCPU in user mode over one address space, run from exit to exit.
//!
//! `space.rs` has its pages; `crate::image` freezes, forks and resets machines.

use std::sync::Arc;

use kvm_bindings::kvm_sregs;
use mayfly_machine::layout::{CONTROL, CONTROL_BYTES, INBOX, INBOX_MAX, SHARED, page_ceil};
use mayfly_machine::{BadReturn, Exit, MemoryError, PAGE_SIZE, PageFaultCode, Prot, Regs, SharedMemory, Unexpected};

use crate::error::{CreateError, RunError};
use crate::guest::kernel::{self, Privilege, SyscallEntry, USER_CODE, Variant};
use crate::host::host::Host;
use crate::layout::{PORT_DOORBELL, PORT_EXCEPTION, PORT_SYSCALL, SHARED_PHYSICAL, STACK};
use crate::machine::at::At;
use crate::machine::changes::Changes;
use crate::machine::frozen::{Frozen, Inbox};
use crate::memory::memory::Memory;
use crate::memory::tables::{Entry, Tables};
use crate::memory::translations::Translations;
use crate::vcpu::vcpu::{Kicker, RawExit, Start, Vcpu};

/// One KVM VM with one vCPU and its guest memory.
///
/// ```
/// use mayfly_kvm::{Host, Machine};
/// use mayfly_machine::{Exit, Origin, Prot, Regs};
///
/// # let Ok(host) = Host::open("/dev/kvm".as_ref()) else { return Ok(()) }; // There is no KVM here.
/// // mov edi, 7; out 0xd0, al; jmp $
/// let code = [0xbf, 7, 0, 0, 0, 0xe6, 0xd0, 0xeb, 0xfe];
/// let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
/// machine.map_zero(0x40_0000, Prot::READ | Prot::EXEC, Origin::Snapshot)?;
/// machine.load(0x40_0000, &code)?;
/// machine.set_regs(&Regs { rip: 0x40_0000, ..Regs::default() });
/// assert_eq!(machine.run()?, Exit::Doorbell);
/// assert_eq!(machine.regs().rdi, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Machine {
    // Dropped before the memory that it maps.
    pub(crate) vcpu: Vcpu,
    pub(crate) memory: Memory,
    pub(crate) tables: Tables,
    pub(crate) translations: Translations,
    pub(crate) changes: Changes,
    pub(crate) host: Host,
    /// The host's variant; a copy, since every request needs it.
    pub(crate) variant: Variant,
    pub(crate) inbox: Inbox,
    /// Pages of the inbox that the host has written, which are the machine's own since.
    pub(crate) inbox_used_pages: u64,
    /// Pages of the host's memory that hold data of the program, such as files that it writes.
    pub(crate) host_pages: u64,
    pub(crate) stack_frame: u64,
    pub(crate) frozen: Option<Arc<Frozen>>,
    /// Where the vCPU stands.
    pub(crate) at: At,
    /// The control word: whether the doorbell enters the trampoline. Beside `at`, which every run writes.
    pub(crate) rewinds: bool,
}

impl Machine {
    /// Creates a machine for a boot, with at most `memory_bytes` of memory of which `inbox_bytes` are the inbox.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if KVM or the kernel refuses, or if the guest kernel and the inbox do not fit into the memory.
    pub fn boot(host: &Host, memory_bytes: u64, inbox_bytes: u64) -> Result<Self, CreateError> {
        let range = MemoryError::Range { address: INBOX, len: inbox_bytes };
        if inbox_bytes > INBOX_MAX {
            return Err(range.into());
        }
        let pages = page_ceil(inbox_bytes + CONTROL_BYTES).ok_or(range)? / PAGE_SIZE;
        Self::bare(host, memory_bytes / PAGE_SIZE, pages)
    }

    pub(crate) fn bare(host: &Host, frames: u64, inbox_pages: u64) -> Result<Self, CreateError> {
        let limit = MemoryError::Limit { limit_pages: frames };
        let mut memory = Memory::boot(frames, host.account())?;
        let tables = Tables::new(&mut memory).ok_or(limit)?;
        let mut stack_frame = 0;
        for page in kernel::pages(host.variant()) {
            let frame = memory.allocate().ok_or(limit)?;
            let entry = if page.user { Entry::user(frame, page.prot) } else { Entry::supervisor(frame, page.prot) };
            let slot = tables.slot_or_create(&mut memory, page.address).ok_or(limit)?;
            memory.write_u64(slot, entry.0);
            memory.slice(frame * PAGE_SIZE, page.bytes.len()).copy_from(&page.bytes[..]);
            if page.address == STACK {
                stack_frame = frame;
            }
        }
        let first = memory.allocate_run(inbox_pages).ok_or(limit)?;
        if !memory.cover(memory.private_in_use()) {
            return Err(MemoryError::Full.into());
        }
        for page in 0..inbox_pages {
            let slot = tables.slot_or_create(&mut memory, CONTROL + page * PAGE_SIZE).ok_or(limit)?;
            memory.write_u64(slot, Entry::user(first + page, Prot::READ).0);
        }
        let mut vcpu = Vcpu::create(host, host.variant(), &memory, tables.cr3(), Start::Boot)?;
        vcpu.cover(&memory)?;
        Ok(Self {
            vcpu,
            memory,
            tables,
            translations: Translations::new(),
            changes: Changes::at_boot(frames),
            host: host.clone(),
            variant: host.variant(),
            inbox: Inbox { first_frame: first, pages: inbox_pages },
            inbox_used_pages: 0,
            host_pages: 0,
            stack_frame,
            frozen: None,
            at: At::User,
            // The memory is new, so the control word is 0.
            rewinds: false,
        })
    }

    /// Maps `shared` at [`SHARED`], for the program to read and write; every worker of the image will have it there
    /// too.
    ///
    /// ```
    /// # use mayfly_kvm::{Host, Machine};
    /// # let Ok(host) = Host::open("/dev/kvm".as_ref()) else { return Ok(()) }; // There is no KVM here.
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
    /// region, do not fit; otherwise KVM's refusal. The machine must not be used then.
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
        self.vcpu.cover_shared(&self.memory)?;
        self.vcpu.cover(&self.memory)
    }

    /// Runs the guest until its next exit.
    ///
    /// # Errors
    ///
    /// [`RunError`] if `KVM_RUN` itself fails; the machine must not be used again then.
    #[inline]
    pub fn run(&mut self) -> Result<Exit, RunError> {
        let exit = self.vcpu.run()?;
        let variant = self.variant;
        let (at, exit) = match exit {
            RawExit::Doorbell if kernel::runs_into_trampoline(self.vcpu.regs_mut(), variant) => {
                (At::Bell, Exit::Doorbell)
            }
            RawExit::Doorbell => {
                let privilege = kernel::doorbell_privilege(self.vcpu.regs_mut());
                self.suspect(privilege, PORT_DOORBELL, (At::Doorbell, Exit::Doorbell))?
            }
            RawExit::Syscall => {
                let regs = self.vcpu.regs_mut();
                if kernel::is_forged_syscall(regs, variant) {
                    (At::Anywhere, Exit::Unexpected(Unexpected::Port { port: PORT_SYSCALL }))
                } else {
                    match kernel::syscall_privilege(regs, variant) {
                        Privilege::Expected => (At::Syscall, Exit::Syscall),
                        odd => self.suspect(odd, PORT_SYSCALL, (At::Syscall, Exit::Syscall))?,
                    }
                }
            }
            RawExit::Kicked => (At::Anywhere, Exit::Kicked),
            RawExit::Unexpected(what) => (At::Anywhere, Exit::Unexpected(what)),
            RawExit::Exception { vector } => (At::Exception { vector }, self.exception(vector)),
        };
        self.at = at;
        Ok(exit)
    }

    /// An exit by user code whose registers do not prove that it was made at CPL 3. Returns `plain` if CS proves it.
    #[cold]
    fn suspect(&mut self, privilege: Privilege, port: u16, plain: (At, Exit)) -> Result<(At, Exit), RunError> {
        let is_plain = match privilege {
            Privilege::Expected => true,
            Privilege::Unclear => self.vcpu.get_sregs()?.cs.selector == USER_CODE,
            Privilege::Wrong => false,
        };
        Ok(if is_plain { plain } else { (At::Anywhere, self.wrong_privilege(port)) })
    }

    #[cold]
    fn wrong_privilege(&mut self, port: u16) -> Exit {
        let Regs { rip, rsp, rflags, .. } = self.vcpu.regs();
        Exit::Unexpected(Unexpected::Privilege { port, rip, rsp, rflags })
    }

    /// Reads the exception frame that the processor pushed.
    fn exception(&mut self, vector: u8) -> Exit {
        self.changes.stack_used = true;
        if !kernel::is_exception_entry(self.vcpu.regs_mut().rip, vector) {
            return self.wrong_privilege(PORT_EXCEPTION + u16::from(vector));
        }
        let frame = self.stack_frame * PAGE_SIZE + kernel::frame_offset();
        let rip = self.memory.read_u64(frame);
        let cs = self.memory.read_u64(frame + 8);
        let code = if kernel::has_error_code(vector) { self.memory.read_u64(frame - 8) } else { 0 };
        if cs != u64::from(USER_CODE) {
            return Exit::Unexpected(Unexpected::Kernel { vector, rip, cs });
        }
        if vector == 14 {
            return Exit::PageFault { address: self.vcpu.regs().rax, code: PageFaultCode::new(code), rip };
        }
        Exit::Exception { vector, code, rip }
    }

    /// The general registers as of the last exit, or as set since.
    ///
    /// After [`Exit::PageFault`] and [`Exit::Exception`] they are the guest kernel's.
    #[inline]
    #[must_use]
    pub fn regs(&self) -> Regs {
        self.vcpu.regs()
    }

    /// Sets the general registers for the next run, without a system call.
    ///
    /// Flags that user code may not own are dropped.
    #[inline]
    pub fn set_regs(&mut self, regs: &Regs) {
        self.at = At::User;
        self.vcpu.set_regs(&Regs { rflags: kernel::user_flags(regs.rflags), ..*regs });
    }

    /// Completes [`Exit::Doorbell`] where the program goes on behind it: `value` is what the doorbell returns.
    #[inline]
    pub fn return_from_doorbell(&mut self, value: u64) {
        // RIP stays: on hardware, KVM skips the `out` at the next run only if RIP was not changed.
        self.set_regs(&Regs { rax: value, ..self.vcpu.regs() });
        self.at = At::Anywhere;
    }

    /// Completes [`Exit::Syscall`]: the program goes on behind its `syscall` with `value` in RAX.
    ///
    /// ```
    /// # use mayfly_kvm::{Host, Machine};
    /// # use mayfly_machine::{Exit, Origin, Prot, Regs};
    /// # let Ok(host) = Host::open("/dev/kvm".as_ref()) else { return Ok(()) }; // There is no KVM here.
    /// // syscall; mov rdi, rax; out 0xd0, al; jmp $
    /// let code = [0x0f, 0x05, 0x48, 0x89, 0xc7, 0xe6, 0xd0, 0xeb, 0xfe];
    /// # let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
    /// # machine.map_zero(0x40_0000, Prot::READ | Prot::EXEC, Origin::Snapshot)?;
    /// # machine.load(0x40_0000, &code)?;
    /// # machine.set_regs(&Regs { rip: 0x40_0000, ..Regs::default() });
    /// assert_eq!(machine.run()?, Exit::Syscall);
    /// machine.return_from_syscall(42)?;
    /// assert_eq!(machine.run()?, Exit::Doorbell);
    /// assert_eq!(machine.regs().rdi, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`BadReturn`] if the return address is not in the program's half: SYSRET to a non-canonical address would fault
    /// at CPL 0; or if the last exit was not a system call: the vCPU may stand at any privilege then, and must not go
    /// on at RCX.
    #[inline]
    pub fn return_from_syscall(&mut self, value: u64) -> Result<(), BadReturn> {
        let mut regs = self.vcpu.regs();
        if self.at != At::Syscall || !Self::is_program_address(regs.rcx) {
            return Err(BadReturn { rip: regs.rcx });
        }
        regs.rax = value;
        match self.variant.syscall {
            SyscallEntry::Supervisor => regs.r11 = kernel::user_flags(regs.r11),
            SyscallEntry::User => {
                regs.rip = regs.rcx;
                regs.rflags = kernel::user_flags(regs.r11);
            }
        }
        self.vcpu.set_regs(&regs);
        Ok(())
    }

    /// The FS base.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the ioctl fails.
    pub fn fs_base(&self) -> Result<u64, RunError> {
        Ok(self.vcpu.get_sregs()?.fs.base)
    }

    /// Sets the FS base: the thread pointer of the System V ABI.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the ioctl fails, as it does for a non-canonical base.
    pub fn set_fs_base(&mut self, base: u64) -> Result<(), RunError> {
        self.edit_sregs(|sregs| sregs.fs.base = base)
    }

    /// The GS base.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the ioctl fails.
    pub fn gs_base(&self) -> Result<u64, RunError> {
        Ok(self.vcpu.get_sregs()?.gs.base)
    }

    /// Sets the GS base.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the ioctl fails, as it does for a non-canonical base.
    pub fn set_gs_base(&mut self, base: u64) -> Result<(), RunError> {
        self.edit_sregs(|sregs| sregs.gs.base = base)
    }

    fn edit_sregs(&mut self, edit: impl FnOnce(&mut kvm_sregs)) -> Result<(), RunError> {
        let mut sregs = self.vcpu.get_sregs()?;
        edit(&mut sregs);
        // kvm_amd sets the busy bit of the type that it reports (svm_get_segment), which is not the one that was set.
        sregs.tr.type_ = self.variant.task_type;
        self.vcpu.set_sregs(&sregs)
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
    /// # use mayfly_kvm::{Host, Machine};
    /// # let Ok(host) = Host::open("/dev/kvm".as_ref()) else { return Ok(()) }; // There is no KVM here.
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
            self.memory.slice(self.inbox.control() + CONTROL_BYTES + offset, data.len()).copy_from(data);
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

    /// A handle with which a signal's handler can stop a run of this thread.
    pub fn kicker(&mut self) -> Kicker {
        self.vcpu.kicker()
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

    pub(crate) fn vcpu_mut(&mut self) -> &mut Vcpu {
        &mut self.vcpu
    }
}
