// SPDX-License-Identifier: MIT OR Apache-2.0
//! An epoll's set of registrations.

use serde::{Deserialize, Serialize};

use crate::base::context::Stream;
use crate::base::ids::PollableId;
use crate::event::events::Events;

/// Object that a registration watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WatchTarget {
    Pollable(PollableId),
    Log(Stream),
}

/// An epoll's state for one descriptor.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Registration {
    pub(crate) fd: i32,
    pub(crate) target: WatchTarget,
    pub(crate) interest: u32,
    pub(crate) data: u64,
    /// The event counts when it was last reported.
    pub(crate) reported: Option<Events>,
    /// EPOLLONESHOT: its one report has been made.
    pub(crate) disabled: bool,
}

/// An epoll.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Epoll {
    pub(crate) registrations: Vec<Registration>,
    /// The index where the next look starts, so that registrations at the front do not starve the others.
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

/// An event to report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) index: usize,
    pub(crate) ready: u32,
    pub(crate) data: u64,
}
