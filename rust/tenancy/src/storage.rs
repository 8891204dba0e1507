// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tenant's storage program: one long-lived worker, which serves one call at a time.
//!
//! ```text
//!   try_take ── idle worker ──> Held ── call ──> give_back ──> the next in line, or idle
//!        └── busy: the request is parked and stands in line
//! ```
//!
//! Nobody waits for it on a thread: a request that finds it busy stands in line, and whoever gives the worker back sends the first of
//! the line on its way. A call that does not end is ended by its own limit on time, so the line moves.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mayfly_sandbox::{
    BootError, BufferedResponse, CallError, Elf, Host, LogSink, PeerCall, PeerError, Program, Request, ResponseError,
    Snapshot, Worker, WorkerState,
};

use crate::config::StorageConfig;
use crate::failure::RequestId;
use crate::generation::{self, Stamp};
use crate::overflow::Parked;
use crate::reload::ReloadError;

/// The method of requests to a storage program. No client can send it: it is no token of HTTP's.
const METHOD: &[u8] = b"mayfly:call";

/// Requests that may stand in line.
const LINE: usize = 64;
/// What a reload waits for calls under way, beyond the time that one may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// A storage program.
#[derive(Debug)]
pub(crate) struct Store {
    place: Mutex<Place>,
    idle: Condvar,
}

#[derive(Debug)]
struct Place {
    snapshot: Snapshot,
    config: StorageConfig,
    elf: Elf,
    stamp: Option<Stamp>,
    worker: Option<Box<Worker>>,
    /// Somebody has the worker, or makes a new one.
    is_out: bool,
    /// A reload waits for the worker.
    is_wanted: bool,
    line: VecDeque<Parked>,
}

/// Who stood in line, and the worker, which is now his.
pub(crate) type Next = (Parked, Box<Worker>);

/// What came of asking for the worker.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It is the caller's, until given back.
    Held(Box<Worker>),
    /// Somebody else has it.
    Busy,
    /// There is none: a new one is to be forked.
    Lost,
}

impl Store {
    pub(crate) fn boot(config: &StorageConfig, host: &Host, log: Arc<dyn LogSink>) -> Result<Self, ReloadError> {
        let stamp = generation::stamp(&config.program).ok();
        let elf = read(config)?.elf;
        let (snapshot, worker) = boot(config, elf.clone(), host, log)?;
        let place = Place {
            snapshot,
            config: config.clone(),
            elf,
            stamp,
            worker: Some(worker),
            is_out: false,
            is_wanted: false,
            line: VecDeque::new(),
        };
        Ok(Self { place: Mutex::new(place), idle: Condvar::new() })
    }

    /// Puts a new program in the place of this one if it is another one; its state goes over if both programs have the hooks.
    pub(crate) fn refresh(
        &self,
        config: &StorageConfig,
        host: &Host,
        log: Arc<dyn LogSink>,
    ) -> Result<(), ReloadError> {
        let stamp = generation::stamp(&config.program).ok();
        let elf = read(config)?.elf;
        {
            let mut place = self.place();
            if place.config == *config && place.elf == elf {
                place.stamp = stamp;
                return Ok(());
            }
        }
        let (snapshot, mut worker) = boot(config, elf.clone(), host, log)?;
        let (mut old, hands_over) = self.take_for_reload(&snapshot)?;
        // Loops ask for the worker meanwhile, and are told that it is out: the hooks are the program's, and take as long as they are let.
        let handed_over = match old.as_mut().filter(|_| hands_over) {
            Some(old) => hand_over(old, &mut worker),
            None => Ok(()),
        };
        let mut place = self.place();
        place.is_out = false;
        if let Err(error) = handed_over {
            // One that has failed in its hook has lost its state, and is replaced by whoever needs it.
            place.worker = old.filter(|old| old.state() == WorkerState::Ready);
            return Err(error);
        }
        place.snapshot = snapshot;
        place.config = config.clone();
        place.elf = elf;
        place.stamp = stamp;
        place.worker = Some(worker);
        drop(place);
        self.idle.notify_all();
        drop(old);
        Ok(())
    }

    /// Takes the worker out for a reload, whoever has it now, and says whether its state can go to one of `new`.
    fn take_for_reload(&self, new: &Snapshot) -> Result<(Option<Box<Worker>>, bool), ReloadError> {
        let mut place = self
            .await_turn()
            .ok_or_else(|| ReloadError::Boot("the storage program is busy and does not come to an end".to_owned()))?;
        Ok((place.worker.take(), place.snapshot.has_handover() && new.has_handover()))
    }

    /// The first of the line, if the worker is idle: for whoever has reloaded the program, since nobody else may give the worker back.
    pub(crate) fn next_in_line(&self) -> Option<(Parked, Taken)> {
        let mut place = self.place();
        if place.is_out || place.is_wanted {
            return None;
        }
        let parked = place.line.pop_front()?;
        place.is_out = true;
        Some((parked, place.worker.take().map_or(Taken::Lost, Taken::Held)))
    }

    /// Whether the program's file has changed since it was booted.
    pub(crate) fn has_changed(&self) -> bool {
        let place = self.place();
        let now = generation::stamp(&place.config.program).ok();
        now.is_some() && now != place.stamp
    }

    /// Takes the worker if it is idle; never waits but for the few instructions that others hold the lock.
    pub(crate) fn take(&self) -> Taken {
        let mut place = self.place();
        if place.is_out || place.is_wanted {
            return Taken::Busy;
        }
        place.is_out = true;
        place.worker.take().map_or(Taken::Lost, Taken::Held)
    }

    /// Has a request stand in line. It comes back with the worker if that is idle by now, and without if the line is too long.
    #[must_use]
    pub(crate) fn stand_in_line(&self, parked: Parked) -> Option<(Parked, Taken)> {
        let mut place = self.place();
        if !place.is_out && !place.is_wanted {
            place.is_out = true;
            let taken = place.worker.take().map_or(Taken::Lost, Taken::Held);
            return Some((parked, taken));
        }
        if place.line.len() >= LINE {
            return Some((parked, Taken::Busy));
        }
        place.line.push_back(parked);
        None
    }

    /// Gives the worker back; returns the first of the line with it, if there is one.
    #[must_use]
    pub(crate) fn give_back(&self, worker: Box<Worker>) -> Option<Next> {
        let mut place = self.place();
        if !place.is_wanted
            && let Some(parked) = place.line.pop_front()
        {
            return Some((parked, worker));
        }
        place.worker = Some(worker);
        place.is_out = false;
        drop(place);
        self.idle.notify_all();
        None
    }

    /// Carries a call out on this thread, and waits for its turn: never on a loop. `send_on` gets who stands in line then.
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
            tracing::error!(target: "mayfly::server", "a health request has cost the storage program its state");
            self.replace_lost()
        };
        send_on(next);
        answer.map(|()| response.body)
    }

    /// Waits until the worker is idle, before anybody in line, and marks it as out; `None` if a call does not come to its end.
    fn await_turn(&self) -> Option<MutexGuard<'_, Place>> {
        let mut place = self.place();
        place.is_wanted = true;
        let most = place.config.call_time + PATIENCE;
        let (mut place, _) =
            self.idle.wait_timeout_while(place, most, |place| place.is_out).unwrap_or_else(PoisonError::into_inner);
        place.is_wanted = false;
        if place.is_out {
            return None;
        }
        place.is_out = true;
        Some(place)
    }

    /// Takes the worker as soon as it is idle, before anybody in line.
    fn await_worker(&self) -> Result<Box<Worker>, PeerError> {
        let mut place = self.await_turn().ok_or(PeerError::Busy)?;
        if let Some(worker) = place.worker.take() {
            return Ok(worker);
        }
        let snapshot = place.snapshot.clone();
        drop(place);
        Worker::fork_keeping_state(&snapshot).map(Box::new).map_err(|_| {
            self.place().is_out = false;
            PeerError::Failed
        })
    }

    /// Makes a new worker in the place of one that is lost, whose state is gone; for a background thread.
    #[must_use]
    pub(crate) fn replace_lost(&self) -> Option<Next> {
        let snapshot = self.place().snapshot.clone();
        match Worker::fork_keeping_state(&snapshot) {
            Ok(worker) => self.give_back(Box::new(worker)),
            Err(error) => {
                tracing::error!(target: "mayfly::server", %error, "no new worker for a storage program");
                self.place().is_out = false;
                None
            }
        }
    }

    /// Takes everybody out of the line.
    pub(crate) fn clear_line(&self) -> VecDeque<Parked> {
        std::mem::take(&mut self.place().line)
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        // Each change is one step, so the place is whole even if a thread panicked while it held the lock.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a call is to the storage program.
pub(crate) fn request<'a>(call: PeerCall<'a>) -> Request<'a> {
    Request { method: METHOD, path: call.name, query: b"", headers: &[], body: call.argument }
}

/// What its response is to the caller.
pub(crate) fn answer(response: &BufferedResponse) -> Result<(), PeerError> {
    match response.status {
        200 => Ok(()),
        404 => Err(PeerError::UnknownFunction),
        _ => Err(PeerError::Failed),
    }
}

/// What its failure is to the caller.
pub(crate) fn peer_error(error: &CallError) -> PeerError {
    match error {
        CallError::RequestTooLarge { .. } | CallError::Response(ResponseError::TooLarge { .. }) => PeerError::TooLarge,
        CallError::CpuLimit { .. } | CallError::WallLimit { .. } => PeerError::TimedOut,
        _ => PeerError::Failed,
    }
}

/// Makes a worker that has answered ready for the next call; it keeps its state. If that fails it shows in the worker's state.
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
