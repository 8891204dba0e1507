// SPDX-License-Identifier: MIT OR Apache-2.0
//! A frozen machine, and how to freeze one.

use std::sync::Arc;

use mayfly_machine::layout::USER_END;
use mayfly_machine::{FreezeError, PAGE_SIZE};
use mayfly_memory::layout::Reach;

use crate::host::Host;
use crate::machine::frozen::{Frozen, Inbox};
use crate::machine::machine::Machine;

/// A frozen machine: immutable, shared by its workers.
///
/// ```
/// use mayfly_engine::{Host, Image, Machine};
/// use mayfly_machine::{Exit, Origin, Prot, Regs};
///
/// # let Ok(host) = Host::open() else { return Ok(()) }; // No engine runs here.
/// // syscall; inc qword [0x500000]; mov rsi, [0x500000]; syscall; jmp $
/// let code = [
///     0x0f, 0x05, 0x48, 0xff, 0x04, 0x25, 0, 0, 0x50, 0, 0x48, 0x8b, 0x34, 0x25, 0, 0, 0x50, 0, 0x0f, 0x05, 0xeb,
///     0xfe,
/// ];
/// let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
/// machine.map_zero(0x40_0000, Prot::READ | Prot::EXEC, Origin::Snapshot)?;
/// machine.load(0x40_0000, &code)?;
/// machine.map_zero(0x50_0000, Prot::READ | Prot::WRITE, Origin::Snapshot)?;
/// machine.set_regs(&Regs { rip: 0x40_0000, ..Regs::default() });
/// assert_eq!(machine.run()?, Exit::Syscall);
/// let context = machine.context()?.ok_or("user code")?;
/// machine.set_context(&context)?;
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
///     assert_eq!((exit, worker.regs().rsi), (Exit::Syscall, 1));
///     worker.reset()?;
///     worker.enter_frozen(0)?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Image {
    pub(crate) host: Host,
    pub(crate) frozen: Arc<Frozen>,
}

impl Image {
    /// Freezes a machine whose last exit was [`mayfly_machine::Exit::Doorbell`], or whose registers were set since by
    /// [`Machine::set_context`]: workers go on behind it, with `result` in RAX.
    ///
    /// ```
    /// # use mayfly_engine::{Host, Image, Machine};
    /// # use mayfly_machine::{Exit, Origin, Prot, Regs};
    /// # let Ok(host) = Host::open() else { return Ok(()) }; // No engine runs here.
    /// // syscall; mov rsi, rax; syscall; jmp $
    /// let code = [0x0f, 0x05, 0x48, 0x89, 0xc6, 0x0f, 0x05, 0xeb, 0xfe];
    /// # let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
    /// # machine.map_zero(0x40_0000, Prot::READ | Prot::EXEC, Origin::Snapshot)?;
    /// # machine.load(0x40_0000, &code)?;
    /// # machine.set_regs(&Regs { rip: 0x40_0000, ..Regs::default() });
    /// assert_eq!(machine.run()?, Exit::Syscall);
    /// let context = machine.context()?.ok_or("user code")?;
    /// machine.set_context(&context)?;
    /// let image = Image::freeze(machine, 99)?;
    /// let mut worker = Machine::fork(&image, 64, &[])?;
    /// assert_eq!(worker.run()?, Exit::Syscall);
    /// assert_eq!(worker.regs().rsi, 99);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`FreezeError`]; the machine is dropped in any case.
    pub fn freeze(machine: Machine, result: u64) -> Result<Self, FreezeError> {
        if machine.changes.recorded {
            return Err(FreezeError::State("it is a worker".into()));
        }
        let mut machine = machine;
        machine.unmap_shared_files().map_err(FreezeError::Memory)?;
        let Machine { mut processor, mut memory, tables, host, inbox, changes, .. } = machine;
        processor.freeze(&mut memory, tables, result)?;
        let stack_frame = processor.stack_frame();
        // Shadow tables, TLBs and mappings go with it: entries may be downgraded freely from here on.
        drop(processor);
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
        if let Some(files) = memory.files_mut() {
            files.drop_unmarked();
        }
        let (memory, tables, inbox, aliases) = match host.reach() {
            Reach::Mapping => (memory.seal()?, tables, inbox, changes.aliases),
            Reach::Files => {
                let ordered = memory.seal_in_order(tables)?;
                let first_frame = ordered.number(inbox.first_frame).unwrap_or(0);
                let aliases = changes.aliases.renumbered(|frame| ordered.number(frame));
                (ordered.memory, ordered.tables, Inbox { first_frame, ..inbox }, aliases)
            }
        };
        let memory = Arc::new(memory);
        let source = host.source(&memory, tables, stack_frame)?;
        Ok(Self { host, frozen: Arc::new(Frozen { memory, tables, inbox, aliases, source, entry_value: result }) })
    }

    /// Size of the image in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.frozen.memory.frames() * PAGE_SIZE
    }
}
