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

use mayfly_sandbox::{CallError, Elf, LogSink, Program, Snapshot, Worker, WorkerState};

use crate::config::StorageConfig;
use crate::overflow::Parked;
use crate::reload::ReloadError;
use crate::tenant::{self, Ground, Stamp};

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
    pub(crate) fn boot(config: &StorageConfig, ground: &Ground, log: Arc<dyn LogSink>) -> Result<Self, ReloadError> {
        let stamp = tenant::stamp(&config.program);
        let elf = read(config)?.elf;
        let (snapshot, worker) = boot(config, elf.clone(), ground, log)?;
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
        ground: &Ground,
        log: Arc<dyn LogSink>,
    ) -> Result<(), ReloadError> {
        let stamp = tenant::stamp(&config.program);
        let elf = read(config)?.elf;
        {
            let mut place = self.place();
            if place.config == *config && place.elf == elf {
                place.stamp = stamp;
                return Ok(());
            }
        }
        let (snapshot, mut worker) = boot(config, elf.clone(), ground, log)?;
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
        drop(old);
        Ok(())
    }

    /// Takes the worker out for a reload, whoever has it now, and says whether its state can go to one of `new`.
    fn take_for_reload(&self, new: &Snapshot) -> Result<(Option<Box<Worker>>, bool), ReloadError> {
        let mut place = self.place();
        place.is_wanted = true;
        let most = place.config.call_time + PATIENCE;
        let (mut place, _) =
            self.idle.wait_timeout_while(place, most, |place| place.is_out).unwrap_or_else(PoisonError::into_inner);
        place.is_wanted = false;
        if place.is_out {
            return Err(ReloadError::Boot("the storage program is busy and does not come to an end".to_owned()));
        }
        place.is_out = true;
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
        let now = tenant::stamp(&place.config.program);
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
    pub(crate) fn give_back(&self, worker: Box<Worker>) -> Option<(Parked, Box<Worker>)> {
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

    /// Makes a new worker in the place of one that is lost, whose state is gone; for a background thread.
    #[must_use]
    pub(crate) fn replace_lost(&self) -> Option<(Parked, Box<Worker>)> {
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

fn hand_over(old: &mut Worker, new: &mut Worker) -> Result<(), ReloadError> {
    let state = old.save().map_err(|error| handover_failed("save", &error))?;
    new.restore(&state).map_err(|error| handover_failed("restore", &error))
}

fn handover_failed(step: &str, error: &CallError) -> ReloadError {
    ReloadError::Boot(format!("the storage program's state was not handed over: {step}: {error}"))
}

fn read(config: &StorageConfig) -> Result<Program, ReloadError> {
    config.launch().map_err(|error| ReloadError::Program(format!("storage program: {error}")))
}

fn boot(
    config: &StorageConfig,
    elf: Elf,
    ground: &Ground,
    log: Arc<dyn LogSink>,
) -> Result<(Snapshot, Box<Worker>), ReloadError> {
    let program = Program { elf, ..read(config)? };
    let mut limits = config.limits.machine.clone();
    limits.wall_time = config.call_time;
    limits.cpu_time = limits.cpu_time.min(config.call_time);
    let failed = |error: String| ReloadError::Boot(format!("storage program: {error}"));
    let snapshot = Snapshot::boot(&ground.host, &program, &limits, log).map_err(|error| failed(error.to_string()))?;
    let worker = Worker::fork_keeping_state(&snapshot).map_err(|error| failed(error.to_string()))?;
    Ok((snapshot, Box::new(worker)))
}
