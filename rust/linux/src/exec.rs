// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starting a program: its image and stack into the machine, and the registers with which it begins.

use mayfly_kvm::{BadAddress, Machine, MemoryError, PAGE_SIZE, Prot, Regs, RunError, layout};

use crate::address_space::{AddressSpace, Placement};
use crate::elf::{ElfError, Image, Segment};
use crate::mounts::Mounts;
use crate::pages;
use crate::process::{Limits, Process};
use crate::stack::{Contents, InitialStack, StackError};
use crate::vma::{Kind, Vma};

/// RFLAGS of a program that starts: the bit that is always set, and interrupts enabled.
const INITIAL_FLAGS: u64 = 0x202;

/// A program and how it is to be called.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// The ELF file.
    pub elf: &'a [u8],
    /// argv\[0\]; also what `/proc/self/exe` points to, taken as absolute.
    pub name: &'a str,
    /// Further arguments.
    pub args: &'a [String],
    /// The environment, in order.
    pub env: &'a [(String, String)],
    /// What it sees of the host's files.
    pub mounts: &'a Mounts,
}

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The file is not a program that Mayfly runs.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// Its arguments or environment cannot be passed.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The program's segments and stack need more than its limits on mappings and address space, or overlap.
    #[error(
        "the program's segments and its stack of {stack_bytes} bytes do not fit {address_space_bytes} bytes of address space in {mappings} mappings"
    )]
    AddressSpace {
        /// The stack limit.
        stack_bytes: u64,
        /// The address-space limit.
        address_space_bytes: u64,
        /// The limit on mappings.
        mappings: usize,
    },
    /// The machine has too little memory, or refused it.
    #[error("loading the program: {0}")]
    Memory(#[from] MemoryError),
    /// A page that was just mapped is not there: a bug of the machine's.
    #[error("loading the program: {0}")]
    Load(#[from] BadAddress),
    /// The registers could not be set.
    #[error("starting the program: {0}")]
    Registers(#[from] RunError),
}

impl Process {
    /// Loads `program` into `machine`, which has no program yet, and sets its registers so that the next run starts it.
    ///
    /// `auxv_extra` entries follow those of Linux in the auxiliary vector. `at_random` is the guest address of 16 random bytes, which
    /// whoever runs the machine keeps fresh.
    ///
    /// # Errors
    ///
    /// [`ExecError`] says what is wrong with the program, its arguments or the limits. The machine is then half loaded and good for
    /// nothing else.
    pub fn exec(
        machine: &mut Machine,
        program: &Program<'_>,
        auxv_extra: &[(u64, u64)],
        at_random: u64,
        limits: &Limits,
    ) -> Result<Self, ExecError> {
        let image = Image::parse(program.elf)?;
        let contents = Contents { name: program.name, args: program.args, env: program.env, at_random, auxv_extra };
        let stack = InitialStack::build(AddressSpace::stack_top(), &image, &contents)?;

        let memory = lay_out(&image, limits, &stack).ok_or(ExecError::AddressSpace {
            stack_bytes: limits.stack_bytes,
            address_space_bytes: limits.address_space_bytes,
            mappings: limits.mappings,
        })?;
        for segment in &image.segments {
            let data = program.elf.get(segment.data.clone()).unwrap_or_default();
            load(machine, &memory, segment.address, data)?;
        }
        load(machine, &memory, stack.pointer, &stack.bytes)?;

        machine.set_fs_base(0)?;
        machine.set_gs_base(0)?;
        machine.set_regs(&Regs { rip: image.entry, rsp: stack.pointer, rflags: INITIAL_FLAGS, ..Regs::default() });
        Ok(Self::new(memory, program, stack.auxv, limits))
    }
}

/// The address space of a program that has not run yet; `None` if it does not fit.
fn lay_out(image: &Image, limits: &Limits, stack: &InitialStack) -> Option<AddressSpace> {
    let rw = Prot::READ | Prot::WRITE;
    let stack_prot = if image.executable_stack { rw | Prot::EXEC } else { rw };
    let mut memory =
        AddressSpace::new(limits.mappings, limits.address_space_bytes, limits.stack_bytes, stack_prot).ok()?;
    for &Segment { pages, prot, .. } in &image.segments {
        memory.map(Placement::FixedNoReplace(pages), pages.len(), prot, Kind::Private).ok()?;
    }
    memory.start_heap(image.end());
    // Besides what is on it already, a program gets at least a few pages of stack.
    let lowest = stack.pointer.checked_sub(4 * PAGE_SIZE)?;
    memory.find(lowest).is_some_and(|vma| vma.kind == Kind::Stack).then_some(memory)
}

/// Writes `data` to `address`, bringing in the pages that it touches. Bytes around it are zero. Pages that no data touch are left for
/// the program's first access.
fn load(machine: &mut Machine, memory: &AddressSpace, address: u64, data: &[u8]) -> Result<(), ExecError> {
    let end = address.saturating_add(data.len() as u64).min(layout::USER_END);
    let mut page = pages::align_down(address);
    while page < end {
        if let Some(&Vma { prot, origin, .. }) = memory.find(page)
            && !machine.is_mapped(page)
        {
            machine.map_zero(page, prot, origin)?;
        }
        page = page.saturating_add(PAGE_SIZE);
    }
    machine.load(address, data)?;
    Ok(())
}
