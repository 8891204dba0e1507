// SPDX-License-Identifier: MIT OR Apache-2.0
//! Zygotes: making one, copying stubs from it, reaping them.
//!
//! ```text
//!  server ── clone(VM|VFORK), execveat ──> zygote      an ELF file in memory; no C library, no vDSO, no stack
//!    │  script: two messages                 │
//!    ├──────────────────────────────────────>│ recvmsg: the stub's files
//!    │                                       ├── clone(FILES|PIDFD) ──> copy: PDEATHSIG, mmap, seccomp: listener
//!    │<── pidfd, listener ───────────────────┤                           │
//!    │                                       │ waits for a script        │ rings: born
//!    │<────────────────────────────────────── listener ──────────────────┘
//!    │  orders: close_range(UNSHARE), munmap of the script; then it is a stub
//! ```
//!
//! The copy shares the zygote's table of descriptors until its first order: that is how the listener, which it can
//! neither send nor name once the filter is there, gets out.
//!
//! # Invariants
//!
//! - A zygote ends when the server ends, and its copies when it ends: each has `PR_SET_PDEATHSIG`, and has looked
//!   afterwards whether its parent is still there.
//! - Its copies are reaped by order only, so that no PID in use is another process's.
//! - A zygote never runs a program's code, and knows nothing but its scripts.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mayfly_machine::Prot;
use mayfly_machine::layout::PAGE_SIZE;

use crate::code::{self, Places, SIGNALS, places};
use crate::error::{ForkError, StartError};
use crate::filter::asm::Instruction;
use crate::filter::policy;
use crate::layout::{
    CODE, CODE_BYTES, FRAMES, FRAMES_BYTES, ORDERS, ORDERS_BYTES, SCRIPT, SCRIPT_BYTES, TOP, is_program_range,
};
use crate::ring::order::access;
use crate::sys::memory::{SharedPages, sealed};
use crate::sys::{pidfd, socket};
use crate::zygote::script::{self, Check, Entry, Script, Step};
use crate::zygote::spawn::{Spawned, reap, spawn};
use crate::zygote::{elf, lasting};

/// How long a zygote may take for a script: it makes some 20 system calls, of which none waits for another process.
const PATIENCE: Duration = Duration::from_secs(10);

/// `SA_RESTORER` (Linux, `asm/signal.h`), which the C library adds by itself.
const SA_RESTORER: u64 = 0x0400_0000;
/// Flags of every handler. With an empty mask and `SA_NODEFER`, leaving it by a jump leaves nothing in the kernel.
const HANDLER_FLAGS: u64 =
    libc::SA_SIGINFO as u64 | libc::SA_ONSTACK as u64 | libc::SA_NODEFER as u64 | libc::SA_RESTART as u64 | SA_RESTORER;

/// A file's part that a stub has mapped, always as one piece.
#[derive(Debug, Clone, Copy)]
pub struct Region<'a> {
    /// The file.
    pub file: BorrowedFd<'a>,
    /// Where it starts in the file.
    pub offset: u64,
    /// Where it starts in the stub.
    pub address: u64,
    /// Bytes, whole pages.
    pub bytes: u64,
    /// What the stub may do with it. Writable regions are shared with the file, others private.
    pub prot: Prot,
}

impl Region<'_> {
    /// Whether it is the program's memory, in whole pages.
    fn is_valid(&self) -> bool {
        self.offset.is_multiple_of(PAGE_SIZE) && is_program_range(self.address, self.bytes)
    }
}

/// Most regions that a stub is made with: those that fit its script.
const MOST_REGIONS: usize = 48;
/// Most regions of an image in one script.
const MOST_AT_ONCE: usize = 56;

/// The files of some regions, each once; and for each region the number that its file has in this order.
fn files_of<'a>(regions: &[Region<'a>]) -> (Vec<BorrowedFd<'a>>, Vec<u64>) {
    let mut files: Vec<BorrowedFd<'a>> = Vec::new();
    let numbers = regions
        .iter()
        .map(|region| {
            let known = files.iter().position(|file| file.as_raw_fd() == region.file.as_raw_fd());
            known.unwrap_or_else(|| {
                files.push(region.file);
                files.len() - 1
            }) as u64
        })
        .collect();
    (files, numbers)
}

/// The longest start of these regions that one script can map.
fn share<'r, 'a>(regions: &'r [Region<'a>]) -> &'r [Region<'a>] {
    let mut share = regions.get(..MOST_AT_ONCE).unwrap_or(regions);
    while files_of(share).0.len() > socket::MOST {
        share = share.split_last().map_or(&[], |(_, before)| before);
    }
    share
}

/// Maps a region of the file with this number.
fn map(region: &Region<'_>, file: u64) -> Entry {
    let sharing = if region.prot.contains(Prot::WRITE) { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    let flags = sharing | libc::MAP_FIXED | libc::MAP_NORESERVE;
    let arguments = [region.address, region.bytes, access(region.prot), flags as u64, file, region.offset];
    Entry::call(libc::SYS_mmap, arguments, Check::Is(region.address))
}

/// A new stub as the zygote hands it over, before its first ring is answered.
#[derive(Debug)]
pub(crate) struct Newborn {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) listener: OwnedFd,
    /// The listener's number in the table that the stub still shares.
    pub(crate) listener_number: u64,
}

/// How a stub ended: the status of wait(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus(i32);

impl ExitStatus {
    /// The signal that killed it, if one did.
    #[must_use]
    pub fn signal(self) -> Option<i32> {
        libc::WIFSIGNALED(self.0).then(|| libc::WTERMSIG(self.0))
    }
}

/// The conversation with the process; one at a time.
#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    pages: SharedPages,
    /// It did not answer as it should: its state is unknown, and no more is asked of it.
    broken: bool,
}

/// A process from which stubs are copied.
#[derive(Debug)]
pub(crate) struct Zygote {
    line: Mutex<Line>,
    process: Spawned,
    filter: Vec<Instruction>,
    filter_flags: u64,
}

impl Zygote {
    /// Starts one.
    ///
    /// `filter_flags`: those of `seccomp(SECCOMP_SET_MODE_FILTER)` for its stubs. `observable`: whether others of this
    /// user may look into it and its stubs by `/proc`, as tests do.
    pub(crate) fn start(filter_flags: u64, observable: bool) -> Result<Self, StartError> {
        let filter = policy::program(&policy::BY_VALUE)?;
        let executable = sealed(c"mayfly-zygote", &elf::executable(code::bootstrap())).map_err(StartError::memory)?;
        let mut page = code::text().to_vec();
        page.resize(CODE_BYTES as usize, 0xcc);
        let code = sealed(c"mayfly-host-code", &page).map_err(StartError::memory)?;
        let (pages, file) = SharedPages::new(c"mayfly-script", SCRIPT_BYTES).map_err(StartError::memory)?;
        let (ours, theirs) = socket::pair().map_err(StartError::socket)?;
        socket::bound_receive(ours.as_fd(), PATIENCE).map_err(StartError::socket)?;
        let script = first_script(places(), observable);
        script::store_end(&pages)?;
        script.store(&pages)?;
        let process = lasting::run(move || spawn(executable.as_fd(), [theirs.as_fd(), code.as_fd(), file.as_fd()]))
            .and_then(|spawned| spawned)
            .map_err(StartError::spawn)?;
        let line = Line { socket: ours, pages, broken: false };
        let zygote = Self { line: Mutex::new(line), process, filter, filter_flags };
        let line = zygote.line();
        match socket::receive(line.socket.as_fd()) {
            Ok(_) => {
                drop(line);
                Ok(zygote)
            }
            Err(_) => Err(StartError::Script(failure(&script, &line.pages))),
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process's number.
    #[cfg(test)]
    pub(crate) fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Maps an image's regions, for all stubs to come.
    pub(crate) fn map_image(&self, regions: &[Region<'_>]) -> Result<(), StartError> {
        if let Some(region) = regions.iter().find(|region| !region.is_valid()) {
            return Err(StartError::Region { address: region.address, bytes: region.bytes });
        }
        let mut line = self.line();
        let mut rest = regions;
        while !rest.is_empty() {
            let regions = share(rest);
            rest = rest.get(regions.len()..).unwrap_or_default();
            let (files, numbers) = files_of(regions);
            let mut script = Script::new();
            let incoming = script.message(&[0; 64]);
            script.push(Entry::call(libc::SYS_recvmsg, [0, incoming, 0], Check::Is(1)));
            for (region, file) in regions.iter().zip(numbers) {
                // Descriptor 0 is the socket.
                script.push(map(region, 1 + file));
            }
            script.push(Entry::zero(libc::SYS_close_range, [1, u64::from(u32::MAX), 0]).if_zero(Step::END));
            if line.run(&script, &files).is_err() {
                return Err(StartError::Image(failure(&script, &line.pages)));
            }
        }
        Ok(())
    }

    /// Copies a stub, with the worker's pages, which are one file: orders and context, then frames.
    pub(crate) fn fork(&self, worker: BorrowedFd<'_>, regions: &[Region<'_>]) -> Result<Newborn, ForkError> {
        if let Some(region) = regions.iter().find(|region| !region.is_valid()) {
            return Err(ForkError::Region { address: region.address, bytes: region.bytes });
        }
        if regions.len() > MOST_REGIONS {
            return Err(ForkError::Regions { most: MOST_REGIONS });
        }
        let (of_regions, numbers) = files_of(regions);
        let mut files = vec![worker];
        files.extend(of_regions);
        if files.len() > socket::MOST {
            return Err(ForkError::Files { most: socket::MOST - 1 });
        }
        let mut line = self.line();
        let birth = Birth::new(self, files.len() as u64, regions.iter().zip(numbers));
        let received = line.run(&birth.script, &files)?;
        let pid = script::result(&line.pages, birth.fork) as i32;
        let mut received = received.into_iter();
        match (received.next(), received.next()) {
            (Some(pidfd), Some(listener)) => {
                Ok(Newborn { pid, pidfd, listener, listener_number: birth.listener_number })
            }
            _ => {
                let why = failure(&birth.script, &line.pages);
                if pid > 0 {
                    line.reap(pid)?;
                }
                Err(ForkError::Script(why))
            }
        }
    }

    /// Waits for the end of a stub, which is near, and gives its number back.
    pub(crate) fn reap(&self, pid: i32) -> Result<ExitStatus, ForkError> {
        self.line().reap(pid)
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // Its stubs are gone: each refers to it. The signal also ends one that hangs.
        let _ = pidfd::signal(self.process.pidfd.as_fd(), libc::SIGKILL);
        reap(&self.process);
    }
}

impl Line {
    /// Has a script carried out; returns the descriptors that came with its reply.
    fn run(&mut self, script: &Script, files: &[BorrowedFd<'_>]) -> Result<Vec<OwnedFd>, ForkError> {
        if self.broken {
            return Err(ForkError::Gone);
        }
        script.store(&self.pages)?;
        self.broken = true;
        let talk = || -> io::Result<Vec<OwnedFd>> {
            socket::send(self.socket.as_fd(), &[])?;
            if !files.is_empty() {
                socket::send(self.socket.as_fd(), files)?;
            }
            let received = socket::receive(self.socket.as_fd())?;
            // Descriptors come before the end of their script.
            if !received.is_empty() {
                socket::receive(self.socket.as_fd())?;
            }
            Ok(received)
        };
        let received = talk().map_err(ForkError::Line)?;
        self.broken = false;
        Ok(received)
    }

    fn reap(&mut self, pid: i32) -> Result<ExitStatus, ForkError> {
        let mut script = Script::new();
        let status = script.words([0]);
        let wait = Entry::call(libc::SYS_wait4, [pid as u64, status, libc::__WALL as u64, 0], Check::Is(pid as u64));
        let wait = script.push(wait.then(Step::END).if_failed(Step::END));
        self.run(&script, &[])?;
        match script::result(&self.pages, wait) {
            reaped if reaped == i64::from(pid) => Ok(ExitStatus(script::read_int(&self.pages, status))),
            negative => Err(ForkError::Reap { pid, errno: -negative as i32 }),
        }
    }
}

/// The last call whose result is an error, in words: a copy's calls are behind those that may fail and be made again.
fn failure(script: &Script, pages: &SharedPages) -> String {
    script
        .entries()
        .map(|(step, entry)| (entry.number(), script::result(pages, step), entry.arguments()))
        .filter(|(_, result, _)| (-4095..0).contains(result))
        .last()
        .map_or_else(
            || "a call had another result than expected, or the process was killed".into(),
            |(number, result, [first, ..])| {
                let error = io::Error::from_raw_os_error(-result as i32);
                format!("system call {number}: {error} (its first argument: {first:#x})")
            },
        )
}

/// What a zygote does before anything else.
fn first_script(places: &Places, observable: bool) -> Script {
    let mut script = Script::new();
    let code_end = CODE + CODE_BYTES;
    let script_end = SCRIPT + SCRIPT_BYTES;
    // Nothing of the kernel's making stays: vDSO and its data, the first stack, the bootstrap.
    for (from, to) in [(PAGE_SIZE, CODE), (code_end, SCRIPT), (script_end, TOP)] {
        script.push(Entry::zero(libc::SYS_munmap, [from, to - from]));
    }
    die_with(&mut script, std::process::id());
    let name = script.data(b"mayfly-stub\0");
    let options = [
        (libc::PR_SET_NO_NEW_PRIVS, 1),
        (libc::PR_SET_NAME, name),
        (libc::PR_SET_DUMPABLE, observable.into()),
        // Pauses of 20 us are to be no longer; stubs never sleep.
        (libc::PR_SET_TIMERSLACK, 1),
        // A work set's page must not become 2 MiB.
        (libc::PR_SET_THP_DISABLE, 1),
    ];
    for (option, value) in options {
        script.push(Entry::zero(libc::SYS_prctl, [option as u64, value, 0, 0, 0]));
    }
    let no_core = script.words([0, 0]);
    script.push(Entry::zero(libc::SYS_prlimit64, [0, u64::from(libc::RLIMIT_CORE), no_core, 0]));
    let action = script.words([places.handler, HANDLER_FLAGS, places.restorer, 0]);
    for signal in SIGNALS {
        script.push(Entry::zero(libc::SYS_rt_sigaction, [signal as u64, action, 0, 8]));
    }
    let stack = script.words([FRAMES, 0, FRAMES_BYTES]);
    script.push(Entry::zero(libc::SYS_sigaltstack, [stack, 0]));
    let none = script.words([0]);
    script.push(Entry::zero(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, none, 0, 8]));
    script.push(Entry::zero(libc::SYS_close_range, [1, u64::from(u32::MAX), 0]).if_zero(Step::END));
    script
}

/// Ends the process with its parent, and now if the parent is gone already.
fn die_with(script: &mut Script, parent: u32) {
    script.push(Entry::zero(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64, 0, 0, 0]));
    script.push(Entry::call(libc::SYS_getppid, [], Check::Is(parent.into())));
}

/// The script of a stub's birth.
struct Birth {
    script: Script,
    fork: Step,
    listener_number: u64,
}

impl Birth {
    fn new<'r>(zygote: &Zygote, files: u64, regions: impl Iterator<Item = (&'r Region<'r>, u64)>) -> Self {
        // Numbers are the lowest free ones: 0 is the socket, then the files, the pidfd, the listener.
        let (pidfd_number, listener_number) = (files + 1, files + 2);
        let mut script = Script::new();
        let incoming = script.message(&[0; 64]);
        script.push(Entry::call(libc::SYS_recvmsg, [0, incoming, 0], Check::Is(1)));

        let pidfd = script.words([0]);
        let flags = libc::CLONE_FILES as u64 | libc::CLONE_PIDFD as u64 | libc::SIGCHLD as u64;
        let fork = script.push(Entry::call(libc::SYS_clone, [flags, 0, pidfd, 0, 0], Check::NotNegative));

        // The zygote sends pidfd and listener as soon as the latter exists, unless the copy has ended.
        let send = script.next();
        let (look, give_way, close) = (Step(send.0 + 1), Step(send.0 + 2), Step(send.0 + 3));
        let outgoing = script.message(&rights(pidfd_number as u32, listener_number as u32));
        let sent = Entry::call(libc::SYS_sendmsg, [0, outgoing, libc::MSG_NOSIGNAL as u64], Check::Is(1));
        script.push(sent.then(close).if_failed(look));
        let poll = script.words([pidfd_number | u64::from(libc::POLLIN as u16) << 32]);
        script.push(Entry::zero(libc::SYS_poll, [poll, 1, 0]).if_zero(give_way).if_failed(close));
        // sched_yield would not do: where the copy is not the scheduler's choice, both are held up for a tick.
        let pause = script.words([0, 20_000]);
        script.push(Entry::zero(libc::SYS_nanosleep, [pause, 0]).if_zero(send));
        // Behind its filter the copy needs none of them.
        script.push(Entry::zero(libc::SYS_close_range, [1, u64::from(u32::MAX), 0]).if_zero(Step::END));

        // The copy.
        let copy = script.next();
        script.change(fork, |entry| entry.if_zero(copy).then(send).if_failed(close));
        die_with(&mut script, zygote.process.pid as u32);
        for (address, bytes, prot, offset) in [
            (ORDERS, ORDERS_BYTES, libc::PROT_READ, 0),
            (FRAMES, FRAMES_BYTES, libc::PROT_READ | libc::PROT_WRITE, ORDERS_BYTES),
        ] {
            let flags = libc::MAP_SHARED | libc::MAP_FIXED;
            let arguments = [address, bytes, prot as u64, flags as u64, 1, offset];
            script.push(Entry::call(libc::SYS_mmap, arguments, Check::Is(address)));
        }
        for (region, file) in regions {
            script.push(map(region, 2 + file));
        }
        let instructions: Vec<u8> = zygote.filter.iter().flat_map(|instruction| instruction.to_bytes()).collect();
        let at = script.data(&instructions);
        let program = script.words([zygote.filter.len() as u64, at]);
        let set_filter = u64::from(libc::SECCOMP_SET_MODE_FILTER);
        let seccomp = [set_filter, zygote.filter_flags, program];
        script.push(Entry::call(libc::SYS_seccomp, seccomp, Check::NotNegative));
        script.push(Entry::born());
        Self { script, fork, listener_number }
    }
}

/// A control message with two descriptors (cmsg(3)).
fn rights(first: u32, second: u32) -> [u8; 24] {
    let mut message = [0; 24];
    let words = [24, 0, libc::SOL_SOCKET as u32, libc::SCM_RIGHTS as u32, first, second];
    for (place, word) in message.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    message
}
