// SPDX-License-Identifier: MIT OR Apache-2.0
//! How FIFOs are opened: see `pollables/fifos.rs`.

use serde::{Deserialize, Serialize};

use crate::base::ids::QueueId;

/// The directions in which a FIFO is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) reads: bool,
    pub(crate) writes: bool,
}

/// A thread that waits in `open` until the FIFO is opened for the other direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opener {
    pub(crate) tid: u32,
    pub(crate) queue: QueueId,
    pub(crate) reads: bool,
    /// It has been, even if that is closed again.
    pub(crate) met: bool,
}

impl Opener {
    /// Whether it has joined for this access, of which one end waits.
    pub(crate) fn is_for(&self, access: Access) -> bool {
        access.reads == self.reads && access.writes != self.reads
    }
}
