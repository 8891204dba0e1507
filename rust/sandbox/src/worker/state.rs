// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a worker keeps of its requests: the one in progress, and when it goes back to its snapshot.

use std::num::NonZeroU32;

use crate::run::Exits;

/// When a worker goes back to its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resets {
    Always,
    Never,
    /// After so many requests.
    Every(NonZeroU32),
}

/// What a request has left of its limits when a leg begins.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ongoing {
    pub(super) wall_end_ns: u64,
    pub(super) cpu_left_ns: u64,
    pub(super) exits: Exits,
}

/// What a paused request goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// The machine goes on where it was interrupted.
    Slice,
    /// A thread whose wait is over goes on.
    Wait,
    /// The machine goes on behind the doorbell.
    Call,
    /// The worker reads the call or the response that the program has rung for: it has not been read yet.
    Ring,
}
