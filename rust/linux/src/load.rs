// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loads a program: maps its image and its stack into the machine, and sets the initial registers.

use std::path::Path;
use std::sync::Arc;

use mayfly_engine::{Machine, RunError};
use mayfly_machine::{BadAddress, MemoryError, PAGE_SIZE, Prot, Regs, layout};

use crate::base::limits::Limits;
use crate::base::pages::{self, PAGE_BYTES, PageRange};
use crate::exec::elf::{ElfError, Image, Segment};
use crate::exec::elf_source::{Elf, ElfSource};
use crate::exec::program::Program;
use crate::exec::stack::{InitialStack, StackContents, StackError};
use crate::fs::view::fs_view::FsView;
use crate::fs::view::lookup;
use crate::host::files;
use crate::kernel::process::Process;
use crate::mm::address_space::AddressSpace;
use crate::mm::mapped_file::MappedFile;
use crate::mm::placement::Placement;
use crate::mm::vma::{Vma, VmaKind};

/// Initial RFLAGS: the bit that is always set, and interrupts enabled.
const INITIAL_FLAGS: u64 = 0x202;

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The file is not a program that Mayfly runs.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// The program is dynamic, and its interpreter, which loads its libraries, cannot be loaded.
    #[error("the program's interpreter {path:?} {reason}")]
    Interpreter {
        /// The path that the program names.
        path: String,
        /// Completes "the program's interpreter ...".
        reason: String,
    },
    /// Its arguments or environment cannot be passed.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The program's segments and stack exceed its limits on mappings and address space, or overlap.
    #[error(
        "the program's segments and its stack of {stack_bytes} bytes do not fit \
         {address_space_bytes} bytes of address space in {mappings} mappings"
    )]
    AddressSpace {
        /// The stack limit.
        stack_bytes: u64,
        /// The address-space limit.
        address_space_bytes: u64,
        /// The limit on mappings.
        mappings: usize,
    },
    /// The machine has too little memory, or refused the mapping.
    #[error("loading the program: {0}")]
    Memory(#[from] MemoryError),
    /// A page that was just mapped is absent: a bug of the machine's.
    #[error("loading the program: {0}")]
    Load(#[from] BadAddress),
    /// The program's file cannot be used.
    #[error("the program's file: {0}")]
    File(#[from] std::io::Error),
    /// The program's file was written while it was loaded.
    #[error("the program's file changed while it was loaded")]
    Changed,
    /// The registers could not be set.
    #[error("starting the program: {0}")]
    Registers(#[from] RunError),
}

impl Process {
    /// Loads `program` into `machine`, which has no program yet, and sets its registers so that the next run starts it.
    /// A dynamic program's interpreter is loaded beside it, from the mounts, and starts first.
    ///
    /// `auxv_extra` entries follow Linux's own in the auxiliary vector. `at_random` is the guest address of 16 random
    /// bytes, which the embedder renews.
    ///
    /// # Errors
    ///
    /// [`ExecError`] says what is wrong with the program, its arguments or the limits. The machine is then partly
    /// loaded and must be dropped.
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
        let file = match program.elf {
            Elf::Bytes(_) => None,
            Elf::File(file) => Some(own_file(program, file)?),
        };
        let source = match &file {
            Some(file) => file_source(file)?,
            None => ElfSource::Bytes(program.elf.bytes()),
        };
        let image = Image::parse(source)?;
        let rw = Prot::READ | Prot::WRITE;
        let stack_prot = if image.executable_stack { rw | Prot::EXEC } else { rw };
        let memory = AddressSpace::new(limits.mappings, limits.address_space_bytes, limits.stack_bytes, stack_prot)
            .map_err(|_| no_room())?;
        let mut process = Self::new(memory, program, limits);
        process.resolve_executable();
        // The file's name in `/proc/self/maps` is that of `/proc/self/exe`.
        let path = process.shared.executable.as_bytes();
        let mapped = file.as_ref().map(|file| MappedFile { path: path.into(), ..file.clone() });
        let memory = process.memory.edit();
        map_segments(memory, &image, mapped.as_ref()).ok_or_else(no_room)?;
        memory.start_heap(image.end());
        let interpreter = match &image.interpreter {
            Some(path) => Some(process.load_interpreter(machine, path)?),
            None => None,
        };

        let contents = StackContents {
            name: program.name,
            args: program.args,
            env: program.env,
            at_random,
            interpreter_base: interpreter.map_or(0, |interpreter| interpreter.base),
            auxv_extra,
        };
        let stack = InitialStack::build(AddressSpace::stack_top(), &image, &contents)?;
        // A program gets at least a few pages of stack besides its arguments and environment.
        let lowest = stack.pointer.checked_sub(4 * PAGE_SIZE);
        let has_stack = |address| process.memory.find(address).is_some_and(|vma| vma.kind == VmaKind::Stack);
        lowest.filter(|&lowest| has_stack(lowest)).ok_or_else(no_room)?;
        load_segments(machine, &process.memory, &image, source)?;
        load(machine, &process.memory, stack.pointer, &stack.bytes)?;
        process.set_auxv(stack.auxv);

        machine.set_fs_base(0)?;
        machine.set_gs_base(0)?;
        let rip = interpreter.map_or(image.entry, |interpreter| interpreter.entry);
        machine.set_regs(&Regs { rip, rsp: stack.pointer, rflags: INITIAL_FLAGS, ..Regs::default() });
        Ok(process)
    }

    /// Loads the interpreter at `path` in the program's view, at a free address.
    fn load_interpreter(&mut self, machine: &mut Machine, path: &[u8]) -> Result<Interpreter, ExecError> {
        let refuse =
            |reason: String| ExecError::Interpreter { path: String::from_utf8_lossy(path).into_owned(), reason };
        let file = self.open_program(path).map_err(|reason| refuse(reason.to_owned()))?;
        let source = file_source(&file).map_err(|_| refuse("cannot be read".to_owned()))?;
        let parse = |base| Image::parse_at(source, base).map_err(|error| refuse(format!("is {error}")));
        let image = parse(layout::USER_MIN)?;
        // The alignment's offset there, and the largest that it may have elsewhere.
        let first = image.segments.first().map_or(0, |first| first.pages.start());
        let slack = first.saturating_sub(layout::USER_MIN).saturating_add(layout::USER_MIN);
        let room = self.memory.find_room(image.span().saturating_add(slack));
        let image = parse(room.map_err(|_| refuse("does not fit into the address space".to_owned()))?.start())?;
        let memory = self.memory.edit();
        map_segments(memory, &image, Some(&file))
            .ok_or_else(|| refuse("does not fit into the address space".to_owned()))?;
        load_segments(machine, memory, &image, source)?;
        Ok(Interpreter { base: image.bias, entry: image.entry })
    }

    /// Follows symbolic links to the program in its own view: `/proc/self/exe` names the file itself, next to which
    /// runtimes look for their libraries.
    fn resolve_executable(&mut self) {
        let view = FsView { process: self, may_block: true };
        let path = view.process.shared.executable.as_bytes();
        let found = lookup::resolve(view, b"", path, true).and_then(lookup::Found::existing);
        if let Ok((path, _)) = found
            && let Ok(path) = String::from_utf8(path)
        {
            self.set_executable(path);
        }
    }

    /// A program's file in the mounts, and its path. The error completes "the interpreter ...".
    fn open_program(&self, path: &[u8]) -> Result<MappedFile, &'static str> {
        let missing = "is not in the tenant's mounts: mount the host's libraries (/lib, /lib64 and /usr on most), \
             or link the program statically (-static or -static-pie)";
        let view = FsView { process: self, may_block: true };
        let found = lookup::resolve(view, b"", path, true).and_then(lookup::Found::existing);
        let (path, _) = found.map_err(|_| missing)?;
        let file = lookup::open_host(view, &path).map_err(|_| missing)?;
        Ok(MappedFile { file: Arc::new(file), path: path.into() })
    }
}

/// The program's own file, for mapping.
fn own_file(program: &Program<'_>, file: &std::fs::File) -> Result<MappedFile, ExecError> {
    let permit = program.mounts.permit().map_err(|_| std::io::Error::from_raw_os_error(libc::ENFILE))?;
    let name = Path::new("/").join(program.name);
    let file = files::HostFile::of_program(file, permit)?;
    Ok(MappedFile { file: Arc::new(file), path: name.as_os_str().as_encoded_bytes().into() })
}

fn file_source(file: &MappedFile) -> Result<ElfSource<'_>, ExecError> {
    let size = file.file.attributes(true).map_err(|_| ExecError::Changed)?.size;
    Ok(ElfSource::File { file: &file.file, size })
}

/// Base address and entry point of a loaded interpreter.
#[derive(Clone, Copy)]
struct Interpreter {
    base: u64,
    entry: u64,
}

/// Maps the segments of `image`, from the file if there is one; `None` if they do not fit.
fn map_segments(memory: &mut AddressSpace, image: &Image, file: Option<&MappedFile>) -> Option<()> {
    for segment in &image.segments {
        let mut rest = segment.pages;
        if let Some((file, pages)) = file.zip(file_pages(segment)) {
            let placement = Placement::FixedNoReplace(pages);
            // In its first page, the segment has the same offset in memory and in the file.
            let offset = pages::align_down(segment.data.start as u64);
            memory.map_file(placement, pages.len(), segment.prot, file.clone(), offset, false).ok()?;
            rest = rest.after(pages.end());
        }
        if !rest.is_empty() {
            memory.map(Placement::FixedNoReplace(rest), rest.len(), segment.prot, VmaKind::Private).ok()?;
        }
    }
    Some(())
}

/// The pages of a segment that have content of its file; `None` if there are none.
fn file_pages(segment: &Segment) -> Option<PageRange> {
    if segment.data.is_empty() {
        return None;
    }
    let end = segment.address.checked_add(segment.data.len() as u64)?;
    PageRange::new(segment.pages.start(), pages::align_up(end)?)
}

/// Writes the segments' content that page faults would not bring in.
fn load_segments(
    machine: &mut Machine,
    memory: &AddressSpace,
    image: &Image,
    source: ElfSource<'_>,
) -> Result<(), ExecError> {
    for segment in &image.segments {
        match source {
            ElfSource::Bytes(file) => {
                let data = file.get(segment.data.clone()).unwrap_or_default();
                load(machine, memory, segment.address, data)?;
            }
            ElfSource::File { file, .. } => zero_tail(machine, segment, file)?,
        }
    }
    Ok(())
}

/// If zeroes follow a segment's data, they begin within the last page of the file's, which therefore is copied.
/// Otherwise, as on Linux, the rest of the page is the file's content.
fn zero_tail(machine: &mut Machine, segment: &Segment, file: &files::HostFile) -> Result<(), ExecError> {
    let end = segment.address.saturating_add(segment.data.len() as u64);
    let page = pages::align_down(end);
    if !segment.has_zeroes || page == end || segment.data.is_empty() {
        return Ok(());
    }
    let mut bytes = [0; PAGE_BYTES];
    let within = usize::try_from(end.saturating_sub(page)).unwrap_or_default();
    let data = bytes.get_mut(..within).unwrap_or_default();
    let offset = (segment.data.end as u64).saturating_sub(data.len() as u64);
    let got = file.read_at(offset, data, true).map_err(|_| ExecError::Changed)?;
    if got != within {
        return Err(ExecError::Changed);
    }
    machine.map_filled(page, segment.prot, data)?;
    Ok(())
}

/// Writes `data` to `address`, bringing in the pages that it touches. The rest of these pages is zero. Other pages are
/// left to the program's first access.
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
