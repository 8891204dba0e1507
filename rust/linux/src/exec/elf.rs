// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads a program's ELF file: its segments and its entry point.
//!
//! The file comes from a tenant and is not trusted. [`Image::parse`] accepts a program for x86-64, static or dynamic,
//! position-independent or not, and reports what is wrong with any other. An [`Image`] is safe to load without further
//! checks:
//!
//! * segments are in ascending order, do not share a page, and lie between `USER_MIN` and `USER_END`;
//! * every segment's data lies inside the file, and inside the segment's memory;
//! * the entry point lies in a segment that may be executed.
//!
//! Section headers are not read: as for the kernel, a program may lack them or have damaged ones. Sources: System V
//! gABI chapters 4 and 5, elf(5), Linux `fs/binfmt_elf.c`.

mod foreign;

use std::borrow::Cow;
use std::ops::Range;

use elf::abi;
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader, parse_ident};
use elf::parse::ParsingTable;
use elf::segment::ProgramHeader;
use mayfly_machine::{PAGE_SIZE, Prot, layout};

use crate::base::pages::{PageRange, align_down, align_up};
use crate::exec::elf_source::ElfSource;

/// Size of the file header of a 64-bit ELF file, and of its first, fixed part.
const HEADER_SIZE: usize = 64;
const IDENT_SIZE: usize = 16;
/// Size of one program header of a 64-bit ELF file: AT_PHENT.
pub(crate) const PROGRAM_HEADER_SIZE: u16 = 56;
/// Most program headers of a file. Linkers write about a dozen; Linux's own limit is 64 KiB of them.
const PROGRAM_HEADERS_MAX: u16 = 128;
/// Load address of a position-independent program: that of Linux without an interpreter and without address-space
/// randomisation. All workers of a snapshot share one layout, so there is no randomisation here.
const PIE_BASE: u64 = 0x5555_5555_4000;
/// Longest path of an interpreter: PATH_MAX.
const INTERPRETER_MAX: u64 = 4096;
/// Longest first line of a script that is read, as on Linux.
const SCRIPT_LINE_MAX: usize = 256;
/// Largest alignment of a segment: one gigantic page.
const ALIGN_MAX: u64 = 1 << 30;

/// Reasons why a file cannot be loaded as a program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ElfError {
    /// A script: another program runs it.
    #[error(
        "a script, not an ELF file: name the program that runs it ({interpreter}) as the program, \
         and the script's path in the mounts as its first argument"
    )]
    Script {
        /// The text after `#!`.
        interpreter: String,
    },
    /// Text without a line that names an interpreter: a script, most likely.
    #[error(
        "a text, not an ELF file: if it is a script, name the program that runs it (python3, node, …) as the program, \
         and the script's path in the mounts as its first argument"
    )]
    Text,
    /// A file of another well-known format.
    #[error("{what}, not an ELF file: {hint}")]
    OtherFormat {
        /// The format.
        what: &'static str,
        /// What to do about it.
        hint: &'static str,
    },
    /// The file does not start with ELF's magic number.
    #[error("not an ELF file: it does not start with \\x7fELF")]
    NotElf,
    /// The file ends before a part that its headers describe.
    #[error("truncated ELF file: {what} ends at byte {end}, the file at byte {size}")]
    Truncated {
        /// The missing part.
        what: &'static str,
        /// Where that part would end, in bytes from the start of the file.
        end: u64,
        /// Size of the file in bytes.
        size: u64,
    },
    /// A 32-bit program.
    #[error("32-bit ELF file: Mayfly runs 64-bit x86-64 programs")]
    Not64Bit,
    /// A program for a big-endian machine.
    #[error("big-endian ELF file: Mayfly runs x86-64 programs")]
    BigEndian,
    /// An invalid ELF version, class or byte order.
    #[error("malformed ELF file: {0}")]
    Malformed(&'static str),
    /// A program for another machine.
    #[error(
        "ELF file for another machine (e_machine {machine}{}): Mayfly runs x86-64 programs",
        machine_name(*machine)
    )]
    ForeignMachine {
        /// `e_machine` of the file.
        machine: u16,
    },
    /// An object file, a core dump, or another file that is not a program.
    #[error("not a program: ELF type {kind}{}", type_name(*kind))]
    NotProgram {
        /// `e_type` of the file.
        kind: u16,
    },
    /// Too many program headers, or headers of a wrong size.
    #[error(
        "unusable program headers: {count} of {size} bytes (at most {PROGRAM_HEADERS_MAX} of {PROGRAM_HEADER_SIZE})"
    )]
    ProgramHeaders {
        /// `e_phnum` of the file.
        count: u16,
        /// `e_phentsize` of the file.
        size: u16,
    },
    /// There is nothing to load.
    #[error("the program has no loadable segments")]
    NoSegments,
    /// A segment that cannot be mapped.
    #[error("segment {index}: {reason}")]
    Segment {
        /// Index of its program header, from 0.
        index: usize,
        /// The reason.
        reason: &'static str,
    },
    /// The entry point is not in executable memory.
    #[error("the entry point {entry:#x} does not lie in an executable segment")]
    Entry {
        /// The entry point, after relocation.
        entry: u64,
    },
}

/// A part of the program's memory, and its initial content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The pages to map.
    pub(crate) pages: PageRange,
    /// Their protection.
    pub(crate) prot: Prot,
    /// Address of the first byte of [`Segment::data`].
    pub(crate) address: u64,
    /// Range of the data in the file.
    pub(crate) data: Range<usize>,
    /// Whether zeroes follow the data.
    pub(crate) has_zeroes: bool,
}

/// A program that is ready to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// Added to every address in the file: AT_BASE of an interpreter.
    pub(crate) bias: u64,
    /// AT_ENTRY.
    pub(crate) entry: u64,
    /// AT_PHDR: address of the program headers in memory, 0 if no segment holds them.
    pub(crate) headers: u64,
    /// AT_PHNUM.
    pub(crate) header_count: u16,
    /// Ascending, page-disjoint, not empty.
    pub(crate) segments: Vec<Segment>,
    /// Whether the stack is executable (PT_GNU_STACK).
    pub(crate) executable_stack: bool,
    /// The interpreter, which loads this program's libraries and starts it (PT_INTERP); as much of its path as is
    /// readable.
    pub(crate) interpreter: Option<Vec<u8>>,
}

impl Image {
    /// Reads and checks a program.
    pub(crate) fn parse<'a>(file: impl Into<ElfSource<'a>>) -> Result<Self, ElfError> {
        Self::parse_at(file, PIE_BASE)
    }

    /// As [`Image::parse`]; a position-independent program is loaded at `base`, or above it if its alignment requires.
    pub(crate) fn parse_at<'a>(file: impl Into<ElfSource<'a>>, base: u64) -> Result<Self, ElfError> {
        let file = file.into();
        let header = file_header(file)?;
        let headers = program_headers(file, &header)?;
        let table: ProgramHeaders<'_> = ParsingTable::new(LittleEndian, Class::ELF64, &headers);
        let interpreter = table.iter().find(|entry| entry.p_type == abi::PT_INTERP);
        let bias = load_bias(&header, &table, base)?;

        let mut segments: Vec<Segment> = Vec::new();
        for (index, entry) in
            table.iter().enumerate().filter(|(_, entry)| entry.p_type == abi::PT_LOAD && entry.p_memsz > 0)
        {
            let segment = segment(file, &entry, bias).map_err(|fault| fault.at(index))?;
            if segments.last().is_some_and(|last| last.pages.end() > segment.pages.start()) {
                return Err(ElfError::Segment {
                    index,
                    reason: "shares pages with, or lies below, the segment before it",
                });
            }
            segments.push(segment);
        }
        if segments.is_empty() {
            return Err(ElfError::NoSegments);
        }

        let entry = header.e_entry.wrapping_add(bias);
        if !segments.iter().any(|s| s.prot.contains(Prot::EXEC) && s.pages.contains(entry)) {
            return Err(ElfError::Entry { entry });
        }
        Ok(Self {
            bias,
            entry,
            headers: headers_in_memory(&header, &segments),
            header_count: header.e_phnum,
            segments,
            executable_stack: table.iter().any(|p| p.p_type == abi::PT_GNU_STACK && p.p_flags & abi::PF_X != 0),
            interpreter: interpreter.map(|entry| interpreter_path(file, &entry)),
        })
    }

    /// Bytes from the first segment's start to the last one's end.
    pub(crate) fn span(&self) -> u64 {
        self.end().saturating_sub(self.segments.first().map_or(0, |first| first.pages.start()))
    }

    /// The heap's start: the first page past the last segment.
    pub(crate) fn end(&self) -> u64 {
        self.segments.last().map_or(layout::USER_MIN, |last| last.pages.end())
    }
}

/// The error for a file that starts with `#!`.
fn script(file: ElfSource<'_>) -> Option<ElfError> {
    let head = file.read(0, SCRIPT_LINE_MAX);
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    Some(ElfError::Script { interpreter: String::from_utf8_lossy(line.trim_ascii()).into_owned() })
}

/// Reads the file header and refuses files that are not programs for this machine.
fn file_header(file: ElfSource<'_>) -> Result<FileHeader<LittleEndian>, ElfError> {
    let head = file.read(0, HEADER_SIZE);
    if !head.starts_with(&abi::ELFMAGIC) {
        return Err(script(file).unwrap_or_else(|| foreign::recognise(&file.read(0, SCRIPT_LINE_MAX))));
    }
    // The parser trusts the slice's length, so the whole header must be there.
    let Some((ident, tail)) = head.get(..HEADER_SIZE).and_then(|header| header.split_at_checked(IDENT_SIZE)) else {
        return Err(truncated("the file header", HEADER_SIZE as u64, file));
    };
    match ident.get(abi::EI_CLASS) {
        Some(&abi::ELFCLASS64) => {}
        Some(&abi::ELFCLASS32) => return Err(ElfError::Not64Bit),
        _ => return Err(ElfError::Malformed("unknown class")),
    }
    match ident.get(abi::EI_DATA) {
        Some(&abi::ELFDATA2LSB) => {}
        Some(&abi::ELFDATA2MSB) => return Err(ElfError::BigEndian),
        _ => return Err(ElfError::Malformed("unknown byte order")),
    }
    let ident = parse_ident(ident).map_err(|_| ElfError::Malformed("unknown version"))?;
    let header = FileHeader::parse_tail(ident, tail).map_err(|_| ElfError::Malformed("unreadable file header"))?;
    if header.e_machine != abi::EM_X86_64 {
        return Err(ElfError::ForeignMachine { machine: header.e_machine });
    }
    match header.e_type {
        abi::ET_EXEC | abi::ET_DYN => Ok(header),
        kind => Err(ElfError::NotProgram { kind }),
    }
}

type ProgramHeaders<'a> = ParsingTable<'a, LittleEndian, ProgramHeader>;

/// The table of program headers, not parsed yet.
fn program_headers<'a>(file: ElfSource<'a>, header: &FileHeader<LittleEndian>) -> Result<Cow<'a, [u8]>, ElfError> {
    let (count, size) = (header.e_phnum, header.e_phentsize);
    if count == 0 {
        return Err(ElfError::NoSegments);
    }
    if count > PROGRAM_HEADERS_MAX || size != PROGRAM_HEADER_SIZE {
        return Err(ElfError::ProgramHeaders { count, size });
    }
    let range = file_range(file, header.e_phoff, u64::from(count).saturating_mul(size.into()))
        .map_err(|end| truncated("the table of program headers", end, file))?;
    Ok(file.read(range.start as u64, range.len()))
}

/// The number to add to every address in the file.
fn load_bias(header: &FileHeader<LittleEndian>, table: &ProgramHeaders<'_>, base: u64) -> Result<u64, ElfError> {
    if header.e_type != abi::ET_DYN {
        return Ok(0);
    }
    let mut align = PAGE_SIZE;
    for (index, entry) in table.iter().enumerate().filter(|(_, entry)| entry.p_type == abi::PT_LOAD) {
        if entry.p_align > ALIGN_MAX {
            return Err(ElfError::Segment { index, reason: "asks for an alignment of more than 1 GiB" });
        }
        if entry.p_align.is_power_of_two() {
            align = align.max(entry.p_align);
        }
    }
    base.checked_next_multiple_of(align).ok_or(ElfError::Malformed("alignment beyond the address space"))
}

/// What is wrong with a segment whose index is not known yet.
struct SegmentError(&'static str);

impl SegmentError {
    fn at(self, index: usize) -> ElfError {
        ElfError::Segment { index, reason: self.0 }
    }
}

fn segment(file: ElfSource<'_>, entry: &ProgramHeader, bias: u64) -> Result<Segment, SegmentError> {
    if entry.p_filesz > entry.p_memsz {
        return Err(SegmentError("has more bytes in the file than in memory"));
    }
    if (entry.p_vaddr ^ entry.p_offset) & (PAGE_SIZE - 1) != 0 {
        return Err(SegmentError("has different offsets within its page in memory and in the file"));
    }
    let data = file_range(file, entry.p_offset, entry.p_filesz)
        .map_err(|_| SegmentError("reaches past the end of the file"))?;
    let wraps = || SegmentError("wraps around the address space");
    let address = entry.p_vaddr.checked_add(bias).ok_or_else(wraps)?;
    let end = address.checked_add(entry.p_memsz).and_then(align_up).ok_or_else(wraps)?;
    if align_down(address) < layout::USER_MIN || end > layout::USER_END {
        return Err(SegmentError("lies outside the part of the address space that programs may use"));
    }
    let pages = PageRange::new(align_down(address), end).ok_or_else(wraps)?;
    let mut prot = Prot::NONE;
    for (flag, bit) in [(abi::PF_R, Prot::READ), (abi::PF_W, Prot::WRITE), (abi::PF_X, Prot::EXEC)] {
        if entry.p_flags & flag != 0 {
            prot = prot | bit;
        }
    }
    Ok(Segment { pages, prot, address, data, has_zeroes: entry.p_memsz > entry.p_filesz })
}

/// `len` bytes from `offset` as a range of the file; an error has the end that they would have.
fn file_range(file: ElfSource<'_>, offset: u64, len: u64) -> Result<Range<usize>, u64> {
    let end = offset.checked_add(len).ok_or(u64::MAX)?;
    match (usize::try_from(offset), usize::try_from(end)) {
        (Ok(first), Ok(last)) if end <= file.size() => Ok(first..last),
        _ => Err(end),
    }
}

/// Address of the program headers in memory, by the segment whose data contains them.
fn headers_in_memory(header: &FileHeader<LittleEndian>, segments: &[Segment]) -> u64 {
    let Ok(offset) = usize::try_from(header.e_phoff) else { return 0 };
    let size = usize::from(header.e_phnum).saturating_mul(usize::from(PROGRAM_HEADER_SIZE));
    segments
        .iter()
        .find(|s| s.data.start <= offset && offset.saturating_add(size) <= s.data.end)
        .and_then(|s| s.address.checked_add(offset.checked_sub(s.data.start)? as u64))
        .unwrap_or(0)
}

/// The path in a PT_INTERP segment, up to its NUL.
fn interpreter_path(file: ElfSource<'_>, entry: &ProgramHeader) -> Vec<u8> {
    let range = file_range(file, entry.p_offset, entry.p_filesz.min(INTERPRETER_MAX)).unwrap_or_default();
    file.read(range.start as u64, range.len()).split(|&byte| byte == 0).next().unwrap_or_default().to_vec()
}

fn truncated(what: &'static str, end: u64, file: ElfSource<'_>) -> ElfError {
    ElfError::Truncated { what, end, size: file.size() }
}

fn machine_name(machine: u16) -> &'static str {
    match machine {
        abi::EM_386 => ", 32-bit x86",
        abi::EM_ARM => ", 32-bit Arm",
        abi::EM_AARCH64 => ", 64-bit Arm",
        abi::EM_RISCV => ", RISC-V",
        abi::EM_PPC64 => ", POWER",
        abi::EM_S390 => ", s390x",
        _ => "",
    }
}

fn type_name(kind: u16) -> &'static str {
    match kind {
        abi::ET_REL => ", an object file: link it first",
        abi::ET_CORE => ", a core dump",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
