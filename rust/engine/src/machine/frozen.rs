// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every worker of an image shares.

use std::sync::Arc;

use mayfly_machine::PAGE_SIZE;
use mayfly_machine::layout::CONTROL_BYTES;
use mayfly_memory::sealed::SealedMemory;
use mayfly_memory::tables::Tables;

use crate::machine::aliases::Aliases;
use crate::processor::Source;

/// What every worker of an image shares.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) memory: Arc<SealedMemory>,
    pub(crate) tables: Tables,
    pub(crate) inbox: Inbox,
    /// Frames with more than one address.
    pub(crate) aliases: Aliases,
    /// Where workers' processors come from.
    pub(crate) source: Source,
    /// What workers find in RAX.
    pub(crate) entry_value: u64,
}

/// The frames behind the inbox; consecutive, so that the host writes them without a walk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inbox {
    pub(crate) first_frame: u64,
    pub(crate) pages: u64,
}

impl Inbox {
    /// Guest-physical address of the control line.
    pub(crate) fn control(self) -> u64 {
        self.first_frame * PAGE_SIZE
    }

    /// Bytes behind the control line.
    pub(crate) fn bytes(self) -> u64 {
        (self.pages * PAGE_SIZE).saturating_sub(CONTROL_BYTES)
    }
}
