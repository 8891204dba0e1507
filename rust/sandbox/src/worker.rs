// SPDX-License-Identifier: MIT OR Apache-2.0
//! Workers: forked from a snapshot, called, reset.
//!
//! ```text
//!            call             response, reset
//!   Ready ---------> Running ------------------> Ready
//!                       |
//!                       | fault, exit, limit, failure
//!                       v
//!                    Poisoned     never used again
//! ```
//!
//! In the steady state a call is: write the request into the inbox, store the deadline, one `KVM_RUN`, read the
//! response, copy the work set back. No other system call, no lock, no allocation.

use mayfly_kvm::{Machine, ResetReport, layout};

use crate::abi::{ENOSYS, EPROTO, OP_RESPOND, OP_WAIT, speaks};
use crate::clock;
use crate::entropy::Entropy;
use crate::error::{CallError, ForkError};
use crate::inbox::{Inbox, Stamp};
use crate::message::{Request, ResponseSink};
use crate::response::Reader;
use crate::run::{Exits, Runner, Stop};
use crate::snapshot::Snapshot;
use crate::watchdog;

/// What a worker can do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// It can take a request.
    Ready,
    /// It has answered a request and must be reset before the next one.
    Answered,
    /// It must be replaced.
    Poisoned,
}

/// Counts of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallStats {
    /// Exits of the machine; 1 in the steady state.
    pub exits: u64,
    /// System calls among them.
    pub syscalls: u64,
    /// Page faults among them.
    pub faults: u64,
}

/// A copy-on-write fork of a snapshot. It serves one request at a time, on whatever thread calls it.
///
/// It fits a page and is aligned to one: after a world switch, each page that the host touches costs a TLB miss.
#[derive(Debug)]
#[repr(align(4096))]
pub struct Worker {
    // The watchdog's guard in it is dropped before the machine.
    runner: Runner,
    machine: Machine,
    snapshot: Snapshot,
    inbox: Inbox,
    reader: Reader,
    state: WorkerState,
    /// Size of the work set when it was last told to the snapshot.
    told_pages: usize,
    retained_pages: usize,
    // Limits that every request asks for: copied out of the snapshot, which is cold memory after a world switch.
    retained_bytes: u64,
    request_bytes: u64,
    response_bytes: u64,
    cpu_time_ns: u64,
    /// Whether the state stays from request to request.
    keeps_state: bool,
    /// Whether the doorbell now returns to its caller instead of rewinding.
    bell_returns: bool,
    /// Whether the program waits behind a response for the doorbell to return.
    in_doorbell: bool,
}

const _: () = assert!(size_of::<Worker>() == 4096);

/// Tables that a worker has made beyond its work set before it is replaced: addresses that requests choose differ, and the tables
/// for them stay.
const TABLES_MAX: u64 = 64;

impl Worker {
    /// Forks a worker. This creates a VM: never call it on an event loop.
    ///
    /// # Errors
    ///
    /// [`ForkError`] if KVM or the kernel refuses.
    pub fn fork(snapshot: &Snapshot) -> Result<Self, ForkError> {
        let inner = &snapshot.inner;
        let learned = inner.learned();
        let page = mayfly_kvm::PAGE_SIZE;
        let mut machine = Machine::fork(&inner.image, inner.limits.private_memory_bytes / page, &learned)?;
        let map = |source| ForkError(mayfly_kvm::CreateError::Kvm { call: "watchdog or getrandom", source });
        let entropy = Entropy::new().map_err(map)?;
        // SAFETY: `runner`, which owns the guard, is declared before `machine` in `Worker`, so it is dropped first.
        let watchdog = unsafe { watchdog::Guard::register(machine.kicker()) }.map_err(map)?;
        let told_pages = machine.work_pages();
        Ok(Self {
            runner: Runner { process: inner.process.clone(), entropy, log: inner.log.clone(), watchdog },
            machine,
            snapshot: snapshot.clone(),
            inbox: Inbox::default(),
            reader: Reader::default(),
            state: WorkerState::Ready,
            told_pages,
            retained_pages: (inner.limits.retained_bytes / page) as usize,
            retained_bytes: inner.limits.retained_bytes,
            request_bytes: inner.limits.request_bytes,
            response_bytes: inner.limits.response_bytes,
            cpu_time_ns: u64::try_from(inner.limits.cpu_time.as_nanos()).unwrap_or(u64::MAX),
            keeps_state: false,
            bell_returns: false,
            in_doorbell: false,
        })
    }

    /// Forks a worker that is not reset: its program's state stays from request to request.
    ///
    /// # Errors
    ///
    /// As [`Worker::fork`].
    pub fn fork_keeping_state(snapshot: &Snapshot) -> Result<Self, ForkError> {
        let mut worker = Self::fork(snapshot)?;
        worker.machine.set_rewinds(false);
        worker.keeps_state = true;
        worker.bell_returns = true;
        Ok(worker)
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

    /// Number of pages in the work set.
    #[must_use]
    pub fn work_pages(&self) -> usize {
        self.machine.work_pages()
    }

    /// Memory that only this worker has, in bytes: guest memory, the kernel's and the host's bookkeeping excluded.
    #[must_use]
    pub fn private_bytes(&self) -> u64 {
        self.machine.private_pages() * mayfly_kvm::PAGE_SIZE
    }

    /// Serves one request and resets the worker, unless it keeps its state.
    ///
    /// # Errors
    ///
    /// [`CallError`]; whether the worker can go on is in [`Worker::state`].
    #[inline]
    pub fn call<S: ResponseSink>(
        &mut self,
        id: u64,
        request: &Request<'_>,
        sink: &mut S,
    ) -> Result<CallStats, CallError> {
        let result = self.call_without_reset(id, request, sink);
        if self.state == WorkerState::Answered {
            self.reset()?;
        }
        result
    }

    /// Serves one request; the caller resets the worker off the latency path.
    ///
    /// # Errors
    ///
    /// As [`Worker::call`]. A worker that has not been reset counts as poisoned.
    #[inline]
    pub fn call_without_reset<S: ResponseSink>(
        &mut self,
        id: u64,
        request: &Request<'_>,
        sink: &mut S,
    ) -> Result<CallStats, CallError> {
        if self.state != WorkerState::Ready {
            self.state = WorkerState::Poisoned;
            return Err(CallError::Poisoned);
        }
        let now = clock::monotonic_ns();
        let mut stamp = Stamp { id, unix_ns: clock::unix_ns(now), monotonic_ns: now, entropy: [0; 48] };
        self.runner.entropy.fill(&mut stamp.entropy);
        self.inbox.write(&mut self.machine, request, &stamp, self.request_bytes)?;

        // Until the response is there, whatever ends this function leaves a worker that must not be used again.
        self.state = WorkerState::Poisoned;
        let deadline = now.saturating_add(self.cpu_time_ns);
        let mut exits = Exits::default();
        if std::mem::take(&mut self.in_doorbell) {
            self.machine.return_from_doorbell(layout::INBOX);
        }
        self.runner.watchdog.arm(deadline);
        let result = self.run_to_response(deadline, &mut exits);
        self.runner.watchdog.disarm();
        let response = result.map_err(|stop| self.call_error(stop))?;
        self.state = WorkerState::Answered;
        self.reader.read(&self.machine, response, self.response_bytes, sink)?;
        Ok(CallStats { exits: exits.all, syscalls: exits.syscalls, faults: exits.faults })
    }

    /// Runs until the program responds; returns the address of its response.
    #[inline]
    fn run_to_response(&mut self, deadline: u64, exits: &mut Exits) -> Result<u64, Stop> {
        loop {
            self.runner.run(&mut self.machine, deadline, exits)?;
            let regs = self.machine.regs();
            if regs.rdi == OP_RESPOND && speaks(regs.rdx) {
                return Ok(regs.rsi);
            }
            // Waiting again without having answered, another ABI, or no operation at all: the program is told, and may go on.
            let answer = if matches!(regs.rdi, OP_WAIT | OP_RESPOND) { EPROTO } else { ENOSYS };
            self.machine.set_rewinds(false);
            self.machine.return_from_doorbell(answer as u64);
            self.bell_returns = true;
            if clock::monotonic_ns() >= deadline {
                return Err(Stop::Deadline);
            }
        }
    }

    #[cold]
    fn call_error(&self, stop: Stop) -> CallError {
        let limits = &self.snapshot.inner.limits;
        match stop {
            Stop::Exited { status } => CallError::Exited { status },
            Stop::Faulted(fault) => CallError::Faulted(fault),
            Stop::Deadline => CallError::CpuLimit { limit: limits.cpu_time },
            Stop::Stuck { call } => CallError::Stuck { call },
            Stop::MemoryLimit => CallError::MemoryLimit { limit_bytes: limits.private_memory_bytes },
            Stop::Failed(why) => CallError::Failed(why),
        }
    }

    /// Takes the worker back to its snapshot, exactly. One that keeps its state is only made ready.
    ///
    /// # Errors
    ///
    /// [`CallError::Failed`] if the kernel refuses to take pages back; the worker is poisoned then. [`CallError::Poisoned`] if it
    /// was so before.
    #[inline]
    pub fn reset(&mut self) -> Result<ResetReport, CallError> {
        if self.state == WorkerState::Poisoned {
            return Err(CallError::Poisoned);
        }
        if self.keeps_state {
            self.in_doorbell = true;
            self.state = WorkerState::Ready;
            return Ok(ResetReport::default());
        }
        self.state = WorkerState::Poisoned;
        if std::mem::take(&mut self.bell_returns) {
            self.machine.set_rewinds(true);
        }
        let pages = self.machine.work_pages();
        let large = pages > self.retained_pages || self.inbox.high_water() > self.retained_bytes;
        let report = if large { self.give_back()? } else { self.machine.reset()? };
        if pages != self.told_pages && !large {
            self.snapshot.inner.learn(self.machine.learned());
            self.told_pages = pages;
        }
        self.runner.process.reset_from(&self.snapshot.inner.process);
        self.state = WorkerState::Ready;
        if report.entries > 0 && self.machine.private_pages() > pages as u64 + TABLES_MAX {
            self.state = WorkerState::Poisoned;
        }
        Ok(report)
    }

    #[cold]
    fn give_back(&mut self) -> Result<ResetReport, CallError> {
        self.inbox.forget();
        self.told_pages = 0;
        Ok(self.machine.release_work_set()?)
    }

    /// Number of user pages that differ from the snapshot's; 0 after a reset. An audit that reads all memory, for tests.
    #[must_use]
    pub fn differences(&mut self) -> usize {
        self.machine.audit().len()
    }

    /// Address at which every program finds its request.
    #[must_use]
    pub const fn inbox_address() -> u64 {
        layout::INBOX
    }
}
