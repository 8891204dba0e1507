// SPDX-License-Identifier: MIT OR Apache-2.0
//! All tenants of a process, and the operations that change them while they serve.

mod tenant_set;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use mayfly_files::Pending;
use mayfly_sandbox::{Host, HostError};

use crate::config::{AdminConfig, Config, TenantConfig};
use crate::host::descriptors::{self, TooLow};
use crate::host::resources;
use crate::host::workers::Workers;
use crate::life::boots::Boots;
use crate::life::env::BootEnv;
use crate::life::eviction::Called;
use crate::life::program::{ProgramSource, has_changed};
use crate::life::replace::{flat, reconfigure, replace, roll_back, upload};
use crate::life::snapshots::Snapshots;
use crate::memory::{Memory, Relief};
use crate::model::outcome::{Applied, ReloadError, Reloaded};
use crate::model::tenant::{State, Tenant};
use crate::report::{HostState, Readiness, Report, TenantReport};
use crate::schedule::background::Background;

pub(crate) use tenant_set::TenantSet;

/// How long [`Server::start`] waits for tenants to boot. A slower tenant answers 503 until it is ready.
const START_WAIT: Duration = Duration::from_secs(3);
/// If the allowed idle time is below this, spare workers in mailboxes are closed, too.
const IDLE_SPARES: Duration = Duration::from_secs(2);
/// Spare workers closed at a time: closing one may take milliseconds.
const SPARES: usize = 32;
/// Programs that boot or are checked for changes in parallel.
const APPLY_THREADS: usize = 4;
/// How long a boot or a reload may take, in addition to twice the longest boot that the configuration allows (a storage
/// program may boot, too). This is far more than it needs; a wait for a file is noticed after a second.
const REST_OF_RELOAD: Duration = Duration::from_secs(60);

/// The tenants of a process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    host: Result<Host, HostError>,
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
    called: Mutex<Called>,
    unrouted: Mutex<Vec<Arc<AtomicU64>>>,
    id_seed: u64,
}

/// Why a server could not start. A failed tenant or an unusable KVM does not prevent a start: see [`Server::report`].
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
    /// Starts with the host's KVM and boots the tenants that are to boot at start, a few in parallel.
    ///
    /// Returns when all of these have booted or failed, or after three seconds. A tenant that takes longer answers 503
    /// until it is ready. A tenant that fails is kept with its reason. Without usable KVM the server starts
    /// nevertheless, and every tenant answers 503.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the system grants no thread or too few descriptors.
    pub fn start(config: Config) -> Result<Self, StartError> {
        descriptors::require(0)?;
        descriptors::warn_of_file_size();
        Self::start_on(Host::open(), config)
    }

    pub(crate) fn start_on(host: Result<Host, HostError>, config: Config) -> Result<Self, StartError> {
        let workers = Workers::new(config.max_workers);
        let memory = Arc::new(Memory::new(config.max_memory_bytes));
        let env = match &host {
            Ok(host) => Ok(BootEnv {
                host: host.clone(),
                workers: workers.clone(),
                uploads: config.admin.as_ref().and_then(|admin| admin.uploads.clone()),
                snapshots: config.snapshots.clone().map(|directory| Arc::new(Snapshots::new(directory))),
                memory: Arc::clone(&memory),
            }),
            Err(error) => Err(resources::with_advice(error)),
        };
        let background = Background::start(&workers, &memory, config.overflow_threads)?;
        let boots = Boots::start(env, &background)?;
        let tenants = config.tenants.iter().map(|config| new_tenant(config, &memory)).collect();
        let set = TenantSet::new(1, Arc::new(config), tenants);
        if let Err(reason) = boots.env() {
            tracing::error!(target: "mayfly::server", "no tenant can run on this host: {reason}");
            set.tenants.iter().for_each(|tenant| tenant.fail_for_ever(reason));
        }
        for tenant in set.to_boot_at_start() {
            if tenant.claim_boot(false) {
                boots.boot(Arc::clone(tenant));
            }
        }
        boots.wait(START_WAIT);
        let server = Self {
            inner: Arc::new(Inner {
                host,
                news: AtomicU64::new(0),
                idle_ns: AtomicU64::new(u64::MAX),
                memory,
                wakers: Mutex::default(),
                called: Mutex::default(),
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
            "the server is told to end; requests in progress continue"
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

    /// Applies a new configuration while requests are served. All routes change at once; programs that are affected are
    /// replaced by new generations. If a new generation does not boot, its tenant stays as it was.
    ///
    /// Waits for the boots. Settings of the whole process take effect at the next start only: `max_workers`,
    /// `max_memory_mib`, `overflow_threads`, `admin`, `snapshots`.
    pub fn apply(&self, config: Config) -> Applied {
        let _one_at_a_time = self.inner.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.set();
        let mut applied = Applied::default();
        let mut known: HashMap<&str, (&Arc<Tenant>, &TenantConfig)> = old
            .tenants
            .iter()
            .zip(&old.config.tenants)
            .map(|(tenant, config)| (config.name.as_str(), (tenant, config)))
            .collect();
        let mut changed = Vec::new();
        let mut added = Vec::new();
        let tenants: Box<[Arc<Tenant>]> = config
            .tenants
            .iter()
            .map(|config| match known.remove(config.name.as_str()) {
                Some((tenant, former)) => {
                    if !former.same_program(config) {
                        changed.push((Arc::clone(tenant), Arc::new(config.clone())));
                    }
                    Arc::clone(tenant)
                }
                None => {
                    added.push(config.name.to_string());
                    new_tenant(config, &self.inner.memory)
                }
            })
            .collect();
        applied.removed = known.into_keys().map(ToOwned::to_owned).collect();
        applied.removed.sort_unstable();
        applied.added = added;
        for (tenant, result) in self.boot_changed(changed) {
            match result {
                Ok(()) => applied.changed.push(tenant.name.to_string()),
                Err(error) => applied.failed.push((tenant.name.to_string(), error.to_string())),
            }
        }
        let set = TenantSet::new(old.epoch + 1, Arc::new(config), tenants);
        match self.inner.boots.env() {
            Ok(_) => {
                let is_new = |tenant: &Tenant| tenant.is_new() && matches!(tenant.state(), State::Unbooted);
                for tenant in set.to_boot_at_start().filter(|tenant| is_new(tenant)) {
                    if tenant.claim_boot(false) {
                        self.inner.boots.boot(Arc::clone(tenant));
                    }
                }
                self.inner.boots.wait(START_WAIT);
            }
            Err(reason) => {
                for tenant in set.tenants.iter().filter(|tenant| matches!(tenant.state(), State::Unbooted)) {
                    tenant.fail_for_ever(reason);
                }
            }
        }
        *self.inner.set.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
        self.inner.news.fetch_add(1, Ordering::Release);
        tracing::info!(
            target: "mayfly::server", added = applied.added.len(), removed = applied.removed.len(),
            changed = applied.changed.len(), failed = applied.failed.len(), "a new configuration has been applied"
        );
        applied
    }

    /// Boots tenants under their new configurations, a few in parallel.
    fn boot_changed(
        &self,
        changed: Vec<(Arc<Tenant>, Arc<TenantConfig>)>,
    ) -> Vec<(Arc<Tenant>, Result<(), ReloadError>)> {
        let tenants: Vec<_> = changed.iter().map(|(tenant, _)| Arc::clone(tenant)).collect();
        let most = changed.iter().map(|(_, config)| config.limits.machine.boot_time).max().unwrap_or_default();
        let errands = changed.into_iter().map(|(tenant, config)| {
            let work = self.work(&tenant, move |tenant, env, background| reconfigure(tenant, config, env, background));
            (tenant.errands.clone(), work)
        });
        let results = mayfly_files::each(errands, APPLY_THREADS, longest(most));
        let mut results: Vec<_> = tenants.into_iter().zip(results.into_iter().map(flat)).collect();
        results.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        results
    }

    /// Wraps work on a tenant for an errand.
    fn work<T, W>(
        &self,
        tenant: &Arc<Tenant>,
        work: W,
    ) -> impl FnOnce() -> Result<T, ReloadError> + Send + 'static + use<T, W>
    where
        W: FnOnce(&Tenant, &BootEnv, &Arc<Background>) -> Result<T, ReloadError> + Send + 'static,
    {
        let (tenant, boots) = (Arc::clone(tenant), Arc::clone(self.boots()));
        let background = Arc::clone(self.background());
        move || {
            let env = boots.env().map_err(|reason| ReloadError::Host(reason.to_owned()))?;
            work(&tenant, env, &background)
        }
    }

    /// Runs the work as an errand, and waits for it unless it hangs on the tenant's files.
    fn change<T: Send + 'static>(
        &self,
        tenant: &Arc<Tenant>,
        work: impl FnOnce(&Tenant, &BootEnv, &Arc<Background>) -> Result<T, ReloadError> + Send + 'static,
    ) -> Result<T, ReloadError> {
        let most = self.longest_boot();
        flat(tenant.errands.begin(longest(most), self.work(tenant, work)).and_then(Pending::wait))
    }

    fn longest_boot(&self) -> Duration {
        self.config().tenants.iter().map(|config| config.limits.machine.boot_time).max().unwrap_or_default()
    }

    /// Boots the tenant's program again, and switches to it if it works.
    ///
    /// Waits for the boot. Requests are served meanwhile. Every loop uses the new generation from its first request
    /// after this returns.
    ///
    /// # Errors
    ///
    /// [`ReloadError`]; the previous program keeps running.
    pub fn reload(&self, tenant: &str) -> Result<Reloaded, ReloadError> {
        self.change(&self.tenant(tenant)?, |tenant, env, background| {
            replace(tenant, env, background, ProgramSource::File)
        })
    }

    /// Reloads every tenant whose program file differs from the running program. A tenant whose files do not respond is
    /// reported, and delays no other.
    pub fn reload_changed(&self) -> Vec<(String, Result<Reloaded, ReloadError>)> {
        if self.inner.boots.env().is_err() {
            return Vec::new();
        }
        let set = self.set();
        let errands = set.tenants.iter().map(|tenant| {
            let work = self.work(tenant, |tenant, env, background| {
                if !has_changed(tenant, env)? {
                    return Ok(None);
                }
                replace(tenant, env, background, ProgramSource::File).map(Some)
            });
            (tenant.errands.clone(), work)
        });
        let results = mayfly_files::each(errands, APPLY_THREADS, longest(self.longest_boot()));
        let results = set.tenants.iter().zip(results).filter_map(|(tenant, result)| {
            let result = flat(result).transpose()?;
            if let Err(ReloadError::Held(reason)) = &result {
                tracing::error!(target: "mayfly::server", tenant = %tenant.name, reason, "changes to the tenant's files are not noticed");
            }
            Some((tenant.name.to_string(), result))
        });
        results.collect()
    }

    /// Boots an uploaded program. If it works, switches to it and stores it for later starts.
    ///
    /// # Errors
    ///
    /// [`ReloadError`]; except with [`ReloadError::Persist`], the previous program keeps running.
    pub fn upload(&self, tenant: &str, elf: Vec<u8>) -> Result<Reloaded, ReloadError> {
        let tenant = self.tenant(tenant)?;
        let uploads = self.uploads().ok_or(ReloadError::NoUploads)?;
        self.change(&tenant, move |tenant, env, background| upload(tenant, env, background, &uploads, elf))
    }

    /// Switches back to the previous generation, without a boot.
    ///
    /// # Errors
    ///
    /// [`ReloadError`].
    pub fn rollback(&self, tenant: &str) -> Result<Reloaded, ReloadError> {
        let uploads = self.uploads();
        self.change(&self.tenant(tenant)?, move |tenant, env, _| roll_back(tenant, env, uploads.as_deref()))
    }

    fn tenant(&self, name: &str) -> Result<Arc<Tenant>, ReloadError> {
        let set = self.set();
        let found = set.tenants.iter().find(|tenant| tenant.name.as_str() == name);
        found.cloned().ok_or(ReloadError::UnknownTenant)
    }

    fn uploads(&self) -> Option<std::path::PathBuf> {
        self.config().admin.as_ref().and_then(|AdminConfig { uploads, .. }| uploads.clone())
    }

    /// The server's current state.
    #[must_use]
    pub fn report(&self) -> Report {
        let host = match &self.inner.host {
            Ok(host) => HostState::Usable { kvm: host.report().kvm },
            Err(error) => HostState::Unusable { reason: error.to_string() },
        };
        let set = self.set();
        let tenants = set
            .tenants
            .iter()
            .zip(&set.config.tenants)
            .map(|(tenant, config)| TenantReport::of(tenant, config))
            .collect();
        Report {
            host,
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
        Readiness { ready: self.inner.host.is_ok() && booting == 0 && !ending, ending, booting, failed }
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
            let mut called = self.inner.called.lock().unwrap_or_else(PoisonError::into_inner);
            if called.make_room(&set.tenants, programs) {
                self.inner.memory.stopped_programs.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.inner.memory.closed_workers.fetch_add(closed as u64, Ordering::Relaxed);
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

fn new_tenant(config: &TenantConfig, memory: &Memory) -> Arc<Tenant> {
    Arc::new(Tenant::new(Arc::new(config.clone()), State::Unbooted, memory.account()))
}

/// How long an errand for one tenant may take, if a boot may take `boot`.
fn longest(boot: Duration) -> Duration {
    boot * 2 + REST_OF_RELOAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LoopPool, Outcome, Request};
    use mayfly_sandbox::BufferedResponse;

    #[test]
    fn without_kvm_tenants_answer_503_with_the_reason_and_other_paths_404() {
        let config = Config::from_json(r#"{"tenants": [{"name": "a", "program": "p", "path": "/a"}]}"#).unwrap();
        let missing = HostError::Missing { path: "/dev/kvm".into() };
        let server = Server::start_on(Err(missing), config).unwrap();
        let mut pool = server.loop_pool();
        for (path, status, words) in [("/a/b", 503, "/dev/kvm does not exist"), ("/b", 404, "no tenant")] {
            let request = Request { method: b"GET", path: path.as_bytes(), query: b"", headers: &[], body: b"" };
            let mut response = BufferedResponse::default();
            assert_eq!(pool.call(&request, &mut response), Outcome::Done);
            assert_eq!(response.status, status);
            assert!(String::from_utf8(response.body).unwrap().contains(words));
        }
        let report = serde_json::to_value(server.report()).unwrap();
        assert_eq!(report["host"]["state"], "unusable");
        assert_eq!(report["tenants"][0]["state"], "failed");
        assert_eq!(report["tenants"][0]["errors"]["unavailable"], 1);
        assert!(matches!(server.reload("a"), Err(ReloadError::Host(_))));
        assert_eq!(server.reload("b"), Err(ReloadError::UnknownTenant));
    }

    #[test]
    fn a_pool_moves_to_its_thread() {
        fn is_send<T: Send>() {}
        is_send::<LoopPool>();
        is_send::<Server>();
    }
}
