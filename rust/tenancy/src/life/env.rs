// SPDX-License-Identifier: MIT OR Apache-2.0
//! What booting takes besides the tenant.

use std::path::PathBuf;
use std::sync::Arc;

use mayfly_sandbox::Host;

use crate::host::workers::Workers;
use crate::life::snapshots::Snapshots;
use crate::memory::Memory;

/// What booting takes besides the tenant.
#[derive(Debug, Clone)]
pub(crate) struct BootEnv {
    pub(crate) host: Host,
    pub(crate) workers: Workers,
    /// The directory of uploaded programs.
    pub(crate) uploads: Option<PathBuf>,
    /// Snapshots of booted programs, if they are kept.
    pub(crate) snapshots: Option<Arc<Snapshots>>,
    pub(crate) memory: Arc<Memory>,
}
