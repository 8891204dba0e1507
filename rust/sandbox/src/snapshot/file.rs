// SPDX-License-Identifier: MIT OR Apache-2.0
//! Snapshots in files.
//!
//! ```text
//! 0        preamble, one page: magic, version, build, where the state is and its checksum, the preamble's own checksum
//! 4096     pages of the image that are not zero
//!  ...     the state: what it was made from, the image but for its pages, the process
//! ```
//!
//! A file is valid for the build of Mayfly that wrote it, on the same kind of processor and engine, for the same program,
//! arguments, mounts and limits, and as long as every file of the mounts that the boot looked at is unchanged. Anything
//! else is an error with the reason. The caller boots the program then, which always works.
//!
//! A checksum finds damage, not malice: a user who may write the file controls what the program does, as one who may
//! write the program.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mayfly_engine::{Image, Learned, LoadError, SaveError, SavedImage, checksum, digest};
use mayfly_files::{Problem, waiting_for};
use mayfly_linux::{ConnectionId, Connects, Network, Process, ProcessLoadError, ProcessSaveError, RefusedProcesses};
use mayfly_machine::PAGE_SIZE;
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::limits::Limits;
use crate::output::{LogSink, SharedLog};
use crate::program::Program;
use crate::snapshot::boot_inputs::BootInputs;
use crate::snapshot::frozen_clock::FrozenClock;
use crate::snapshot::snapshot::{BootedFrom, FrozenService, Inner, Snapshot, hold_kept};
use crate::time::watchdog::{self, WatchdogError};

const MAGIC: &[u8; 8] = b"MAYFLYSN";
/// Must be raised when the layout of the preamble or of the file changes.
const VERSION: u64 = 1;
const PAGES_AT: u64 = PAGE_SIZE;
/// Words of the preamble: magic, version, build, place, size and checksum of the state, checksum of all that.
const WORDS: usize = 7;
/// Far more than any program's state takes: 16 MiB of written files, and the records of its threads and descriptors.
const STATE_MAX: u64 = 256 << 20;

/// Why a snapshot was not saved.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotSaveError {
    /// The image cannot be saved.
    #[error(transparent)]
    Image(#[from] SaveError),
    /// The process cannot be saved.
    #[error(transparent)]
    Process(#[from] ProcessSaveError),
    /// Its state has no form in a file.
    #[error("the snapshot's state cannot be written: {0}")]
    Form(#[from] postcard::Error),
    /// A system call failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a snapshot was not loaded from a file. The program can still be booted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotFileError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The watchdog did not start, which has nothing to do with the file.
    #[error(transparent)]
    Watchdog(#[from] WatchdogError),
    /// It is not a regular file, or cannot be opened safely.
    #[error(transparent)]
    File(Problem),
    /// It is not a snapshot, or has another format.
    #[error("it is not a snapshot of a program")]
    Foreign,
    /// Users other than its owner may write to it.
    #[error("users other than its owner may write to it")]
    Writable,
    /// Its format has another version.
    #[error("its format has version {version}; this Mayfly reads version {VERSION}")]
    Version {
        /// The file's.
        version: u64,
    },
    /// Another build of Mayfly has written it.
    #[error("another build of Mayfly has written it")]
    Build,
    /// Its content is not what was written.
    #[error("it is damaged: {0}")]
    Corrupt(&'static str),
    /// It was made from something else.
    #[error("it was made from {0}")]
    BootInputs(&'static str),
    /// The image does not fit here.
    #[error(transparent)]
    Image(#[from] LoadError),
    /// The process does not fit here.
    #[error(transparent)]
    Process(#[from] ProcessLoadError),
}

/// All but the pages.
#[derive(Serialize, Deserialize)]
struct State {
    inputs: BootInputs,
    boot_time: Duration,
    has_handover: bool,
    connection: Option<ConnectionId>,
    frozen_at_ns: u64,
    learned: Vec<Learned>,
    image: SavedImage,
    process: Vec<u8>,
}

/// This build's number.
fn build() -> u64 {
    // The build script writes a number. If it ever does not, builds do not differ by it.
    env!("MAYFLY_BUILD").parse().unwrap_or(0)
}

impl Snapshot {
    /// Writes the snapshot to a file, whole or not at all, and replaces a file of that name. Only the owner may read
    /// it.
    ///
    /// This takes as long as the disk takes.
    ///
    /// # Errors
    ///
    /// [`SnapshotSaveError`]; an older file stays as it was.
    pub fn save(&self, path: &Path) -> Result<(), SnapshotSaveError> {
        let io = |source| SnapshotSaveError::Io { path: path.into(), source };
        let unfinished = Unfinished::new(path).map_err(io)?;
        let inner = &self.inner;
        let state = State {
            inputs: inner.inputs.clone(),
            boot_time: inner.boot_time,
            has_handover: inner.has_handover,
            connection: inner.service.as_ref().and_then(|service| service.connection),
            frozen_at_ns: inner.clock.at_ns,
            image: inner.image.save(&unfinished.file, PAGES_AT)?,
            process: inner.process.save()?,
            learned: inner.learned(),
        };
        let bytes = postcard::to_stdvec(&state)?;
        let at = PAGES_AT + state.image.pages() * PAGE_SIZE;
        unfinished.file.write_all_at(&bytes, at).map_err(io)?;
        unfinished.file.write_all_at(&preamble(at, &bytes), 0).map_err(io)?;
        unfinished.finish(path).map_err(io)
    }

    /// Makes a snapshot from a file, as [`Snapshot::boot`] made it from `program`.
    ///
    /// This reads the whole file: never call it on an event loop.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mayfly_sandbox::{BootedFrom, Host, Limits, NoLog, Program, Snapshot, Worker};
    /// # let path = std::path::Path::new("../../build/tenants/hello/hello"); // `make tenants` builds it.
    /// # let (Ok(host), true) = (Host::open(), path.exists()) else { return Ok(()) }; // Or no engine runs here.
    /// # let folder = tempfile::tempdir()?;
    /// let (program, limits) = (Program::load(path)?, Limits::default());
    /// let file = folder.path().join(format!("{:016x}", Snapshot::inputs_digest(&host, &program, &limits)));
    /// let load = || Snapshot::load(&host, &program, &limits, Arc::new(NoLog), &file);
    /// assert!(load().is_err(), "it has not been saved yet");
    ///
    /// Snapshot::boot(&host, &program, &limits, Arc::new(NoLog))?.save(&file)?;
    /// let snapshot = load()?;
    /// assert_eq!(snapshot.booted_from(), BootedFrom::File);
    /// Worker::fork(&snapshot)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`SnapshotFileError`] says why the file cannot be used. The program can be booted instead.
    pub fn load(
        host: &Host,
        program: &Program,
        limits: &Limits,
        log: Arc<dyn LogSink>,
        path: &Path,
    ) -> Result<Self, SnapshotFileError> {
        let started = Instant::now();
        let file = open(path)?;
        let state = waiting_for(path, || read_state(&file))?;
        let inputs = BootInputs::of(program, limits);
        if let Some(what) = state.inputs.difference(&inputs) {
            return Err(SnapshotFileError::BootInputs(what));
        }
        let network = Network::new(&program.outbound);
        let (process, files) = Process::load(&state.process, &program.for_linux(&network), &limits.for_linux())?;
        let lost = SnapshotFileError::Corrupt("it has pages of a file that the program does not have");
        let files: Option<Vec<_>> = state.image.files().iter().map(|key| files.file(*key)).collect();
        let image = Image::load(&host.machine, &state.image, &file, PAGES_AT, &files.ok_or(lost)?)?;
        let kept = hold_kept(host, &process).ok_or(SnapshotFileError::Image(LoadError::Full))?;
        watchdog::start()?;
        let service = program.service.as_ref().map(|service| FrozenService::new(service, state.connection));
        let inner = Inner {
            image,
            process,
            _kept: kept,
            limits: limits.clone(),
            log: SharedLog(log),
            boot_time: started.elapsed(),
            booted_from: BootedFrom::File,
            inputs,
            has_handover: state.has_handover,
            service,
            clock: FrozenClock::loaded(state.frozen_at_ns, program.monotonic),
            limit_hits: mayfly_linux::LimitHits::default(),
            connects: Connects::default(),
            refused: RefusedProcesses::default(),
            learned: std::sync::Mutex::default(),
            learned_len: std::sync::atomic::AtomicUsize::new(0),
        };
        inner.learn(state.learned.into_iter());
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A number for what the snapshot is made from, to be used in the name of its file, and for the engine that makes
    /// it. Within a build, snapshots with different numbers are not interchangeable.
    #[must_use]
    pub fn inputs_digest(host: &Host, program: &Program, limits: &Limits) -> u64 {
        digest(&(BootInputs::of(program, limits).digest(), host.engine().name()))
    }

    /// How many pages workers have been seen to write. If the snapshot is saved afterwards, the first worker that is
    /// forked after a load has them from the start.
    #[must_use]
    pub fn learned_pages(&self) -> usize {
        self.inner.learned_len.load(Ordering::Relaxed)
    }

    /// Says that the snapshot will not be saved: frees what is kept for saving only.
    pub fn keep_unsaved(&self) {
        self.inner.process.forget_witnesses();
    }
}

fn preamble(at: u64, state: &[u8]) -> Vec<u8> {
    let words = [u64::from_le_bytes(*MAGIC), VERSION, build(), at, state.len() as u64, checksum(state)];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(checksum(&bytes).to_le_bytes());
    bytes
}

fn open(path: &Path) -> Result<File, SnapshotFileError> {
    let file = mayfly_files::open_itself(path).map_err(|problem| match problem {
        Problem::Io(error) => SnapshotFileError::Io(error),
        other => SnapshotFileError::File(other),
    })?;
    let seen = waiting_for(path, || file.metadata())?;
    if seen.mode() & 0o022 != 0 {
        return Err(SnapshotFileError::Writable);
    }
    Ok(file)
}

fn read_state(file: &File) -> Result<State, SnapshotFileError> {
    let short = |error: io::Error| match error.kind() {
        ErrorKind::UnexpectedEof => SnapshotFileError::Corrupt("it ends too early"),
        _ => error.into(),
    };
    let mut bytes = [0; WORDS * 8];
    file.read_exact_at(&mut bytes, 0).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => SnapshotFileError::Foreign,
        _ => error.into(),
    })?;
    let (said, sum) = bytes.split_at((WORDS - 1) * 8);
    let mut words = [0; WORDS - 1];
    for (word, eight) in words.iter_mut().zip(said.chunks_exact(8)) {
        *word = eight.try_into().map_or(0, u64::from_le_bytes);
    }
    let [magic, version, written_by, at, len, state_sum] = words;
    if magic.to_le_bytes() != *MAGIC {
        return Err(SnapshotFileError::Foreign);
    }
    // Another version may have any layout behind its number.
    if version != VERSION {
        return Err(SnapshotFileError::Version { version });
    }
    if checksum(said).to_le_bytes() != sum {
        return Err(SnapshotFileError::Corrupt("the checksum of its preamble"));
    }
    if written_by != build() {
        return Err(SnapshotFileError::Build);
    }
    if len > STATE_MAX {
        return Err(SnapshotFileError::Corrupt("the size of its state"));
    }
    let mut state = vec![0; len as usize];
    file.read_exact_at(&mut state, at).map_err(short)?;
    if checksum(&state) != state_sum {
        return Err(SnapshotFileError::Corrupt("the checksum of its state"));
    }
    let (state, rest): (State, _) =
        postcard::take_from_bytes(&state).map_err(|_| SnapshotFileError::Corrupt("its state"))?;
    if !rest.is_empty() || state.image.pages().checked_mul(PAGE_SIZE).is_none_or(|pages| PAGES_AT + pages != at) {
        return Err(SnapshotFileError::Corrupt("its state"));
    }
    Ok(state)
}

/// A file that gets its name when it is complete, and is removed otherwise.
struct Unfinished {
    file: File,
    path: PathBuf,
}

impl Unfinished {
    fn new(path: &Path) -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_string_lossy();
        // Readers look for other suffixes.
        let path = path.with_file_name(format!("{name}.{}-{number}.part", std::process::id()));
        let file = mayfly_files::create_new(&path)?;
        Ok(Self { file, path })
    }

    fn finish(self, path: &Path) -> io::Result<()> {
        waiting_for(path, || self.file.sync_all())?;
        waiting_for(path, || fs::rename(&self.path, path))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(mayfly_files::sync_directory(folder)?)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // A finished file no longer has this name.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BufferedResponse, NoLog, Request, Worker};

    const HOUR_NS: u64 = 3_600_000_000_000;

    /// A built tenant; `make tenants` builds them.
    fn program(name: &str) -> Program {
        let root = std::env::var_os("MAYFLY_TENANTS")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tenants"), PathBuf::from);
        Program::load(&root.join(name).join(name)).unwrap()
    }

    fn ask(worker: &mut Worker, path: &str, query: &str) -> String {
        let (path, query) = (path.as_bytes(), query.as_bytes());
        let request = Request { method: b"GET", path, query, headers: &[], body: b"", client: None };
        let mut response = BufferedResponse::default();
        worker.call(1, &request, &mut response).unwrap();
        String::from_utf8(response.body).unwrap()
    }

    /// A snapshot from a file, as if the host had been restarted since: the host's clock is an hour behind the
    /// program's. And a snapshot that was saved from that one.
    fn after_a_restart(name: &str) -> [Snapshot; 2] {
        let host = Host::open().unwrap();
        let limits = Limits { boot_time: Duration::from_secs(60), ..Limits::default() };
        let mut booted = Snapshot::boot(&host, &program(name), &limits, Arc::new(NoLog)).unwrap();
        Arc::get_mut(&mut booted.inner).unwrap().clock.at_ns += HOUR_NS;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it");
        booted.save(&path).unwrap();
        let load = || Snapshot::load(&host, &program(name), &limits, Arc::new(NoLog), &path).unwrap();
        let loaded = load();
        loaded.save(&path).unwrap();
        [loaded, load()]
    }

    #[test]
    fn the_monotonic_clock_goes_on_where_it_was_on_a_host_that_was_started_since() {
        for snapshot in after_a_restart("faults") {
            let frozen_at = snapshot.inner.clock.at_ns;
            let mut worker = Worker::fork(&snapshot).unwrap();
            for _ in 0..3 {
                let told = ask(&mut worker, "/clocks", "");
                let monotonic = format!("{} ", libc::CLOCK_MONOTONIC);
                let told: u64 = told.lines().find_map(|line| line.strip_prefix(&monotonic)).unwrap().parse().unwrap();
                assert!((frozen_at..frozen_at + HOUR_NS / 60).contains(&told), "{frozen_at} {told}");
            }
            // System calls return the same time.
            for line in ask(&mut worker, "/clocks-agree", "20").lines() {
                let (clock, off_ns) = line.split_once(' ').unwrap();
                assert!(off_ns.parse::<u64>().unwrap() < 100_000, "{clock} is off by {off_ns}");
            }
        }
    }
}
