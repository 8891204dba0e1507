// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a tenant keeps from generation to generation.

use std::sync::Arc;
use std::time::Duration;

use mayfly_sandbox::{LogSink, SharedMemory};

use super::{Ground, RETRY, Tenant};
use crate::background::Background;
use crate::config::TenantConfig;
use crate::generation::Generation;
use crate::reload::ReloadError;
use crate::storage::Store;

/// What changes with the tenant's life, apart from its state.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) config: Arc<TenantConfig>,
    pub(super) last_number: u64,
    pub(super) previous: Option<Arc<Generation>>,
    pub(super) retry: Duration,
    /// Kept from generation to generation.
    shared: Option<SharedMemory>,
    pub(super) store: Option<Arc<Store>>,
}

impl History {
    pub(super) fn new(config: Arc<TenantConfig>) -> Self {
        Self { config, last_number: 0, previous: None, retry: RETRY, shared: None, store: None }
    }

    /// The region that all of the tenant's workers share: made once, since its content is to outlive generations.
    pub(super) fn shared_memory(&mut self, config: &TenantConfig) -> Result<Option<SharedMemory>, ReloadError> {
        let Some(wanted) = &config.shared else { return Ok(None) };
        if let Some(shared) = self.shared.as_ref().filter(|shared| shared.bytes() == wanted.bytes) {
            return Ok(Some(shared.clone()));
        }
        let made = match &wanted.file {
            Some(path) => SharedMemory::file(path, wanted.bytes),
            None => SharedMemory::anonymous(wanted.bytes),
        };
        let shared = made.map_err(|error| {
            let file = wanted.file.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default();
            ReloadError::Boot(format!("no shared memory: {file}{error}"))
        })?;
        if !shared.stays_in_memory() {
            tracing::warn!(
                target: "mayfly::server", tenant = %config.name, kib = wanted.bytes >> 10,
                "the tenant's shared memory may be taken from memory, and requests then wait for its disk: raise RLIMIT_MEMLOCK (systemd: LimitMEMLOCK), or put the file into /dev/shm"
            );
        }
        self.shared = Some(shared.clone());
        Ok(Some(shared))
    }

    /// The tenant's storage program, booted if it is not yet, or is another one now.
    pub(super) fn store(
        &mut self,
        config: &TenantConfig,
        tenant: &Tenant,
        ground: &Ground,
        background: &Background,
    ) -> Result<Option<Arc<Store>>, ReloadError> {
        let Some(wanted) = &config.storage else {
            self.store = None;
            return Ok(None);
        };
        let log = Arc::clone(&tenant.log) as Arc<dyn LogSink>;
        match &self.store {
            Some(store) => {
                let refreshed = store.refresh(wanted, &ground.host, log);
                // Whatever came of it: who came meanwhile stands in line.
                background.serve_line(store);
                refreshed?;
            }
            None => self.store = Some(Arc::new(Store::boot(wanted, &ground.host, log)?)),
        }
        Ok(self.store.clone())
    }
}
