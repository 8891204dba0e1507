// SPDX-License-Identifier: MIT OR Apache-2.0
//! Event counts of pollables, and the simple kinds of pollables.

use serde::{Deserialize, Serialize};

/// Counts of a pollable's events, by the kind of readiness that they may cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Events {
    /// Something to read.
    pub(crate) input: u64,
    /// Space to write.
    pub(crate) output: u64,
    /// Anything else: an end, an error.
    pub(crate) state: u64,
}

/// An event of a pollable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Input,
    Output,
    State,
}

/// An event counter: `eventfd(2)`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Counter {
    pub(crate) value: u64,
    pub(crate) semaphore: bool,
}

/// A watch over files, which reports no changes: see `fs/calls/inotify.rs`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Inotify {
    /// Watch descriptors and paths.
    pub(crate) watches: Vec<(i32, Vec<u8>)>,
    pub(crate) last: i32,
    /// Watches that were removed, which has not been reported yet.
    pub(crate) ignored: Vec<i32>,
}
