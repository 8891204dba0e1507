// SPDX-License-Identifier: MIT OR Apache-2.0
//! One tenant at run time: its state, its generations, and the mailboxes of its workers.
//!
//! ```text
//!   Unbooted ── first request ──> Booting ──> Ready(1) ── reload, upload ──> Ready(2) ── rollback ──> Ready(3)
//!                                    └──────> Failed, retried by a request after a pause
//! ```
//!
//! Here, generation 3 runs the snapshot of generation 1.

mod history;

use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use mayfly_files::{Errands, Unfinished};
use mayfly_sandbox::{Account, ForkError};

use crate::config::values::TenantName;
use crate::config::{Mode, TenantConfig};
use crate::host::descriptors;
use crate::host::resources::{self, OncePerSecond};
use crate::host::workers::WorkerPermit;
use crate::model::background_budget::BackgroundBudget;
use crate::model::failure::Failure;
use crate::model::fixed_workers::FixedWorkers;
use crate::model::generation::{Forked, Generation};
use crate::model::meter::{Counters, Event, Totals};
use crate::model::outcome::ReloadError;
use crate::model::permits::PermitsInUse;
use crate::model::tenant_log::TenantLog;
use crate::model::worker_mailbox::{TellDue, WorkerMailbox};

pub(crate) use history::History;

/// Bytes that a program is assumed to need for its first boot.
pub(crate) const BOOT_BYTES: u64 = 4 << 20;
/// Pause after a boot for which the process had too little memory.
const RETRY_MEMORY: Duration = Duration::from_secs(1);
/// Shortest time that a program runs before it may be stopped to free memory for another one.
const MIN_RUN_TIME: Duration = Duration::from_secs(3);
/// Reason given to a client whose request needs one more worker.
const NO_MEMORY: &str = "the server has no memory left for a worker: \
    its bound (max_memory_mib, or the limit of its cgroup or machine) is reached";
/// How often a thread that waits for a boot or a reload checks whether it has finished or hangs.
const HISTORY_TICK: Duration = Duration::from_millis(2);

/// A tenant, shared by all threads.
pub(crate) struct Tenant {
    /// The number of the generation in `state`, or 0 if there is none. Loops compare it on every request.
    generation: AtomicU64,
    /// Requests that have left their loop thread and are not answered yet.
    pub(crate) parked: AtomicU32,
    /// Permits of those parked requests that have begun.
    pub(crate) permits: Arc<PermitsInUse>,
    pub(crate) name: TenantName,
    pub(crate) log: Arc<TenantLog>,
    /// The share of the process's memory that its machines hold.
    pub(crate) account: Account,
    /// Bytes that its program is expected to need to boot.
    pub(crate) boot_bytes: AtomicU64,
    /// It has served since the server started.
    pub(crate) has_booted: AtomicBool,
    state: RwLock<State>,
    /// All work on its files. Only the errands' own threads wait for file systems.
    pub(crate) errands: Errands,
    /// Errands whose result the tenant can do without: those that look for its snapshot.
    pub(crate) loads: Errands,
    /// Locked by the errand that boots, reloads or rolls back the program.
    history: Mutex<History>,
    /// The mailboxes in which the loops that serve this tenant look for workers.
    mailboxes: Mutex<Vec<Weak<WorkerMailbox>>>,
    /// Its workers, if it has a fixed number of them.
    pub(crate) fixed: Arc<FixedWorkers>,
    counters: Mutex<Vec<Arc<Counters>>>,
    /// The counters of background threads.
    pub(crate) background: Counters,
    /// What its programs may use between requests.
    pub(crate) background_budget: BackgroundBudget,
    /// Has workers that are missing forked, and requests served that wait in vain, soon, on another thread.
    tell_due: TellDue,
    pub(crate) reloads: AtomicU64,
    pub(crate) reload_failures: AtomicU64,
}

/// A tenant's place in its life cycle.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// It boots at its first request.
    Unbooted,
    /// Whether requests wait for the boot to finish; otherwise they are refused.
    Booting {
        holds: bool,
    },
    Failed {
        reason: String,
        retry_at: Instant,
    },
    Ready(Arc<Generation>),
}

impl std::fmt::Debug for Tenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenant").field("name", &self.name).field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Tenant {
    /// `tell_due` has [`FixedWorkers::next_due`] and [`WorkerMailbox::take_left`] called soon, on another thread.
    pub(crate) fn new(
        config: Arc<TenantConfig>,
        state: State,
        account: Account,
        tell_due: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let tell_due: TellDue = Arc::new(tell_due);
        let fixed_due = Arc::clone(&tell_due);
        let log = Arc::new(TenantLog::new(config.name.clone(), config.limits.log_bytes_per_second));
        Self {
            generation: AtomicU64::new(0),
            parked: AtomicU32::new(0),
            permits: Arc::default(),
            name: config.name.clone(),
            log,
            account,
            boot_bytes: AtomicU64::new(BOOT_BYTES),
            has_booted: AtomicBool::new(false),
            state: RwLock::new(state),
            errands: Errands::default(),
            loads: Errands::default(),
            history: Mutex::new(History::new(config)),
            mailboxes: Mutex::default(),
            fixed: FixedWorkers::new(move || fixed_due()),
            counters: Mutex::default(),
            background: Counters::shared(),
            background_budget: BackgroundBudget::default(),
            tell_due,
            reloads: AtomicU64::new(0),
            reload_failures: AtomicU64::new(0),
        }
    }

    /// The number of the generation that currently serves requests; 0 means none.
    pub(crate) fn generation(&self) -> u64 {
        // Only the number is compared; the snapshot behind it is read under the lock.
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The generation that currently serves requests.
    pub(crate) fn ready(&self) -> Option<Arc<Generation>> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Ready(generation) => Some(Arc::clone(generation)),
            _ => None,
        }
    }

    pub(crate) fn set_state(&self, state: State) {
        let mut current = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let number = match &state {
            State::Ready(generation) => generation.number,
            State::Unbooted | State::Booting { .. } | State::Failed { .. } => 0,
        };
        *current = state;
        self.generation.store(number, Ordering::Release);
    }

    /// Locks the tenant's history, for its errands. Waits while the tenant boots or reloads, unless that hangs on its
    /// files.
    pub(crate) fn history(&self) -> Result<MutexGuard<'_, History>, ReloadError> {
        loop {
            match self.history.try_lock() {
                Ok(history) => return Ok(history),
                // Each change to the history is one step, so it is whole even if a thread panicked while it held the
                // lock.
                Err(TryLockError::Poisoned(history)) => return Ok(history.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
            if let Some(hang) = self.errands.hang() {
                return Err(ReloadError::Held(hang.to_string()));
            }
            thread::sleep(HISTORY_TICK);
        }
    }

    /// Claims the boot, if one is due and none is in progress. A caller that gets `true` must have the tenant booted.
    pub(crate) fn claim_boot(&self, holds: bool) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let due = match &*state {
            State::Unbooted => true,
            State::Failed { retry_at, .. } => Instant::now() >= *retry_at,
            State::Booting { .. } | State::Ready(_) => false,
        };
        if due {
            *state = State::Booting { holds };
        }
        due
    }

    /// Gives up waiting for a boot that hangs: requests no longer wait for it. If it finishes later, its result counts.
    pub(crate) fn leave_boot(&self, hang: &Unfinished) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Booting { .. }) {
            *state = State::Booting { holds: false };
            drop(state);
            tracing::error!(target: "mayfly::server", tenant = %self.name, reason = %hang, "tenant cannot answer requests yet");
        }
    }

    /// Marks the tenant as failed, with the reason for its clients.
    pub(crate) fn fail(&self, reason: String, retry_at: Instant) {
        tracing::error!(target: "mayfly::server", tenant = %self.name, reason, "tenant cannot answer requests");
        self.set_state(State::Failed { reason, retry_at });
    }

    /// Marks the tenant as waiting for memory. Many tenants may do so repeatedly, so logging is rate-limited.
    pub(crate) fn fail_for_memory(&self, reason: String) {
        static LOGGED: OncePerSecond = OncePerSecond::new();
        if LOGGED.is_due() {
            tracing::warn!(target: "mayfly::server", tenant = %self.name, reason, "tenant cannot boot yet");
        }
        self.set_state(State::Failed { reason, retry_at: Instant::now() + RETRY_MEMORY });
    }

    /// Marks the tenant as failed, without automatic retries.
    pub(crate) fn fail_for_ever(&self, reason: &str) {
        // About 34 years, which cannot overflow.
        self.fail(reason.to_owned(), Instant::now() + Duration::from_secs(1 << 30));
    }

    /// The generation before the current one, under a new number.
    pub(crate) fn predecessor(&self, history: &mut History) -> Option<Generation> {
        let previous = history.previous.clone()?;
        history.last_number += 1;
        let generation = Generation::new(
            history.last_number,
            previous.snapshot.clone(),
            Arc::clone(&previous.config),
            previous.store.clone(),
            previous.identity,
        );
        Some(Generation { is_rolled_back: true, ..generation })
    }

    /// Forks a worker. This takes hundreds of microseconds, so never on a loop thread. Without a permit the worker is
    /// not kept after its request.
    ///
    /// # Errors
    ///
    /// Why no worker could be forked, with a reason for the client.
    pub(crate) fn fork(&self, permit: Option<WorkerPermit>) -> Result<Forked, NoFork> {
        let generation = self.ready().ok_or_else(|| NoFork::unavailable(self.excuse()))?;
        let error: Box<dyn Error> = match descriptors::for_program() {
            Err(few) => few.into(),
            Ok(()) => match self.fork_of(&generation, permit) {
                Ok(forked) => return Ok(forked),
                Err(error) if error.is_full() => {
                    return Err(NoFork { failure: Failure::ServerMemory, reason: NO_MEMORY.to_owned() });
                }
                Err(error) => error.into(),
            },
        };
        // A fork that fails once may fail for every request, so logging is rate-limited.
        static LOGGED: OncePerSecond = OncePerSecond::new();
        if LOGGED.is_due() {
            let advice = resources::advice(&*error);
            tracing::error!(target: "mayfly::server", tenant = %self.name, %error, advice, "cannot fork a worker");
        }
        self.background.count(Event::ForkFailure);
        Err(NoFork::unavailable("no worker could be forked".to_owned()))
    }

    pub(crate) fn fork_of(
        &self,
        generation: &Arc<Generation>,
        permit: Option<WorkerPermit>,
    ) -> Result<Forked, ForkError> {
        let worker = generation.fork()?;
        self.background.count(Event::Fork);
        Ok(Forked {
            worker: Box::new(worker),
            generation: Arc::clone(generation),
            number: generation.number,
            slice: generation.config.limits.inline_budget,
            permit,
            legs: generation.runs_between_requests().then(Box::default),
            slot: None,
        })
    }

    /// Stops the program to free its memory for others, unless state would be lost. It boots again at its next request.
    /// `is_idle` means that the tenant had no requests recently. Never waits.
    pub(crate) fn make_room(&self, is_idle: bool) -> bool {
        let Ok(history) = self.history.try_lock() else { return false };
        let Some(generation) = self.ready() else { return false };
        let keeps_state = generation.config.mode != Mode::Ephemeral || generation.store.is_some();
        // After a rollback, a boot would start the program that was rolled back from.
        if keeps_state || generation.is_rolled_back || !(is_idle || generation.made_at.elapsed() >= MIN_RUN_TIME) {
            return false;
        }
        self.set_state(State::Unbooted);
        drop(history);
        let number = generation.number.saturating_add(1);
        drop(generation);
        self.live_mailboxes().iter().for_each(|mailbox| mailbox.drop_before(number));
        true
    }

    /// Closes up to `most` workers that wait in mailboxes and keep no state; returns how many it closed.
    pub(crate) fn close_spares(&self, most: usize) -> usize {
        let mailboxes = self.live_mailboxes();
        mailboxes.iter().flat_map(|mailbox| std::iter::from_fn(|| mailbox.take_spare())).take(most).count()
    }

    /// Whether the tenant has not served since the server started.
    pub(crate) fn is_new(&self) -> bool {
        !self.has_booted.load(Ordering::Relaxed)
    }

    /// Why there is no generation, as a reason for the client.
    pub(crate) fn excuse(&self) -> String {
        match self.state() {
            State::Failed { reason, .. } => format!("the tenant cannot run: {reason}"),
            // It may have become ready since the caller checked; the client retries after a second.
            State::Unbooted | State::Booting { .. } | State::Ready(_) => match self.errands.hang() {
                Some(hang) => format!("the tenant cannot run yet: {hang}"),
                None => "the tenant is still booting".to_owned(),
            },
        }
    }

    /// Whether a boot that failed may be tried again.
    pub(crate) fn is_boot_due(&self) -> bool {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Failed { retry_at, .. } => Instant::now() >= *retry_at,
            _ => false,
        }
    }

    /// Makes a mailbox for a loop that begins to serve this tenant.
    pub(crate) fn new_mailbox(&self) -> Arc<WorkerMailbox> {
        let mailbox = Arc::new(WorkerMailbox::new(Arc::clone(&self.tell_due)));
        let mut mailboxes = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
        mailboxes.retain(|mailbox| mailbox.strong_count() > 0);
        mailboxes.push(Arc::downgrade(&mailbox));
        mailbox
    }

    pub(crate) fn live_mailboxes(&self) -> Vec<Arc<WorkerMailbox>> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
    }

    /// Makes counters for a loop that begins to serve this tenant. They stay in the totals when the loop is gone.
    pub(crate) fn new_counters(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&counters));
        counters
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        totals += &self.background;
        for counters in self.counters.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            totals += counters;
        }
        totals
    }
}

/// Why no worker could be forked, for the client.
#[derive(Debug)]
pub(crate) struct NoFork {
    pub(crate) failure: Failure,
    pub(crate) reason: String,
}

impl NoFork {
    pub(crate) fn unavailable(reason: String) -> Self {
        Self { failure: Failure::Unavailable, reason }
    }
}
