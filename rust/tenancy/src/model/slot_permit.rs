// SPDX-License-Identifier: MIT OR Apache-2.0
//! The right of a worker to be one of a fixed number of workers.

use std::sync::Weak;

use crate::model::slots::SlotNumber;

/// What has the slots.
pub(crate) trait SlotKeeper: Send + Sync {
    /// Frees a slot whose worker is lost.
    fn vacate(&self, number: SlotNumber);
}

/// The right to fill one slot. A worker has it as long as it lives; dropping it vacates the slot, so that another worker
/// takes its place, however the former one was lost.
pub(crate) struct SlotPermit {
    pub(super) number: SlotNumber,
    pub(super) keeper: Weak<dyn SlotKeeper>,
}

impl Drop for SlotPermit {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.upgrade() {
            keeper.vacate(self.number);
        }
    }
}

impl std::fmt::Debug for SlotPermit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SlotPermit").field(&self.number).finish()
    }
}
