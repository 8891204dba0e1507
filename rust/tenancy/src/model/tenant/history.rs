// SPDX-License-Identifier: MIT OR Apache-2.0
//! State that a tenant keeps from one generation to the next.

use std::sync::Arc;
use std::time::Duration;

use mayfly_sandbox::SharedMemory;

use crate::config::TenantConfig;
use crate::model::generation::Generation;
use crate::model::outcome::ReloadError;
use crate::model::store::Store;

/// The longest pause before a failed boot is retried.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What changes over the tenant's life cycle, apart from its [`State`](super::State).
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) config: Arc<TenantConfig>,
    pub(crate) last_number: u64,
    pub(crate) previous: Option<Arc<Generation>>,
    retry: Duration,
    /// Kept from generation to generation.
    shared: Option<SharedMemory>,
    pub(crate) store: Option<Arc<Store>>,
}

impl History {
    /// The pause before a failed boot is first retried. It doubles with each failure, up to [`RETRY_MAX`].
    pub(crate) const FIRST_PAUSE: Duration = Duration::from_secs(1);

    pub(crate) fn new(config: Arc<TenantConfig>) -> Self {
        Self { config, last_number: 0, previous: None, retry: Self::FIRST_PAUSE, shared: None, store: None }
    }

    /// The memory region that all of the tenant's workers share. It is made once, because its content outlives
    /// generations.
    pub(crate) fn shared_memory(&mut self, config: &TenantConfig) -> Result<Option<SharedMemory>, ReloadError> {
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
                "the tenant's shared memory may be paged out, and requests then wait for the disk: raise RLIMIT_MEMLOCK (systemd: LimitMEMLOCK), or put the file into /dev/shm"
            );
        }
        self.shared = Some(shared.clone());
        Ok(Some(shared))
    }

    /// The pause before a failed boot is retried.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let pause = self.retry;
        self.retry = (pause * 2).min(RETRY_MAX);
        pause
    }

    pub(crate) fn booted(&mut self) {
        self.retry = Self::FIRST_PAUSE;
    }
}
