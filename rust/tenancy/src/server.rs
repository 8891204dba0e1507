// SPDX-License-Identifier: MIT OR Apache-2.0
//! All tenants of a process, and the threads that work for them in the background.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use mayfly_sandbox::{Host, HostError};

use crate::config::Config;
use crate::deferred::Deferred;
use crate::failure::Failure;
use crate::forker::{Berth, Forker};
use crate::meter::Meters;
use crate::pool::LoopPool;
use crate::report::{HostState, Report, TenantReport, TenantState};
use crate::route::{Router, TenantIndex};
use crate::tenant::{State, Tenant};

/// How long [`Server::start`] waits for tenants to boot. A slower one answers 503 until it is ready.
const START_WAIT: Duration = Duration::from_secs(3);
/// Programs that boot side by side.
const BOOT_THREADS: usize = 4;

/// The tenants of a process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    host: Result<Host, HostError>,
    router: Router,
    tenants: Arc<[Tenant]>,
    meters: Meters,
    forker: Forker,
    deferred: Deferred,
    pools: Arc<Pools>,
    id_seed: u64,
}

/// The loop pools that want workers, and the boots that have not ended.
#[derive(Debug, Default)]
struct Pools {
    state: Mutex<PoolsState>,
    booted: Condvar,
}

#[derive(Debug, Default)]
struct PoolsState {
    berths: Vec<Weak<[Arc<Berth>]>>,
    made: u64,
    booting: usize,
}

/// Why a server could not start. What is wrong with a tenant or with the host's KVM is no reason: see [`Server::report`].
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system gave no thread.
    #[error("cannot start a background thread: {0}")]
    Thread(#[from] io::Error),
}

impl Server {
    /// Starts with the host's KVM and boots all tenants, a few side by side.
    ///
    /// Returns when all have booted or failed, or after three seconds: a tenant that takes longer answers 503 until it is ready. A
    /// tenant that fails is kept with its reason. Without usable KVM the server starts all the same, and every tenant answers 503.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the system gives no thread.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::start_on(Host::open(), config)
    }

    pub(crate) fn start_on(host: Result<Host, HostError>, config: Config) -> Result<Self, StartError> {
        let tenants: Arc<[Tenant]> = config.tenants.into_iter().map(Tenant::new).collect();
        let meters = Meters::new(tenants.len());
        let pools = Arc::new(Pools::default());
        let forker = Forker::start(Arc::clone(&tenants), meters.add())?;
        let deferred = Deferred::start(Arc::clone(&tenants), &meters)?;
        match &host {
            Ok(host) => boot_all(host, &tenants, &pools, &forker)?,
            Err(error) => {
                tracing::error!(target: "mayfly::server", "no tenant can run on this host: {error}");
                let reason = error.to_string();
                tenants.iter().for_each(|tenant| tenant.fail(&reason));
            }
        }
        pools.wait_for_boots(START_WAIT);
        let router = Router::new(
            tenants.iter().map(|tenant| tenant.config.routes.first().map_or("/", |route| route.path.as_str())),
        );
        // The standard library keys its hash maps with the system's random numbers: enough to tell processes apart.
        let id_seed = RandomState::new().hash_one(0);
        Ok(Self { inner: Arc::new(Inner { host, router, tenants, meters, forker, deferred, pools, id_seed }) })
    }

    /// The workers for one loop thread; they are forked in the background, from now on.
    #[must_use]
    pub fn loop_pool(&self) -> LoopPool {
        let berths: Arc<[Arc<Berth>]> = self.tenants().iter().map(|_| Arc::default()).collect();
        let number = {
            let mut pools = self.inner.pools.state();
            pools.berths.push(Arc::downgrade(&berths));
            pools.made += 1;
            pools.made
        };
        // A tenant that becomes ready from here on finds the pool in the list; those that are ready already are asked now.
        for (index, berth) in berths.iter().enumerate() {
            if self.tenants()[index].generation() != 0 {
                self.inner.forker.order(index, berth);
            }
        }
        LoopPool::new(self.clone(), number, berths)
    }

    /// Answers the requests that wait for a worker, and ends the threads that would send answers later.
    ///
    /// No [`crate::DeferredReply`] is sent once this has returned. Loop pools go on, without [`LoopPool::call_later`].
    pub fn shutdown(&self) {
        self.inner.deferred.stop();
    }

    /// The server at this moment.
    #[must_use]
    pub fn report(&self) -> Report {
        let host = match &self.inner.host {
            Ok(host) => HostState::Usable { kvm: host.report().kvm },
            Err(error) => HostState::Unusable { reason: error.to_string() },
        };
        let tenants = (0..self.tenants().len()).map(|index| self.report_tenant(index)).collect();
        Report { host, tenants, unrouted: self.inner.meters.unrouted() }
    }

    fn report_tenant(&self, index: TenantIndex) -> TenantReport {
        let tenant = &self.tenants()[index];
        let totals = self.inner.meters.totals(index);
        let state = match tenant.state() {
            State::Booting => TenantState::Booting,
            State::Failed { reason } => TenantState::Failed { reason },
            State::Ready(generation) => TenantState::Ready {
                generation: generation.number,
                boot_ms: generation.snapshot.boot_time().as_secs_f64() * 1e3,
            },
        };
        let errors: BTreeMap<_, _> = Failure::ALL
            .iter()
            .map(|&failure| (failure.word(), totals.failures[failure as usize]))
            .filter(|&(_, count)| count > 0)
            .collect();
        TenantReport {
            name: tenant.config.name.to_string(),
            path: tenant.config.routes.first().map_or_else(String::new, ToString::to_string),
            program: tenant.config.program.clone(),
            state,
            requests: totals.requests,
            resets: totals.resets,
            forks: totals.forks,
            errors,
            dropped_log_lines: tenant.log.dropped_lines(),
        }
    }

    pub(crate) fn route(&self, path: &[u8]) -> Option<TenantIndex> {
        self.inner.router.find(path)
    }

    pub(crate) fn tenants(&self) -> &[Tenant] {
        &self.inner.tenants
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.inner.meters
    }

    pub(crate) fn forker(&self) -> &Forker {
        &self.inner.forker
    }

    pub(crate) fn deferred(&self) -> &Deferred {
        &self.inner.deferred
    }

    pub(crate) fn id_seed(&self) -> u64 {
        self.inner.id_seed
    }
}

impl Pools {
    fn state(&self) -> MutexGuard<'_, PoolsState> {
        // Each change to the state is one step, so it is whole even if a thread panicked while it held the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a worker of `tenant` forked for every pool, and counts its boot as ended.
    fn boot_ended(&self, tenant: TenantIndex, is_ready: bool, forker: &Forker) {
        let mut state = self.state();
        state.booting -= 1;
        self.booted.notify_all();
        if is_ready {
            state.berths.retain(|pool| pool.strong_count() > 0);
            for pool in state.berths.iter().filter_map(Weak::upgrade) {
                forker.order(tenant, &pool[tenant]);
            }
        }
    }

    fn wait_for_boots(&self, at_most: Duration) {
        let _ = self.booted.wait_timeout_while(self.state(), at_most, |state| state.booting > 0);
    }
}

/// Starts the threads that boot the tenants, in the order of the configuration.
fn boot_all(host: &Host, tenants: &Arc<[Tenant]>, pools: &Arc<Pools>, forker: &Forker) -> io::Result<()> {
    pools.state().booting = tenants.len();
    let next = Arc::new(AtomicUsize::new(0));
    for _ in 0..BOOT_THREADS.min(tenants.len()) {
        let (host, next, forker) = (host.clone(), Arc::clone(&next), forker.clone());
        let (tenants, pools) = (Arc::clone(tenants), Arc::clone(pools));
        thread::Builder::new().name("mayfly-boot".to_owned()).spawn(move || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(tenant) = tenants.get(index) else { return };
                tenant.boot(&host);
                pools.boot_ended(index, tenant.generation() != 0, &forker);
            }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Outcome, Request};
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
    }

    #[test]
    fn a_pool_moves_to_its_thread() {
        fn is_send<T: Send>() {}
        is_send::<LoopPool>();
        is_send::<Server>();
    }
}
