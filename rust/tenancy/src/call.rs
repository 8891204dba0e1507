// SPDX-License-Identifier: MIT OR Apache-2.0
//! One request on one worker, on whatever thread it is by now, and what a failure becomes.
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
use std::time::Instant;

use mayfly_sandbox::{
    BufferedResponse, CallError, PeerError, Progress, Request, ResponseError, ResponseSink, Slice, Worker,
};

use crate::background::Background;
use crate::failure::{Failure, RequestId, answer};
use crate::generation::Forked;
use crate::meter::{Counters, Event};
use crate::places::Kind;
use crate::storage::{self, Taken};
use crate::tenant::Tenant;

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
    /// What came of asking for the storage program's worker.
    Asked(Taken),
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
pub(crate) enum Step {
    /// It has its answer.
    Done,
    /// Its slice is over.
    Paused,
    /// It stands in line for the storage program.
    Waits,
    /// There is nothing to do for it until then, by the monotonic clock in nanoseconds, or until [`Call::waits_for`] is readable.
    Sleeps { until_ns: u64 },
}

impl Step {
    /// The place that a request needs after this.
    pub(crate) fn place(self) -> Kind {
        match self {
            Self::Sleeps { .. } => Kind::Bed,
            Self::Done | Self::Paused | Self::Waits => Kind::Room,
        }
    }
}

/// What a step needs besides the call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) tenant: &'a Tenant,
    pub(crate) counters: &'a Counters,
    pub(crate) background: &'a Background,
    /// How long this thread may be held up, and by what.
    pub(crate) slice: Slice,
    /// Whether responses say how they were made.
    pub(crate) mode_header: bool,
}

impl Call {
    pub(crate) fn new(forked: Forked, id: RequestId) -> Self {
        Self { forked, id, store: StoreCall::None }
    }

    /// Starts the request.
    #[inline]
    pub(crate) fn begin(
        &mut self,
        scene: Scene<'_>,
        request: &Request<'_>,
        sink: &mut Watched<'_, impl ResponseSink + ?Sized>,
    ) -> Step {
        let progress = self.forked.worker.start(self.id.0, request, scene.slice, sink);
        let step = self.follow(scene, progress, sink);
        scene.counters.spent(self.forked.worker.take_cpu_ns());
        step
    }

    /// Goes on with a request that was paused, or has the storage program's worker now.
    pub(crate) fn go_on(&mut self, scene: Scene<'_>, sink: &mut Watched<'_, impl ResponseSink + ?Sized>) -> Step {
        let progress = match self.store {
            StoreCall::None => self.forked.worker.resume(scene.slice, sink),
            StoreCall::Waits | StoreCall::Asked(_) | StoreCall::Held { .. } => Ok(Progress::Calls),
        };
        let step = self.follow(scene, progress, sink);
        scene.counters.spent(self.forked.worker.take_cpu_ns());
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
    pub(crate) fn hold_store(&mut self, taken: Taken) {
        self.store = StoreCall::Asked(taken);
    }

    #[inline]
    fn follow(
        &mut self,
        scene: Scene<'_>,
        progress: Result<Progress, CallError>,
        sink: &mut Watched<'_, impl ResponseSink + ?Sized>,
    ) -> Step {
        match progress {
            Ok(Progress::Answered(_)) => self.answered(scene, sink),
            Ok(Progress::Paused) => {
                scene.tenant.log.end_partial_lines();
                return Step::Paused;
            }
            Ok(Progress::Waits { until_ns }) => {
                scene.tenant.log.end_partial_lines();
                return Step::Sleeps { until_ns };
            }
            Ok(Progress::Calls) => return self.follow_calls(scene, sink),
            Err(error) => self.failed(scene, &error, sink),
        }
        Step::Done
    }

    /// Serves the request's calls of its storage program, of which there may be many, while the slice lasts.
    #[cold]
    fn follow_calls(&mut self, scene: Scene<'_>, sink: &mut Watched<'_, impl ResponseSink + ?Sized>) -> Step {
        // What the request used of its slice so far is not known here: it may hold the thread up twice as long, but no longer.
        let end = Instant::now() + scene.slice.time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Step::Paused;
            }
            let left = Slice { time: left, ..scene.slice };
            let progress = match self.call_store(scene, left) {
                Some(step) => return step,
                None => self.forked.worker.resume(left, sink),
            };
            match progress {
                Ok(Progress::Calls) => {}
                // No recursion: this arm never is `Calls`.
                other => return self.follow(scene, other, sink),
            }
        }
    }

    /// Goes on with the call of the storage program; `None` when the request's own program is to go on.
    fn call_store(&mut self, scene: Scene<'_>, slice: Slice) -> Option<Step> {
        let Some(store) = self.forked.generation.store.clone() else {
            self.answer_store(Err(PeerError::NoPeer));
            return None;
        };
        let (mut worker, has_started, mut response) = match std::mem::replace(&mut self.store, StoreCall::None) {
            StoreCall::Held { worker, has_started, response } => (worker, has_started, response),
            state => {
                let taken = match state {
                    StoreCall::Asked(taken) => taken,
                    StoreCall::Waits => store.take(),
                    _ => {
                        scene.counters.count(Event::StoreCall);
                        // Whoever finds it busy stands in line; one who did already does not find it so.
                        match store.take() {
                            Taken::Busy => {
                                self.store = StoreCall::Waits;
                                return Some(Step::Waits);
                            }
                            taken => taken,
                        }
                    }
                };
                match taken {
                    Taken::Held(worker) => (worker, false, BufferedResponse::default()),
                    Taken::Busy => {
                        self.answer_store(Err(PeerError::Busy));
                        return None;
                    }
                    Taken::Lost => {
                        scene.background.replace_store(Some(&store), None);
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
                Some(call) => worker.start(self.id.0, &storage::request(call), slice, &mut response),
                None => {
                    scene.background.give_back(&store, worker);
                    return None;
                }
            }
        };
        scene.counters.spent(worker.take_cpu_ns());
        let answer = match progress {
            Ok(Progress::Paused) => {
                self.store = StoreCall::Held { worker, has_started: true, response };
                return Some(Step::Paused);
            }
            Ok(Progress::Waits { until_ns }) => {
                self.store = StoreCall::Held { worker, has_started: true, response };
                return Some(Step::Sleeps { until_ns });
            }
            Ok(Progress::Answered(_)) => storage::answer(&response),
            // A storage program has none of its own.
            Ok(Progress::Calls) => Err(PeerError::Failed),
            Err(error) => {
                scene.tenant.log.failed(self.id, Failure::from(&error), &format!("storage program: {error}"));
                Err(storage::peer_error(&error))
            }
        };
        storage::make_ready(&mut worker);
        if worker.state() == mayfly_sandbox::WorkerState::Ready {
            scene.background.give_back(&store, worker);
        } else {
            tracing::error!(target: "mayfly::server", tenant = %scene.tenant.name, "the storage program has lost its state");
            scene.background.replace_store(Some(&store), Some(worker));
        }
        self.answer_store(answer.map(|()| response.body.as_slice()));
        None
    }

    fn answer_store(&mut self, answer: Result<&[u8], PeerError>) {
        self.store = StoreCall::None;
        // If the program's buffer is no good it is told so; what is wrong with the worker shows when it goes on.
        let _ = self.forked.worker.answer_peer(answer);
    }

    /// Rolls the worker back, and counts.
    #[inline]
    fn answered(&mut self, scene: Scene<'_>, sink: &mut Watched<'_, impl ResponseSink + ?Sized>) {
        scene.tenant.log.end_partial_lines();
        if scene.mode_header {
            sink.header(b"x-mayfly-mode", self.forked.generation.mode.as_bytes());
            sink.header(b"x-mayfly-generation", self.forked.generation.number_text.as_bytes());
        }
        match self.forked.worker.reset() {
            Ok(_) => scene.counters.count(Event::Reset),
            // It costs the worker, not the client, who has the response.
            Err(error) => self.failed(scene, &error, sink),
        }
        self.count_hits(scene);
    }

    #[cold]
    fn failed(&mut self, scene: Scene<'_>, error: &CallError, sink: &mut Watched<'_, impl ResponseSink + ?Sized>) {
        scene.tenant.log.end_partial_lines();
        // A response that breaks the rules leaves a worker that can be rolled back.
        if self.forked.worker.state() == mayfly_sandbox::WorkerState::Answered && self.forked.worker.reset().is_ok() {
            scene.counters.count(Event::Reset);
        }
        let failure = Failure::from(error);
        scene.counters.failed(failure);
        let reason = error.to_string();
        scene.tenant.log.failed(self.id, failure, &reason);
        if !sink.answered {
            answer(failure, &reason, self.id, sink);
        }
        self.count_hits(scene);
    }

    #[inline]
    fn count_hits(&mut self, scene: Scene<'_>) {
        let hits = self.forked.worker.limit_hits();
        if hits != mayfly_sandbox::LimitHits::default() {
            tell_hits(scene, self.id, hits);
        }
        let connects = self.forked.worker.connects();
        if connects != mayfly_sandbox::Connects::default() {
            scene.counters.count_connects(connects);
        }
    }

    /// Takes the storage program's worker out of a call that is given up, for the background to replace: it is in the middle of
    /// something.
    pub(crate) fn abandon_store(&mut self, background: &Background) {
        let store = self.forked.generation.store.as_ref();
        match std::mem::replace(&mut self.store, StoreCall::None) {
            StoreCall::Held { worker, has_started: true, .. } => background.replace_store(store, Some(worker)),
            StoreCall::Held { worker, .. } | StoreCall::Asked(Taken::Held(worker)) => {
                if let Some(store) = store {
                    background.give_back(store, worker);
                }
            }
            StoreCall::Asked(Taken::Lost) => background.replace_store(store, None),
            StoreCall::None | StoreCall::Waits | StoreCall::Asked(Taken::Busy) => {}
        }
    }
}

#[cold]
fn tell_hits(scene: Scene<'_>, id: RequestId, hits: mayfly_sandbox::LimitHits) {
    for (event, times, limit) in [
        (Event::DescriptorLimit, hits.descriptors, "descriptors"),
        (Event::ThreadLimit, hits.threads, "threads"),
        (Event::MappingLimit, hits.mappings, "mappings"),
    ] {
        if times > 0 {
            scene.counters.count_many(event, times);
            scene.tenant.log.limit_hit(id, limit, times);
        }
    }
}

impl From<&CallError> for Failure {
    fn from(error: &CallError) -> Self {
        match error {
            CallError::RequestTooLarge { .. } => Self::RequestTooLarge,
            CallError::Exited { .. } => Self::Exited,
            CallError::Faulted(_) => Self::Faulted,
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
pub(crate) struct Watched<'a, S: ?Sized> {
    sink: &'a mut S,
    pub(crate) answered: bool,
}

impl<'a, S: ?Sized> Watched<'a, S> {
    pub(crate) fn new(sink: &'a mut S) -> Self {
        Self { sink, answered: false }
    }
}

impl<S: ResponseSink + ?Sized> ResponseSink for Watched<'_, S> {
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
