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
//! A request runs in legs, each on whatever thread starts or resumes it. Its CPU time and its wall-clock time go on counting from leg
//! to leg.
//!
//! In the steady state a call is: write the request into the inbox, store the deadline, one `KVM_RUN`, read the
//! response, copy the work set back. No other system call, no lock, no allocation.

use std::num::NonZeroU32;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use mayfly_kvm::Machine;
use mayfly_linux::{Connects, LimitHits};
use mayfly_machine::layout;

use crate::clock;
use crate::entropy::Entropy;
use crate::error::{CallError, ForkError};
use crate::inbox::{Inbox, Stamp};
use crate::limits::nanoseconds;
use crate::message::{Request, ResponseSink};
use crate::peer::{Peer, PeerCall, PeerError};
use crate::program::MonotonicClock;
use crate::response::Reader;
use crate::run::{Exits, Runner, Stop};
use crate::service::Served;
use crate::snapshot::Snapshot;
use crate::watchdog;

mod leg;
mod progress;
mod reset;
mod spent;

use leg::Pause;
pub use progress::{CallStats, Progress, Slice, WorkerState};
use spent::Spent;

/// When a worker goes back to its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resets {
    Always,
    Never,
    /// After so many requests.
    Every(NonZeroU32),
}

/// What a request has left when a leg of it begins.
#[derive(Debug, Clone, Copy, Default)]
struct Ongoing {
    wall_end_ns: u64,
    cpu_left_ns: u64,
    exits: Exits,
}

/// A copy-on-write fork of a snapshot. It serves one request at a time, on whatever thread calls it.
///
/// It fits a page and is aligned to one: after a world switch, each page that the host touches costs a TLB miss.
#[derive(Debug)]
#[repr(align(4096))]
pub struct Worker {
    runner: Runner,
    machine: Machine,
    snapshot: Snapshot,
    inbox: Inbox,
    reader: Reader,
    state: WorkerState,
    /// Size of the work set when it was last told to the snapshot.
    told_pages: usize,
    /// Size of the work set at the last reset, before what was large was given back.
    settled_pages: usize,
    /// Tables that it was forked with.
    forked_tables: u64,
    retained_pages: usize,
    // Limits that every request asks for: copied out of the snapshot, which is cold memory after a world switch.
    retained_bytes: u64,
    request_bytes: u64,
    response_bytes: u64,
    cpu_time_ns: u64,
    wall_time_ns: u64,
    /// Where the monotonic clock stood still from then on.
    frozen_at_ns: Option<u64>,
    /// How far it is behind otherwise.
    behind_ns: u64,
    /// It has had a request since it was at its snapshot: its program's monotonic clock runs.
    is_awake: bool,
    /// The request under way.
    ongoing: Ongoing,
    spent: Spent,
    pause: Pause,
    /// Of a program that serves connections.
    served: Option<Box<Served>>,
    /// Made with the first call of a storage program.
    peer: Option<Box<Peer>>,
    resets: Resets,
    /// Requests answered since the worker was at its snapshot, where it is not reset after each.
    answered: u32,
    /// Whether the doorbell now returns to its caller instead of rewinding.
    bell_returns: bool,
    /// Whether the program waits behind a response for the doorbell to return.
    in_doorbell: bool,
}

const _: () = assert!(size_of::<Worker>() == 4096);

impl Worker {
    /// Forks a worker. This creates a VM: never call it on an event loop.
    ///
    /// # Errors
    ///
    /// [`ForkError`] if KVM or the kernel refuses.
    pub fn fork(snapshot: &Snapshot) -> Result<Self, ForkError> {
        let inner = &snapshot.inner;
        let learned = inner.learned();
        let page = mayfly_machine::PAGE_SIZE;
        let machine = Machine::fork(&inner.image, inner.limits.private_memory_bytes / page, &learned)?;
        let map = |source| ForkError(mayfly_kvm::CreateError::Kvm { call: "watchdog or getrandom", source });
        let entropy = Entropy::new().map_err(map)?;
        watchdog::start().map_err(map)?;
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
            frozen_at_ns: (inner.monotonic == MonotonicClock::Suspends).then_some(inner.frozen_at_ns),
            behind_ns: inner.behind_ns,
            is_awake: false,
            ongoing: Ongoing::default(),
            spent: Spent::default(),
            pause: Pause::Slice,
            served: inner.service.as_ref().map(|service| Box::new(Served::new(&service.protocol, service.connection))),
            peer: None,
            resets: Resets::Always,
            answered: 0,
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
        Ok(Self::fork(snapshot)?.keeping_state(Resets::Never))
    }

    /// Forks a worker whose program's state stays for so many requests and is then reset to the snapshot.
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
        self.let_bell_return();
        self
    }

    /// Has the doorbell return to its caller until the next reset.
    fn let_bell_return(&mut self) {
        self.machine.set_rewinds(false);
        self.bell_returns = true;
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

    /// When the last request was started, by the monotonic clock in nanoseconds; 0 before the first. For whoever lets idle workers go.
    #[inline]
    #[must_use]
    pub fn last_started_ns(&self) -> u64 {
        self.ongoing.wall_end_ns.saturating_sub(self.wall_time_ns)
    }

    /// Number of pages in the work set.
    #[must_use]
    pub fn work_pages(&self) -> usize {
        self.machine.work_pages()
    }

    /// Memory that only this worker has, in bytes: guest memory, the kernel's and the host's bookkeeping excluded.
    #[must_use]
    pub fn private_bytes(&self) -> u64 {
        self.machine.private_pages() * mayfly_machine::PAGE_SIZE
    }

    /// Limits that the program has hit since this was last asked; it went on, with an error number. Cheap when there are none.
    #[inline]
    pub fn limit_hits(&mut self) -> LimitHits {
        self.runner.process.take_limit_hits()
    }

    /// How often the program has turned to the network since this was last asked. Cheap if it has not.
    #[inline]
    pub fn connects(&mut self) -> Connects {
        self.runner.process.take_connects()
    }

    /// What becomes readable when a request that waits may go on before its time: something has happened to its connections with the
    /// outside. `None`: it has none. It stays readable until the request goes on.
    #[must_use]
    pub fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        self.runner.process.remote_events()
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
        let progress = self.start(id, request, Duration::MAX, sink)?;
        self.finish(progress, sink, |_| Err(PeerError::NoPeer))
    }

    /// As [`Worker::call`], for a program with a storage program: `peer` carries its calls out, on this thread.
    ///
    /// # Errors
    ///
    /// As [`Worker::call`].
    pub fn call_with_peer<S: ResponseSink>(
        &mut self,
        id: u64,
        request: &Request<'_>,
        sink: &mut S,
        peer: impl FnMut(PeerCall<'_>) -> Result<Vec<u8>, PeerError>,
    ) -> Result<CallStats, CallError> {
        let progress = self.start(id, request, Duration::MAX, sink)?;
        let result = self.finish(progress, sink, peer);
        if self.state == WorkerState::Answered {
            self.reset()?;
        }
        result
    }

    /// Goes on until the response is there, without a pause.
    fn finish<S: ResponseSink>(
        &mut self,
        mut progress: Progress,
        sink: &mut S,
        mut peer: impl FnMut(PeerCall<'_>) -> Result<Vec<u8>, PeerError>,
    ) -> Result<CallStats, CallError> {
        loop {
            match progress {
                Progress::Answered(stats) => return Ok(stats),
                Progress::Paused => {}
                Progress::Calls => {
                    if let Some(answer) = self.peer_call().map(&mut peer) {
                        self.answer_peer(answer.as_deref().map_err(|error| *error))?;
                    }
                }
                Progress::Waits { until_ns } => {
                    clock::sleep_until(until_ns.min(self.ongoing.wall_end_ns), self.waits_for());
                }
            }
            progress = self.resume(Duration::MAX, sink)?;
        }
    }

    /// Starts on a request, and runs it for `slice` at most.
    ///
    /// # Errors
    ///
    /// [`CallError`]; whether the worker can go on is in [`Worker::state`]. A worker that is not ready is poisoned.
    #[inline]
    pub fn start<S: ResponseSink>(
        &mut self,
        id: u64,
        request: &Request<'_>,
        slice: impl Into<Slice>,
        sink: &mut S,
    ) -> Result<Progress, CallError> {
        let slice = slice.into();
        if self.state != WorkerState::Ready {
            self.state = WorkerState::Poisoned;
            return Err(CallError::Poisoned);
        }
        let now = clock::monotonic_ns();
        if !std::mem::replace(&mut self.is_awake, true) {
            let behind_ns = match self.frozen_at_ns {
                Some(frozen_at_ns) => now.wrapping_sub(frozen_at_ns),
                None => self.behind_ns,
            };
            self.runner.process.resume_after(behind_ns);
        }
        self.runner.process.run_from(now);
        let suspended_ns = self.runner.process.suspended_ns();
        let monotonic_ns = now.wrapping_sub(suspended_ns);
        let mut stamp = Stamp { id, unix_ns: clock::unix_ns(now), monotonic_ns, entropy: [0; 48] };
        let dial = clock::tell(&mut self.machine, now, suspended_ns);
        let slice_ns = nanoseconds(slice.time);
        self.runner.may_block = slice.may_block;
        self.spent.begin(now, slice_ns, dial);
        self.runner.entropy.fill(&mut stamp.entropy);
        if self.served.is_none() {
            self.inbox.write(&mut self.machine, request, &stamp, self.request_bytes)?;
        } else {
            self.begin_service(request, &stamp)?;
        }
        if std::mem::take(&mut self.in_doorbell) {
            self.machine.return_from_doorbell(layout::INBOX);
        }
        self.ongoing = Ongoing {
            wall_end_ns: now.saturating_add(self.wall_time_ns),
            cpu_left_ns: self.cpu_time_ns,
            exits: Exits::default(),
        };
        if self.served.is_some()
            && let Err(stop) = self.wake()
        {
            return self.stopped(stop, || 0);
        }
        // The time is an upper bound of the CPU time, and costs no system call. It is not counted beyond the slice: then it was not
        // the program that took it.
        self.leg(now, slice_ns, sink, || clock::monotonic_ns().saturating_sub(now).min(slice_ns))
    }

    /// Sends a request to a program that serves connections, and chooses the thread that takes it.
    fn begin_service(&mut self, request: &Request<'_>, stamp: &Stamp) -> Result<(), CallError> {
        // Such a program finds its entropy in the inbox, and nothing else.
        let nothing = Request { method: b"", path: b"", query: b"", headers: &[], body: b"" };
        self.inbox.write(&mut self.machine, &nothing, stamp, self.request_bytes)?;
        if let Some(served) = &mut self.served {
            let began = served.begin(&mut self.runner.process, request, self.request_bytes);
            if matches!(began, Err(CallError::NotListening)) {
                // It will not listen again.
                self.state = WorkerState::Poisoned;
            }
            began?;
        }
        Ok(())
    }

    /// Goes on with a request that is paused, on whatever thread, for `slice` at most.
    ///
    /// # Errors
    ///
    /// As [`Worker::start`]. A worker that is not paused is poisoned. A call that has not been answered fails with
    /// [`PeerError::NoPeer`].
    pub fn resume<S: ResponseSink>(&mut self, slice: impl Into<Slice>, sink: &mut S) -> Result<Progress, CallError> {
        let slice = slice.into();
        if self.peer_call().is_some() {
            self.answer_peer(Err(PeerError::NoPeer))?;
        }
        let paused = self.state == WorkerState::Paused;
        // Until the response is there, whatever ends this function leaves a worker that must not be used again.
        self.state = WorkerState::Poisoned;
        if !paused {
            return Err(CallError::Poisoned);
        }
        let now = clock::monotonic_ns();
        if self.ongoing.cpu_left_ns == 0 {
            return Err(self.call_error(Stop::CpuLimit));
        }
        if now >= self.ongoing.wall_end_ns {
            return Err(self.call_error(Stop::WallLimit));
        }
        self.runner.may_block = slice.may_block;
        self.runner.process.run_from(now);
        clock::tell(&mut self.machine, now, self.runner.process.suspended_ns());
        let before = clock::own_cpu_ns();
        let used = || clock::own_cpu_ns().saturating_sub(before);
        let progress = match self.go_on() {
            Err(stop) => self.stopped(stop, used),
            Ok(()) => self.leg(now, nanoseconds(slice.time), sink, used),
        };
        if self.state != WorkerState::Paused {
            self.spent.add(used());
        }
        progress
    }

    /// Takes the CPU time in nanoseconds that requests have cost since it was last taken: all legs that have ended, each with the
    /// reset behind it. See `spent.rs` for how exact it is.
    #[inline]
    pub fn take_cpu_ns(&mut self) -> u64 {
        self.spent.take()
    }

    /// The call that the program waits in.
    #[must_use]
    pub fn peer_call(&self) -> Option<PeerCall<'_>> {
        self.peer.as_ref()?.call()
    }

    /// Tells the program the result of its call; [`Worker::resume`] goes on then. A result that is larger than the program's buffer or
    /// the limit on responses becomes [`PeerError::TooLarge`]; a buffer that cannot be written is the program's mistake, and told to it.
    ///
    /// # Errors
    ///
    /// [`CallError::MemoryLimit`] if the buffer needs pages above the limit, [`CallError::Failed`] if the machine fails,
    /// [`CallError::Poisoned`] if there is no call. The worker is poisoned then.
    pub fn answer_peer(&mut self, answer: Result<&[u8], PeerError>) -> Result<(), CallError> {
        let paused = std::mem::replace(&mut self.state, WorkerState::Poisoned) == WorkerState::Paused;
        let peer = self.peer.as_mut().filter(|peer| paused && peer.waits()).ok_or(CallError::Poisoned)?;
        match peer.answer(&self.runner.process, &mut self.machine, answer, self.response_bytes) {
            Ok(value) => self.machine.return_from_doorbell(value as u64),
            Err(step) => return Err(self.call_error(step.into())),
        }
        self.state = WorkerState::Paused;
        Ok(())
    }

    #[cold]
    fn call_error(&self, stop: Stop) -> CallError {
        let limits = &self.snapshot.inner.limits;
        match stop {
            Stop::Exited { status } => CallError::Exited { status },
            Stop::Faulted(fault) => CallError::Faulted(fault),
            Stop::CpuLimit => CallError::CpuLimit { limit: limits.cpu_time },
            Stop::WallLimit => CallError::WallLimit { limit: limits.wall_time },
            Stop::Slice => CallError::Failed("a pause that was not asked for".into()),
            Stop::Stuck { call } | Stop::Waits { call, .. } => CallError::Stuck { call },
            Stop::Response(error) => error.into(),
            Stop::MemoryLimit if self.machine.is_refused() => CallError::ServerMemory,
            Stop::MemoryLimit => CallError::MemoryLimit { limit_bytes: limits.private_memory_bytes },
            Stop::Violation(what) => CallError::Violation(what),
            Stop::Failed(why) => CallError::Failed(why),
        }
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
