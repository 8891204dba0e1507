// SPDX-License-Identifier: MIT OR Apache-2.0
//! Serialises a frozen process, and loads it: the part of a saved snapshot besides the machine's image.
//!
//! The process's state derives serde's traits. Files of the host are the exception: they are stored by their location
//! in the mounts ([`SavedFile`]), in a table at the front, and opened again before the rest is read. A field that holds
//! one has `#[serde(with = "crate::host::file_table::host_file")]`, and is serialised as an index into that table. The
//! table is in a thread-local variable while one process is saved or loaded.
//!
//! The bytes come from this build of Mayfly, and their checksum was right: the caller trusts them as much as the
//! program itself. All the same nothing in them can crash the host: whatever later code relies on is checked here.

use std::sync::Arc;
use std::time::Duration;

use mayfly_files::FileStamp;
use mayfly_machine::FileKey;
use serde::{Deserialize, Serialize};

use crate::base::limits::Limits;
use crate::base::resource_limits::ResourceLimits;
use crate::base::tracked::Tracked;
use crate::exec::elf_source::Elf;
use crate::exec::program::Program;
use crate::fs::open_files::DescriptorTable;
use crate::fs::overlay::Overlay;
use crate::fs::witnesses::{NoWitness, Seen, Witnesses};
use crate::host::file_table::Scope;
use crate::host::files;
use crate::kernel::figures::Figures;
use crate::kernel::process::Process;
use crate::mm::address_space::AddressSpace;
use crate::pollables::table::Pollables;
use crate::sched::threads::Threads;
use crate::signal::signals::Signals;
use crate::time::timers::Timers;

/// Errors of [`Process::save`].
#[derive(Debug, thiserror::Error)]
pub enum ProcessSaveError {
    /// It is not known which files the process depends on.
    #[error(transparent)]
    Witness(#[from] NoWitness),
    /// What the program found in a durable mount may have changed by the time that it is loaded.
    #[error("the program has durable mounts: it boots at each start")]
    Durable,
    /// The state has a value that cannot be serialised.
    #[error("the program's state cannot be written: {0}")]
    Form(#[from] postcard::Error),
}

/// Errors of [`Process::load`].
#[derive(Debug, thiserror::Error)]
pub enum ProcessLoadError {
    /// The bytes are not those of a process.
    #[error("the file is damaged: {0}")]
    Corrupt(&'static str),
    /// A file of the mounts has changed.
    #[error("{path} has changed since the program booted")]
    Changed {
        /// Path in the program's view.
        path: String,
    },
}

/// Location and stamp of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedFile {
    location: files::FileLocation,
    stamp: FileStamp,
    key: FileKey,
}

/// The table of files and the notes of look-ups, which come first.
#[derive(Serialize, Deserialize)]
struct Head {
    files: Vec<SavedFile>,
    seen: Seen,
    ran: Duration,
    auxv: Vec<u8>,
    executable: String,
    figures: Figures,
}

/// The state that the program can change.
#[derive(Serialize)]
struct Body<'a> {
    memory: &'a AddressSpace,
    files: &'a DescriptorTable,
    overlay: &'a Overlay,
    pollables: &'a Pollables,
    signals: &'a Signals,
    threads: &'a Threads,
    timers: &'a Timers,
    resources: &'a ResourceLimits,
}

/// As [`Body`], owned.
#[derive(Deserialize)]
struct OwnBody {
    memory: AddressSpace,
    files: DescriptorTable,
    overlay: Overlay,
    pollables: Pollables,
    signals: Signals,
    threads: Threads,
    timers: Timers,
    resources: ResourceLimits,
}

/// The host files that a process was loaded with.
#[derive(Debug)]
pub struct Reopened(Vec<(FileKey, Arc<files::HostFile>)>);

impl Reopened {
    /// The file that had this key when the process was saved: its present key, and a descriptor.
    #[must_use]
    pub fn file(&self, key: FileKey) -> Option<(FileKey, std::os::fd::BorrowedFd<'_>)> {
        use std::os::fd::AsFd;
        let (_, file) = self.0.iter().find(|(known, _)| *known == key)?;
        Some((file.key(), file.as_fd()))
    }
}

impl Process {
    /// Serialises the process, which is frozen, for [`Process::load`].
    ///
    /// # Errors
    ///
    /// [`ProcessSaveError`].
    pub fn save(&self) -> Result<Vec<u8>, ProcessSaveError> {
        if self.shared.mounts.are_durable() {
            return Err(ProcessSaveError::Durable);
        }
        // Lists all fields, so that none is forgotten.
        let Self {
            memory,
            files,
            overlay,
            pollables,
            signals,
            threads,
            timers,
            resources,
            suspended_ns: _,
            cpu,
            figures,
            hits: _,
            connects: _,
            refused: _,
            shared,
        } = self;
        let scope = Scope::enter(Vec::new());
        let body =
            postcard::to_stdvec(&Body { memory, files, overlay, pollables, signals, threads, timers, resources })?;
        let files = scope.leave().into_iter().map(|file| SavedFile {
            location: file.location().clone(),
            stamp: file.stamp(),
            key: file.key(),
        });
        let head = Head {
            files: files.collect(),
            seen: shared.witnesses.seen()?,
            ran: Duration::from_nanos(cpu.used_ns),
            auxv: shared.auxv.clone(),
            executable: shared.executable.clone(),
            figures: *figures,
        };
        let mut bytes = postcard::to_stdvec(&head)?;
        bytes.extend(body);
        Ok(bytes)
    }

    /// Loads a process that was saved, of the same program with the same limits.
    ///
    /// # Errors
    ///
    /// [`ProcessLoadError`] says what is wrong, or has changed since then.
    pub fn load(bytes: &[u8], program: &Program<'_>, limits: &Limits) -> Result<(Self, Reopened), ProcessLoadError> {
        let (head, rest): (Head, _) =
            postcard::take_from_bytes(bytes).map_err(|_| ProcessLoadError::Corrupt("the table of files"))?;
        head.seen.check(program.mounts).map_err(|path| ProcessLoadError::Changed { path })?;
        let files = head.files.iter().map(|file| Ok((file.key, reopen(file, program)?)));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let scope = Scope::enter(files.iter().map(|(_, file)| Arc::clone(file)).collect());
        let body = postcard::from_bytes::<OwnBody>(rest);
        scope.leave();
        let OwnBody { memory, files: open, overlay, pollables, signals, threads, timers, resources } =
            body.map_err(|_| ProcessLoadError::Corrupt("the program's state"))?;
        for (is_sound, what) in [
            (memory.is_sound(limits), "the program's mappings"),
            (open.is_sound(limits), "the program's descriptors"),
            (overlay.is_sound(limits), "the program's overlay"),
            (threads.is_sound(limits), "the program's threads"),
            (pollables.is_sound(), "the program's pipes, sockets and epolls"),
        ] {
            if !is_sound {
                return Err(ProcessLoadError::Corrupt(what));
            }
        }
        let mut process = Self::with(memory, program, limits, head.ran, Witnesses::of(head.seen));
        // A frozen process does not run.
        process.cpu.since_ns = None;
        process.set_auxv(head.auxv);
        process.set_executable(head.executable);
        process.figures = head.figures;
        process.files = Tracked::new(open);
        process.overlay = Tracked::new(overlay);
        let mut pollables = Box::new(pollables);
        pollables.network = program.network.clone();
        pollables.share();
        process.pollables = Tracked::new(pollables);
        process.signals = Tracked::new(Box::new(signals));
        process.threads = Tracked::new(threads);
        process.timers = Tracked::new(timers);
        process.resources = Tracked::new(resources);
        Ok((process, Reopened(files)))
    }

    /// Discards the notes of the files that the program looked up when it booted: the process will not be saved.
    pub fn forget_witnesses(&self) {
        self.shared.witnesses.forget();
    }
}

/// Opens a file again, if it has not changed.
fn reopen(file: &SavedFile, program: &Program<'_>) -> Result<Arc<files::HostFile>, ProcessLoadError> {
    let changed = |path: &[u8]| ProcessLoadError::Changed { path: String::from_utf8_lossy(path).into_owned() };
    let mounts = &program.mounts;
    let (opened, path) = match &file.location {
        files::FileLocation::Program => {
            let Elf::File(own) = program.elf else { return Err(changed(program.name.as_bytes())) };
            let opened = mounts.permit().ok().and_then(|permit| files::HostFile::of_program(own, permit).ok());
            (opened, program.name.as_bytes().to_vec())
        }
        files::FileLocation::Mount { device, rest } => {
            let mount = mounts.iter().find(|mount| mount.device == *device);
            let opened = mount.and_then(|mount| mounts.open_file(mount, rest, true).ok());
            (opened, [mount.map_or(&b""[..], |mount| &mount.guest), b"/", rest].concat())
        }
    };
    opened.filter(|opened| opened.stamp() == file.stamp).map(Arc::new).ok_or_else(|| changed(&path))
}
