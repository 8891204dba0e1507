// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files that are mapped.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::host::files;

/// A file that is mapped.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MappedFile {
    #[serde(with = "crate::host::file_table::host_file")]
    pub(crate) file: Arc<files::File>,
    /// Its path, for `/proc/self/maps`.
    pub(crate) path: Arc<[u8]>,
}

/// The files that are mapped; some may no longer be.
pub(crate) type MappedFiles = Vec<Option<MappedFile>>;
