// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes while requests are served: new configurations, reloads, uploads and rollbacks.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use mayfly_files::Pending;

use super::{START_WAIT, Server, TenantSet, engines, new_tenant};
use crate::config::{AdminConfig, Config, TenantConfig};
use crate::life::env::BootEnv;
use crate::life::program::{ProgramSource, has_changed};
use crate::life::reload::{flat, reconfigure, replace, roll_back, upload};
use crate::model::outcome::{Applied, ReloadError, Reloaded};
use crate::model::tenant::{State, Tenant};
use crate::schedule::background::Background;

/// Programs that boot or are checked for changes in parallel.
const APPLY_THREADS: usize = 4;
/// How long a boot or a reload may take, in addition to twice the longest boot that the configuration allows (a storage
/// program may boot, too). This is far more than it needs; a wait for a file is noticed after a second.
const REST_OF_RELOAD: Duration = Duration::from_secs(60);

impl Server {
    /// Applies a new configuration while requests are served. All routes change at once; programs that are affected are
    /// replaced by new generations. If a new generation does not boot, its tenant stays as it was.
    ///
    /// Waits for the boots. Settings of the whole process take effect at the next start only: `max_workers`,
    /// `max_memory_mib`, `overflow_threads`, `admin`, `snapshots`.
    pub fn apply(&self, mut config: Config) -> Applied {
        let _one_at_a_time = self.inner.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.set();
        if let Some(engine) = old.config.forced_engine {
            config.force_engine(engine);
        }
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
                    new_tenant(config, &self.inner.memory, &self.background().orders)
                }
            })
            .collect();
        let gone: Vec<Arc<Tenant>> = known.values().map(|(tenant, _)| Arc::clone(tenant)).collect();
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
        engines::open(&set, self.inner.boots.env());
        let is_new = |tenant: &Tenant| tenant.is_new() && matches!(tenant.state(), State::Unbooted);
        for tenant in set.to_boot_at_start().filter(|tenant| is_new(tenant)) {
            if tenant.claim_boot(false) {
                self.inner.boots.boot(Arc::clone(tenant));
            }
        }
        self.inner.boots.wait(START_WAIT);
        *self.inner.set.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
        for tenant in gone {
            // Here and not on the loop that happens to be the last that serves them.
            tenant.fixed.close();
            // Also while loops hold its workers.
            tenant.background_budget.end();
        }
        self.tell_loops();
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
        move || work(&tenant, boots.env(), &background)
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

    fn uploads(&self) -> Option<PathBuf> {
        self.config().admin.as_ref().and_then(|AdminConfig { uploads, .. }| uploads.clone())
    }
}

/// How long an errand for one tenant may take, if a boot may take `boot`.
fn longest(boot: Duration) -> Duration {
    boot * 2 + REST_OF_RELOAD
}
