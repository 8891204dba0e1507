// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starting a program: its image and stack into the machine, and the registers with which it begins.

use mayfly_kvm::{BadAddress, Machine, MemoryError, PAGE_SIZE, Prot, Regs, RunError, layout};

use crate::address_space::{AddressSpace, Placement};
use crate::elf::{ElfError, Image, Segment};
use crate::mounts::Mounts;
use crate::pages;
use crate::process::{Limits, Process};
use crate::resolve;
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
    /// It is dynamic, and the program that is to load its libraries cannot be had.
    #[error("the program's interpreter {path:?} {reason}")]
    Interpreter {
        /// The path that the program names.
        path: String,
        /// What is wrong.
        reason: String,
    },
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

/// Largest interpreter, in bytes; those of C libraries have some hundred thousand.
const INTERPRETER_MAX: u64 = 16 << 20;

impl Process {
    /// Loads `program` into `machine`, which has no program yet, and sets its registers so that the next run starts it. A dynamic
    /// program's interpreter is loaded beside it, from the mounts, and is what starts.
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
        let no_room = || ExecError::AddressSpace {
            stack_bytes: limits.stack_bytes,
            address_space_bytes: limits.address_space_bytes,
            mappings: limits.mappings,
        };
        let image = Image::parse(program.elf)?;
        let rw = Prot::READ | Prot::WRITE;
        let stack_prot = if image.executable_stack { rw | Prot::EXEC } else { rw };
        let memory = AddressSpace::new(limits.mappings, limits.address_space_bytes, limits.stack_bytes, stack_prot)
            .map_err(|_| no_room())?;
        let mut process = Self::new(memory, program, limits);
        let memory = process.memory.edit();
        map_segments(memory, &image).ok_or_else(no_room)?;
        memory.start_heap(image.end());
        let interpreter = match &image.interpreter {
            Some(path) => Some(process.load_interpreter(machine, path)?),
            None => None,
        };

        let contents = Contents {
            name: program.name,
            args: program.args,
            env: program.env,
            at_random,
            interpreter_base: interpreter.map_or(0, |interpreter| interpreter.base),
            auxv_extra,
        };
        let stack = InitialStack::build(AddressSpace::stack_top(), &image, &contents)?;
        // Besides what is on it already, a program gets at least a few pages of stack.
        let lowest = stack.pointer.checked_sub(4 * PAGE_SIZE);
        let has_stack = |address| process.memory.find(address).is_some_and(|vma| vma.kind == Kind::Stack);
        lowest.filter(|&lowest| has_stack(lowest)).ok_or_else(no_room)?;
        load_segments(machine, &process.memory, &image, program.elf)?;
        load(machine, &process.memory, stack.pointer, &stack.bytes)?;
        process.set_auxv(stack.auxv);

        machine.set_fs_base(0)?;
        machine.set_gs_base(0)?;
        let rip = interpreter.map_or(image.entry, |interpreter| interpreter.entry);
        machine.set_regs(&Regs { rip, rsp: stack.pointer, rflags: INITIAL_FLAGS, ..Regs::default() });
        Ok(process)
    }

    /// Loads the interpreter at `path` in the program's view, where there is room.
    fn load_interpreter(&mut self, machine: &mut Machine, path: &[u8]) -> Result<Interpreter, ExecError> {
        let refuse =
            |reason: String| ExecError::Interpreter { path: String::from_utf8_lossy(path).into_owned(), reason };
        let file = self.read_program(path).map_err(|reason| refuse(reason.to_owned()))?;
        let parse = |base| Image::parse_at(&file, base).map_err(|error| refuse(format!("is {error}")));
        let image = parse(layout::USER_MIN)?;
        // How far alignment moved it there, and the most that it may move it elsewhere.
        let first = image.segments.first().map_or(0, |first| first.pages.start());
        let slack = first.saturating_sub(layout::USER_MIN).saturating_add(layout::USER_MIN);
        let room = self.memory.find_room(image.span().saturating_add(slack));
        let image = parse(room.map_err(|_| refuse("finds no room".to_owned()))?.start())?;
        let memory = self.memory.edit();
        map_segments(memory, &image).ok_or_else(|| refuse("finds no room".to_owned()))?;
        load_segments(machine, memory, &image, &file)?;
        Ok(Interpreter { base: image.bias, entry: image.entry })
    }

    /// All of a file in the mounts; an error completes "the interpreter ...".
    fn read_program(&self, path: &[u8]) -> Result<Vec<u8>, &'static str> {
        let missing = "is not in the tenant's mounts: mount its directory, or link the program statically (-static or -static-pie)";
        let found = resolve::resolve(self, b"", path, true).and_then(resolve::Found::existing);
        let (path, _) = found.map_err(|_| missing)?;
        let file = resolve::open_host(self, &path).map_err(|_| missing)?;
        let size = file.attributes().map_err(|_| "cannot be read")?.size;
        if size > INTERPRETER_MAX {
            return Err("is too large");
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        let got = file.read_at(0, &mut bytes).map_err(|_| "cannot be read")?;
        bytes.truncate(got);
        Ok(bytes)
    }
}

/// Where a loaded interpreter lies and starts.
#[derive(Clone, Copy)]
struct Interpreter {
    base: u64,
    entry: u64,
}

/// Maps the segments of `image`; `None` if they do not fit.
fn map_segments(memory: &mut AddressSpace, image: &Image) -> Option<()> {
    for &Segment { pages, prot, .. } in &image.segments {
        memory.map(Placement::FixedNoReplace(pages), pages.len(), prot, Kind::Private).ok()?;
    }
    Some(())
}

fn load_segments(machine: &mut Machine, memory: &AddressSpace, image: &Image, file: &[u8]) -> Result<(), ExecError> {
    for segment in &image.segments {
        load(machine, memory, segment.address, file.get(segment.data.clone()).unwrap_or_default())?;
    }
    Ok(())
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
