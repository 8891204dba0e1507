// SPDX-License-Identifier: MIT OR Apache-2.0
//! One request on one worker, on whichever thread currently runs it, and the answer to a failure.
//!
//! ```text
//!              slice over                       storage program busy
//!   Paused <──────────────── begin, go_on ──────────────────────────> Waits
//!      └── go_on              │        │  all its threads wait         └── go_on, with its worker
//!                             │        └───────────────────────────> Sleeps
//!         response, failure   v                                         └── go_on, at its time
//!                            Done
//! ```

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use mayfly_sandbox::{
    BufferedResponse, CallError, PeerError, Progress, Request, ResponseError, ResponseSink, Slice, Worker,
};

use crate::model::failure::{Failure, RequestId, answer};
use crate::model::generation::Forked;
use crate::model::meter::{Counters, Event};
use crate::model::permits::PermitKind;
use crate::model::store::{self, Claim, Store};
use crate::model::tenant::Tenant;
use crate::run::request::OwnedRequest;

/// Pages of a work set that take about two microseconds to reset: less than a deferred reset would cost.
const PAGES_RESET_AT_ONCE: usize = 16;

/// A request that has a worker.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) forked: Forked,
    pub(crate) id: RequestId,
    store: StoreCall,
    preparation: Preparation,
    /// The request, if it has not begun yet.
    waited: Option<Box<Waited>>,
}

/// A request that has waited for its worker.
#[derive(Debug)]
struct Waited {
    request: OwnedRequest,
    /// When it came, by the monotonic clock.
    since_ns: u64,
}

/// Whether the worker is asked for its program's hook, and for nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preparation {
    /// It is a request.
    None,
    /// It has still to be asked.
    Due,
    Asked,
}

/// The request's call of a function of the storage program, if it is in one.
#[derive(Debug)]
enum StoreCall {
    None,
    /// It waits in the queue.
    Waits,
    /// The result of asking for the storage program's worker.
    Asked(Claim),
    /// The call holds the worker.
    Held {
        worker: Box<Worker>,
        has_started: bool,
        response: BufferedResponse,
    },
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum CallStep {
    /// It is answered.
    Done,
    /// Its slice is used up.
    Paused,
    /// It waits in the storage program's queue.
    Waits,
    /// It sleeps until this time, by the monotonic clock in nanoseconds, or until [`Call::waits_for`] is readable.
    Sleeps { until_ns: u64 },
}

impl CallStep {
    /// The kind of permit that a request needs after this step.
    pub(crate) fn permit(self) -> PermitKind {
        match self {
            Self::Sleeps { .. } => PermitKind::Sleep,
            Self::Done | Self::Paused | Self::Waits => PermitKind::Run,
        }
    }
}

/// What a step needs in addition to the call.
#[derive(Clone, Copy)]
pub(crate) struct CallContext<'a> {
    pub(crate) tenant: &'a Tenant,
    pub(crate) counters: &'a Counters,
    pub(crate) stores: &'a dyn StoreKeeper,
    /// For how long the call may occupy this thread, and whether it may block.
    pub(crate) slice: Slice,
    /// Whether responses have headers that show the mode and the generation.
    pub(crate) mode_header: bool,
    /// Whether a long reset may be left to the caller: see [`reset_answered`].
    pub(crate) may_defer_reset: bool,
}

/// Takes the workers of storage programs from calls that have finished with them. The scheduler implements it.
pub(crate) trait StoreKeeper {
    /// Gives the worker back, and continues the next request in the queue.
    fn give_back(&self, store: &Arc<Store>, worker: Box<Worker>);

    /// Has the worker replaced by a new one in the background, where `lost` is closed.
    fn replace(&self, store: &Arc<Store>, lost: Option<Box<Worker>>);
}

impl Call {
    pub(crate) fn new(forked: Forked, id: RequestId) -> Self {
        Self { forked, id, store: StoreCall::None, preparation: Preparation::None, waited: None }
    }

    /// Not a request: [`Self::go_on`] prepares the worker for one.
    pub(crate) fn preparing(forked: Forked, id: RequestId) -> Self {
        Self { preparation: Preparation::Due, ..Self::new(forked, id) }
    }

    /// A request that has waited for its worker since `since_ns`: [`Self::go_on`] begins it.
    pub(crate) fn after_wait(forked: Forked, id: RequestId, request: OwnedRequest, since_ns: u64) -> Self {
        Self { waited: Some(Box::new(Waited { request, since_ns })), ..Self::new(forked, id) }
    }

    /// Starts the request.
    #[inline]
    pub(crate) fn begin(
        &mut self,
        context: CallContext<'_>,
        request: &Request<'_>,
        sink: &mut TrackedSink<'_, impl ResponseSink + ?Sized>,
    ) -> CallStep {
        let progress = self.forked.worker.start(self.id.0, request, context.slice, sink);
        let step = self.follow(context, progress, sink);
        context.counters.spent(self.forked.worker.take_cpu_ns());
        step
    }

    /// Continues a request that was paused, or now has the storage program's worker.
    pub(crate) fn go_on(
        &mut self,
        context: CallContext<'_>,
        sink: &mut TrackedSink<'_, impl ResponseSink + ?Sized>,
    ) -> CallStep {
        if let Some(waited) = self.waited.take() {
            let step = waited.request.view(|request| self.begin(context, request, sink));
            self.forked.worker.count_wait_since(waited.since_ns);
            return step;
        }
        let progress = match self.store {
            StoreCall::None if self.preparation == Preparation::Due => {
                self.preparation = Preparation::Asked;
                self.forked.worker.start_hook(context.slice)
            }
            StoreCall::None => self.forked.worker.resume(context.slice, sink),
            StoreCall::Waits | StoreCall::Asked(_) | StoreCall::Held { .. } => Ok(Progress::Calls),
        };
        let step = self.follow(context, progress, sink);
        context.counters.spent(self.forked.worker.take_cpu_ns());
        step
    }

    /// The descriptor that becomes readable when a sleeping request may continue before its time, if there is one.
    pub(crate) fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        match self.store {
            StoreCall::None => self.forked.worker.waits_for(),
            // The storage program is what sleeps, and it has no network.
            StoreCall::Waits | StoreCall::Asked(_) | StoreCall::Held { .. } => None,
        }
    }

    /// The workers that it runs: its own, and the storage program's while it has that.
    pub(crate) fn workers(&mut self) -> impl Iterator<Item = &mut Worker> {
        let store = match &mut self.store {
            StoreCall::Held { worker, .. } | StoreCall::Asked(Claim::Held(worker)) => Some(&mut **worker),
            StoreCall::None | StoreCall::Waits | StoreCall::Asked(_) => None,
        };
        std::iter::once(&mut *self.forked.worker).chain(store)
    }

    /// Gives a queued request the result that it waited for.
    pub(crate) fn hold_store(&mut self, claim: Claim) {
        self.store = StoreCall::Asked(claim);
    }

    #[inline]
    fn follow(
        &mut self,
        context: CallContext<'_>,
        progress: Result<Progress, CallError>,
        sink: &mut TrackedSink<'_, impl ResponseSink + ?Sized>,
    ) -> CallStep {
        match progress {
            Ok(Progress::Answered(_)) => self.answered(context, sink),
            Ok(Progress::Restored) => {
                context.tenant.log.end_partial_lines();
                self.count_hits(context);
            }
            Ok(Progress::Paused) => {
                context.tenant.log.end_partial_lines();
                return CallStep::Paused;
            }
            Ok(Progress::Waits { until_ns }) => {
                context.tenant.log.end_partial_lines();
                return CallStep::Sleeps { until_ns };
            }
            Ok(Progress::Calls) => return self.follow_calls(context, sink),
            Err(error) => self.failed(context, &error, sink),
        }
        CallStep::Done
    }

    /// Serves the request's calls of its storage program, possibly many, while the slice lasts.
    #[cold]
    fn follow_calls(
        &mut self,
        context: CallContext<'_>,
        sink: &mut TrackedSink<'_, impl ResponseSink + ?Sized>,
    ) -> CallStep {
        // How much of its slice the request has used is not known here: it may occupy the thread for up to twice the
        // slice.
        let end = Instant::now() + context.slice.time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return CallStep::Paused;
            }
            let left = Slice { time: left, ..context.slice };
            let progress = match self.call_store(context, left) {
                Some(step) => return step,
                None => self.forked.worker.resume(left, sink),
            };
            match progress {
                Ok(Progress::Calls) => {}
                // No recursion: `other` is never `Calls`.
                other => return self.follow(context, other, sink),
            }
        }
    }

    /// Continues the call of the storage program. Returns `None` when the request's own program is to continue.
    fn call_store(&mut self, context: CallContext<'_>, slice: Slice) -> Option<CallStep> {
        let Some(store) = self.forked.generation.store.clone() else {
            self.answer_store(Err(PeerError::NoPeer));
            return None;
        };
        let (mut worker, has_started, mut response) = match std::mem::replace(&mut self.store, StoreCall::None) {
            StoreCall::Held { worker, has_started, response } => (worker, has_started, response),
            state => {
                let claim = match state {
                    StoreCall::Asked(claim) => claim,
                    StoreCall::Waits => store.take(),
                    _ => {
                        context.counters.count(Event::StoreCall);
                        // A request that finds the worker busy queues for it, and so receives it later.
                        match store.take() {
                            Claim::Busy => {
                                self.store = StoreCall::Waits;
                                return Some(CallStep::Waits);
                            }
                            claim => claim,
                        }
                    }
                };
                match claim {
                    Claim::Held(worker) => (worker, false, BufferedResponse::default()),
                    Claim::Busy => {
                        self.answer_store(Err(PeerError::Busy));
                        return None;
                    }
                    Claim::Lost => {
                        context.stores.replace(&store, None);
                        self.answer_store(Err(PeerError::Failed));
                        return None;
                    }
                }
            }
        };
        let progress = if has_started {
            worker.resume(slice, &mut response)
        } else {
            match self.forked.worker.peer_call() {
                Some(call) => worker.start(self.id.0, &store::request(call), slice, &mut response),
                None => {
                    context.stores.give_back(&store, worker);
                    return None;
                }
            }
        };
        context.counters.spent(worker.take_cpu_ns());
        let answer = match progress {
            Ok(Progress::Paused) => {
                self.store = StoreCall::Held { worker, has_started: true, response };
                return Some(CallStep::Paused);
            }
            Ok(Progress::Waits { until_ns }) => {
                self.store = StoreCall::Held { worker, has_started: true, response };
                return Some(CallStep::Sleeps { until_ns });
            }
            Ok(Progress::Answered(_)) => store::answer(&response),
            // A storage program cannot call another one.
            Ok(Progress::Calls | Progress::Restored) => Err(PeerError::Failed),
            Err(error) => {
                context.tenant.log.failed(self.id, Failure::from(&error), &format!("storage program: {error}"));
                Err(store::peer_error(&error))
            }
        };
        store::make_ready(&mut worker);
        if worker.state() == mayfly_sandbox::WorkerState::Ready {
            context.stores.give_back(&store, worker);
        } else {
            tracing::error!(target: "mayfly::server", tenant = %context.tenant.name, "the storage program has lost its state");
            context.stores.replace(&store, Some(worker));
        }
        self.answer_store(answer.map(|()| response.body.as_slice()));
        None
    }

    fn answer_store(&mut self, answer: Result<&[u8], PeerError>) {
        self.store = StoreCall::None;
        // The program gets an error if its buffer is invalid. A failure of the worker shows when it is resumed.
        let _ = self.forked.worker.answer_peer(answer);
    }

    /// Resets the worker, or leaves that to the caller, and updates the counters.
    #[inline]
    fn answered(&mut self, context: CallContext<'_>, sink: &mut TrackedSink<'_, impl ResponseSink + ?Sized>) {
        context.tenant.log.end_partial_lines();
        if context.mode_header {
            sink.header(b"x-mayfly-mode", self.forked.generation.mode.as_bytes());
            sink.header(b"x-mayfly-generation", self.forked.generation.number_text.as_bytes());
        }
        // Decided by the number of pages, since those cost time. The generation's mode is read last: its cache line is
        // cold.
        if context.may_defer_reset
            && self.forked.worker.work_pages() > PAGES_RESET_AT_ONCE
            && self.forked.is_ephemeral()
        {
            return self.count_hits(context);
        }
        match self.forked.worker.reset() {
            Ok(report) => count_reset(report, self.id, context.tenant, context.counters),
            // This loses the worker, but the client has its response.
            Err(error) => self.failed(context, &error, sink),
        }
        self.count_hits(context);
    }

    #[cold]
    fn failed(
        &mut self,
        context: CallContext<'_>,
        error: &CallError,
        sink: &mut TrackedSink<'_, impl ResponseSink + ?Sized>,
    ) {
        context.tenant.log.end_partial_lines();
        // After an invalid response, the worker can still be rolled back.
        let is_reset =
            self.forked.worker.state() == mayfly_sandbox::WorkerState::Answered && self.forked.worker.reset().is_ok();
        let failure = Failure::from(error);
        let reason = error.to_string();
        if self.preparation != Preparation::None {
            // No request has failed: the next one asks for the hook again, and gets the error.
            context.tenant.log.not_prepared(failure, &reason);
            return self.count_hits(context);
        }
        if is_reset {
            context.counters.count(Event::Reset);
        }
        context.counters.failed(failure);
        context.tenant.log.failed(self.id, failure, &reason);
        if !sink.answered {
            answer(failure, &reason, self.id, sink);
        }
        self.count_hits(context);
    }

    #[inline]
    fn count_hits(&mut self, context: CallContext<'_>) {
        count_hits(&mut self.forked.worker, self.id, context.tenant, context.counters);
    }

    /// Takes the storage program's worker away from a call that is given up. A worker that was interrupted is replaced.
    pub(crate) fn abandon_store(&mut self, stores: &dyn StoreKeeper) {
        let state = std::mem::replace(&mut self.store, StoreCall::None);
        let Some(store) = &self.forked.generation.store else { return };
        match state {
            StoreCall::Held { worker, has_started: true, .. } => stores.replace(store, Some(worker)),
            StoreCall::Held { worker, .. } | StoreCall::Asked(Claim::Held(worker)) => stores.give_back(store, worker),
            StoreCall::Asked(Claim::Lost) => stores.replace(store, None),
            StoreCall::None | StoreCall::Waits | StoreCall::Asked(Claim::Busy) => {}
        }
    }
}

/// Resets a worker that has answered, and updates the counters. If that fails, the worker is not ready afterwards; the
/// client has its response.
pub(crate) fn reset_answered(forked: &mut Forked, id: RequestId, tenant: &Tenant, counters: &Counters) {
    match forked.worker.reset() {
        Ok(report) => count_reset(report, id, tenant, counters),
        Err(error) => {
            let failure = Failure::from(&error);
            counters.failed(failure);
            tenant.log.failed(id, failure, &error.to_string());
        }
    }
    counters.spent(forked.worker.take_cpu_ns());
}

#[inline]
fn count_reset(report: mayfly_sandbox::ResetReport, id: RequestId, tenant: &Tenant, counters: &Counters) {
    counters.count(Event::Reset);
    if report.gave_back {
        counters.count(Event::WorkSetGivenBack);
        tenant.log.work_set_given_back(id, report.pages);
    }
}

/// Counts and logs what a program has been refused since the last call, and its connections.
#[inline]
pub(crate) fn count_hits(worker: &mut Worker, id: RequestId, tenant: &Tenant, counters: &Counters) {
    let hits = worker.limit_hits();
    if hits != mayfly_sandbox::LimitHits::default() {
        tell_hits(tenant, counters, id, hits);
    }
    let connects = worker.connects();
    if connects != mayfly_sandbox::Connects::default() {
        counters.count_connects(connects);
    }
    let refused = worker.refused_processes();
    if refused != mayfly_sandbox::RefusedProcesses::default() {
        tell_refused(tenant, counters, id, refused);
    }
}

#[cold]
fn tell_refused(tenant: &Tenant, counters: &Counters, id: RequestId, refused: mayfly_sandbox::RefusedProcesses) {
    counters.count_refused_processes(refused);
    tenant.log.refused_processes(id, refused);
}

#[cold]
fn tell_hits(tenant: &Tenant, counters: &Counters, id: RequestId, hits: mayfly_sandbox::LimitHits) {
    for (event, times, limit) in [
        (Event::DescriptorLimit, hits.descriptors, "descriptors"),
        (Event::ThreadLimit, hits.threads, "threads"),
        (Event::MappingLimit, hits.mappings, "mappings"),
    ] {
        if times > 0 {
            counters.count_many(event, times);
            tenant.log.limit_hit(id, limit, times);
        }
    }
}

impl From<&CallError> for Failure {
    fn from(error: &CallError) -> Self {
        match error {
            CallError::RequestTooLarge { .. } => Self::RequestTooLarge,
            CallError::Exited { .. } => Self::Exited,
            CallError::Faulted(_) => Self::Faulted,
            CallError::Violation(_) => Self::Violation,
            CallError::Response(ResponseError::TooLarge { .. }) => Self::ResponseTooLarge,
            CallError::Response(_) | CallError::NotListening | CallError::AfterRestore { .. } => Self::BadResponse,
            CallError::CpuLimit { .. } | CallError::Stuck { .. } => Self::CpuLimit,
            CallError::WallLimit { .. } => Self::WallLimit,
            CallError::MemoryLimit { .. } => Self::MemoryLimit,
            CallError::ServerMemory => Self::ServerMemory,
            CallError::Failed(_) | CallError::Poisoned | CallError::Handover { .. } => Self::Internal,
        }
    }
}

/// Records whether there is a response. A body alone does not count: the sandbox may fail while it reads one.
pub(crate) struct TrackedSink<'a, S: ?Sized> {
    sink: &'a mut S,
    pub(crate) answered: bool,
}

impl<'a, S: ?Sized> TrackedSink<'a, S> {
    pub(crate) fn new(sink: &'a mut S) -> Self {
        Self { sink, answered: false }
    }
}

impl<S: ResponseSink + ?Sized> ResponseSink for TrackedSink<'_, S> {
    fn body(&mut self, len: usize) -> &mut [u8] {
        self.sink.body(len)
    }

    fn no_body(&mut self, length: Option<u64>) {
        self.sink.no_body(length);
    }

    fn status(&mut self, status: u16) {
        self.answered = true;
        self.sink.status(status);
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        self.sink.header(name, value);
    }
}
