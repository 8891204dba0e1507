// SPDX-License-Identifier: MIT OR Apache-2.0
//! The list of a machine's frames that are in use.

/// Which frames a machine has handed out, and which of them came back.
#[derive(Debug)]
pub(crate) struct FramesInUse {
    /// The first one that was never handed out.
    pub(crate) next: u64,
    /// Free frames that are zeroed.
    pub(crate) free: Vec<u64>,
    /// Free frames that are zeroed when they are handed out.
    pub(crate) dirty: Vec<u64>,
    /// The frame that reads as zero and is never written, once there is one.
    pub(crate) zeroes: Option<u64>,
}

impl FramesInUse {
    /// A list in which the first `count` frames are in use.
    pub(crate) fn first(count: u64) -> Self {
        Self { next: count, free: Vec::new(), dirty: Vec::new(), zeroes: None }
    }

    /// Frames that are in use now.
    pub(crate) fn count(&self) -> u64 {
        self.next - (self.free.len() + self.dirty.len()) as u64
    }
}
