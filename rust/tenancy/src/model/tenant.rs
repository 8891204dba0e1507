// SPDX-License-Identifier: MIT OR Apache-2.0
//! One tenant at run time: its state, its generations, and where its workers are.
//!
//! ```text
//!   Unbooted ── first call ──> Booting ──> Ready(1) ── reload, upload ──> Ready(2) ── rollback ──> Ready(3): the snapshot of 1
//!                                 └──────> Failed, tried again by a call after a pause
//! ```

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
use crate::host::resources::{self, Seldom};
use crate::host::workers::WorkerPermit;
use crate::model::failure::Failure;
use crate::model::generation::{Forked, Generation};
use crate::model::meter::{Counters, Event, Totals};
use crate::model::outcome::ReloadError;
use crate::model::permits::PermitsInUse;
use crate::model::tenant_log::TenantLog;
use crate::model::worker_mailbox::WorkerMailbox;

pub(crate) use history::History;

/// Bytes that a program is taken to need to boot, before it has booted once.
pub(crate) const BOOT_BYTES: u64 = 4 << 20;
/// Pause after a boot that the process had no memory for.
const RETRY_MEMORY: Duration = Duration::from_secs(1);
/// How long a program may run at least before another one gets its memory.
const TIME_OF_ITS_OWN: Duration = Duration::from_secs(3);
/// For the client whose request would need one more worker.
const NO_MEMORY: &str = "the server has no memory left for a worker: \
    its bound (max_memory_mib, or the limit of its cgroup or machine) is reached";
/// How often a thread that waits for a boot or a reload looks whether that is over, or hangs.
const HISTORY_TICK: Duration = Duration::from_millis(2);

/// A tenant, shared by all threads.
#[derive(Debug)]
pub(crate) struct Tenant {
    /// The number of the generation in `state`, 0 while there is none: what a loop compares on every request.
    generation: AtomicU64,
    /// Requests that have left their loop thread and are not answered yet.
    pub(crate) parked: AtomicU32,
    /// Permits of those of them that have begun.
    pub(crate) permits: Arc<PermitsInUse>,
    pub(crate) name: TenantName,
    pub(crate) log: Arc<TenantLog>,
    /// What its machines hold of the process's memory.
    pub(crate) account: Account,
    /// Bytes that its program will need to boot, as far as is known.
    pub(crate) boot_bytes: AtomicU64,
    /// It has answered requests since the start.
    pub(crate) has_booted: AtomicBool,
    state: RwLock<State>,
    /// All that is done about its files: no thread but the errands' own waits for them.
    pub(crate) errands: Errands,
    /// Errands without whose result the tenant can go on: those that look for its snapshot.
    pub(crate) loads: Errands,
    /// Locked by the errand that boots, reloads or rolls back.
    history: Mutex<History>,
    /// Where the loops that serve this tenant look for workers.
    mailboxes: Mutex<Vec<Weak<WorkerMailbox>>>,
    counters: Mutex<Vec<Arc<Counters>>>,
    /// What background threads count.
    pub(crate) background: Counters,
    pub(crate) reloads: AtomicU64,
    pub(crate) reload_failures: AtomicU64,
}

/// Where a tenant is in its life.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// It boots when it is first called.
    Unbooted,
    /// Whether requests wait for the boot to end; otherwise they are refused.
    Booting {
        holds: bool,
    },
    Failed {
        reason: String,
        retry_at: Instant,
    },
    Ready(Arc<Generation>),
}

impl Tenant {
    pub(crate) fn new(config: Arc<TenantConfig>, state: State, account: Account) -> Self {
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
            counters: Mutex::default(),
            background: Counters::shared(),
            reloads: AtomicU64::new(0),
            reload_failures: AtomicU64::new(0),
        }
    }

    /// The number of the generation that answers requests now; 0 means none.
    pub(crate) fn generation(&self) -> u64 {
        // Only the number is compared; the snapshot behind it is read under the lock.
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The generation that answers requests now.
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

    /// What the tenant is to run, and how; waits while it boots or reloads, unless its files hold that up. For its
    /// errands.
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

    /// Takes the right to boot, if a boot is due and none goes on: the caller then has the tenant booted.
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

    /// Leaves a boot behind that hangs: no request waits for it any more. If it ends after all, its result counts.
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

    /// Has the tenant wait for memory. Many tenants may wait, again and again: the log gets a line now and then.
    pub(crate) fn fail_for_memory(&self, reason: String) {
        static LOGGED: Seldom = Seldom::new();
        if LOGGED.is_due() {
            tracing::warn!(target: "mayfly::server", tenant = %self.name, reason, "tenant cannot boot now");
        }
        self.set_state(State::Failed { reason, retry_at: Instant::now() + RETRY_MEMORY });
    }

    /// Marks the tenant as failed, and keeps it from booting by itself again.
    pub(crate) fn fail_for_ever(&self, reason: &str) {
        // Some decades, which cannot overflow.
        self.fail(reason.to_owned(), Instant::now() + Duration::from_secs(1 << 30));
    }

    /// The generation before the one that answers, under a new number.
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

    /// Forks a worker: hundreds of microseconds, never on a loop thread. Without a permit it is not kept after its
    /// request.
    ///
    /// # Errors
    ///
    /// The reason why there is none, in words for the client.
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
        // Where it fails once it may fail for every request.
        static LOGGED: Seldom = Seldom::new();
        if LOGGED.is_due() {
            let advice = resources::advice(&*error);
            tracing::error!(target: "mayfly::server", tenant = %self.name, %error, advice, "a worker could not be forked");
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
        })
    }

    /// Stops the program so that others get its memory, unless state would be lost: it boots again when it is called.
    /// `uncalled`: the tenant was not called of late. Waits for nothing.
    pub(crate) fn make_room(&self, uncalled: bool) -> bool {
        let Ok(history) = self.history.try_lock() else { return false };
        let Some(generation) = self.ready() else { return false };
        let keeps_state = generation.config.mode != Mode::Ephemeral || generation.store.is_some();
        // A program that was rolled back would boot as the one it was rolled back from.
        if keeps_state || generation.is_rolled_back || !(uncalled || generation.made_at.elapsed() >= TIME_OF_ITS_OWN) {
            return false;
        }
        self.set_state(State::Unbooted);
        drop(history);
        let number = generation.number.saturating_add(1);
        drop(generation);
        self.live_mailboxes().iter().for_each(|mailbox| mailbox.drop_before(number));
        true
    }

    /// Closes at most so many workers that wait in mailboxes and keep no state; returns how many.
    pub(crate) fn close_spares(&self, most: usize) -> usize {
        let mailboxes = self.live_mailboxes();
        mailboxes.iter().flat_map(|mailbox| std::iter::from_fn(|| mailbox.take_spare())).take(most).count()
    }

    /// Whether the tenant is to boot at start and has not yet.
    pub(crate) fn is_new(&self) -> bool {
        !self.has_booted.load(Ordering::Relaxed)
    }

    /// Why there is no generation, in words for the client.
    pub(crate) fn excuse(&self) -> String {
        match self.state() {
            State::Failed { reason, .. } => format!("the tenant cannot run: {reason}"),
            // It may have become ready since the caller looked; the client comes again in a second.
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

    /// A mailbox for a loop that begins to serve this tenant.
    pub(crate) fn new_mailbox(&self) -> Arc<WorkerMailbox> {
        let mailbox = Arc::new(WorkerMailbox::default());
        let mut mailboxes = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
        mailboxes.retain(|mailbox| mailbox.strong_count() > 0);
        mailboxes.push(Arc::downgrade(&mailbox));
        mailbox
    }

    pub(crate) fn live_mailboxes(&self) -> Vec<Arc<WorkerMailbox>> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
    }

    /// Counters for a loop that begins to serve this tenant; they stay counted when the loop is gone.
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

/// Why there is no worker, for the client.
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
