// SPDX-License-Identifier: MIT OR Apache-2.0
//! All tenants of a process: start, shutdown, reports, and what loops share.

mod changes;
mod engines;
mod tenant_set;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use mayfly_sandbox::Hosts;

use crate::config::{Config, TenantConfig};
use crate::host::affinity;
use crate::host::descriptors::{self, TooLow};
use crate::host::resources;
use crate::host::workers::Workers;
use crate::life::boots::Boots;
use crate::life::env::BootEnv;
use crate::life::eviction::LastRequests;
use crate::life::snapshots::Snapshots;
use crate::memory::{Memory, Relief};
use crate::model::tenant::{State, Tenant};
use crate::report::{Readiness, Report, TenantReport};
use crate::schedule::background::Background;
use crate::schedule::orders::Orders;

pub(crate) use tenant_set::TenantSet;

/// How long [`Server::start`] waits for tenants to boot. A slower tenant answers 503 until it is ready.
const START_WAIT: Duration = Duration::from_secs(3);
/// If the allowed idle time is below this, spare workers in mailboxes are closed, too.
const IDLE_SPARES: Duration = Duration::from_secs(2);
/// Spare workers closed at a time: closing one may take milliseconds.
const SPARES: usize = 32;

/// The tenants of a process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    hosts: Arc<Hosts>,
    /// A number that changes with `set`, and when loops are to close idle workers. Loops compare it on every request.
    news: AtomicU64,
    /// Idle time in nanoseconds after which a loop closes a worker.
    idle_ns: AtomicU64,
    memory: Arc<Memory>,
    /// Wakers of idle loops, by their pools' numbers.
    wakers: Mutex<HashMap<u64, Box<dyn Fn() + Send>>>,
    set: RwLock<Arc<TenantSet>>,
    background: Arc<Background>,
    boots: Arc<Boots>,
    workers: Workers,
    /// Held while the set of tenants changes.
    applying: Mutex<()>,
    /// It has been told to shut down.
    is_ending: AtomicBool,
    pools: AtomicUsize,
    pools_made: AtomicU64,
    /// When each tenant had how many requests, as the memory thread saw it.
    last_requests: Mutex<LastRequests>,
    unrouted: Mutex<Vec<Arc<AtomicU64>>>,
    id_seed: u64,
}

/// Why a server could not start. A failed tenant or an unusable engine does not prevent a start: see [`Server::report`].
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system could not create a thread.
    #[error("cannot start a background thread: {}", resources::with_advice(.0))]
    Thread(#[from] io::Error),
    /// A limit of the process is too low.
    #[error(transparent)]
    TooLow(#[from] TooLow),
}

impl Server {
    /// Opens the engines that the tenants need, and boots the tenants that are to boot at start, a few in parallel.
    ///
    /// Returns when all of these have booted or failed, or after three seconds. A tenant that takes longer answers 503
    /// until it is ready. A tenant that fails is kept with its reason. If an engine cannot be used here, the server
    /// starts nevertheless, and the tenants that need it answer 503.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the system grants no thread or too few descriptors.
    pub fn start(config: Config) -> Result<Self, StartError> {
        descriptors::require(0)?;
        descriptors::warn_of_file_size();
        Self::start_on(Hosts::new(), config)
    }

    pub(crate) fn start_on(hosts: Hosts, config: Config) -> Result<Self, StartError> {
        let workers = Workers::new(config.max_workers);
        let memory = Arc::new(Memory::new(config.max_memory_bytes));
        affinity::note();
        let hosts = Arc::new(hosts);
        let env = BootEnv {
            hosts: Arc::clone(&hosts),
            workers: workers.clone(),
            uploads: config.admin.as_ref().and_then(|admin| admin.uploads.clone()),
            snapshots: config.snapshots.clone().map(|directory| Arc::new(Snapshots::new(directory))),
            memory: Arc::clone(&memory),
        };
        let background = Background::start(&workers, &memory, config.overflow_threads)?;
        let boots = Boots::start(env, &background)?;
        let tenants = config.tenants.iter().map(|config| new_tenant(config, &memory, &background.orders)).collect();
        let set = TenantSet::new(1, Arc::new(config), tenants);
        engines::open(&set, boots.env());
        for tenant in set.to_boot_at_start() {
            if tenant.claim_boot(false) {
                boots.boot(Arc::clone(tenant));
            }
        }
        boots.wait(START_WAIT);
        let server = Self {
            inner: Arc::new(Inner {
                hosts,
                news: AtomicU64::new(0),
                idle_ns: AtomicU64::new(u64::MAX),
                memory,
                wakers: Mutex::default(),
                last_requests: Mutex::default(),
                set: RwLock::new(Arc::new(set)),
                background,
                boots,
                workers,
                applying: Mutex::default(),
                is_ending: AtomicBool::new(false),
                pools: AtomicUsize::new(0),
                pools_made: AtomicU64::new(0),
                unrouted: Mutex::default(),
                // The standard library seeds its hash maps from the system's random numbers, which is enough to
                // distinguish processes.
                id_seed: RandomState::new().hash_one(0),
            }),
        };
        let inner = Arc::downgrade(&server.inner);
        server.inner.memory.relieve_by(move |relief| {
            if let Some(inner) = inner.upgrade() {
                Self { inner }.relieve(relief);
            }
        });
        Ok(server)
    }

    /// The number of a new pool.
    pub(crate) fn new_pool(&self) -> u64 {
        self.inner.pools.fetch_add(1, Ordering::Relaxed);
        self.inner.pools_made.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Answers the waiting requests, and ends the threads that would send answers later.
    ///
    /// No [`crate::DeferredReply`] is sent once this has returned. Loop pools keep working, except for
    /// [`crate::LoopPool::call_later`].
    pub fn shutdown(&self) {
        self.inner.is_ending.store(true, Ordering::Relaxed);
        tracing::info!(target: "mayfly::server", in_work = self.in_work(), "the server is shutting down");
        self.inner.stop();
        self.inner.background.gate.close();
    }

    /// Makes [`Self::readiness`] report that the server is ending; requests are served as before. `at_most` is the time
    /// limit of the requests in progress, for the log. The caller calls [`Self::shutdown`] when [`Self::in_work`] is 0
    /// or the time is up.
    pub fn begin_end(&self, at_most: Duration) {
        self.inner.is_ending.store(true, Ordering::Relaxed);
        tracing::info!(
            target: "mayfly::server", in_work = self.in_work(), at_most_ms = at_most.as_millis(),
            "shutdown begins; requests in progress continue"
        );
    }

    /// Whether the server has been told to shut down.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.inner.is_ending.load(Ordering::Relaxed)
    }

    /// Requests that have left their loops and are not answered yet.
    #[must_use]
    pub fn in_work(&self) -> u32 {
        self.set().tenants.iter().map(|tenant| tenant.parked.load(Ordering::Relaxed)).sum()
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.set().config)
    }

    /// The server's current state.
    #[must_use]
    pub fn report(&self) -> Report {
        let set = self.set();
        let engine = engines::namer(&self.inner.hosts);
        let tenants = set
            .tenants
            .iter()
            .zip(&set.config.tenants)
            .map(|(tenant, config)| TenantReport::of(tenant, config, &engine))
            .collect();
        Report {
            host: engines::report(&set, &self.inner.hosts),
            tenants,
            unrouted: self.unrouted().iter().map(|count| count.load(Ordering::Relaxed)).sum(),
            workers: self.inner.workers.count(),
            max_workers: self.inner.workers.most(),
            overflow: self.inner.background.overflow.permits.in_use(),
            descriptors: resources::descriptors(),
            max_descriptors: resources::descriptor_limit(),
            resident_bytes: resources::resident_bytes(),
            memory: self.inner.memory.report(),
        }
    }

    /// Whether the server is ready; cheap enough to be polled.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let set = self.set();
        // A tenant whose files do not respond counts as failed: it does not keep the server from being ready.
        let hangs = |tenant: &Tenant| tenant.errands.hang().is_some();
        let is_booting =
            |tenant: &Tenant| tenant.is_new() && matches!(tenant.state(), State::Unbooted | State::Booting { .. });
        let booting = set.to_boot_at_start().filter(|tenant| is_booting(tenant) && !hangs(tenant)).count();
        let has_failed = |tenant: &Tenant| matches!(tenant.state(), State::Failed { .. });
        let failed =
            set.tenants.iter().filter(|tenant| has_failed(tenant) || is_booting(tenant) && hangs(tenant)).count();
        let ending = self.inner.is_ending.load(Ordering::Relaxed);
        Readiness { ready: engines::is_usable(&self.inner.hosts) && booting == 0 && !ending, ending, booting, failed }
    }

    /// Whether an engine in use works better if loops are bound to processors.
    pub(crate) fn prefers_bound_loops(&self) -> bool {
        self.inner.hosts.prefer_bound_threads()
    }

    /// The current set of tenants.
    pub(crate) fn set(&self) -> Arc<TenantSet> {
        Arc::clone(&self.inner.set.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number that changes when loops have something to look at.
    #[inline]
    pub(crate) fn news(&self) -> u64 {
        self.inner.news.load(Ordering::Acquire)
    }

    /// Idle time in nanoseconds after which a loop closes a worker.
    pub(crate) fn idle_ns(&self) -> u64 {
        self.inner.idle_ns.load(Ordering::Relaxed)
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.inner.memory
    }

    /// Sets the function that other threads call when a loop is to look at the news and may be idle. `None` removes it.
    pub(crate) fn set_waker(&self, pool: u64, wake: Option<Box<dyn Fn() + Send>>) {
        let mut wakers = self.wakers();
        match wake {
            Some(wake) => wakers.insert(pool, wake),
            None => wakers.remove(&pool),
        };
    }

    fn wakers(&self) -> MutexGuard<'_, HashMap<u64, Box<dyn Fn() + Send>>> {
        self.inner.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees as much memory as is possible now; for the memory thread.
    fn relieve(&self, relief: Relief) {
        let set = self.set();
        let idle_ns = u64::try_from(relief.idle.as_nanos()).unwrap_or(u64::MAX);
        self.inner.idle_ns.store(idle_ns, Ordering::Relaxed);
        let mut closed = 0;
        if relief.idle < IDLE_SPARES {
            for tenant in &set.tenants {
                closed += tenant.close_spares(SPARES - closed);
            }
        }
        if let Some(programs) = relief.programs {
            let mut last_requests = self.inner.last_requests.lock().unwrap_or_else(PoisonError::into_inner);
            if last_requests.make_room(&set.tenants, programs) {
                self.inner.memory.stopped_programs.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.inner.memory.closed_workers.fetch_add(closed as u64, Ordering::Relaxed);
        self.tell_loops();
    }

    /// Has all loops look at the news, also those without requests.
    fn tell_loops(&self) {
        self.inner.news.fetch_add(1, Ordering::Release);
        self.wakers().values().for_each(|wake| wake());
    }

    #[inline]
    pub(crate) fn background(&self) -> &Arc<Background> {
        &self.inner.background
    }

    pub(crate) fn boots(&self) -> &Arc<Boots> {
        &self.inner.boots
    }

    /// The largest and the current number of workers in the process.
    pub(crate) fn workers(&self) -> (usize, usize) {
        (self.inner.workers.most(), self.inner.workers.count())
    }

    pub(crate) fn pools(&self) -> usize {
        self.inner.pools.load(Ordering::Relaxed)
    }

    pub(crate) fn pool_ended(&self, pool: u64) {
        self.set_waker(pool, None);
        self.inner.pools.fetch_sub(1, Ordering::Relaxed);
    }

    /// Makes a loop's counter of requests without a tenant. It stays in the total when the loop is gone.
    pub(crate) fn new_unrouted(&self) -> Arc<AtomicU64> {
        let count = Arc::<AtomicU64>::default();
        self.unrouted().push(Arc::clone(&count));
        count
    }

    fn unrouted(&self) -> MutexGuard<'_, Vec<Arc<AtomicU64>>> {
        self.inner.unrouted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn id_seed(&self) -> u64 {
        self.inner.id_seed
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("set", &self.set).field("background", &self.background).finish_non_exhaustive()
    }
}

impl Inner {
    /// Ends the background threads, and answers the requests that wait for them.
    fn stop(&self) {
        self.boots.close();
        self.background.stop();
        self.boots.refuse_waiting();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

fn new_tenant(config: &TenantConfig, memory: &Memory, orders: &Orders) -> Arc<Tenant> {
    Arc::new_cyclic(|tenant: &Weak<Tenant>| {
        let (tenant, orders) = (Weak::clone(tenant), orders.clone());
        let tell_due = move || {
            if let Some(tenant) = tenant.upgrade() {
                orders.fill_slots(tenant);
            }
        };
        Tenant::new(Arc::new(config.clone()), State::Unbooted, memory.account(), tell_due)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::outcome::ReloadError;
    use crate::{LoopPool, Outcome, Request};
    use mayfly_sandbox::BufferedResponse;

    #[test]
    fn without_its_engine_a_tenant_answers_503_with_the_reason_and_other_paths_404() {
        let tenants = r#"{"engine": "kvm", "tenants": [{"name": "a", "program": "p", "path": "/a"}]}"#;
        let config = Config::from_json(tenants).unwrap();
        let server = Server::start_on(Hosts::of_device("/nowhere".as_ref()), config).unwrap();
        let mut pool = server.loop_pool();
        for (path, status, words) in [("/a/b", 503, "/nowhere does not exist"), ("/b", 404, "no tenant")] {
            let request =
                Request { method: b"GET", path: path.as_bytes(), query: b"", headers: &[], body: b"", client: None };
            let mut response = BufferedResponse::default();
            assert_eq!(pool.call(&request, &mut response), Outcome::Done);
            assert_eq!(response.status, status);
            assert!(String::from_utf8(response.body).unwrap().contains(words));
        }
        let report = serde_json::to_value(server.report()).unwrap();
        assert_eq!(report["host"]["state"], "unusable");
        let reason = report["host"]["reason"].as_str().unwrap();
        assert!(reason.starts_with("/nowhere does not exist"), "{reason}");
        assert_eq!(report["host"].get("auto"), None);
        let engines = &report["host"]["engines"];
        assert_eq!((&engines[0]["engine"], &engines[0]["state"]), (&"kvm".into(), &"unusable".into()));
        assert_eq!((&engines[1]["engine"], &engines[1]["state"]), (&"process".into(), &"unopened".into()));
        assert_eq!(report["tenants"][0]["engine"], "kvm");
        assert!(!server.readiness().ready);
        assert_eq!(report["tenants"][0]["state"], "failed");
        assert_eq!(report["tenants"][0]["errors"]["unavailable"], 1);
        assert!(matches!(server.reload("a"), Err(ReloadError::Host(_))));
        assert_eq!(server.reload("b"), Err(ReloadError::UnknownTenant));
    }

    #[test]
    fn spare_workers_that_wait_in_mailboxes_are_closed_where_memory_is_short() {
        let program = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tenants/faults/faults");
        let tenants = serde_json::json!({"tenants": [{"name": "a", "path": "/", "program": program}]});
        let server = Server::start(Config::from_value(&tenants).unwrap()).unwrap();
        let mut pool = server.loop_pool();
        let end = std::time::Instant::now() + Duration::from_secs(120);
        let has_spare = || server.set().tenants[0].live_mailboxes().iter().any(|mailbox| mailbox.has_spare());
        while !has_spare() {
            assert!(std::time::Instant::now() < end, "a worker is forked ahead");
            std::thread::sleep(Duration::from_millis(2));
        }
        // Longer than after which the memory thread itself closes all spare workers.
        server.relieve(Relief { idle: IDLE_SPARES, programs: None });
        assert!(has_spare());
        pool.tend();
        assert!(!has_spare());
        assert_eq!(server.report().memory.closed_workers, 1);
        // As a boot does, before the program counts as booted.
        let tenant = Arc::clone(&server.set().tenants[0]);
        let forked = tenant.fork(server.inner.workers.permit()).unwrap();
        tenant.set_state(State::Booting { holds: true });
        tenant.live_mailboxes()[0].put(forked);
        server.relieve(Relief { idle: IDLE_SPARES, programs: None });
        pool.tend();
        assert!(has_spare());
    }

    #[test]
    fn a_pool_moves_to_its_thread() {
        fn is_send<T: Send>() {}
        is_send::<LoopPool>();
        is_send::<Server>();
    }
}
