// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the embedder provides while an exit is handled.

use serde::{Deserialize, Serialize};

/// One of the streams that a program can write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stream {
    /// Descriptor 1, unless the program has replaced it.
    Stdout,
    /// Descriptor 2, unless the program has replaced it. Mayfly's own messages about the program go here too.
    Stderr,
}

/// Receives a tenant's output. The receiver bounds what it stores: a program may write without end.
pub trait Output: Send {
    /// Takes `bytes`: at most a page, not necessarily ending with a newline.
    fn write(&mut self, stream: Stream, bytes: &[u8]);
}

/// What the embedder provides while an exit is handled.
pub struct Context<'a> {
    /// The tenant's log.
    pub output: &'a mut dyn Output,
    /// Fills a buffer with random bytes that no other request sees.
    pub rng: &'a mut dyn FnMut(&mut [u8]),
    /// Whether this thread may block: wait for a disk or a network file system, or work for milliseconds at a time. If
    /// it may not, a step that would block is not taken. Instead the call returns [`crate::Step::Waits`] with a
    /// deadline of *now*, and [`crate::Process::wake`] takes the step on a thread that may block.
    pub may_block: bool,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}
