// SPDX-License-Identifier: MIT OR Apache-2.0
//! Workers: forked from a snapshot, called, reset.
//!
//! ```text
//!           start             response              reset
//!   Ready ---------> Running -----------> Answered ---------> Ready
//!                     |   ^                                     ^
//!        end of slice |   | resume            reset             |
//!                     v   |       (the request is given up)     |
//!                    Paused ------------------------------------+
//!
//!   Running ---- fault, exit, limit, failure ----> Poisoned     never used again
//! ```
//!
//! A worker that keeps its state may run while it is ready, too: see `background.rs`.
//!
//! A request runs in legs, each on the thread that starts or resumes it. Its CPU time and its wall-clock time
//! accumulate from leg to leg.
//!
//! In the steady state a call is: write the request into the inbox, store the deadline, one run of the machine, read the
//! response, copy the work set back. No other system call, no lock, no allocation.

use std::num::NonZeroU32;
use std::os::fd::BorrowedFd;

use mayfly_engine::Machine;
use mayfly_linux::{Connects, LimitHits, RefusedProcesses};
use mayfly_machine::layout;

use crate::entropy::Entropy;
use crate::error::{CallError, ForkError};
use crate::limits::nanoseconds;
use crate::response::Reader;
use crate::run::{Runner, Stop};
use crate::service::Served;
use crate::snapshot::frozen_clock::WorkerClock;
use crate::snapshot::snapshot::Snapshot;
use crate::time::watchdog;
use crate::worker::cpu_meter::CpuMeter;
use crate::worker::inbox::Inbox;
use crate::worker::peer::Peer;
use crate::worker::progress::WorkerState;
use crate::worker::state::{Ongoing, Pause, Resets};

/// A copy-on-write fork of a snapshot. It serves one request at a time, on the thread that calls it.
///
/// It fits a page and is aligned to one: after a world switch, each page that the host touches costs a TLB miss.
#[derive(Debug)]
#[repr(align(4096))]
pub struct Worker {
    pub(super) runner: Runner,
    pub(super) machine: Machine,
    pub(super) snapshot: Snapshot,
    pub(super) inbox: Inbox,
    pub(super) reader: Reader,
    pub(super) state: WorkerState,
    /// Size of the work set when the snapshot last learned it.
    pub(super) told_pages: usize,
    /// Size of the work set at the last reset, before a large one was given back.
    pub(super) settled_pages: usize,
    /// Page tables that it was forked with.
    pub(super) forked_tables: u64,
    pub(super) retained_pages: usize,
    // Limits that every request asks for: copied out of the snapshot, which is cold memory after a world switch.
    pub(super) retained_bytes: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) cpu_time_ns: u64,
    pub(super) wall_time_ns: u64,
    pub(super) clock: WorkerClock,
    /// The request in progress.
    pub(super) ongoing: Ongoing,
    pub(super) cpu_meter: CpuMeter,
    pub(super) pause: Pause,
    /// For a program that serves connections.
    pub(super) served: Option<Box<Served>>,
    /// Made with the first call of a storage program.
    pub(super) peer: Option<Box<Peer>>,
    pub(super) resets: Resets,
    /// Requests answered since the worker was at its snapshot, where it is not reset after each.
    pub(super) answered: u32,
    /// The end of a background leg has interrupted the program.
    pub(super) is_interrupted: bool,
}

const _: () = assert!(size_of::<Worker>() == 4096);

impl Worker {
    /// Forks a worker. This creates a VM: never call it on an event loop.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mayfly_sandbox::{BufferedResponse, Host, Limits, NoLog, Program, Request, Snapshot, Worker};
    /// # let path = std::path::Path::new("../../build/tenants/visits/visits"); // `make tenants` builds it.
    /// # let (Ok(host), true) = (Host::open(), path.exists()) else { return Ok(()) }; // Or no engine runs here.
    /// # let snapshot = Snapshot::boot(&host, &Program::load(path)?, &Limits::default(), Arc::new(NoLog))?;
    /// # let request = Request { method: b"GET", path: b"/", query: b"", headers: &[], body: b"", client: None };
    /// # let mut response = BufferedResponse::default();
    /// let mut worker = Worker::fork(&snapshot)?;
    /// for _ in 0..3 {
    ///     worker.call(1, &request, &mut response)?;
    ///     assert_eq!(response.body, b"visit 1\n");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ForkError`] if the kernel refuses.
    pub fn fork(snapshot: &Snapshot) -> Result<Self, ForkError> {
        let inner = &snapshot.inner;
        let learned = inner.learned();
        let page = mayfly_machine::PAGE_SIZE;
        let machine = Machine::fork(&inner.image, inner.limits.private_memory_bytes / page, &learned)?;
        let entropy = Entropy::new()?;
        watchdog::start()?;
        let told_pages = machine.work_pages();
        let forked_tables = machine.private_pages().saturating_sub(told_pages as u64);
        Ok(Self {
            runner: Runner { process: inner.process.clone(), entropy, log: inner.log.clone(), may_block: true },
            machine,
            snapshot: snapshot.clone(),
            inbox: Inbox::default(),
            reader: Reader::default(),
            state: WorkerState::Ready,
            told_pages,
            settled_pages: told_pages,
            forked_tables,
            retained_pages: (inner.limits.retained_bytes / page) as usize,
            retained_bytes: inner.limits.retained_bytes,
            request_bytes: inner.limits.request_bytes,
            response_bytes: inner.limits.response_bytes,
            cpu_time_ns: nanoseconds(inner.limits.cpu_time),
            wall_time_ns: nanoseconds(inner.limits.wall_time),
            clock: WorkerClock::new(inner.clock),
            ongoing: Ongoing::default(),
            cpu_meter: CpuMeter::default(),
            pause: Pause::Slice,
            served: inner.service.as_ref().map(|service| {
                Box::new(Served::new(&service.protocol, service.connection, service.after_restore.clone()))
            }),
            peer: None,
            resets: Resets::Always,
            answered: 0,
            is_interrupted: false,
        })
    }

    /// Forks a worker that is not reset: its program's state stays from request to request.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mayfly_sandbox::{BufferedResponse, Host, Limits, NoLog, Program, Request, Snapshot, Worker};
    /// # let path = std::path::Path::new("../../build/tenants/visits/visits"); // `make tenants` builds it.
    /// # let (Ok(host), true) = (Host::open(), path.exists()) else { return Ok(()) }; // Or no engine runs here.
    /// # let snapshot = Snapshot::boot(&host, &Program::load(path)?, &Limits::default(), Arc::new(NoLog))?;
    /// # let request = Request { method: b"GET", path: b"/", query: b"", headers: &[], body: b"", client: None };
    /// # let mut response = BufferedResponse::default();
    /// let mut worker = Worker::fork_keeping_state(&snapshot)?;
    /// worker.call(1, &request, &mut response)?;
    /// worker.call(2, &request, &mut response)?;
    /// assert_eq!(response.body, b"visit 2\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Worker::fork`].
    pub fn fork_keeping_state(snapshot: &Snapshot) -> Result<Self, ForkError> {
        Ok(Self::fork(snapshot)?.keeping_state(Resets::Never))
    }

    /// Forks a worker whose program's state stays for `requests` requests and is then reset to the snapshot.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mayfly_sandbox::{BufferedResponse, Host, Limits, NoLog, Program, Request, Snapshot, Worker};
    /// # let path = std::path::Path::new("../../build/tenants/visits/visits"); // `make tenants` builds it.
    /// # let (Ok(host), true) = (Host::open(), path.exists()) else { return Ok(()) }; // Or no engine runs here.
    /// # let snapshot = Snapshot::boot(&host, &Program::load(path)?, &Limits::default(), Arc::new(NoLog))?;
    /// # let request = Request { method: b"GET", path: b"/", query: b"", headers: &[], body: b"", client: None };
    /// # let mut response = BufferedResponse::default();
    /// let mut worker = Worker::fork_resetting_every(&snapshot, 2.try_into()?)?;
    /// for visit in [1, 2, 1, 2] {
    ///     worker.call(1, &request, &mut response)?;
    ///     assert_eq!(response.body, format!("visit {visit}\n").as_bytes());
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Worker::fork`].
    pub fn fork_resetting_every(snapshot: &Snapshot, requests: NonZeroU32) -> Result<Self, ForkError> {
        let worker = Self::fork(snapshot)?;
        Ok(if requests.get() == 1 { worker } else { worker.keeping_state(Resets::Every(requests)) })
    }

    fn keeping_state(mut self, resets: Resets) -> Self {
        self.resets = resets;
        self.machine.set_rewinds(false);
        self
    }

    /// What the worker can do now.
    #[inline]
    #[must_use]
    pub fn state(&self) -> WorkerState {
        self.state
    }

    /// The snapshot that the worker was forked from.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// When the last request was started, by the monotonic clock in nanoseconds; 0 before the first. Callers drop idle
    /// workers by it.
    #[inline]
    #[must_use]
    pub fn last_started_ns(&self) -> u64 {
        self.ongoing.wall_end_ns.saturating_sub(self.wall_time_ns)
    }

    /// Sets the nice value with which the program competes for processors, if it does not share that of the thread that
    /// calls the worker. Cheap if it has that value.
    ///
    /// # Errors
    ///
    /// What setpriority(2) says: without privilege, a value can only be raised.
    pub fn set_nice(&mut self, nice: i32) -> std::io::Result<()> {
        self.machine.set_nice(nice)
    }

    /// Number of pages in the work set.
    #[must_use]
    pub fn work_pages(&self) -> usize {
        self.machine.work_pages()
    }

    /// Memory that only this worker has, in bytes: guest memory, without the kernel's and the host's bookkeeping.
    #[must_use]
    pub fn private_bytes(&self) -> u64 {
        self.machine.private_pages() * mayfly_machine::PAGE_SIZE
    }

    /// Limits that the program has hit since the last call; it went on with an error number. Cheap if there are none.
    #[inline]
    pub fn limit_hits(&mut self) -> LimitHits {
        self.runner.process.take_limit_hits()
    }

    /// How often the program has used the network since the last call. Cheap if it has not.
    #[inline]
    pub fn connects(&mut self) -> Connects {
        self.runner.process.take_connects()
    }

    /// How often the program was refused another process since the last call. Cheap if it has not asked for any.
    #[inline]
    pub fn refused_processes(&mut self) -> RefusedProcesses {
        self.runner.process.take_refused_processes()
    }

    /// A descriptor that becomes readable when a waiting request may go on before its time, because something has
    /// happened to its outside connections. It stays readable until the request goes on. `None` if it has no such
    /// connections.
    #[must_use]
    pub fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        self.runner.process.remote_events()
    }

    /// Takes the CPU time, in nanoseconds, that requests have cost since the last call: all legs that have ended, each
    /// with the reset behind it. See `cpu_meter.rs` for how exact it is.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mayfly_sandbox::{BufferedResponse, Host, Limits, NoLog, Program, Request, Snapshot, Worker};
    /// # let path = std::path::Path::new("../../build/tenants/hello/hello"); // `make tenants` builds it.
    /// # let (Ok(host), true) = (Host::open(), path.exists()) else { return Ok(()) }; // Or no engine runs here.
    /// # let snapshot = Snapshot::boot(&host, &Program::load(path)?, &Limits::default(), Arc::new(NoLog))?;
    /// # let request = Request { method: b"GET", path: b"/", query: b"", headers: &[], body: b"", client: None };
    /// # let mut response = BufferedResponse::default();
    /// # let mut worker = Worker::fork(&snapshot)?;
    /// worker.call(1, &request, &mut response)?;
    /// println!("{} ns", worker.take_cpu_ns());
    /// assert_eq!(worker.take_cpu_ns(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn take_cpu_ns(&mut self) -> u64 {
        self.cpu_meter.take()
    }

    /// Counts the time that the request in progress has waited for this worker as part of its wall-clock time: it began
    /// at `since_ns` by `CLOCK_MONOTONIC`. Takes effect when the request pauses.
    pub fn count_wait_since(&mut self, since_ns: u64) {
        let end_ns = since_ns.saturating_add(self.wall_time_ns);
        self.ongoing.wall_end_ns = self.ongoing.wall_end_ns.min(end_ns);
    }

    #[cold]
    pub(super) fn call_error(&self, stop: Stop) -> CallError {
        let limits = &self.snapshot.inner.limits;
        match stop {
            Stop::Exited { status } => CallError::Exited { status },
            Stop::Faulted(fault) => CallError::Faulted(fault),
            Stop::CpuLimit => CallError::CpuLimit { limit: limits.cpu_time },
            Stop::WallLimit => CallError::WallLimit { limit: limits.wall_time },
            Stop::Slice => CallError::Failed("the leg paused without a slice that ended".into()),
            Stop::Stuck { call } | Stop::Waits { call, .. } => CallError::Stuck { call },
            Stop::Response(error) => error.into(),
            Stop::Hook { status } => CallError::AfterRestore { status },
            Stop::MemoryLimit if self.machine.is_refused() => CallError::ServerMemory,
            Stop::MemoryLimit => CallError::MemoryLimit { limit_bytes: limits.private_memory_bytes },
            Stop::Violation(what) => CallError::Violation(what),
            Stop::Failed(why) => CallError::Failed(why),
        }
    }

    /// Number of user pages that differ from the snapshot's; 0 after a reset. This audit reads all memory: it is for
    /// tests.
    #[must_use]
    pub fn differences(&mut self) -> usize {
        self.machine.audit().len()
    }

    /// The address at which every program finds its request.
    #[must_use]
    pub const fn inbox_address() -> u64 {
        layout::INBOX
    }
}
