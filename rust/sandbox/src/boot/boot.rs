// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a program from its entry point to where it is ready for requests.
//!
//! ```text
//! waits at the doorbell   one thread has called mayfly_wait(): the others run on until they all wait
//! serves connections      its application listens, and a thread waits for connections there; it answers that it is
//!                         ready; warm-up requests, one after the other; it idles; it is asked to prepare for the
//!                         freeze; it waits again: on the same connection, if it has kept that open
//! ```
//!
//! A boot runs on a thread of its own, which sleeps while the program sleeps or waits for its connections outside.

use mayfly_engine::Machine;
use mayfly_linux::{Application, ConnectionId};

use crate::boot::progress::Progress;
use crate::error::BootError;
use crate::limits::{Limits, nanoseconds};
use crate::run::{Event, Exits, Runner, Stop};
use crate::time::clock;
use crate::time::host_clock;
use crate::time::watchdog::{self, Leg};

/// A boot may take this many times its limit on CPU time in wall-clock time: it may get little of the CPU, or sleep.
const PATIENCE: u64 = 4;
/// How long one thread of the program runs before it is another thread's turn.
const TURN_NS: u64 = 5_000_000;

/// A boot in progress.
pub(crate) struct Boot<'a> {
    pub(super) machine: &'a mut Machine,
    pub(super) runner: &'a mut Runner,
    pub(super) limits: &'a Limits,
    pub(super) wall_end_ns: u64,
    pub(super) cpu_left_ns: u64,
    pub(super) exits: Exits,
    /// The program is to serve connections.
    pub(super) is_server: bool,
    /// The port of its application, if it is named.
    pub(super) port: Option<u16>,
    /// When such a program was first seen listening.
    pub(super) listens_since_ns: Option<u64>,
    /// The log says already that what listens is not the application.
    pub(super) is_waited_for: bool,
    /// The call that a thread waited in when all last waited.
    pub(super) waited_in: Option<&'static str>,
    pub(super) progress: Progress,
}

/// What is known of a program that is ready.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// The program has hooks for handing its state over.
    pub(crate) has_handover: bool,
    /// The connection that the program kept open after the warm-up requests.
    pub(crate) connection: Option<ConnectionId>,
}

/// Why a program's threads all wait.
pub(super) struct Wait {
    pub(super) until_ns: Option<u64>,
    pub(super) call: &'static str,
    /// The program may open more listeners.
    pub(super) collects: bool,
}

impl Wait {
    pub(super) fn new(until_ns: Option<u64>, call: &'static str) -> Self {
        Self { until_ns, call, collects: false }
    }
}

impl<'a> Boot<'a> {
    pub(crate) fn new(machine: &'a mut Machine, runner: &'a mut Runner, limits: &'a Limits) -> Self {
        let time_ns = nanoseconds(limits.boot_time);
        Self {
            machine,
            runner,
            limits,
            wall_end_ns: host_clock::monotonic_ns().saturating_add(time_ns.saturating_mul(PATIENCE)),
            cpu_left_ns: time_ns,
            exits: Exits::default(),
            is_server: false,
            port: None,
            listens_since_ns: None,
            is_waited_for: false,
            waited_in: None,
            progress: Progress::new(),
        }
    }

    /// Has the threads look at what has come.
    pub(super) fn wake(&mut self) -> Result<(), Stop> {
        let Self { machine, runner, .. } = self;
        runner.step(|process, context| process.wake(machine, context))
    }

    /// Runs on from where a step has come to, until something happens or all threads wait.
    pub(super) fn run_on(&mut self, woken: Result<(), Stop>) -> Result<Result<Event, Wait>, BootError> {
        let next = match woken {
            Ok(()) => self.run(),
            Err(Stop::Waits { until_ns, call }) => Ok(Err(Wait::new(until_ns, call))),
            Err(stop) => Err(stop),
        };
        next.map_err(|stop| self.error(stop))
    }

    /// Runs, turn by turn, until there is an event, or all threads wait.
    pub(super) fn run(&mut self) -> Result<Result<Event, Wait>, Stop> {
        loop {
            match self.turn() {
                Ok(event) => return Ok(Ok(event)),
                Err(Stop::Waits { until_ns, call }) => return Ok(Err(Wait::new(until_ns, call))),
                Err(Stop::Slice) => {
                    let Self { machine, runner, .. } = self;
                    runner.step(|process, context| process.rotate(machine, context))?;
                }
                Err(stop) => return Err(stop),
            }
        }
    }

    /// Runs for one turn.
    pub(super) fn turn(&mut self) -> Result<Event, Stop> {
        let clock = self.machine.cpu_clock();
        let (began_ns, cpu_before_ns) = (host_clock::monotonic_ns(), host_clock::run_cpu_ns(clock));
        if self.cpu_left_ns == 0 || began_ns >= self.wall_end_ns {
            return Err(if self.cpu_left_ns == 0 { Stop::CpuLimit } else { Stop::WallLimit });
        }
        self.progress.say(began_ns, self.runner, self.is_server, self.port);
        let leg = Leg {
            began_ns,
            slice_end_ns: began_ns.saturating_add(TURN_NS),
            wall_end_ns: self.wall_end_ns,
            cpu_end_ns: began_ns.saturating_add(self.cpu_left_ns),
            processor_clock: clock,
        };
        clock::tell(self.machine, began_ns, 0);
        let kicker = self.machine.kicker();
        let Self { machine, runner, exits, .. } = self;
        // SAFETY: the machine is borrowed until the call returns.
        let result = unsafe { watchdog::watched(&kicker, &leg, |leg| runner.run(machine, leg, exits)) };
        let used_ns = host_clock::run_cpu_ns(clock).saturating_sub(cpu_before_ns);
        self.cpu_left_ns = self.cpu_left_ns.saturating_sub(used_ns);
        result
    }

    /// Sleeps while all threads wait, then wakes the threads that are due.
    pub(super) fn sleep_until(&mut self, wait: &Wait) -> Result<(), Stop> {
        self.waited_in = Some(wait.call);
        let outside = self.runner.process.remote_events();
        let until_ns = match (wait.until_ns, outside) {
            (None, None) => return Err(Stop::Stuck { call: wait.call }),
            (until_ns, _) => until_ns.unwrap_or(u64::MAX),
        };
        let now = host_clock::monotonic_ns();
        if now >= self.wall_end_ns {
            return Err(Stop::WallLimit);
        }
        let until_ns = until_ns.min(self.wall_end_ns).min(self.progress.next_ns());
        host_clock::sleep_until(until_ns, outside);
        self.progress.say(host_clock::monotonic_ns(), self.runner, self.is_server, self.port);
        self.wake()
    }

    pub(super) fn not_listening(&self) -> BootError {
        BootError::NotListening { port: self.port, listeners: self.runner.process.listeners() }
    }

    pub(super) fn error(&self, stop: Stop) -> BootError {
        let process = &self.runner.process;
        let is_missing = process.application() == Application::Missing;
        match stop {
            // The error names the listeners that there are instead, or that there are none any more.
            Stop::CpuLimit | Stop::WallLimit | Stop::Stuck { .. } | Stop::Waits { .. }
                if is_missing
                    && self.is_server
                    && (!process.listeners().is_empty() || self.listens_since_ns.is_some()) =>
            {
                self.not_listening()
            }
            Stop::Exited { status } => BootError::Exited { status },
            Stop::Faulted(fault) => BootError::Faulted(fault),
            Stop::CpuLimit | Stop::WallLimit | Stop::Slice | Stop::Stuck { .. } | Stop::Waits { .. } => {
                self.progress.not_ready(&stop, process, self.is_server, self.limits.boot_time, PATIENCE)
            }
            Stop::MemoryLimit if self.machine.is_refused() => BootError::ServerMemory,
            Stop::MemoryLimit => BootError::MemoryLimit { limit_bytes: self.limits.boot_memory_bytes },
            Stop::Response(error) => BootError::Failed(error.to_string()),
            // Workers ask for hooks.
            Stop::Hook { status } => BootError::Failed(format!("a hook was answered with {status}")),
            Stop::Violation(what) => BootError::Violation(what),
            Stop::Failed(why) => BootError::Failed(why),
        }
    }
}
