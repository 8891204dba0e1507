// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of host files for serialising a process.

use std::cell::RefCell;
use std::sync::Arc;

use crate::host::files;

thread_local! {
    /// The files of the process that this thread serialises or deserialises.
    static FILES: RefCell<Vec<Arc<files::HostFile>>> = const { RefCell::new(Vec::new()) };
}

/// While it lives, fields that hold files are serialised as indices into this table.
pub(crate) struct Scope;

impl Scope {
    pub(crate) fn enter(files: Vec<Arc<files::HostFile>>) -> Self {
        FILES.set(files);
        Self
    }

    pub(crate) fn leave(self) -> Vec<Arc<files::HostFile>> {
        FILES.take()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        FILES.take();
    }
}

/// Serialises a host file as its index.
pub(crate) mod host_file {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Arc, FILES, files};

    pub(crate) fn serialize<S: Serializer>(file: &Arc<files::HostFile>, serializer: S) -> Result<S::Ok, S::Error> {
        FILES.with_borrow_mut(|files| {
            let same =
                |known: &Arc<files::HostFile>| known.location() == file.location() && known.stamp() == file.stamp();
            let index = files.iter().position(same).unwrap_or_else(|| {
                files.push(Arc::clone(file));
                files.len().saturating_sub(1)
            });
            index.serialize(serializer)
        })
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<files::HostFile>, D::Error> {
        let index = usize::deserialize(deserializer)?;
        FILES.with_borrow(|files| files.get(index).cloned()).ok_or_else(|| D::Error::custom("no such file"))
    }
}
