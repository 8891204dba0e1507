// SPDX-License-Identifier: MIT OR Apache-2.0
//! The processor state of user code: taken out of the vCPU and put back, so that one vCPU can run several threads.
//!
//! ```text
//! last exit     where the vCPU stands                     the user's registers
//! doorbell      CPL 3, at or behind the `out`             the vCPU's
//! syscall       CPL 0 in the entry (CPL 3 where it stays) the vCPU's, with RIP = RCX and RFLAGS = R11
//! exception     CPL 0 in the handler                      the vCPU's, but those in the frame on the kernel's stack
//! kicked        anywhere                                  the vCPU's, if it is at CPL 3 without a pending event
//! ```

use mayfly_machine::layout;
use mayfly_machine::{PAGE_SIZE, Regs, UserContext};

use crate::error::RunError;
use crate::guest::kernel::{self, SyscallEntry};
use crate::layout::TRAMPOLINE;
use crate::machine::at::At;
use crate::machine::machine::Machine;
use crate::vcpu::regs::{vector_from_kvm, vector_to_kvm};

impl Machine {
    /// What a [`mayfly_machine::VectorState`] may hold: its components (XCR0), and the bytes that they take.
    #[must_use]
    pub fn vector_features(&self) -> (u64, usize) {
        let features = self.host.features();
        (features.xcr0, features.xsave_bytes as usize)
    }

    /// The user's general registers as of the last exit; `None` where only [`Machine::context`] can find them.
    ///
    /// After a system call RAX is its number.
    #[must_use]
    pub fn user_regs(&self) -> Option<Regs> {
        let regs = self.vcpu.regs();
        match self.at {
            At::Syscall => Some(Regs { rip: regs.rcx, rflags: kernel::user_flags(regs.r11), ..regs }),
            At::Exception { vector } => {
                let frame = self.stack_frame * PAGE_SIZE + kernel::frame_offset();
                let word = |index: u64| self.memory.read_u64(frame + 8 * index);
                let (rip, rflags, rsp) = (word(0), kernel::user_flags(word(2)), word(3));
                // The page-fault handler has put RAX below the error code.
                let rax = if vector == 14 { self.memory.read_u64(frame - 16) } else { regs.rax };
                Some(Regs { rax, rip, rflags, rsp, ..regs })
            }
            At::User => Some(regs),
            At::Bell | At::Doorbell | At::Anywhere => None,
        }
    }

    /// Takes the user's context out of the vCPU. `None` if the vCPU was interrupted where the context cannot be taken:
    /// run on, and try again at the next exit. After a context was taken, only [`Machine::set_context`] may be called.
    ///
    /// # Errors
    ///
    /// [`RunError`] if an ioctl fails; the machine must not be used again then.
    pub fn context(&mut self) -> Result<Option<UserContext>, RunError> {
        let sregs = self.vcpu.get_sregs()?;
        let known = self.user_regs();
        let regs = match known {
            Some(regs) => regs,
            None => {
                if sregs.cs.selector != kernel::USER_CODE || self.vcpu.has_event()? {
                    return Ok(None);
                }
                self.vcpu.complete_exit()?
            }
        };
        let vector = vector_from_kvm(&self.vcpu.xsave()?);
        Ok(Some(UserContext { regs, fs_base: sregs.fs.base, gs_base: sregs.gs.base, vector }))
    }

    /// Makes the next run go on with `context`, wherever the vCPU stands. Its former context is lost.
    ///
    /// ```
    /// # use mayfly_kvm::{Host, Machine};
    /// # use mayfly_machine::{Exit, Origin, Prot, Regs};
    /// # let Ok(host) = Host::open("/dev/kvm".as_ref()) else { return Ok(()) }; // There is no KVM here.
    /// // out 0xd0, al; jmp $
    /// let code = [0xe6, 0xd0, 0xeb, 0xfe];
    /// # let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
    /// # machine.map_zero(0x40_0000, Prot::READ | Prot::EXEC, Origin::Snapshot)?;
    /// # machine.load(0x40_0000, &code)?;
    /// # machine.set_regs(&Regs { rip: 0x40_0000, ..Regs::default() });
    /// let mut context = machine.context()?.ok_or("user code")?;
    /// context.regs.rsi = 5;
    /// machine.set_context(&context)?;
    /// assert_eq!(machine.run()?, Exit::Doorbell);
    /// assert_eq!(machine.regs().rsi, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RunError`] if an ioctl fails, as for a context that is not valid; the machine must not be used again then.
    pub fn set_context(&mut self, context: &UserContext) -> Result<(), RunError> {
        if self.at != At::User {
            // An instruction that KVM has yet to finish would change the registers.
            self.vcpu.complete_exit()?;
        }
        let mut sregs = self.user_sregs()?;
        sregs.fs.base = context.fs_base;
        sregs.gs.base = context.gs_base;
        self.vcpu.set_sregs(&sregs)?;
        self.vcpu.set_xsave(&vector_to_kvm(&context.vector))?;
        self.set_regs(&context.regs);
        Ok(())
    }

    /// Makes the next run enter the frozen program, with `rax` in RAX: no system call, unless the last run was
    /// interrupted.
    ///
    /// # Errors
    ///
    /// [`RunError`] if an ioctl fails; the machine must be dropped then.
    #[inline]
    pub fn enter_frozen(&mut self, rax: u64) -> Result<(), RunError> {
        self.set_entry_value(rax);
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

    /// Whether a program may be made to go on at `rip`: see [`layout::is_program_address`].
    #[must_use]
    pub fn is_program_address(rip: u64) -> bool {
        layout::is_program_address(rip)
    }
}
