// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the handling of an exit needs from outside.

use serde::{Deserialize, Serialize};

/// One of the streams that a program can write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stream {
    /// Descriptor 1, unless the program has changed that.
    Stdout,
    /// Descriptor 2, unless the program has changed that. Mayfly's own remarks about the program go here too.
    Stderr,
}

/// Where a tenant's output goes. It bounds what it keeps: a program may write without end.
pub trait Output: Send {
    /// Takes `bytes`, which are at most a page and need not end with a line.
    fn write(&mut self, stream: Stream, bytes: &[u8]);
}

/// What the handling of an exit needs from outside.
pub struct Context<'a> {
    /// The tenant's log.
    pub output: &'a mut dyn Output,
    /// Fills a buffer with random bytes that no other request sees.
    pub rng: &'a mut dyn FnMut(&mut [u8]),
    /// Whether this thread may be held up: wait for a disk or a network file system, or do milliseconds of work in one
    /// go. Where it may not, a step that would is not taken, and [`crate::Step::Waits`] until now:
    /// [`crate::Process::wake`] takes it, on a thread that may.
    pub may_block: bool,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}
