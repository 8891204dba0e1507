// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tenant's program: one ELF file, arguments, environment.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use mayfly_engine::{checksum, digest};
use mayfly_files::{FileStamp, Problem};
use mayfly_linux::{Mounts, Network, Outbound};
use mayfly_machine::SharedMemory;

use crate::error::ProgramError;
use crate::protocol::Service;

/// Programs of this size or more are mapped from their file, whose pages all their workers share; smaller ones are
/// copied, and their file may be overwritten while they run.
pub const MAPPED_FROM: u64 = 16 << 20;

/// How much of a program is searched for notes, which its segments follow.
const NOTES_MAX: usize = 64 << 10;

/// Whether there is an ELF note of the name `Go` and of type 4, the build's number (cmd/link's `ELF_NOTE_BUILDID`): four
/// words, namely the sizes of name and content, the type, and the name.
fn has_go_note(bytes: &[u8]) -> bool {
    let words: Vec<&[u8]> = bytes.chunks_exact(4).collect();
    words.windows(4).any(|note| matches!(note, [[4, 0, 0, 0], _, [4, 0, 0, 0], b"Go\0\0"]))
}

/// A program's content; equal if the content is the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Elf {
    /// In memory.
    Bytes(Vec<u8>),
    /// In a file.
    File(ProgramFile),
}

impl From<Vec<u8>> for Elf {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl Elf {
    pub(crate) fn for_linux(&self) -> mayfly_linux::Elf<'_> {
        match self {
            Self::Bytes(bytes) => bytes.into(),
            Self::File(program) => mayfly_linux::Elf::File(&program.file),
        }
    }

    /// Tells programs apart: by their content, or by what the file was.
    pub(crate) fn identity(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => checksum(bytes),
            Self::File(program) => digest(&program.stamp.without_device()),
        }
    }

    /// Whether Go's linker has made it, which leaves a note near the beginning of a program.
    #[must_use]
    pub fn is_made_by_go(&self) -> bool {
        match self {
            Self::Bytes(bytes) => has_go_note(bytes.get(..NOTES_MAX).unwrap_or(bytes)),
            Self::File(program) => {
                let mut start = vec![0; NOTES_MAX];
                let read = mayfly_files::waiting_for(Path::new("the program"), || program.file.read_at(&mut start, 0));
                read.is_ok_and(|count| has_go_note(start.get(..count).unwrap_or_default()))
            }
        }
    }

    fn open(path: &Path) -> Result<Self, Problem> {
        let file = mayfly_files::open(path)?;
        let stamp = FileStamp::of_opened(&file, path)?;
        if stamp.size() >= MAPPED_FROM {
            return Ok(Self::File(ProgramFile { file: Arc::new(file), stamp }));
        }
        Ok(Self::Bytes(mayfly_files::read_opened(&file, path, MAPPED_FROM)?))
    }
}

/// An open file with a program. Replace it by another file, and never write to it: running workers see what is written.
#[derive(Debug, Clone)]
pub struct ProgramFile {
    file: Arc<File>,
    /// What the file was when it was opened: a large one is not read to compare it.
    stamp: FileStamp,
}

impl PartialEq for ProgramFile {
    fn eq(&self, other: &Self) -> bool {
        self.stamp == other.stamp
    }
}

impl Eq for ProgramFile {}

impl std::hash::Hash for ProgramFile {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.stamp.hash(state);
    }
}

/// A program to boot.
#[derive(Debug, Clone)]
pub struct Program {
    /// The ELF file's content.
    pub elf: Elf,
    /// `argv[0]`, and what `/proc/self/exe` names.
    pub name: String,
    /// Further arguments.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Memory that all workers of the program see at one address, and that no reset touches.
    pub shared: Option<SharedMemory>,
    /// What the program sees of the host's files: nothing, by default.
    pub mounts: Mounts,
    /// Where the program may connect to: nowhere, by default.
    pub outbound: Vec<Outbound>,
    /// For a program that serves connections: what it speaks. Others wait at the doorbell.
    pub service: Option<Service>,
    /// What its monotonic clock does while it stands frozen.
    pub monotonic: MonotonicClock,
}

/// What a program's monotonic clock does between the freeze and a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MonotonicClock {
    /// It runs on, as the realtime clock does.
    #[default]
    Runs,
    /// It stands still, as on a machine that is suspended, and so do the timers that go by it.
    Suspends,
}

impl Program {
    /// The program as the Linux personality takes it; `network` is made from its list of destinations.
    pub(crate) fn for_linux<'a>(&'a self, network: &'a Network) -> mayfly_linux::Program<'a> {
        mayfly_linux::Program {
            elf: self.elf.for_linux(),
            name: &self.name,
            args: &self.args,
            env: &self.env,
            mounts: &self.mounts,
            network,
        }
    }

    /// Reads a program from a file, or opens it if it is large: see [`MAPPED_FROM`].
    ///
    /// ```
    /// use mayfly_sandbox::Program;
    ///
    /// # let path = std::path::Path::new("../../build/tenants/hello/hello"); // `make tenants` builds it.
    /// # if !path.exists() { return Ok(()) }
    /// let mut program = Program::load(path)?;
    /// program.args = vec!["--verbose".into()];
    /// assert_eq!(program.name, "hello");
    ///
    /// let error = Program::load("/dev/null".as_ref()).unwrap_err();
    /// assert!(error.to_string().contains("it is a character device"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ProgramError`] with the path and the reason.
    pub fn load(path: &Path) -> Result<Self, ProgramError> {
        let elf = Elf::open(path).map_err(|source| ProgramError { path: path.into(), source })?;
        let name = path.file_name().map_or_else(|| "program".into(), |name| name.to_string_lossy().into_owned());
        Ok(Self {
            elf,
            name,
            args: Vec::new(),
            env: Vec::new(),
            shared: None,
            mounts: Mounts::default(),
            outbound: Vec::new(),
            monotonic: MonotonicClock::default(),
            service: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_go_is_recognised_by_its_note() {
        let note = b"\x04\0\0\0\x53\0\0\0\x04\0\0\0Go\0\0abc";
        let at = |offset: usize| Elf::Bytes([&vec![0x7f; offset][..], note].concat());
        assert!(at(0).is_made_by_go() && at(0xfa4).is_made_by_go());
        assert!(!at(NOTES_MAX).is_made_by_go(), "the search is bounded");
        for other in [&b"Go\0\0"[..], b"", b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0", &note[..15]] {
            assert!(!Elf::Bytes(other.to_vec()).is_made_by_go(), "{other:?}");
        }
    }
}
