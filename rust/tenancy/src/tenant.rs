// SPDX-License-Identifier: MIT OR Apache-2.0
//! One tenant at run time: its generations, and what waits for them.
//!
//! ```text
//!   Unbooted ── first call ──> Booting ──> Ready(1) ── reload, upload ──> Ready(2) ── rollback ──> Ready(3): the snapshot of 1
//!                                 └──────> Failed, tried again by a call after a pause
//! ```

mod history;

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use mayfly_files::{Errands, Unfinished, waiting_for};
use mayfly_sandbox::{Account, BootError, BootedFrom, ForkError, Host, LogSink, Program, Snapshot};

use crate::background::Background;
use crate::berth::Berth;
use crate::config::{Mode, TenantConfig};
use crate::deferred::{Job, SHUTTING_DOWN};
use crate::descriptors;
use crate::failure::{Failure, RequestId};
use crate::generation::{Forked, Generation, Origin, Stamp, digest, stamp};
use crate::health;
use crate::launch::LaunchError;
use crate::memory::Memory;
use crate::meter::{Counters, Event, Totals};
use crate::places;
use crate::reload::ReloadError;
use crate::report::booted_from;
use crate::resources::{self, Seldom};
use crate::snapshots::{self, Snapshots};
use crate::storage::Store;
use crate::tenant_log::TenantLog;
use crate::uploads;
use crate::values::TenantName;
use crate::workers::{Permit, Workers};

pub(crate) use history::History;

/// Pause before a failed first boot is tried again; doubled with each failure, up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// What a program is taken to need to boot before it has.
const BOOT_BYTES: u64 = 4 << 20;
/// Pause after a boot that the process had no memory for.
const RETRY_MEMORY: Duration = Duration::from_secs(1);
/// How long a program may run at least before another one gets its memory.
const TIME_OF_ITS_OWN: Duration = Duration::from_secs(3);
/// For the client whose request would need one more worker.
const NO_MEMORY: &str = "the server has no memory left for a worker: \
    its bound (max_memory_mib, or the limit of its cgroup or machine) is reached";
/// How often whoever waits for a boot or a reload looks whether it is over, or hangs.
const HISTORY_TICK: Duration = Duration::from_millis(2);

/// A tenant, shared by all threads.
#[derive(Debug)]
pub(crate) struct Tenant {
    /// The number of the generation in `state`, 0 while there is none: what a loop compares on every request.
    generation: AtomicU64,
    /// Requests that have left their loop thread and are not answered yet.
    pub(crate) parked: AtomicU32,
    /// What those of them have taken that have begun.
    pub(crate) places: places::Taken,
    pub(crate) name: TenantName,
    pub(crate) log: Arc<TenantLog>,
    /// What its machines hold of the process's memory.
    pub(crate) account: Account,
    /// What its program will need to boot, in bytes, as far as is known.
    boot_bytes: AtomicU64,
    /// It has answered requests since the start.
    has_booted: AtomicBool,
    state: RwLock<State>,
    /// All that is done about its files: nobody else waits for them.
    pub(crate) errands: Errands,
    /// Those from which it can go on without a result: looks for its snapshot.
    loads: Errands,
    /// Held by whoever boots, reloads or rolls back, which is always on an errand.
    history: Mutex<History>,
    waiting: Mutex<Vec<Job>>,
    /// Where the loops that serve this tenant look for workers.
    berths: Mutex<Vec<Weak<Berth>>>,
    counters: Mutex<Vec<Arc<Counters>>>,
    /// What background threads did.
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

/// What booting and forking need besides the tenant.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) host: Host,
    pub(crate) workers: Workers,
    /// Where uploaded programs are kept.
    pub(crate) uploads: Option<PathBuf>,
    /// Snapshots of booted programs, if they are kept.
    pub(crate) snapshots: Option<Arc<Snapshots>>,
    pub(crate) memory: Arc<Memory>,
}

/// What a generation may come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A snapshot that an earlier server has saved, or else the program's file.
    Kept,
    /// The program's file, as it is now.
    File,
    /// An upload.
    Upload(Vec<u8>),
}

impl Tenant {
    pub(crate) fn new(config: Arc<TenantConfig>, state: State, account: Account) -> Self {
        let log = Arc::new(TenantLog::new(config.name.clone(), config.limits.log_bytes_per_second));
        Self {
            generation: AtomicU64::new(0),
            parked: AtomicU32::new(0),
            places: places::Taken::default(),
            name: config.name.clone(),
            log,
            account,
            boot_bytes: AtomicU64::new(BOOT_BYTES),
            has_booted: AtomicBool::new(false),
            state: RwLock::new(state),
            errands: Errands::default(),
            loads: Errands::default(),
            history: Mutex::new(History::new(config)),
            waiting: Mutex::default(),
            berths: Mutex::default(),
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

    fn set_state(&self, state: State) {
        let mut place = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let number = match &state {
            State::Ready(generation) => generation.number,
            State::Unbooted | State::Booting { .. } | State::Failed { .. } => 0,
        };
        *place = state;
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

    /// Takes the right to boot, if it is time for that and nobody has it: the caller then calls [`Self::boot`].
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

    /// Boots the program, which takes as long as it takes, up to its limit. For whoever has claimed the boot.
    pub(crate) fn boot(&self, ground: &Ground, background: &Background) {
        let holds = matches!(self.state(), State::Booting { holds: true });
        let bytes = self.boot_bytes.load(Ordering::Relaxed);
        let _turn = match ground.memory.boot_turn(bytes, holds) {
            Ok(turn) => turn,
            Err(reason) => return self.fail_for_memory(reason),
        };
        let mut history = match self.history() {
            Ok(history) => history,
            Err(error) => return self.fail(error.to_string(), Instant::now() + RETRY),
        };
        let refused = self.account.refused();
        match self.make(&mut history, ground, background, Source::Kept) {
            Ok(generation) => {
                let boot_ms = generation.snapshot.boot_time().as_millis();
                let from = booted_from(&generation.snapshot);
                let port = generation.snapshot.port();
                tracing::info!(target: "mayfly::server", tenant = %self.name, boot_ms, from, port, "tenant is ready");
                for advice in generation.config.advice() {
                    tracing::warn!(target: "mayfly::server", tenant = %self.name, "{advice}");
                }
                history.retry = RETRY;
                self.publish(&mut history, generation, ground);
            }
            // It came to need more than there was: the next time it waits for more.
            Err(error) if self.account.refused() != refused => {
                let most = history.config.limits.machine.boot_memory_bytes.max(BOOT_BYTES);
                self.boot_bytes.store(bytes.saturating_mul(2).min(most), Ordering::Relaxed);
                self.fail_for_memory(error.to_string());
            }
            Err(error) => {
                let retry_at = Instant::now() + history.retry;
                history.retry = (history.retry * 2).min(RETRY_MAX);
                self.fail(error.to_string(), retry_at);
            }
        }
    }

    /// Its boot has been left behind: no request waits for it any more. If it comes to an end, that is what counts.
    pub(crate) fn leave_boot(&self, hang: &Unfinished) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Booting { .. }) {
            *state = State::Booting { holds: false };
            drop(state);
            tracing::error!(target: "mayfly::server", tenant = %self.name, reason = %hang, "tenant cannot answer requests yet");
        }
    }

    /// Keeps the tenant with the reason why it cannot answer.
    pub(crate) fn fail(&self, reason: String, retry_at: Instant) {
        tracing::error!(target: "mayfly::server", tenant = %self.name, reason, "tenant cannot answer requests");
        self.set_state(State::Failed { reason, retry_at });
    }

    /// Keeps the tenant waiting for memory. Many may, again and again.
    fn fail_for_memory(&self, reason: String) {
        static TOLD: Seldom = Seldom::new();
        if TOLD.is_due() {
            tracing::warn!(target: "mayfly::server", tenant = %self.name, reason, "tenant cannot boot now");
        }
        self.set_state(State::Failed { reason, retry_at: Instant::now() + RETRY_MEMORY });
    }

    /// Keeps the tenant from booting by itself again.
    pub(crate) fn fail_for_ever(&self, reason: &str) {
        // Some years are as good as for ever, and cannot overflow.
        self.fail(reason.to_owned(), Instant::now() + Duration::from_secs(1 << 30));
    }

    /// Boots and checks a generation, without letting it answer.
    pub(crate) fn make(
        &self,
        history: &mut History,
        ground: &Ground,
        background: &Background,
        source: Source,
    ) -> Result<Generation, ReloadError> {
        let made = self.make_unwatched(history, ground, background, source);
        if let Err(ReloadError::Violation(what)) = &made {
            self.log.violation(RequestId::NONE, what);
        }
        made
    }

    fn make_unwatched(
        &self,
        history: &mut History,
        ground: &Ground,
        background: &Background,
        source: Source,
    ) -> Result<Generation, ReloadError> {
        let few = |error| ReloadError::Boot(resources::with_advice(&error));
        descriptors::for_program().map_err(few)?;
        let config = Arc::clone(&history.config);
        let ground = &Ground { host: ground.host.on_account(&self.account), ..ground.clone() };
        let (uploaded, may_be_kept) = match source {
            Source::Kept => (None, true),
            Source::File => (None, false),
            Source::Upload(elf) => (Some(elf), false),
        };
        // Before anything is read: what changes meanwhile looks changed the next time.
        let watched = config.watched_files().digest();
        let (mut program, stamp) = self.launch(&config, ground, uploaded)?;
        let origin = Origin { stamp, digest: digest(&program.elf), watched };
        program.shared = history.shared_memory(&config)?;
        if background.is_ending() {
            // It may have waited for its files for hours.
            return Err(ReloadError::Ending);
        }
        let store = history.store(&config, self, ground, background)?;
        let check = |snapshot: &Snapshot| self.check_health(snapshot, &config, store.as_deref(), background);
        let kept = if may_be_kept { self.load(&config, &program, ground, check) } else { None };
        let snapshot = match kept {
            Some(snapshot) => snapshot,
            None => {
                let sink = Arc::clone(&self.log) as Arc<dyn LogSink>;
                let booted = Snapshot::boot(&ground.host, &program, &config.limits.machine, sink);
                self.log.end_partial_lines();
                let snapshot = booted.map_err(|error| match error {
                    BootError::Violation(_) => ReloadError::Violation(error.to_string()),
                    error => ReloadError::Boot(resources::with_advice(&error)),
                })?;
                self.background.count_connects(snapshot.connects());
                check(&snapshot)?;
                snapshot
            }
        };
        // What it was made from, for the name of its file; without snapshots nobody will ask.
        let file = ground.snapshots.as_ref().filter(|_| program.shared.is_none());
        let file = file.map(|kept| {
            snapshots::path(&kept.directory, &config.name, Snapshot::inputs_digest(&program, &config.limits.machine))
        });
        if file.is_none() || snapshot.booted_from() == BootedFrom::File {
            snapshot.keep_unsaved();
        }
        history.last_number += 1;
        self.boot_bytes.store(snapshot.image_bytes().max(BOOT_BYTES), Ordering::Relaxed);
        Ok(Generation { file, ..Generation::new(history.last_number, snapshot, config, store, origin) })
    }

    /// A snapshot that was saved, if it is good and healthy.
    fn load(
        &self,
        config: &TenantConfig,
        program: &Program,
        ground: &Ground,
        check: impl Fn(&Snapshot) -> Result<(), ReloadError>,
    ) -> Option<Snapshot> {
        let directory = &ground.snapshots.as_ref().filter(|_| program.shared.is_none())?.directory;
        let sink = Arc::clone(&self.log) as Arc<dyn LogSink>;
        let snapshot = snapshots::load(directory, config, program, ground, sink, &self.loads)?;
        match check(&snapshot) {
            Ok(()) => Some(snapshot),
            Err(reason) => {
                tracing::warn!(target: "mayfly::server", tenant = %self.name, %reason, "the tenant's snapshot is not used: its program boots");
                None
            }
        }
    }

    fn check_health(
        &self,
        snapshot: &Snapshot,
        config: &TenantConfig,
        store: Option<&Store>,
        background: &Background,
    ) -> Result<(), ReloadError> {
        let Some(health) = &config.health else { return Ok(()) };
        let checked = health::check(snapshot, config, health, store, &|next| background.send_on(next));
        self.log.end_partial_lines();
        checked
    }

    /// Where the program is that a boot now would take: the uploaded one, if there is one.
    fn program_path(&self, config: &TenantConfig, ground: &Ground) -> PathBuf {
        let uploaded = ground.uploads.as_ref().map(|uploads| uploads::path(uploads, &self.name));
        uploaded.filter(|path| waiting_for(path, || path.exists())).unwrap_or_else(|| config.program.clone())
    }

    /// The program to boot, and its file's stamp; an upload has no file yet.
    fn launch(
        &self,
        config: &TenantConfig,
        ground: &Ground,
        uploaded: Option<Vec<u8>>,
    ) -> Result<(Program, Option<Stamp>), ReloadError> {
        let refused = |error: LaunchError| match error {
            LaunchError::Program(error) => ReloadError::Program(resources::with_advice(&error)),
            LaunchError::Mount(error) => ReloadError::Boot(resources::with_advice(&error)),
        };
        if let Some(elf) = uploaded {
            return Ok((config.launch_upload(elf.into()).map_err(refused)?, None));
        }
        let path = self.program_path(config, ground);
        // Before the content: a file that changes while it is read looks changed the next time.
        let stamp = stamp(&path).ok();
        let program = if path == config.program {
            config.launch()
        } else {
            Program::load(&path).map_err(LaunchError::from).and_then(|program| config.launch_upload(program.elf))
        };
        Ok((program.map_err(refused)?, stamp))
    }

    /// Whether the files hold other programs than those that answer, or watched files have changed.
    pub(crate) fn has_changed(&self, ground: &Ground) -> Result<bool, ReloadError> {
        let Some(generation) = self.ready() else { return Ok(matches!(self.state(), State::Failed { .. })) };
        let config = Arc::clone(&self.history()?.config);
        if generation.store.as_ref().is_some_and(|store| store.has_changed()) {
            return Ok(true);
        }
        if config.watched_files().digest() != generation.origin.watched {
            return Ok(true);
        }
        let path = self.program_path(&config, ground);
        let now = match stamp(&path) {
            // A file that is not there is perhaps about to be replaced; what runs keeps running.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            now => now.ok(),
        };
        if now.is_some() && now == generation.origin.stamp {
            return Ok(false);
        }
        // One that is there and cannot be read is news: a reload says why.
        Ok(Program::load(&path).map_or(true, |program| digest(&program.elf) != generation.origin.digest))
    }

    /// Lets a generation answer from now on: every loop's next worker lies ready before the first of them looks.
    pub(crate) fn publish(&self, history: &mut History, generation: Generation, ground: &Ground) {
        let generation = Arc::new(generation);
        let former = self.ready();
        for berth in self.live_berths() {
            if let Ok(forked) = self.fork_of(&generation, ground.workers.permit()) {
                berth.put(forked);
            }
        }
        self.has_booted.store(true, Ordering::Relaxed);
        self.set_state(State::Ready(Arc::clone(&generation)));
        if let Some(snapshots) = &ground.snapshots {
            snapshots.offer(&generation);
        }
        for berth in self.live_berths() {
            // Live state is handed over by the loops, one by one; what has none to hand over goes now.
            if !generation.succeeds(former.as_deref()) {
                berth.drop_before(generation.number);
            }
        }
        if former.is_some() {
            history.previous = former;
        }
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
            previous.origin,
        );
        Some(Generation { is_rolled_back: true, ..generation })
    }

    /// Forks a worker: hundreds of microseconds, never on a loop thread. Without a permit it is not kept after its
    /// request.
    ///
    /// # Errors
    ///
    /// The reason why there is none, in words for the client.
    pub(crate) fn fork(&self, permit: Option<Permit>) -> Result<Forked, NoFork> {
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
        static TOLD: Seldom = Seldom::new();
        if TOLD.is_due() {
            let advice = resources::advice(&*error);
            tracing::error!(target: "mayfly::server", tenant = %self.name, %error, advice, "a worker could not be forked");
        }
        self.background.count(Event::ForkFailure);
        Err(NoFork::unavailable("no worker could be forked".to_owned()))
    }

    fn fork_of(&self, generation: &Arc<Generation>, permit: Option<Permit>) -> Result<Forked, ForkError> {
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

    /// Stops the program so that others get its memory, if nothing is lost by that: it boots again when it is called.
    /// `uncalled`: the tenant was not called of late. Waits for nothing.
    pub(crate) fn make_room(&self, uncalled: bool) -> bool {
        let Ok(history) = self.history.try_lock() else { return false };
        let Some(generation) = self.ready() else { return false };
        let keeps_state = generation.config.mode != Mode::Ephemeral || generation.store.is_some();
        // One that was rolled back would boot as what it was rolled back from.
        if keeps_state || generation.is_rolled_back || !(uncalled || generation.made_at.elapsed() >= TIME_OF_ITS_OWN) {
            return false;
        }
        self.set_state(State::Unbooted);
        drop(history);
        let number = generation.number.saturating_add(1);
        drop(generation);
        self.live_berths().iter().for_each(|berth| berth.drop_before(number));
        true
    }

    /// Closes workers that lie ready for loops and keep no state, so many at most; returns how many.
    pub(crate) fn close_spares(&self, most: usize) -> usize {
        let berths = self.live_berths();
        berths.iter().flat_map(|berth| std::iter::from_fn(|| berth.take_spare())).take(most).count()
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

    /// Keeps a request until the boot has ended, or gives it back if none goes on.
    pub(crate) fn wait_for_boot(&self, job: Job) -> Option<Job> {
        let mut waiting = self.waiting();
        // Looked at under the lock: whoever ends the boot takes the list after it has set the state.
        if matches!(self.state(), State::Booting { holds: true }) {
            waiting.push(job);
            None
        } else {
            Some(job)
        }
    }

    pub(crate) fn take_waiting(&self) -> Vec<Job> {
        std::mem::take(&mut *self.waiting())
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Job>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a boot that failed may be tried again.
    pub(crate) fn is_boot_due(&self) -> bool {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Failed { retry_at, .. } => Instant::now() >= *retry_at,
            _ => false,
        }
    }

    /// Answers what still waits, when the background threads have ended.
    pub(crate) fn shutdown(&self) {
        for job in self.take_waiting() {
            job.refuse(Failure::Unavailable, SHUTTING_DOWN);
        }
        if let Some(store) = self.ready().and_then(|generation| generation.store.clone()) {
            for parked in store.clear_line() {
                parked.refuse(Failure::Unavailable, SHUTTING_DOWN);
            }
        }
    }

    /// A berth for a loop that begins to serve this tenant.
    pub(crate) fn new_berth(&self) -> Arc<Berth> {
        let berth = Arc::new(Berth::default());
        let mut berths = self.berths.lock().unwrap_or_else(PoisonError::into_inner);
        berths.retain(|berth| berth.strong_count() > 0);
        berths.push(Arc::downgrade(&berth));
        berth
    }

    fn live_berths(&self) -> Vec<Arc<Berth>> {
        self.berths.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
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
