// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has happened to a pollable, and the plain kinds of pollables.

use serde::{Deserialize, Serialize};

/// How often something has happened to a pollable, by what it may have made ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Events {
    /// Something to read.
    pub(crate) input: u64,
    /// Room to write.
    pub(crate) output: u64,
    /// Anything else: an end, an error.
    pub(crate) state: u64,
}

/// What has happened.
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

/// A watch over files, which finds nothing: see `fs/calls/inotify.rs`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Inotify {
    /// Numbers and paths.
    pub(crate) watches: Vec<(i32, Vec<u8>)>,
    pub(crate) last: i32,
    /// Watches that have been taken away, and nobody has been told.
    pub(crate) ignored: Vec<i32>,
}
