// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mapped files.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::host::files;

/// A mapped file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MappedFile {
    #[serde(with = "crate::host::file_table::host_file")]
    pub(crate) file: Arc<files::HostFile>,
    /// Its path, for `/proc/self/maps`.
    pub(crate) path: Arc<[u8]>,
}

/// Mapped files by index; some may no longer be mapped.
pub(crate) type MappedFiles = Vec<Option<MappedFile>>;
