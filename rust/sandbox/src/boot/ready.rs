// SPDX-License-Identifier: MIT OR Apache-2.0
//! The moment of the freeze: a program says that it is ready, comes to rest, and prepares.
//!
//! ```text
//! listens ── ready? ── no: pause, up to `within` ──┐
//!              ^ └──────────────────────────────────┘
//!              └─ yes ── warm-up ── idles for `settle` ── before_freeze ── freeze
//! ```
//!
//! The program's timers and threads run in real time all the while. An idle time ends early when nothing can happen
//! before its end: all threads wait, no timer is due until then, and no connection to a host outside is open.

use std::time::Duration;

use crate::boot::boot::{Boot, Wait};
use crate::boot::server::rang;
use crate::error::BootError;
use crate::limits::nanoseconds;
use crate::message::BufferedResponse;
use crate::protocol::{Readiness, Target};
use crate::run::Event;
use crate::service::Served;
use crate::time::host_clock;

/// The pauses between two questions whether the program is ready: the first, doubled each time up to the longest. What
/// is asked stays in the program's memory, so a program that starts slowly is asked some ten times a second.
const PAUSE_NS: u64 = 10_000_000;
const PAUSE_MAX_NS: u64 = 100_000_000;

/// Whether an idle time ends when nothing can happen any more before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Early,
    InTime,
}

impl Boot<'_> {
    /// Asks the program until it answers that it is ready.
    pub(super) fn await_ready(&mut self, served: &mut Served, ready: &Readiness) -> Result<(), BootError> {
        let end_ns = host_clock::monotonic_ns().saturating_add(nanoseconds(ready.within));
        // It interrupts a program that computes, or does not answer.
        let boot_end_ns = self.wall_end_ns;
        self.wall_end_ns = boot_end_ns.min(end_ns);
        let mut last = None;
        self.progress.asks_ready(&ready.target);
        let asked = self.ask_until_ready(served, ready, &mut last);
        self.wall_end_ns = boot_end_ns;
        let waited_in = self.waited_in;
        let in_time = format!("within {:?}", ready.within);
        let not_ready = |within: String, otherwise: String| {
            let why = last.unwrap_or_else(|| format!("was not answered; {otherwise}"));
            BootError::NotReady { within, why: format!("{} {why}", ready.target) }
        };
        asked.map_err(|error| match error {
            BootError::TimedOut { .. } if host_clock::monotonic_ns() >= end_ns => match waited_in {
                Some(call) => not_ready(in_time, format!("the program last waited in {call}")),
                None => not_ready(in_time, "the program computed all the time".into()),
            },
            BootError::TimedOut { why, threads } => not_ready(why, threads.to_string()),
            BootError::Stuck { call, .. } => not_ready(in_time, format!("the program waits forever in {call}")),
            error => error,
        })
    }

    /// Returns when the program is ready. `last` is what it answered last instead.
    fn ask_until_ready(
        &mut self,
        served: &mut Served,
        ready: &Readiness,
        last: &mut Option<String>,
    ) -> Result<(), BootError> {
        let mut pause_ns = PAUSE_NS;
        loop {
            match self.ask(served, &ready.target.request())? {
                Ok(()) => match answer(served) {
                    response if response.status == ready.status => return Ok(()),
                    other => {
                        let excerpt = other.excerpt();
                        *last = Some(format!("answered {} instead of {}{excerpt}", other.status, ready.status));
                    }
                },
                Err(error) => {
                    served.close(&mut self.runner.process);
                    *last = Some(format!("was not answered: {error}"));
                }
            }
            self.idle(served, host_clock::monotonic_ns().saturating_add(pause_ns), Ends::InTime)?;
            self.rest(served)?;
            pause_ns = pause_ns.saturating_mul(2).min(PAUSE_MAX_NS);
        }
    }

    /// Lets the program idle after the warm-up.
    pub(super) fn idle_before_freeze(&mut self, served: &mut Served, time: Duration) -> Result<(), BootError> {
        if time.is_zero() {
            return Ok(());
        }
        self.idle(served, host_clock::monotonic_ns().saturating_add(nanoseconds(time)), Ends::Early)
    }

    /// Asks the program to prepare for the freeze.
    pub(super) fn ask_before_freeze(&mut self, served: &mut Served, hook: &Target) -> Result<(), BootError> {
        self.rest(served)?;
        self.progress.asks_before_freeze(hook);
        let failed = |why: String| BootError::BeforeFreeze(format!("{hook} {why}"));
        self.ask(served, &hook.request())?.map_err(|error| failed(format!("was not answered: {error}")))?;
        self.progress.settles();
        let response = answer(served);
        if (200..300).contains(&response.status) {
            return Ok(());
        }
        Err(failed(format!("answered {} instead of a status from 200 to 299{}", response.status, response.excerpt())))
    }

    /// Runs until all threads wait, one of them for the next request, so that other threads finish what the last
    /// request left to them. Without this, a thread that always has a next request would keep the processor to itself,
    /// and code that is compiled in the background would never be done.
    pub(super) fn rest(&mut self, served: &mut Served) -> Result<(), BootError> {
        if !self.run_to_idle(served.connection())? {
            served.close(&mut self.runner.process);
            self.run_to_idle(None)?;
        }
        Ok(())
    }

    /// Runs the program in real time until `until_ns`, and then until all its threads wait.
    fn idle(&mut self, served: &mut Served, until_ns: u64, ends: Ends) -> Result<(), BootError> {
        let mut woken = self.wake();
        loop {
            let wait = match self.run_on(woken)? {
                Ok(Event::Output) if served.connection().is_some() => {
                    // The program closes the connection that it had kept open.
                    served.close(&mut self.runner.process);
                    woken = self.wake();
                    continue;
                }
                Ok(Event::Output) => return Err(BootError::Failed("output without a connection".into())),
                Ok(Event::Doorbell) => return Err(rang()),
                Err(wait) => wait,
            };
            let is_quiet = wait.until_ns.is_none_or(|due_ns| due_ns >= until_ns);
            let is_over = ends == Ends::Early && is_quiet && self.runner.process.remote_events().is_none();
            if is_over || host_clock::monotonic_ns() >= until_ns {
                return Ok(());
            }
            let due_ns = wait.until_ns.map_or(until_ns, |due_ns| due_ns.min(until_ns));
            woken = self.sleep_until(&Wait::new(Some(due_ns), wait.call));
        }
    }
}

fn answer(served: &mut Served) -> BufferedResponse {
    let mut response = BufferedResponse::default();
    served.deliver(&mut response);
    response
}
