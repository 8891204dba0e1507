// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tenant's storage program: one long-lived worker, which serves one call at a time.
//!
//! ```text
//!   take ── idle worker ──> Claim::Held ── call ──> give_back ──> the next in the queue, or idle
//!     └── Claim::Busy: the request is parked, and its ticket is queued
//! ```
//!
//! No thread waits for the worker on behalf of a request. A request that finds the worker busy queues a ticket, and the
//! thread that gives the worker back receives the first ticket in return. A call that does not finish is ended by its
//! own time limit, so the queue always advances. The scheduler that issues the tickets keeps the requests themselves.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mayfly_files::FileStamp;
use mayfly_sandbox::{
    BootError, BufferedResponse, CallError, Elf, Host, LogSink, PeerCall, PeerError, Program, Request, ResponseError,
    Snapshot, Worker, WorkerState,
};

use crate::config::StorageConfig;
use crate::model::failure::RequestId;
use crate::model::outcome::ReloadError;

/// The method of requests to a storage program. No client can send it, because it is not an HTTP token.
const METHOD: &[u8] = b"mayfly:call";

/// Longest queue of tickets.
const QUEUE_MAX: usize = 64;
/// How long a reload waits for the call in progress, beyond the time limit of a call.
const RELOAD_MARGIN: Duration = Duration::from_secs(1);

/// A storage program.
#[derive(Debug)]
pub(crate) struct Store {
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Debug)]
struct State {
    snapshot: Snapshot,
    config: StorageConfig,
    elf: Elf,
    stamp: Option<FileStamp>,
    worker: Option<Box<Worker>>,
    /// A thread or a request holds the worker, or a new one is being forked.
    is_out: bool,
    /// A reload or a health request waits for the worker.
    is_wanted: bool,
    queue: VecDeque<Ticket>,
}

/// Stands for a queued request. Its number is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

/// A ticket taken from the queue, and the worker, which its request now holds.
pub(crate) type Next = (Ticket, Box<Worker>);

/// The result of asking for the worker.
#[derive(Debug)]
pub(crate) enum Claim {
    /// The caller holds the worker until it gives it back.
    Held(Box<Worker>),
    /// The worker is in use.
    Busy,
    /// The worker is lost: the caller must have a new one forked.
    Lost,
}

impl Store {
    pub(crate) fn boot(config: &StorageConfig, host: &Host, log: Arc<dyn LogSink>) -> Result<Self, ReloadError> {
        let stamp = FileStamp::of(&config.program).ok();
        let elf = read(config)?.elf;
        let (snapshot, worker) = boot(config, elf.clone(), host, log)?;
        let state = State {
            snapshot,
            config: config.clone(),
            elf,
            stamp,
            worker: Some(worker),
            is_out: false,
            is_wanted: false,
            queue: VecDeque::new(),
        };
        Ok(Self { state: Mutex::new(state), idle: Condvar::new() })
    }

    /// Replaces the program if its file or its configuration has changed. Hands the state over if both programs have
    /// the hooks.
    pub(crate) fn refresh(
        &self,
        config: &StorageConfig,
        host: &Host,
        log: Arc<dyn LogSink>,
    ) -> Result<(), ReloadError> {
        let stamp = FileStamp::of(&config.program).ok();
        let elf = read(config)?.elf;
        {
            let mut state = self.state();
            if state.config == *config && state.elf == elf {
                state.stamp = stamp;
                return Ok(());
            }
        }
        let (snapshot, mut worker) = boot(config, elf.clone(), host, log)?;
        let (mut old, hands_over) = self.take_for_reload(&snapshot)?;
        // Meanwhile, loops that ask for the worker see it as busy: the hooks are the program's own code, and may run up
        // to their time limit.
        let handed_over = match old.as_mut().filter(|_| hands_over) {
            Some(old) => hand_over(old, &mut worker),
            None => Ok(()),
        };
        let mut state = self.state();
        state.is_out = false;
        if let Err(error) = handed_over {
            // A worker that failed in its hook has lost its state; the next call replaces it.
            state.worker = old.filter(|old| old.state() == WorkerState::Ready);
            return Err(error);
        }
        state.snapshot = snapshot;
        state.config = config.clone();
        state.elf = elf;
        state.stamp = stamp;
        state.worker = Some(worker);
        drop(state);
        self.idle.notify_all();
        drop(old);
        Ok(())
    }

    /// Takes the worker for a reload when the call in progress has finished. Also returns whether its state can be
    /// handed over to a worker of `new`.
    fn take_for_reload(&self, new: &Snapshot) -> Result<(Option<Box<Worker>>, bool), ReloadError> {
        let mut state = self
            .await_turn()
            .ok_or_else(|| ReloadError::Boot("the storage program's call in progress does not finish".to_owned()))?;
        Ok((state.worker.take(), state.snapshot.has_handover() && new.has_handover()))
    }

    /// Takes the first ticket from the queue if the worker is idle. For the thread that has reloaded the program: with
    /// no call in progress, no worker is given back, which would advance the queue.
    pub(crate) fn next_in_queue(&self) -> Option<(Ticket, Claim)> {
        let mut state = self.state();
        if state.is_out || state.is_wanted {
            return None;
        }
        let ticket = state.queue.pop_front()?;
        state.is_out = true;
        Some((ticket, state.worker.take().map_or(Claim::Lost, Claim::Held)))
    }

    /// Whether the program's file has changed since it was booted.
    pub(crate) fn has_changed(&self) -> bool {
        let state = self.state();
        let now = FileStamp::of(&state.config.program).ok();
        now.is_some() && now != state.stamp
    }

    /// Takes the worker if it is idle. Waits for nothing but the lock, which others hold for a few instructions.
    pub(crate) fn take(&self) -> Claim {
        let mut state = self.state();
        if state.is_out || state.is_wanted {
            return Claim::Busy;
        }
        state.is_out = true;
        state.worker.take().map_or(Claim::Lost, Claim::Held)
    }

    /// Queues a ticket, unless the worker has become idle or the queue is full ([`Claim::Busy`]).
    #[must_use]
    pub(crate) fn enqueue(&self, ticket: Ticket) -> Option<Claim> {
        let mut state = self.state();
        if !state.is_out && !state.is_wanted {
            state.is_out = true;
            return Some(state.worker.take().map_or(Claim::Lost, Claim::Held));
        }
        if state.queue.len() >= QUEUE_MAX {
            return Some(Claim::Busy);
        }
        state.queue.push_back(ticket);
        None
    }

    /// Gives the worker back. If a ticket is queued, returns the first one with the worker.
    #[must_use]
    pub(crate) fn give_back(&self, worker: Box<Worker>) -> Option<Next> {
        let mut state = self.state();
        if !state.is_wanted
            && let Some(ticket) = state.queue.pop_front()
        {
            return Some((ticket, worker));
        }
        state.worker = Some(worker);
        state.is_out = false;
        drop(state);
        self.idle.notify_all();
        None
    }

    /// Waits for the worker and carries out a call on this thread, which must not be a loop's. `send_on` receives the
    /// next ticket.
    pub(crate) fn call(&self, call: PeerCall<'_>, send_on: &dyn Fn(Option<Next>)) -> Result<Vec<u8>, PeerError> {
        let mut worker = self.await_worker()?;
        let mut response = BufferedResponse::default();
        let called = worker.call_without_reset(RequestId::NONE.0, &request(call), &mut response);
        let answer = match called {
            Ok(_) => answer(&response),
            Err(error) => Err(peer_error(&error)),
        };
        make_ready(&mut worker);
        let next = if worker.state() == WorkerState::Ready {
            self.give_back(worker)
        } else {
            tracing::error!(target: "mayfly::server", "the storage program has lost its state in a health request");
            self.replace_lost()
        };
        send_on(next);
        answer.map(|()| response.body)
    }

    /// Waits, ahead of the queue, until the worker is idle, and marks it as in use. Returns `None` if the call in
    /// progress does not finish.
    fn await_turn(&self) -> Option<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.is_wanted = true;
        let most = state.config.call_time + RELOAD_MARGIN;
        let (mut state, _) =
            self.idle.wait_timeout_while(state, most, |state| state.is_out).unwrap_or_else(PoisonError::into_inner);
        state.is_wanted = false;
        if state.is_out {
            return None;
        }
        state.is_out = true;
        Some(state)
    }

    /// Takes the worker, ahead of the queue, as soon as it is idle.
    fn await_worker(&self) -> Result<Box<Worker>, PeerError> {
        let mut state = self.await_turn().ok_or(PeerError::Busy)?;
        if let Some(worker) = state.worker.take() {
            return Ok(worker);
        }
        let snapshot = state.snapshot.clone();
        drop(state);
        Worker::fork_keeping_state(&snapshot).map(Box::new).map_err(|_| {
            self.state().is_out = false;
            PeerError::Failed
        })
    }

    /// Forks a worker to replace a lost one, whose state is gone. For a background thread.
    #[must_use]
    pub(crate) fn replace_lost(&self) -> Option<Next> {
        let snapshot = self.state().snapshot.clone();
        match Worker::fork_keeping_state(&snapshot) {
            Ok(worker) => self.give_back(Box::new(worker)),
            Err(error) => {
                tracing::error!(target: "mayfly::server", %error, "a storage program's worker could not be replaced");
                self.state().is_out = false;
                None
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one step, so the state is consistent even if a thread panicked while it held the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call as the request that the storage program sees.
pub(crate) fn request<'a>(call: PeerCall<'a>) -> Request<'a> {
    Request { method: METHOD, path: call.name, query: b"", headers: &[], body: call.argument, client: None }
}

/// The storage program's response as the caller sees it.
pub(crate) fn answer(response: &BufferedResponse) -> Result<(), PeerError> {
    match response.status {
        200 => Ok(()),
        404 => Err(PeerError::UnknownFunction),
        _ => Err(PeerError::Failed),
    }
}

/// The storage program's failure as the caller sees it.
pub(crate) fn peer_error(error: &CallError) -> PeerError {
    match error {
        CallError::RequestTooLarge { .. } | CallError::Response(ResponseError::TooLarge { .. }) => PeerError::TooLarge,
        CallError::CpuLimit { .. } | CallError::WallLimit { .. } => PeerError::TimedOut,
        _ => PeerError::Failed,
    }
}

/// Makes a worker that has answered ready for the next call, keeping its state. A failure shows in the worker's state.
pub(crate) fn make_ready(worker: &mut Worker) {
    if worker.state() == WorkerState::Answered {
        let _ = worker.reset();
    }
}

fn hand_over(old: &mut Worker, new: &mut Worker) -> Result<(), ReloadError> {
    let state = old.save().map_err(|error| handover_failed("save", &error))?;
    new.restore(&state).map_err(|error| handover_failed("restore", &error))
}

fn handover_failed(step: &str, error: &CallError) -> ReloadError {
    let text = format!("the storage program's state was not handed over: {step}: {error}");
    if matches!(error, CallError::Violation(_)) { ReloadError::Violation(text) } else { ReloadError::Boot(text) }
}

fn read(config: &StorageConfig) -> Result<Program, ReloadError> {
    config.launch().map_err(|error| ReloadError::Program(format!("storage program: {error}")))
}

fn boot(
    config: &StorageConfig,
    elf: Elf,
    host: &Host,
    log: Arc<dyn LogSink>,
) -> Result<(Snapshot, Box<Worker>), ReloadError> {
    let program = Program { elf, ..read(config)? };
    let mut limits = config.limits.machine.clone();
    limits.wall_time = config.call_time;
    limits.cpu_time = limits.cpu_time.min(config.call_time);
    let failed = |error: String| ReloadError::Boot(format!("storage program: {error}"));
    let snapshot = Snapshot::boot(host, &program, &limits, log).map_err(|error| match error {
        BootError::Violation(_) => ReloadError::Violation(format!("storage program: {error}")),
        error => failed(error.to_string()),
    })?;
    let worker = Worker::fork_keeping_state(&snapshot).map_err(|error| failed(error.to_string()))?;
    Ok((snapshot, Box::new(worker)))
}
