// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process: all that Linux would know about a program.

use std::sync::Arc;
use std::time::Duration;

use mayfly_engine::Machine;

use crate::base::clock;
use crate::base::errno::Errno;
use crate::base::halt::Halt;
use crate::base::limits::{Connects, LimitHits, Limits, RefusedProcesses};
use crate::base::resource_limits::ResourceLimits;
use crate::base::step::Step;
use crate::base::tracked::Tracked;
use crate::exec::program::Program;
use crate::fs::mounts::Mounts;
use crate::fs::open_files::DescriptorTable;
use crate::fs::overlay::Overlay;
use crate::fs::witnesses::Witnesses;
use crate::kernel::figures::Figures;
use crate::kernel::hosts;
use crate::kernel::unknown::{UnknownCall, UnknownCalls};
use crate::mm::address_space::AddressSpace;
use crate::mm::user::UserMemory;
use crate::net::allow_list::Network;
use crate::pollables::table::Pollables;
use crate::sched::cpu_time::CpuTime;
use crate::sched::threads::Threads;
use crate::signal::signals::Signals;
use crate::time::timers::Timers;

/// Errors of [`Process::copy_in`] and [`Process::copy_out`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyError {
    /// The program itself could not access the memory: `EFAULT`.
    BadAddress,
    /// The program cannot continue: [`Step::MemoryLimit`] or [`Step::Poison`].
    Ends(Step),
    /// The page is not in memory, and the thread may not block: try again on another thread.
    NotHere,
}

impl From<Halt> for CopyError {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Errno(Errno::NOT_HERE) => Self::NotHere,
            // A copy never waits.
            Halt::Errno(_) | Halt::Wait(_) | Halt::Switch | Halt::Restored => Self::BadAddress,
            Halt::End(step) => Self::Ends(step),
        }
    }
}

/// What all forks of a process share and none of them changes.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Target of `/proc/self/exe`.
    pub(crate) executable: String,
    pub(crate) mounts: Mounts,
    pub(crate) network: Network,
    /// `/etc/hosts`.
    pub(crate) hosts: Vec<u8>,
    /// `/proc/self/cmdline`, `/proc/self/environ` and `/proc/self/auxv`.
    pub(crate) command_line: Vec<u8>,
    pub(crate) environment: Vec<u8>,
    pub(crate) auxv: Vec<u8>,
    pub(crate) limits: Limits,
    /// When the program started, or was loaded, by the clock since the system's start.
    pub(crate) started_boottime_ns: u64,
    pub(crate) unknown: UnknownCalls,
    /// What the program found in its mounts while it booted.
    pub(crate) witnesses: Witnesses,
}

/// A program's process.
///
/// Clones share nothing that a guest can change.
#[derive(Clone, Debug)]
pub struct Process {
    pub(crate) memory: Tracked<AddressSpace>,
    pub(crate) files: Tracked<DescriptorTable>,
    pub(crate) overlay: Tracked<Overlay>,
    pub(crate) pollables: Tracked<Box<Pollables>>,
    pub(crate) signals: Tracked<Box<Signals>>,
    pub(crate) threads: Tracked<Threads>,
    pub(crate) timers: Tracked<Timers>,
    pub(crate) resources: Tracked<ResourceLimits>,
    /// How long the program has been frozen, in nanoseconds: its monotonic clock is behind the host's by this much.
    /// Wraps.
    pub(crate) suspended_ns: u64,
    /// CPU time. It changes without an edit, so reset always restores it.
    pub(crate) cpu: CpuTime,
    /// What the program can read about itself. It changes without an edit, so reset always restores it.
    pub(crate) figures: Figures,
    /// Statistics, which reset leaves alone.
    pub(crate) hits: LimitHits,
    pub(crate) connects: Connects,
    pub(crate) refused: RefusedProcesses,
    pub(crate) shared: Arc<Shared>,
}

impl Process {
    /// A process with this address space, and nothing else done yet.
    pub(crate) fn new(memory: AddressSpace, program: &Program<'_>, limits: &Limits) -> Self {
        Self::with(memory, program, limits, Duration::ZERO, Witnesses::new())
    }

    /// As [`Process::new`], for a program that was started at another time, with these notes of its look-ups.
    pub(crate) fn with(
        memory: AddressSpace,
        program: &Program<'_>,
        limits: &Limits,
        ran_before: Duration,
        witnesses: Witnesses,
    ) -> Self {
        let name = program.name;
        let executable = if name.starts_with('/') { name.to_owned() } else { format!("/{name}") };
        let arguments = std::iter::once(name).chain(program.args.iter().map(String::as_str));
        let command_line = arguments.flat_map(|argument| argument.bytes().chain([0])).collect();
        let variables = program.env.iter();
        let environment = variables.flat_map(|(name, value)| format!("{name}={value}\0").into_bytes()).collect();
        let shared = Shared {
            executable,
            mounts: program.mounts.clone(),
            network: program.network.clone(),
            hosts: hosts::text(program.mounts, program.network),
            command_line,
            environment,
            auxv: Vec::new(),
            limits: limits.clone(),
            started_boottime_ns: clock::boottime_ns(),
            unknown: UnknownCalls::new(),
            witnesses,
        };
        Self {
            memory: Tracked::new(memory),
            files: Tracked::new(DescriptorTable::standard(limits.descriptors)),
            overlay: Tracked::new(Overlay::new(limits.overlay_bytes, limits.overlay_entries)),
            pollables: Tracked::new(Box::new(Pollables::new(program.network.clone()))),
            signals: Tracked::new(Box::default()),
            threads: Tracked::new(Threads::new(name)),
            timers: Tracked::new(Timers::default()),
            resources: Tracked::new(ResourceLimits::new(limits)),
            suspended_ns: 0,
            cpu: CpuTime {
                used_ns: u64::try_from(ran_before.as_nanos()).unwrap_or(u64::MAX),
                since_ns: Some(clock::now_ns()),
            },
            figures: Figures::default(),
            hits: LimitHits::default(),
            connects: Connects::default(),
            refused: RefusedProcesses::default(),
            shared: Arc::new(shared),
        }
    }

    /// Stores the auxiliary vector; to be called before there are forks.
    pub(crate) fn set_auxv(&mut self, auxv: Vec<u8>) {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.auxv = auxv;
        }
    }

    /// Stores the target of `/proc/self/exe`; to be called before there are forks.
    pub(crate) fn set_executable(&mut self, path: String) {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.executable = path;
        }
    }

    /// Memory of the host in bytes for what the program has written since the snapshot.
    pub(crate) fn host_bytes(&self) -> u64 {
        let files = if self.overlay.is_changed() { self.overlay.inodes().bytes() } else { 0 };
        let queues = if self.pollables.is_changed() { self.pollables.held() } else { 0 };
        files.saturating_add(queues)
    }

    /// Memory of the host in bytes that a frozen program keeps besides its image: files that it has written, and what
    /// waits in its sockets and pipes.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.overlay.inodes().bytes().saturating_add(self.pollables.held())
    }

    /// Copies from the program's memory. Pages that the program has not touched yet are brought in, as by its own
    /// access. `may_block`: as [`crate::Context::may_block`].
    ///
    /// # Errors
    ///
    /// [`CopyError`]; `out` may be partly written then.
    pub fn copy_in(
        &self,
        machine: &mut Machine,
        address: u64,
        out: &mut [u8],
        may_block: bool,
    ) -> Result<(), CopyError> {
        Ok(UserMemory { machine, space: &self.memory, inodes: self.overlay.inodes(), may_block }.read(address, out)?)
    }

    /// Copies into the program's memory, as [`Process::copy_in`] does from it.
    ///
    /// # Errors
    ///
    /// [`CopyError`]; earlier pages may have been written then.
    pub fn copy_out(&self, machine: &mut Machine, address: u64, data: &[u8]) -> Result<(), CopyError> {
        Ok(UserMemory { machine, space: &self.memory, inodes: self.overlay.inodes(), may_block: true }
            .write(address, data)?)
    }

    /// Makes the present state the snapshot's: all mappings belong to it, and nothing counts as changed. Connections
    /// with remote hosts are closed, since forks cannot share them: each finds them reset by the peer.
    pub fn freeze(&mut self) {
        self.rest();
        if self.files.has_durable() {
            self.files.edit().share_durable();
        }
        if self.pollables.has_poller() {
            self.pollables.edit().drop_remotes();
            self.note_change();
        }
        self.pollables.edit().share();
        self.memory.edit().freeze();
        self.memory.settle();
        self.files.settle();
        self.overlay.settle();
        self.pollables.settle();
        self.signals.settle();
        self.threads.settle();
        self.timers.settle();
        self.resources.settle();
    }

    /// The path of a file of a durable mount that the program has locked: it cannot be frozen, since its workers would
    /// all believe to have the lock.
    #[must_use]
    pub fn locked_file(&self) -> Option<String> {
        self.files.locked_durable()
    }

    /// Closes all files, as the end of a process does: their locks are released. The process must not run again.
    pub fn close_files(&mut self) {
        if self.shared.mounts.are_durable() {
            *self.files.edit() = DescriptorTable::standard(0);
        }
    }

    /// Whether anything has changed since the freeze. The machine accounts for pages; they do not count here.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.memory.is_changed()
            || self.files.is_changed()
            || self.overlay.is_changed()
            || self.pollables.is_changed()
            || self.signals.is_changed()
            || self.threads.is_changed()
            || self.timers.is_changed()
            || self.resources.is_changed()
    }

    /// A number that changes with each edit; see [`Process::is_dirty`] for what counts.
    pub(crate) fn edits(&self) -> u32 {
        [
            self.memory.edits(),
            self.files.edits(),
            self.overlay.edits(),
            self.pollables.edits(),
            self.signals.edits(),
            self.threads.edits(),
            self.timers.edits(),
            self.resources.edits(),
        ]
        .into_iter()
        .fold(0, u32::wrapping_add)
    }

    /// Restores `frozen`, of which this process is a clone. Costs a check of a few flags if nothing has changed.
    pub fn reset_from(&mut self, frozen: &Self) {
        self.suspended_ns = frozen.suspended_ns;
        self.cpu = frozen.cpu;
        self.figures = frozen.figures;
        self.memory.restore(&frozen.memory);
        self.files.restore(&frozen.files);
        self.overlay.restore(&frozen.overlay);
        self.pollables.restore(&frozen.pollables);
        self.signals.restore(&frozen.signals);
        self.threads.restore(&frozen.threads);
        self.timers.restore(&frozen.timers);
        self.resources.restore(&frozen.resources);
    }

    /// Continues a program that was frozen for this long. The number wraps, so it can express a negative time. As on a
    /// Linux machine that was suspended, the monotonic clock stood still meanwhile, and timers and waits by that clock
    /// have as much time left as before.
    pub fn resume_after(&mut self, suspended_ns: u64) {
        if suspended_ns == 0 {
            return;
        }
        self.suspended_ns = self.suspended_ns.wrapping_add(suspended_ns);
        if self.threads.until_ns().is_some() {
            self.threads.edit().postpone(suspended_ns);
        }
        if self.timers.next_ns().is_some() {
            self.timers.edit().postpone(suspended_ns);
        }
        if self.pollables.has_timers() {
            self.pollables.edit().postpone(suspended_ns);
        }
    }

    /// How far the program's monotonic clock is behind the host's.
    #[inline]
    #[must_use]
    pub fn suspended_ns(&self) -> u64 {
        self.suspended_ns
    }

    /// The host's monotonic time when the program's is `monotonic_ns`.
    pub(crate) fn to_host_ns(&self, monotonic_ns: u64) -> u64 {
        clock::postponed(monotonic_ns, self.suspended_ns)
    }

    /// The limits hit since the last call. Reset does not clear them; a clone has its own.
    #[inline]
    pub fn take_limit_hits(&mut self) -> LimitHits {
        let hits = LimitHits { mappings: self.memory.take_refusals(), ..self.hits };
        if hits != LimitHits::default() {
            self.hits = LimitHits::default();
        }
        hits
    }

    /// The connects since the last call. Reset does not clear them; a clone has its own.
    #[inline]
    pub fn take_connects(&mut self) -> Connects {
        let connects = self.connects;
        if connects != Connects::default() {
            self.connects = Connects::default();
        }
        connects
    }

    /// How often the program was refused another process since the last call. Reset does not clear it; a clone has its
    /// own.
    #[inline]
    pub fn take_refused_processes(&mut self) -> RefusedProcesses {
        let refused = self.refused;
        if refused != RefusedProcesses::default() {
            self.refused = RefusedProcesses::default();
        }
        refused
    }

    /// The unknown system calls that the program and its forks have made. Reset does not clear them.
    #[must_use]
    pub fn unknown_calls(&self) -> Vec<UnknownCall> {
        self.shared.unknown.report()
    }
}
