// SPDX-License-Identifier: MIT OR Apache-2.0
//! Serving a request: whole, or leg by leg.

use std::time::Duration;

use mayfly_linux::Process;
use mayfly_machine::layout;

use crate::error::CallError;
use crate::limits::nanoseconds;
use crate::message::{Request, ResponseSink};
use crate::run::{Exits, Stop};
use crate::service::Served;
use crate::time::clock;
use crate::time::host_clock;
use crate::worker::inbox::HostFields;
use crate::worker::peer::{PeerCall, PeerError};
use crate::worker::progress::{CallStats, Progress, Slice, WorkerState};
use crate::worker::state::Ongoing;
use crate::worker::worker::Worker;

impl Worker {
    /// Serves one request and resets the worker, unless it keeps its state.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mayfly_sandbox::{BufferedResponse, Host, Limits, NoLog, Program, Request, Snapshot, Worker};
    /// # let path = std::path::Path::new("../../build/tenants/hello/hello"); // `make tenants` builds it.
    /// # let (Ok(host), true) = (Host::open(), path.exists()) else { return Ok(()) }; // Or no engine runs here.
    /// # let snapshot = Snapshot::boot(&host, &Program::load(path)?, &Limits::default(), Arc::new(NoLog))?;
    /// let request = Request { method: b"GET", path: b"/", query: b"", headers: &[], body: b"", client: None };
    /// let mut response = BufferedResponse::default();
    /// # let mut worker = Worker::fork(&snapshot)?;
    /// let stats = worker.call(1, &request, &mut response)?;
    /// assert_eq!((response.status, worker.differences()), (200, 0));
    /// println!("{} exits", stats.exits);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # use std::sync::Arc;
    /// # use mayfly_sandbox::{BufferedResponse, Host, Limits, NoLog, Program, Request, Snapshot, Worker, WorkerState};
    /// # let path = std::path::Path::new("../../build/tenants/hello/hello"); // `make tenants` builds it.
    /// # let (Ok(host), true) = (Host::open(), path.exists()) else { return Ok(()) }; // Or no engine runs here.
    /// # let snapshot = Snapshot::boot(&host, &Program::load(path)?, &Limits::default(), Arc::new(NoLog))?;
    /// # let request = Request { method: b"GET", path: b"/", query: b"", headers: &[], body: b"", client: None };
    /// # let mut response = BufferedResponse::default();
    /// # let mut worker = Worker::fork(&snapshot)?;
    /// worker.call_without_reset(1, &request, &mut response)?;
    /// assert_eq!(worker.state(), WorkerState::Answered);
    /// // The response can be sent here.
    /// worker.reset()?;
    /// assert_eq!(worker.state(), WorkerState::Ready);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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

    /// As [`Worker::call`], for a program with a storage program: `peer` carries out its calls, on this thread.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mayfly_sandbox::{BufferedResponse, Host, Limits, NoLog, Program, Request, Snapshot, Worker};
    /// use mayfly_sandbox::{METHOD_CALL, PeerError};
    ///
    /// # let path = std::path::Path::new("../../build/tenants/notes/notes"); // `make tenants` builds it.
    /// # let (Ok(host), true) = (Host::open(), path.exists()) else { return Ok(()) }; // Or no engine runs here.
    /// # let store = std::path::Path::new("../../build/tenants/store/store");
    /// # let boot = |path| Snapshot::boot(&host, &Program::load(path).unwrap(), &Limits::default(), Arc::new(NoLog));
    /// let mut front = Worker::fork(&boot(path)?)?;
    /// let mut store = Worker::fork_keeping_state(&boot(store)?)?;
    /// # let client = None;
    /// let request = Request { method: b"PUT", path: b"/notes/a", query: b"", headers: &[], body: b"one", client };
    /// let mut response = BufferedResponse::default();
    /// front.call_with_peer(1, &request, &mut response, |call| {
    ///     let (path, body) = (call.name, call.argument);
    ///     let request = Request { method: METHOD_CALL, path, query: b"", headers: &[], body, client };
    ///     let mut result = BufferedResponse::default();
    ///     match store.call(2, &request, &mut result) {
    ///         Ok(_) if result.status == 200 => Ok(result.body),
    ///         _ => Err(PeerError::Failed),
    ///     }
    /// })?;
    /// assert_eq!(response.status, 201);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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

    /// Continues until the response is complete, without a pause.
    fn finish<S: ResponseSink>(
        &mut self,
        mut progress: Progress,
        sink: &mut S,
        mut peer: impl FnMut(PeerCall<'_>) -> Result<Vec<u8>, PeerError>,
    ) -> Result<CallStats, CallError> {
        loop {
            match progress {
                Progress::Answered(stats) => return Ok(stats),
                // A request that has been started goes on behind the hook by itself.
                Progress::Restored => return Ok(CallStats::default()),
                Progress::Paused => {}
                Progress::Calls => {
                    if let Some(answer) = self.peer_call().map(&mut peer) {
                        self.answer_peer(answer.as_deref().map_err(|error| *error))?;
                    }
                }
                Progress::Waits { until_ns } => {
                    host_clock::sleep_until(until_ns.min(self.ongoing.wall_end_ns), self.waits_for());
                }
            }
            progress = self.resume(Duration::MAX, sink)?;
        }
    }

    /// Starts a request, and runs it for `slice` at most.
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
    /// use std::time::Duration;
    /// use mayfly_sandbox::{Progress, Slice};
    ///
    /// // At most 1 ms on this thread, which must not block; then as long as it takes on another one.
    /// let mut progress = worker.start(1, &request, Slice::non_blocking(Duration::from_millis(1)), &mut response)?;
    /// while !matches!(progress, Progress::Answered(_)) {
    ///     progress = worker.resume(Slice::blocking(Duration::from_millis(10)), &mut response)?;
    /// }
    /// worker.reset()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
        let (now, added) = self.open(id)?;
        // Until the request is known to fit, the program stays as it is: its clocks stand still.
        match &mut self.served {
            None => self.inbox.write(&mut self.machine, request, &added, self.request_bytes)?,
            Some(served) => served.encode(request, self.request_bytes)?,
        }
        let slice_ns = self.go(now, slice.into());
        if self.served.is_some() {
            self.begin_service(&added, |served, process| served.begin(process, request))?;
        } else if self.machine.is_in_returning_doorbell() {
            // A worker that keeps its state: the program waits for the return from its last response.
            self.machine.return_from_doorbell(layout::INBOX);
        }
        self.first_leg(now, slice_ns, sink)
    }

    /// Makes what the program gets with a request that begins now. Returns the time, too.
    #[inline]
    pub(super) fn open(&mut self, id: u64) -> Result<(u64, HostFields), CallError> {
        if self.state != WorkerState::Ready {
            self.state = WorkerState::Poisoned;
            return Err(CallError::Poisoned);
        }
        let now = host_clock::monotonic_ns();
        let suspended_ns = self.runner.process.suspended_ns().wrapping_add(self.clock.lost_by(now).unwrap_or(0));
        let monotonic_ns = now.wrapping_sub(suspended_ns);
        let mut added = HostFields { id, unix_ns: clock::unix_ns(now), monotonic_ns, entropy: [0; 48] };
        self.runner.entropy.fill(&mut added.entropy);
        Ok((now, added))
    }

    /// The program's clocks go on from `now`. Returns the slice in nanoseconds.
    #[inline]
    pub(super) fn go(&mut self, now: u64, slice: Slice) -> u64 {
        if let Some(behind_ns) = self.clock.start(now) {
            self.runner.process.resume_after(behind_ns);
        }
        self.runner.process.run_from(now);
        let tsc_clock = clock::tell(&mut self.machine, now, self.runner.process.suspended_ns());
        let slice_ns = nanoseconds(slice.time);
        self.runner.begin_leg(&mut self.machine, slice.may_block);
        self.cpu_meter.begin(now, slice_ns, tsc_clock);
        slice_ns
    }

    /// Runs what has been begun.
    #[inline]
    pub(super) fn first_leg<S: ResponseSink>(
        &mut self,
        now: u64,
        slice_ns: u64,
        sink: &mut S,
    ) -> Result<Progress, CallError> {
        self.ongoing = Ongoing {
            wall_end_ns: now.saturating_add(self.wall_time_ns),
            cpu_left_ns: self.cpu_time_ns,
            exits: Exits::default(),
        };
        if self.served.is_some()
            && let Err(stop) = self.go_on_from_rest()
        {
            return self.stopped(stop, || 0);
        }
        // The elapsed time is an upper bound of the CPU time, and costs no system call. Time beyond the slice is not
        // counted: the program did not use it.
        self.leg(now, slice_ns, sink, || host_clock::monotonic_ns().saturating_sub(now).min(slice_ns))
    }

    /// Has something sent to a program that serves connections.
    pub(super) fn begin_service(
        &mut self,
        added: &HostFields,
        send: impl FnOnce(&mut Served, &mut Process) -> Result<(), CallError>,
    ) -> Result<(), CallError> {
        // Such a program finds its entropy in the inbox, and nothing else.
        let nothing = Request { method: b"", path: b"", query: b"", headers: &[], body: b"", client: None };
        self.inbox.write(&mut self.machine, &nothing, added, self.request_bytes)?;
        if let Some(served) = &mut self.served {
            let began = send(served, &mut self.runner.process);
            if matches!(began, Err(CallError::NotListening)) {
                // The program will not listen again.
                self.state = WorkerState::Poisoned;
            }
            began?;
        }
        Ok(())
    }

    /// Continues a request that is paused, on any thread, for `slice` at most.
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
        // Until the response is complete, every other way out of this function leaves a worker that must not be used
        // again.
        self.state = WorkerState::Poisoned;
        if !paused {
            return Err(CallError::Poisoned);
        }
        let now = host_clock::monotonic_ns();
        if self.ongoing.cpu_left_ns == 0 {
            return Err(self.call_error(Stop::CpuLimit));
        }
        if now >= self.ongoing.wall_end_ns {
            return Err(self.call_error(Stop::WallLimit));
        }
        self.runner.begin_leg(&mut self.machine, slice.may_block);
        self.runner.process.run_from(now);
        clock::tell(&mut self.machine, now, self.runner.process.suspended_ns());
        let clock = self.machine.cpu_clock();
        let before = host_clock::run_cpu_ns(clock);
        let used = || host_clock::run_cpu_ns(clock).saturating_sub(before);
        let progress = match self.go_on() {
            Err(stop) => self.stopped(stop, used),
            Ok(()) => self.leg(now, nanoseconds(slice.time), sink, used),
        };
        if self.state != WorkerState::Paused {
            self.cpu_meter.add(used());
        }
        progress
    }

    /// The call that the program waits in.
    #[must_use]
    pub fn peer_call(&self) -> Option<PeerCall<'_>> {
        self.peer.as_ref()?.call()
    }

    /// Gives the program the result of its call; [`Worker::resume`] continues it then. A result that is larger than the
    /// program's buffer or the limit on responses becomes [`PeerError::TooLarge`]; for a buffer that cannot be written
    /// the program gets an error number.
    ///
    /// # Errors
    ///
    /// [`CallError::MemoryLimit`] if the buffer needs pages above the limit, [`CallError::Failed`] if the machine
    /// fails, [`CallError::Poisoned`] if there is no call. The worker is poisoned then.
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
}
