// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a program does between two requests: legs without a request, for timers and threads of a program that keeps its
//! state.
//!
//! ```text
//!   Ready ── run_in_background ──> all threads wait ──> Ready    nothing to do until a time, or until something arrives
//!     │                  ├───────> end of slice ──────> Ready    interrupted: the next leg or request goes on there
//!     │                  └───────> fault, exit, limit ─> Poisoned
//!     └── start: the next request
//! ```
//!
//! Only a program that serves connections runs so. One that waits at the doorbell stands in it until its next request,
//! with all its threads.
//!
//! # Invariant
//!
//! What a program writes to its connection in such a leg is nobody's response: the connection is closed, and the next
//! request gets another one.

use crate::abi::EPROTO;
use crate::error::CallError;
use crate::limits::nanoseconds;
use crate::run::{Event, Exits, Stop};
use crate::time::clock;
use crate::time::host_clock;
use crate::time::watchdog::{self, Leg, NEVER, RunningLeg};
use crate::worker::progress::{BackgroundProgress, Slice, WorkerState};
use crate::worker::state::Resets;
use crate::worker::worker::Worker;

/// A leg ends after this many slices by the wall clock, however little of the CPU its thread got: a request may wait
/// for the worker. So it ends earlier than the leg of a request would, whose client waits for it.
const PATIENCE: u64 = 10;

impl Worker {
    /// Whether the program may run between requests: it serves connections, keeps its state, and has had a request
    /// since it was at its snapshot. A worker at its snapshot stands still until its first request.
    #[inline]
    #[must_use]
    pub fn runs_between_requests(&self) -> bool {
        self.served.is_some() && self.resets != Resets::Always && self.state == WorkerState::Ready && self.clock.runs()
    }

    /// Runs the program without a request, for `slice` at most. The worker is ready for its next request afterwards.
    /// Does nothing if [`Worker::runs_between_requests`] is false.
    ///
    /// The limit on memory holds, and [`Worker::take_cpu_ns`] counts the CPU time. The limits on time are those of
    /// requests, and do not count here: the caller decides how often the program runs.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the program or the machine has failed: the worker is poisoned.
    pub fn run_in_background(&mut self, slice: impl Into<Slice>) -> Result<BackgroundProgress, CallError> {
        if !self.runs_between_requests() {
            return Ok(BackgroundProgress::Waits { until_ns: None });
        }
        let slice = slice.into();
        self.state = WorkerState::Poisoned;
        let now = host_clock::monotonic_ns();
        let slice_ns = nanoseconds(slice.time);
        self.runner.begin_leg(&mut self.machine, slice.may_block);
        self.runner.process.run_from(now);
        clock::tell(&mut self.machine, now, self.runner.process.suspended_ns());
        let processor_clock = self.machine.cpu_clock();
        let cpu_before_ns = host_clock::run_cpu_ns(processor_clock);
        let leg = Leg {
            began_ns: now,
            slice_end_ns: now.saturating_add(slice_ns),
            wall_end_ns: now.saturating_add(slice_ns.saturating_mul(PATIENCE)),
            cpu_end_ns: NEVER,
            processor_clock,
        };
        let kicker = self.machine.kicker();
        // SAFETY: the machine is borrowed with `self`.
        let stop = unsafe { watchdog::watched(&kicker, &leg, |leg| self.run_to_rest(leg)) };
        self.cpu_meter.add(host_clock::run_cpu_ns(processor_clock).saturating_sub(cpu_before_ns));
        let progress = match stop {
            Err(Stop::Waits { until_ns, .. }) => BackgroundProgress::Waits { until_ns },
            Err(Stop::Slice | Stop::WallLimit) => {
                self.is_interrupted = true;
                BackgroundProgress::Paused
            }
            Err(stop) => {
                let error = self.call_error(stop);
                // As after a request that fails: the worker will not run again.
                self.runner.process.close_files();
                return Err(error);
            }
            Ok(never) => match never {},
        };
        self.runner.rest(&mut self.machine);
        self.state = WorkerState::Ready;
        Ok(progress)
    }

    /// Runs until the leg must end or all threads wait.
    fn run_to_rest(&mut self, leg: &RunningLeg<'_>) -> Result<std::convert::Infallible, Stop> {
        self.close_unasked();
        self.go_on_from_rest()?;
        let mut exits = Exits::default();
        loop {
            match self.runner.run(&mut self.machine, leg, &mut exits)? {
                Event::Output => {
                    self.close_unasked();
                    self.wake()?;
                }
                // There is no request for it to wait for or to answer.
                Event::Doorbell => {
                    self.machine.set_rewinds(false);
                    self.machine.return_from_doorbell(EPROTO as u64);
                }
            }
        }
    }

    /// Closes the connection if the program has written to it, or has closed it.
    fn close_unasked(&mut self) {
        let process = &mut self.runner.process;
        if let Some(served) = &mut self.served
            && process.has_output()
        {
            served.close(process);
        }
    }
}
