// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process: all that Linux would know of a program, and how exits are handled for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mayfly_kvm::Machine;

use crate::base::clock;
use crate::base::errno::Errno;
use crate::base::halt::Halt;
use crate::base::limits::{Connects, LimitHits, Limits};
use crate::base::resource_limits::ResourceLimits;
use crate::base::step::Step;
use crate::base::tracked::Tracked;
use crate::exec::program::Program;
use crate::fs::mounts::Mounts;
use crate::fs::open_files::Files;
use crate::fs::overlay::Overlay;
use crate::fs::witnesses::Witnesses;
use crate::kernel::unknown::{UnknownCall, UnknownCalls};
use crate::mm::address_space::AddressSpace;
use crate::mm::user::UserMemory;
use crate::net::allow_list::Network;
use crate::pollables::table::Pollables;
use crate::sched::cpu_time::CpuTime;
use crate::sched::threads::Threads;
use crate::signal::signals::Signals;
use crate::time::timers::Timers;

/// Why [`Process::copy_in`] or [`Process::copy_out`] failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyError {
    /// The program could not do it itself: `EFAULT`.
    BadAddress,
    /// The program does not go on: [`Step::MemoryLimit`] or [`Step::Poison`].
    Ends(Step),
    /// It is not in memory, and the thread may not be held up: to be tried again elsewhere.
    NotHere,
}

impl From<Halt> for CopyError {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Errno(Errno::NOT_HERE) => Self::NotHere,
            // A copy does not wait.
            Halt::Errno(_) | Halt::Wait(_) | Halt::Switch | Halt::Restored => Self::BadAddress,
            Halt::End(step) => Self::Ends(step),
        }
    }
}

/// What all forks of a process have in common and none of them changes.
#[derive(Debug)]
pub(crate) struct Shared {
    /// What `/proc/self/exe` points to.
    pub(crate) executable: String,
    pub(crate) mounts: Mounts,
    pub(crate) network: Network,
    /// `/proc/self/cmdline` and `/proc/self/auxv`.
    pub(crate) command_line: Vec<u8>,
    pub(crate) auxv: Vec<u8>,
    pub(crate) limits: Limits,
    /// When the program was started.
    pub(crate) started: Instant,
    pub(crate) unknown: UnknownCalls,
    /// What the boot saw of the mounts.
    pub(crate) witnesses: Witnesses,
}

/// A program's process.
///
/// Clones share nothing that a guest can change.
#[derive(Clone, Debug)]
pub struct Process {
    pub(crate) memory: Tracked<AddressSpace>,
    pub(crate) files: Tracked<Files>,
    pub(crate) overlay: Tracked<Overlay>,
    pub(crate) pollables: Tracked<Box<Pollables>>,
    pub(crate) signals: Tracked<Box<Signals>>,
    pub(crate) threads: Tracked<Threads>,
    pub(crate) timers: Tracked<Timers>,
    pub(crate) resources: Tracked<ResourceLimits>,
    /// How long the program has stood frozen, in nanoseconds: its monotonic clock is behind the host's by this much.
    /// Wraps.
    pub(crate) suspended_ns: u64,
    /// [`crate::Context::may_block`] of the present step.
    pub(crate) may_block: bool,
    /// The machine stands at a call that is to be made again, from the beginning.
    pub(crate) call_again: bool,
    /// How long it has been running. That goes on without a change of state, so reset always restores it.
    pub(crate) cpu: CpuTime,
    /// Statistics: reset leaves them alone.
    pub(crate) hits: LimitHits,
    pub(crate) connects: Connects,
    pub(crate) shared: Arc<Shared>,
}

impl Process {
    /// A process with this address space and nothing else done yet.
    pub(crate) fn new(memory: AddressSpace, program: &Program<'_>, limits: &Limits) -> Self {
        Self::with(memory, program, limits, Duration::ZERO, Witnesses::new())
    }

    /// As [`Process::new`], of a program that has run for so long already, and has seen this.
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
        let shared = Shared {
            executable,
            mounts: program.mounts.clone(),
            network: program.network.clone(),
            command_line,
            auxv: Vec::new(),
            limits: limits.clone(),
            started: Instant::now(),
            unknown: UnknownCalls::new(),
            witnesses,
        };
        Self {
            memory: Tracked::new(memory),
            files: Tracked::new(Files::standard(limits.descriptors)),
            overlay: Tracked::new(Overlay::new(limits.overlay_bytes, limits.overlay_entries)),
            pollables: Tracked::new(Box::new(Pollables::default())),
            signals: Tracked::new(Box::default()),
            threads: Tracked::new(Threads::new(name)),
            timers: Tracked::new(Timers::default()),
            resources: Tracked::new(ResourceLimits::new(limits)),
            suspended_ns: 0,
            may_block: true,
            call_again: false,
            cpu: CpuTime {
                used_ns: u64::try_from(ran_before.as_nanos()).unwrap_or(u64::MAX),
                since_ns: Some(clock::now_ns()),
            },
            hits: LimitHits::default(),
            connects: Connects::default(),
            shared: Arc::new(shared),
        }
    }

    /// Notes the auxiliary vector, before there are forks.
    pub(crate) fn set_auxv(&mut self, auxv: Vec<u8>) {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.auxv = auxv;
        }
    }

    /// Bytes of the host's that hold what the program has written since the snapshot, as far as the snapshot does not
    /// have them.
    pub(crate) fn host_bytes(&self) -> u64 {
        let files = if self.overlay.is_changed() { self.overlay.bytes() } else { 0 };
        let queues = if self.pollables.is_changed() { self.pollables.held() } else { 0 };
        files.saturating_add(queues)
    }

    /// Copies from the program's memory, once. Pages that it has not touched yet are brought in, as its own access
    /// would. `may_block`: as
    /// [`crate::Context::may_block`].
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
        Ok(UserMemory { machine, space: &self.memory, may_block }.read(address, out)?)
    }

    /// Copies into the program's memory, as [`Process::copy_in`] out of it.
    ///
    /// # Errors
    ///
    /// [`CopyError`]; earlier pages may have been written then.
    pub fn copy_out(&self, machine: &mut Machine, address: u64, data: &[u8]) -> Result<(), CopyError> {
        Ok(UserMemory { machine, space: &self.memory, may_block: true }.write(address, data)?)
    }

    /// Makes the present state the snapshot's: all mappings belong to it from now on, and nothing counts as changed.
    /// Connections with the outside are closed, since forks cannot share them: each finds them reset by the peer.
    pub fn freeze(&mut self) {
        self.rest();
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

    /// Whether anything has changed since the freeze. Pages are the machine's business and do not count.
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

    /// A number that another change makes another one; see [`Process::is_dirty`] for what counts.
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

    /// Goes back to `frozen`, of which this process is a clone. Costs a look at a few flags if nothing has changed.
    pub fn reset_from(&mut self, frozen: &Self) {
        self.suspended_ns = frozen.suspended_ns;
        (self.may_block, self.call_again) = (frozen.may_block, false);
        self.cpu = frozen.cpu;
        self.memory.restore(&frozen.memory);
        self.files.restore(&frozen.files);
        self.overlay.restore(&frozen.overlay);
        self.pollables.restore(&frozen.pollables);
        self.signals.restore(&frozen.signals);
        self.threads.restore(&frozen.threads);
        self.timers.restore(&frozen.timers);
        self.resources.restore(&frozen.resources);
    }

    /// The program goes on after it has stood frozen for so long (which wraps, so a negative time can be said). As for
    /// a Linux machine that was suspended, its monotonic clock stood still meanwhile, and whatever waits for a time of
    /// that clock has as long to wait as before.
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

    /// The time of the host's monotonic clock at which the program's says `monotonic_ns`.
    pub(crate) fn to_host_ns(&self, monotonic_ns: u64) -> u64 {
        clock::postponed(monotonic_ns, self.suspended_ns)
    }

    /// The limits that the program has hit since this was last asked. Reset does not clear them; a clone has its own.
    #[inline]
    pub fn take_limit_hits(&mut self) -> LimitHits {
        let hits = LimitHits { mappings: self.memory.take_refusals(), ..self.hits };
        if hits != LimitHits::default() {
            self.hits = LimitHits::default();
        }
        hits
    }

    /// How often the program has turned to the network since this was last asked. Reset does not clear it; a clone has
    /// its own.
    #[inline]
    pub fn take_connects(&mut self) -> Connects {
        let connects = self.connects;
        if connects != Connects::default() {
            self.connects = Connects::default();
        }
        connects
    }

    /// The system calls that the program and its forks made and that Mayfly does not have. Reset does not clear them.
    #[must_use]
    pub fn unknown_calls(&self) -> Vec<UnknownCall> {
        self.shared.unknown.report()
    }
}
