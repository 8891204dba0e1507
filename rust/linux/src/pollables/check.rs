// SPDX-License-Identifier: MIT OR Apache-2.0
//! Invariants of pollables, for tests.

use crate::base::ids::OpenId;
use crate::pollables::table::Pollables;

impl Pollables {
    /// Open files attached to messages.
    pub(crate) fn attached_files(&self) -> Vec<OpenId> {
        self.queues.iter().flatten().flat_map(|queue| queue.clone().take_attached()).collect()
    }

    pub(crate) fn check(&self) {
        assert!(self.is_sound(), "{self:#?}");
    }
}
