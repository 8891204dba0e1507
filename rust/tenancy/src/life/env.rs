// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a boot needs in addition to the tenant.

use std::path::PathBuf;
use std::sync::Arc;

use mayfly_sandbox::{Host, Hosts};

use crate::config::TenantConfig;
use crate::host::resources;
use crate::host::workers::Workers;
use crate::life::snapshots::Snapshots;
use crate::memory::Memory;
use crate::model::outcome::ReloadError;
use crate::model::tenant::Tenant;

/// What a boot needs in addition to the tenant.
#[derive(Debug, Clone)]
pub(crate) struct BootEnv {
    pub(crate) hosts: Arc<Hosts>,
    pub(crate) workers: Workers,
    /// The directory of uploaded programs.
    pub(crate) uploads: Option<PathBuf>,
    /// The directory of snapshots of booted programs, if configured.
    pub(crate) snapshots: Option<Arc<Snapshots>>,
    pub(crate) memory: Arc<Memory>,
}

impl BootEnv {
    /// The host of the engine that the tenant is to run on, for machines on the tenant's account.
    ///
    /// # Errors
    ///
    /// [`ReloadError::Host`] if the engine cannot be used here.
    pub(crate) fn host(&self, tenant: &Tenant, config: &TenantConfig) -> Result<Host, ReloadError> {
        let opened = self.hosts.choose(config.engine);
        opened
            .map(|host| host.on_account(&tenant.account))
            .map_err(|error| ReloadError::Host(resources::with_advice(&error)))
    }
}
