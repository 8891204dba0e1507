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

use mayfly_machine::layout::{CONTROL, DOORBELL};
use mayfly_machine::{FreezeError, PAGE_SIZE, Regs, RunError, UserContext};
use mayfly_memory::memory::Memory;
use mayfly_memory::tables::Tables;

use crate::guest::cpuid::XCR0_ALLOWED;
use crate::guest::kernel;
use crate::processor::at::At;
use crate::processor::processor::Processor;
use crate::vcpu::regs::{vector_from_kvm, vector_to_kvm};

const XSTATE_BV: usize = 512;
const X87: u64 = 1;
const XCOMP_BV: usize = 520;

impl Processor {
    /// What a [`mayfly_machine::VectorState`] may hold: its components (XCR0), and the bytes that they take.
    #[must_use]
    pub fn vector_features(&self) -> (u64, usize) {
        let features = self.host.features();
        (features.xcr0, features.xsave_bytes as usize)
    }

    /// The user's general registers as of the last exit; `None` where only [`Processor::context`] can find them.
    ///
    /// After a system call RAX is its number.
    #[must_use]
    pub fn user_regs(&self, memory: &Memory) -> Option<Regs> {
        let regs = self.vcpu.regs();
        match self.at {
            At::Syscall => Some(Regs { rip: regs.rcx, rflags: kernel::user_flags(regs.r11), ..regs }),
            At::Exception { vector } => {
                let frame = self.stack_frame * PAGE_SIZE + kernel::frame_offset();
                let word = |index: u64| memory.read_u64(frame + 8 * index);
                let (rip, rflags, rsp) = (word(0), kernel::user_flags(word(2)), word(3));
                // The page-fault handler has put RAX below the error code.
                let rax = if vector == 14 { memory.read_u64(frame - 16) } else { regs.rax };
                Some(Regs { rax, rip, rflags, rsp, ..regs })
            }
            At::User => Some(regs),
            At::Bell | At::Doorbell | At::Anywhere => None,
        }
    }

    /// Takes the user's context out of the vCPU. `None` if the vCPU was interrupted where the context cannot be taken:
    /// run on, and try again at the next exit. Afterwards only [`Processor::set_context`] may be called.
    ///
    /// # Errors
    ///
    /// [`RunError`] if an ioctl fails; the machine must not be used again then.
    pub fn context(&mut self, memory: &Memory) -> Result<Option<UserContext>, RunError> {
        let sregs = self.vcpu.get_sregs()?;
        let known = self.user_regs(memory);
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

    /// Writes what workers go on with into the doorbell's page: behind the doorbell, with `result` in RAX.
    ///
    /// # Errors
    ///
    /// [`FreezeError`] if the vCPU does not stand in user code between two instructions.
    pub fn freeze(&mut self, memory: &mut Memory, tables: Tables, result: u64) -> Result<(), FreezeError> {
        let regs = self.vcpu.complete_exit()?;
        let sregs = self.vcpu.get_sregs()?;
        if sregs.cs.selector != kernel::USER_CODE || sregs.cs.l != 1 || regs.rip >= CONTROL {
            return Err(FreezeError::State(format!("cs {:#x}, rip {:#x}", sregs.cs.selector, regs.rip)));
        }
        let resume = tables.entry(memory, DOORBELL).frame().map(|frame| frame * PAGE_SIZE);
        let resume = resume.ok_or_else(|| FreezeError::State("the doorbell page is gone".into()))?;
        let xsave = self.vcpu.xsave()?;
        let mut area: Vec<u8> = xsave.region.iter().flat_map(|word| word.to_le_bytes()).collect();
        area.truncate((kernel::RESUME_REGS - kernel::RESUME_XSAVE) as usize);
        // Only components that `xrstor` may name here; the standard format, whatever KVM's buffer says.
        let mut components = [0; 8];
        components.copy_from_slice(&area[XSTATE_BV..XSTATE_BV + 8]);
        let mut components = u64::from_le_bytes(components) & self.host.guest_xcr0() & XCR0_ALLOWED;
        let rip = kernel::frozen_rip(regs.rip);
        if rip != regs.rip {
            // Frozen inside a call of the doorbell: by the System V ABI vector registers are the callee's to change.
            // They come back as zero, which is quicker than loading them; x87 state and MXCSR, which `xrstor` loads
            // anyway, are kept.
            components &= X87;
        }
        area[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&components.to_le_bytes());
        area[XCOMP_BV..XCOMP_BV + 56].fill(0);
        memory.slice_mut(resume + kernel::RESUME_XSAVE, area.len()).copy_from(&area[..]);
        let regs = Regs { rax: result, rip, ..regs };
        let words = kernel::resume_words(&regs, sregs.fs.base, sregs.gs.base);
        for (word, at) in words.into_iter().zip((resume + kernel::RESUME_REGS..).step_by(8)) {
            memory.write_u64(at, word);
        }
        Ok(())
    }
}
