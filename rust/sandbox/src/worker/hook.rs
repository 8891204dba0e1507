// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hook of a program that serves connections: what a worker at its snapshot is asked for before its first request.
//!
//! ```text
//!   Ready, at the snapshot ── start_hook ──> Running ── answer ──> Ready, prepared ── start ──> the request
//!            └────────────────── start ────> Running ── answer ────────────────────────────────────┘
//! ```
//!
//! A worker that is prepared ahead stands still until its request, as at its snapshot. One that is not is asked within
//! the request. A reset undoes the hook with everything else: it is due again. So does [`Worker::renew_hook`], for a
//! worker that has waited too long.

use std::time::Duration;

use crate::error::CallError;
use crate::limits::nanoseconds;
use crate::message::BufferedResponse;
use crate::service::Served;
use crate::time::host_clock;
use crate::worker::progress::{Progress, Slice, WorkerState};
use crate::worker::worker::Worker;

impl Worker {
    /// Whether the worker's next request would begin with its program's hook.
    #[inline]
    #[must_use]
    pub fn needs_hook(&self) -> bool {
        self.served.as_ref().is_some_and(|served| served.needs_hook()) && self.state == WorkerState::Ready
    }

    /// Asks the program for its hook, for `slice` at most, ahead of a request. Goes on as [`Worker::start`] does, with
    /// [`Worker::resume`], until [`Progress::Restored`]. The limits of a request hold.
    ///
    /// # Errors
    ///
    /// As [`Worker::start`], and [`CallError::AfterRestore`].
    pub fn start_hook(&mut self, slice: impl Into<Slice>) -> Result<Progress, CallError> {
        if !self.needs_hook() {
            return Ok(Progress::Restored);
        }
        let (now, added) = self.open(0)?;
        let slice_ns = self.go(now, slice.into());
        self.begin_service(&added, Served::begin_hook)?;
        // Nothing is delivered there.
        self.first_leg(now, slice_ns, &mut BufferedResponse::default())
    }

    /// Takes a worker back to its snapshot that was prepared more than `longest` ago and has had no request since: what
    /// the hook has fetched ages. The hook is due again. Returns whether it has.
    ///
    /// # Errors
    ///
    /// As [`Worker::reset`].
    pub fn renew_hook(&mut self, longest: Duration) -> Result<bool, CallError> {
        let prepared_ns = self.clock.prepared_for(host_clock::monotonic_ns());
        if self.state != WorkerState::Ready || prepared_ns.is_none_or(|ns| ns <= nanoseconds(longest)) {
            return Ok(false);
        }
        self.cpu_meter.begin_reset();
        let reset = self.reset_to_snapshot();
        self.cpu_meter.end();
        reset?;
        // Many page tables are a reason to replace a worker, and none to refuse the request that waits for this one.
        self.state = WorkerState::Ready;
        Ok(true)
    }

    /// The hook has been answered, and no request follows yet.
    #[cold]
    pub(super) fn prepared(&mut self) {
        self.cpu_meter.end();
        self.runner.rest(&mut self.machine);
        self.clock.prepared(host_clock::monotonic_ns());
        self.state = WorkerState::Ready;
    }
}
