// SPDX-License-Identifier: MIT OR Apache-2.0
//! A frozen machine, and how to freeze one.

use std::sync::Arc;

use mayfly_machine::layout::{CONTROL, DOORBELL, USER_END};
use mayfly_machine::{PAGE_SIZE, Regs};

use crate::error::FreezeError;
use crate::guest::kernel;
use crate::host::host::Host;
use crate::machine::frozen::Frozen;
use crate::machine::machine::Machine;

/// A frozen machine: immutable, shared by its workers.
///
/// ```
/// use mayfly_kvm::{Host, Image, Machine};
/// use mayfly_machine::{Exit, Origin, Prot, Regs};
///
/// # let Ok(host) = Host::open("/dev/kvm".as_ref()) else { return Ok(()) }; // There is no KVM here.
/// // out 0xd0, al; inc qword [0x500000]; mov rsi, [0x500000]; out 0xd0, al; jmp $
/// let code = [
///     0xe6, 0xd0, 0x48, 0xff, 0x04, 0x25, 0, 0, 0x50, 0, 0x48, 0x8b, 0x34, 0x25, 0, 0, 0x50, 0, 0xe6, 0xd0, 0xeb,
///     0xfe,
/// ];
/// let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
/// machine.map_zero(0x40_0000, Prot::READ | Prot::EXEC, Origin::Snapshot)?;
/// machine.load(0x40_0000, &code)?;
/// machine.map_zero(0x50_0000, Prot::READ | Prot::WRITE, Origin::Snapshot)?;
/// machine.set_regs(&Regs { rip: 0x40_0000, ..Regs::default() });
/// assert_eq!(machine.run()?, Exit::Doorbell);
///
/// let image = Image::freeze(machine, 0)?;
/// let mut worker = Machine::fork(&image, 64, &[])?;
/// for request in 0..3 {
///     // The first write to a page of the image faults, once in the life of a worker.
///     let mut exit = worker.run()?;
///     if let Exit::PageFault { address, .. } = exit {
///         assert_eq!((request, address), (0, 0x50_0000));
///         worker.make_writable(address, Origin::Snapshot)?;
///         exit = worker.run()?;
///     }
///     assert_eq!((exit, worker.regs().rsi), (Exit::Doorbell, 1));
///     worker.reset()?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Image {
    pub(crate) host: Host,
    pub(crate) frozen: Arc<Frozen>,
}

const XSTATE_BV: usize = 512;
const X87: u64 = 1;
const XCOMP_BV: usize = 520;

impl Image {
    /// Freezes a machine whose last exit was [`mayfly_machine::Exit::Doorbell`], or whose registers were set since by
    /// [`Machine::set_context`]: workers go on behind it, with `result` in RAX.
    ///
    /// ```
    /// # use mayfly_kvm::{Host, Image, Machine};
    /// # use mayfly_machine::{Exit, Origin, Prot, Regs};
    /// # let Ok(host) = Host::open("/dev/kvm".as_ref()) else { return Ok(()) }; // There is no KVM here.
    /// // out 0xd0, al; mov rsi, rax; out 0xd0, al; jmp $
    /// let code = [0xe6, 0xd0, 0x48, 0x89, 0xc6, 0xe6, 0xd0, 0xeb, 0xfe];
    /// # let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
    /// # machine.map_zero(0x40_0000, Prot::READ | Prot::EXEC, Origin::Snapshot)?;
    /// # machine.load(0x40_0000, &code)?;
    /// # machine.set_regs(&Regs { rip: 0x40_0000, ..Regs::default() });
    /// assert_eq!(machine.run()?, Exit::Doorbell);
    /// let image = Image::freeze(machine, 99)?;
    /// let mut worker = Machine::fork(&image, 64, &[])?;
    /// assert_eq!(worker.run()?, Exit::Doorbell);
    /// assert_eq!(worker.regs().rsi, 99);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`FreezeError`]; the machine is dropped in any case.
    pub fn freeze(mut machine: Machine, result: u64) -> Result<Self, FreezeError> {
        if machine.changes.recorded {
            return Err(FreezeError::State("it is a worker".into()));
        }
        let regs = machine.vcpu.complete_exit()?;
        let sregs = machine.vcpu.get_sregs()?;
        if sregs.cs.selector != kernel::USER_CODE || sregs.cs.l != 1 || regs.rip >= CONTROL {
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
        let mut components =
            u64::from_le_bytes(components) & machine.host.guest_xcr0() & crate::guest::cpuid::XCR0_ALLOWED;
        let rip = kernel::frozen_rip(regs.rip);
        if rip != regs.rip {
            // Frozen inside a call of the doorbell: by the System V ABI vector registers are the callee's to change.
            // They come back as zero, which is quicker than loading them; x87 state and MXCSR, which `xrstor` loads
            // anyway, are kept.
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
