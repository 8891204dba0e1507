// SPDX-License-Identifier: MIT OR Apache-2.0
//! One request on one worker, on whichever thread it runs now, and the answer that a failure becomes.
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

/// Pages of a work set that take about two microseconds to reset: less than it costs to come back for them.
const PAGES_RESET_AT_ONCE: usize = 16;

/// A request that has a worker.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) forked: Forked,
    pub(crate) id: RequestId,
    store: StoreCall,
}

/// The call of a function of the storage program that the request is in.
#[derive(Debug)]
enum StoreCall {
    None,
    /// It stands in line.
    Waits,
    /// The answer to its demand for the storage program's worker.
    Asked(Claim),
    /// The worker is ours.
    Held {
        worker: Box<Worker>,
        has_started: bool,
        response: BufferedResponse,
    },
}

/// How far a request got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum CallStep {
    /// It has its answer.
    Done,
    /// Its slice is over.
    Paused,
    /// It stands in line for the storage program.
    Waits,
    /// There is nothing to do for it until then, by the monotonic clock in nanoseconds, or until [`Call::waits_for`] is
    /// readable.
    Sleeps { until_ns: u64 },
}

impl CallStep {
    /// The permit that a request needs after this.
    pub(crate) fn permit(self) -> PermitKind {
        match self {
            Self::Sleeps { .. } => PermitKind::Sleep,
            Self::Done | Self::Paused | Self::Waits => PermitKind::Run,
        }
    }
}

/// What a step needs besides the call.
#[derive(Clone, Copy)]
pub(crate) struct CallContext<'a> {
    pub(crate) tenant: &'a Tenant,
    pub(crate) counters: &'a Counters,
    pub(crate) stores: &'a dyn StoreKeeper,
    /// How long this thread may be held up, and by what.
    pub(crate) slice: Slice,
    /// Whether responses say how they were made.
    pub(crate) mode_header: bool,
    /// Whether a reset that takes its time may be left to the caller: see [`reset_answered`].
    pub(crate) may_defer_reset: bool,
}

/// What becomes of the workers of storage programs that calls are done with: the scheduler's part.
pub(crate) trait StoreKeeper {
    /// Gives the worker back, and goes on with the next request in line.
    fn give_back(&self, store: &Arc<Store>, worker: Box<Worker>);

    /// Has the worker replaced by a new one in the background; `lost` is closed there.
    fn replace(&self, store: &Arc<Store>, lost: Option<Box<Worker>>);
}

impl Call {
    pub(crate) fn new(forked: Forked, id: RequestId) -> Self {
        Self { forked, id, store: StoreCall::None }
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

    /// Goes on with a request that was paused, or has the storage program's worker now.
    pub(crate) fn go_on(
        &mut self,
        context: CallContext<'_>,
        sink: &mut TrackedSink<'_, impl ResponseSink + ?Sized>,
    ) -> CallStep {
        let progress = match self.store {
            StoreCall::None => self.forked.worker.resume(context.slice, sink),
            StoreCall::Waits | StoreCall::Asked(_) | StoreCall::Held { .. } => Ok(Progress::Calls),
        };
        let step = self.follow(context, progress, sink);
        context.counters.spent(self.forked.worker.take_cpu_ns());
        step
    }

    /// What tells that a request that sleeps may go on before its time, if there is something.
    pub(crate) fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        match self.store {
            StoreCall::None => self.forked.worker.waits_for(),
            // Its storage program is what sleeps, and that has no network.
            StoreCall::Waits | StoreCall::Asked(_) | StoreCall::Held { .. } => None,
        }
    }

    /// Gives a request that stood in line what it waited for.
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

    /// Serves the request's calls of its storage program, of which there may be many, while the slice lasts.
    #[cold]
    fn follow_calls(
        &mut self,
        context: CallContext<'_>,
        sink: &mut TrackedSink<'_, impl ResponseSink + ?Sized>,
    ) -> CallStep {
        // What the request used of its slice so far is not known here: it may hold the thread up twice as long, but no
        // longer.
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
                // No recursion: this arm never is `Calls`.
                other => return self.follow(context, other, sink),
            }
        }
    }

    /// Goes on with the call of the storage program; `None` when the request's own program is to go on.
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
                        // A request that finds it busy stands in line; one that has done so gets it.
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
            // A storage program has none of its own.
            Ok(Progress::Calls) => Err(PeerError::Failed),
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
        // The program gets an error if its buffer is invalid. Anything wrong with the worker shows when it is resumed.
        let _ = self.forked.worker.answer_peer(answer);
    }

    /// Resets the worker, or leaves that to the caller, and counts.
    #[inline]
    fn answered(&mut self, context: CallContext<'_>, sink: &mut TrackedSink<'_, impl ResponseSink + ?Sized>) {
        context.tenant.log.end_partial_lines();
        if context.mode_header {
            sink.header(b"x-mayfly-mode", self.forked.generation.mode.as_bytes());
            sink.header(b"x-mayfly-generation", self.forked.generation.number_text.as_bytes());
        }
        // By pages, since those cost time. The generation's mode is asked last: it is on no line that is at hand.
        if context.may_defer_reset
            && self.forked.worker.work_pages() > PAGES_RESET_AT_ONCE
            && self.forked.is_ephemeral()
        {
            return self.count_hits(context);
        }
        match self.forked.worker.reset() {
            Ok(_) => context.counters.count(Event::Reset),
            // That costs the worker, not the client, which has the response.
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
        // A response that breaks the rules leaves a worker that can be rolled back.
        if self.forked.worker.state() == mayfly_sandbox::WorkerState::Answered && self.forked.worker.reset().is_ok() {
            context.counters.count(Event::Reset);
        }
        let failure = Failure::from(error);
        context.counters.failed(failure);
        let reason = error.to_string();
        context.tenant.log.failed(self.id, failure, &reason);
        if !sink.answered {
            answer(failure, &reason, self.id, sink);
        }
        self.count_hits(context);
    }

    #[inline]
    fn count_hits(&mut self, context: CallContext<'_>) {
        let hits = self.forked.worker.limit_hits();
        if hits != mayfly_sandbox::LimitHits::default() {
            tell_hits(context, self.id, hits);
        }
        let connects = self.forked.worker.connects();
        if connects != mayfly_sandbox::Connects::default() {
            context.counters.count_connects(connects);
        }
    }

    /// Takes the storage program's worker away from a call that is given up. A worker in the middle of something is
    /// replaced.
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

/// Resets a worker that has answered, and counts. What is wrong costs the worker, not the client, which has the
/// response: the worker is not ready then.
pub(crate) fn reset_answered(forked: &mut Forked, id: RequestId, tenant: &Tenant, counters: &Counters) {
    match forked.worker.reset() {
        Ok(_) => counters.count(Event::Reset),
        Err(error) => {
            let failure = Failure::from(&error);
            counters.failed(failure);
            tenant.log.failed(id, failure, &error.to_string());
        }
    }
    counters.spent(forked.worker.take_cpu_ns());
}

#[cold]
fn tell_hits(context: CallContext<'_>, id: RequestId, hits: mayfly_sandbox::LimitHits) {
    for (event, times, limit) in [
        (Event::DescriptorLimit, hits.descriptors, "descriptors"),
        (Event::ThreadLimit, hits.threads, "threads"),
        (Event::MappingLimit, hits.mappings, "mappings"),
    ] {
        if times > 0 {
            context.counters.count_many(event, times);
            context.tenant.log.limit_hit(id, limit, times);
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
            CallError::Response(_) | CallError::NotListening => Self::BadResponse,
            CallError::CpuLimit { .. } | CallError::Stuck { .. } => Self::CpuLimit,
            CallError::WallLimit { .. } => Self::WallLimit,
            CallError::MemoryLimit { .. } => Self::MemoryLimit,
            CallError::ServerMemory => Self::ServerMemory,
            CallError::Failed(_) | CallError::Poisoned | CallError::Handover { .. } => Self::Internal,
        }
    }
}

/// Remembers whether there is a response. A body alone is none: the sandbox may fail while it reads one.
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
