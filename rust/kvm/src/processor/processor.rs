// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine's processor: one vCPU in user mode, run from exit to exit.

use kvm_bindings::kvm_sregs;
use mayfly_machine::{
    BadReturn, CreateError, EnginePage, Exit, PAGE_SIZE, PageFaultCode, Regs, RunError, Unexpected, layout,
};
use mayfly_memory::memory::Memory;
use mayfly_memory::tables::Tables;

use crate::guest::kernel::{self, Privilege, SyscallEntry, USER_CODE, Variant};
use crate::guest::tsc::GuestTsc;
use crate::host::host::Host;
use crate::layout::{PORT_DOORBELL, PORT_EXCEPTION, PORT_SYSCALL, STACK, TRAMPOLINE};
use crate::processor::at::At;
use crate::vcpu::vcpu::{Kicker, RawExit, Start, Vcpu};

/// A virtual machine with one vCPU, which runs a program over a machine's memory.
///
/// # Safety of the host
///
/// It must be dropped before the memory that it was made with: its owner has it in front of the memory.
#[derive(Debug)]
pub struct Processor {
    pub(crate) vcpu: Vcpu,
    pub(crate) host: Host,
    /// The host's variant; a copy, since every request needs it.
    pub(crate) variant: Variant,
    /// Where the vCPU stands.
    pub(crate) at: At,
    /// Of the machine's page tables.
    cr3: u64,
    /// The frame onto which the processor pushes exceptions.
    pub(crate) stack_frame: u64,
    stack_used: bool,
}

/// Pages to map into a machine that boots on `host`.
#[must_use]
pub fn pages(host: &Host) -> Vec<EnginePage> {
    kernel::pages(host.variant())
}

impl Processor {
    /// A processor for a boot, in whose memory [`pages`] are mapped.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if KVM or the kernel refuses.
    pub fn boot(host: &Host, memory: &Memory, tables: Tables) -> Result<Self, CreateError> {
        let stack_frame = tables.entry(memory, STACK).frame().unwrap_or(0);
        let mut processor = Self::create(host, memory, tables.cr3(), stack_frame, Start::Boot)?;
        processor.cover(memory)?;
        Ok(processor)
    }

    /// A processor for a worker. `stack_frame` is that of the machine that was frozen: [`Processor::stack_frame`].
    ///
    /// # Errors
    ///
    /// As for [`Processor::boot`].
    pub fn fork(host: &Host, memory: &Memory, tables: Tables, stack_frame: u64) -> Result<Self, CreateError> {
        Self::create(host, memory, tables.cr3(), stack_frame, Start::Fork)
    }

    fn create(host: &Host, memory: &Memory, cr3: u64, stack_frame: u64, start: Start) -> Result<Self, CreateError> {
        let variant = host.variant();
        let vcpu = Vcpu::create(host, variant, memory, cr3, start)?;
        Ok(Self { vcpu, host: host.clone(), variant, at: At::User, cr3, stack_frame, stack_used: false })
    }

    /// The frame onto which the processor pushes exceptions.
    #[must_use]
    pub fn stack_frame(&self) -> u64 {
        self.stack_frame
    }

    /// Whether anything may have been pushed there.
    #[inline]
    #[must_use]
    pub fn has_used_stack(&self) -> bool {
        self.stack_used
    }

    /// Makes sure that the guest can reach every frame in use.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if KVM refuses.
    pub fn cover(&mut self, memory: &Memory) -> Result<(), CreateError> {
        self.vcpu.cover(memory)?;
        self.vcpu.cover_files(memory)
    }

    /// As [`Processor::cover`], after shared memory was added.
    ///
    /// # Errors
    ///
    /// As for [`Processor::cover`].
    pub fn cover_shared(&mut self, memory: &Memory) -> Result<(), CreateError> {
        self.vcpu.cover_shared(memory)?;
        self.vcpu.cover(memory)
    }

    /// Runs the guest until its next exit.
    ///
    /// # Errors
    ///
    /// [`RunError`] if `KVM_RUN` itself fails; the machine must not be used again then.
    #[inline]
    pub fn run(&mut self, memory: &Memory) -> Result<Exit, RunError> {
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
            RawExit::Exception { vector } => (At::Exception { vector }, self.exception(memory, vector)),
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
    fn exception(&mut self, memory: &Memory, vector: u8) -> Exit {
        self.stack_used = true;
        if !kernel::is_exception_entry(self.vcpu.regs_mut().rip, vector) {
            return self.wrong_privilege(PORT_EXCEPTION + u16::from(vector));
        }
        let frame = self.stack_frame * PAGE_SIZE + kernel::frame_offset();
        let rip = memory.read_u64(frame);
        let cs = memory.read_u64(frame + 8);
        let code = if kernel::has_error_code(vector) { memory.read_u64(frame - 8) } else { 0 };
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

    /// Changes the registers at an exit, and stays there, for tests.
    pub fn set_arguments(&mut self, regs: &Regs) {
        self.vcpu.set_regs(regs);
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
    /// # Errors
    ///
    /// [`BadReturn`] if the return address is not in the program's half: SYSRET to a non-canonical address would fault
    /// at CPL 0; or if the last exit was not a system call: the vCPU may stand at any privilege then, and must not go
    /// on at RCX.
    #[inline]
    pub fn return_from_syscall(&mut self, value: u64) -> Result<(), BadReturn> {
        let mut regs = self.vcpu.regs();
        if self.at != At::Syscall || !layout::is_program_address(regs.rcx) {
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

    /// The FS and GS base.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the ioctl fails.
    pub fn bases(&self) -> Result<(u64, u64), RunError> {
        let sregs = self.vcpu.get_sregs()?;
        Ok((sregs.fs.base, sregs.gs.base))
    }

    /// Sets the FS base, or the GS base.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the ioctl fails, as it does for a non-canonical base.
    pub fn set_bases(&mut self, fs_base: Option<u64>, gs_base: Option<u64>) -> Result<(), RunError> {
        self.edit_sregs(|sregs| {
            sregs.fs.base = fs_base.unwrap_or(sregs.fs.base);
            sregs.gs.base = gs_base.unwrap_or(sregs.gs.base);
        })
    }

    fn edit_sregs(&mut self, edit: impl FnOnce(&mut kvm_sregs)) -> Result<(), RunError> {
        let mut sregs = self.vcpu.get_sregs()?;
        edit(&mut sregs);
        // kvm_amd sets the busy bit of the type that it reports (svm_get_segment), which is not the one that was set.
        sregs.tr.type_ = self.variant.task_type;
        self.vcpu.set_sregs(&sregs)
    }

    /// Makes the next run enter the frozen program, if the last exit was at the doorbell: no system call.
    /// [`Processor::enter_frozen`] does so from anywhere.
    ///
    /// A vCPU that stands at the doorbell's own `out`, with flags and a stack pointer that change nothing, gets there
    /// by itself.
    #[inline]
    pub fn rewind(&mut self) {
        match self.at {
            At::Bell => {}
            At::Doorbell | At::User => self.enter_trampoline(),
            // Setting registers is not enough here: see `enter_frozen`.
            At::Syscall | At::Exception { .. } | At::Anywhere => {}
        }
    }

    /// Makes the next run enter the frozen program even where the doorbell would return.
    #[inline]
    pub fn enter_trampoline(&mut self) {
        self.at = At::User;
        self.vcpu.set_regs(&kernel::user_regs(TRAMPOLINE, 0));
    }

    /// Makes the next run enter the frozen program, wherever the vCPU stands: no system call, unless the last run was
    /// interrupted.
    ///
    /// # Errors
    ///
    /// [`RunError`] if an ioctl fails; the machine must be dropped then.
    #[inline]
    pub fn enter_frozen(&mut self) -> Result<(), RunError> {
        match self.at {
            At::User | At::Bell | At::Doorbell => {}
            At::Syscall if self.variant.syscall == SyscallEntry::Supervisor => {
                // By the SYSRET of the call itself. Nothing that the program has left in registers remains.
                let Regs { rip, rflags, .. } = self.vcpu.regs();
                let (rcx, r11) = (TRAMPOLINE, kernel::user_flags(0));
                self.vcpu.set_regs(&Regs { rip, rflags, rcx, r11, ..Regs::default() });
                return Ok(());
            }
            At::Syscall => {}
            At::Exception { .. } | At::Anywhere => self.abandon()?,
        }
        self.enter_trampoline();
        Ok(())
    }

    /// Makes the vCPU ready to be rewound where the last run was interrupted and the program must not go on: it may
    /// stand at CPL 0 or have a pending exception. Costs some ioctls.
    ///
    /// # Errors
    ///
    /// [`RunError`] if one of them fails; the machine must be dropped then.
    pub fn abandon(&mut self) -> Result<(), RunError> {
        // The processor may have pushed a frame without an exit.
        self.stack_used = true;
        let sregs = self.user_sregs()?;
        self.vcpu.start_over(&sregs)?;
        self.at = At::User;
        Ok(())
    }

    /// Special registers for user mode.
    pub(crate) fn user_sregs(&self) -> Result<kvm_sregs, RunError> {
        let base = self.host.known_sregs().map_or_else(|| self.vcpu.get_sregs(), Ok)?;
        Ok(kernel::sregs(base, self.host.features(), self.variant, self.cr3))
    }

    /// Whether the last exit was at the doorbell.
    #[inline]
    #[must_use]
    pub fn is_at_doorbell(&self) -> bool {
        matches!(self.at, At::Bell | At::Doorbell)
    }

    /// Whether programs compute the time from the host's time-stamp counter.
    #[inline]
    #[must_use]
    pub fn shares_tsc(&self) -> bool {
        self.host.guest_tsc() != GuestTsc::Foreign
    }

    /// A handle with which a signal's handler can stop a run of this thread.
    pub fn kicker(&mut self) -> Kicker {
        self.vcpu.kicker()
    }

    /// The vCPU itself, for tests that compare everything that KVM shows.
    #[cfg(feature = "testing")]
    pub fn vcpu_fd(&self) -> &kvm_ioctls::VcpuFd {
        self.vcpu.fd()
    }

    /// The code segment that the vCPU is in, for tests of isolation.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the ioctl fails.
    pub fn code_segment(&self) -> Result<u16, RunError> {
        Ok(self.vcpu.get_sregs()?.cs.selector)
    }
}
