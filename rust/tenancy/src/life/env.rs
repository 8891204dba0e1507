// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a boot needs in addition to the tenant.

use std::path::PathBuf;
use std::sync::Arc;

use mayfly_sandbox::Host;

use crate::host::workers::Workers;
use crate::life::snapshots::Snapshots;
use crate::memory::Memory;

/// What a boot needs in addition to the tenant.
#[derive(Debug, Clone)]
pub(crate) struct BootEnv {
    pub(crate) host: Host,
    pub(crate) workers: Workers,
    /// The directory of uploaded programs.
    pub(crate) uploads: Option<PathBuf>,
    /// The directory of snapshots of booted programs, if configured.
    pub(crate) snapshots: Option<Arc<Snapshots>>,
    pub(crate) memory: Arc<Memory>,
}
