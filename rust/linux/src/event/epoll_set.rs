// SPDX-License-Identifier: MIT OR Apache-2.0
//! The set of an epoll.

use serde::{Deserialize, Serialize};

use crate::base::context::Stream;
use crate::base::ids::PollableId;
use crate::event::events::Events;

/// What a registration watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WatchTarget {
    Pollable(PollableId),
    Log(Stream),
}

/// What an epoll knows of one descriptor.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Registration {
    pub(crate) fd: i32,
    pub(crate) target: WatchTarget,
    pub(crate) interest: u32,
    pub(crate) data: u64,
    /// What had happened when it was reported last.
    pub(crate) reported: Option<Events>,
    /// It was for one report, which has been made.
    pub(crate) disabled: bool,
}

/// An epoll.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Epoll {
    pub(crate) registrations: Vec<Registration>,
    /// Where the next look starts, so that those at the front do not keep the others from being reported.
    pub(crate) start: usize,
}

impl Clone for Epoll {
    fn clone(&self) -> Self {
        Self { registrations: self.registrations.clone(), start: self.start }
    }

    fn clone_from(&mut self, source: &Self) {
        self.registrations.clone_from(&source.registrations);
        self.start = source.start;
    }
}

/// Something to be reported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) index: usize,
    pub(crate) ready: u32,
    pub(crate) data: u64,
}
