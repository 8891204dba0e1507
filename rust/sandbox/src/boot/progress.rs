// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a boot does at present: for lines in the log while it takes long, and for the error if it does not end.

use std::time::Duration;

use mayfly_linux::{Application, Process};

use crate::error::BootError;
use crate::limits::nanoseconds;
use crate::output::Stream;
use crate::protocol::{Target, WarmUp};
use crate::run::{Runner, Stop};
use crate::time::host_clock;

/// A boot that takes longer than this says what it does.
const FIRST_NS: u64 = 5_000_000_000;
/// It says so again after twice the time, and at least this often.
const LONGEST_NS: u64 = 60_000_000_000;
/// Longest part of a path in a message.
const PATH_MAX: usize = 128;

/// What a boot does, and when it says so next.
#[derive(Debug)]
pub(super) struct Progress {
    began_ns: u64,
    next_ns: u64,
    doing: Doing,
}

#[derive(Debug)]
enum Doing {
    /// The program initialises itself.
    Starts,
    /// It is asked whether it is ready.
    AsksReady { target: String },
    /// It answers warm-up requests.
    WarmsUp { path: String, answered: u32, times: u32 },
    /// It answers them again, until their cost no longer falls.
    Repeats { path: String, answered: u32 },
    /// It comes to rest, for the freeze or for what it is asked before that.
    Settles,
    /// It is asked to prepare for the freeze.
    BeforeFreeze { target: String },
}

impl Progress {
    pub(super) fn new() -> Self {
        let now = host_clock::monotonic_ns();
        Self { began_ns: now, next_ns: now.saturating_add(FIRST_NS), doing: Doing::Starts }
    }

    /// When the next line is due.
    pub(super) fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// It is asked whether it is ready.
    pub(super) fn asks_ready(&mut self, target: &Target) {
        self.doing = Doing::AsksReady { target: shortened(&target.to_string()) };
    }

    /// It comes to rest.
    pub(super) fn settles(&mut self) {
        self.doing = Doing::Settles;
    }

    /// It is asked to prepare for the freeze.
    pub(super) fn asks_before_freeze(&mut self, target: &Target) {
        self.doing = Doing::BeforeFreeze { target: shortened(&target.to_string()) };
    }

    /// The requests of one warm-up begin.
    pub(super) fn warms_up(&mut self, warm_up: &WarmUp) {
        self.doing = Doing::WarmsUp { path: path(warm_up), answered: 0, times: warm_up.times };
    }

    /// They are repeated.
    pub(super) fn repeats(&mut self, warm_up: &WarmUp, answered: u32) {
        self.doing = Doing::Repeats { path: path(warm_up), answered };
    }

    /// One of them is answered.
    pub(super) fn answered(&mut self) {
        if let Doing::WarmsUp { answered, .. } = &mut self.doing {
            *answered = answered.saturating_add(1);
        }
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(host_clock::monotonic_ns().saturating_sub(self.began_ns))
    }
}

fn path(warm_up: &WarmUp) -> String {
    shortened(&String::from_utf8_lossy(&warm_up.path))
}

fn shortened(path: &str) -> String {
    path.chars().take(PATH_MAX).collect()
}

impl Progress {
    /// Writes a line to the program's log if one is due.
    pub(super) fn say(&mut self, now_ns: u64, runner: &Runner, is_server: bool, port: Option<u16>) {
        if now_ns < self.next_ns {
            return;
        }
        let elapsed = self.elapsed();
        let pause = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX).min(LONGEST_NS);
        self.next_ns = now_ns.saturating_add(pause);
        let line =
            format!("mayfly: booting for {} s: {}\n", elapsed.as_secs(), self.doing(&runner.process, is_server, port));
        runner.log.0.write(Stream::Stderr, line.as_bytes());
    }

    fn doing(&self, process: &Process, is_server: bool, port: Option<u16>) -> String {
        match &self.doing {
            Doing::AsksReady { target } => {
                format!("the program has not answered {target} (\"ready\") as it must yet; {}", process.thread_list())
            }
            Doing::Settles => format!("the program comes to rest for the freeze; {}", process.thread_list()),
            Doing::BeforeFreeze { target } => {
                format!("the program has not answered {target} (\"before_freeze\") yet; {}", process.thread_list())
            }
            Doing::WarmsUp { path, answered, times } => {
                format!("the program has answered {answered} of {times} warm-up requests for {path}")
            }
            Doing::Repeats { path, answered } => {
                format!("the program has answered {answered} more warm-up requests, until {path} gets no cheaper")
            }
            Doing::Starts if is_server && process.listeners().is_empty() => {
                format!("the program does not listen yet; {}", process.thread_list())
            }
            Doing::Starts if is_server && process.application() == Application::Missing => {
                let listeners = process.listeners();
                let port = port.map(|port| format!(" on its \"port\" {port}")).unwrap_or_default();
                format!("the program listens on {listeners}, and not yet{port}; {}", process.thread_list())
            }
            Doing::Starts if is_server => {
                format!("the program listens, and does not wait for connections yet; {}", process.thread_list())
            }
            Doing::Starts => format!("the program does not wait for a request yet; {}", process.thread_list()),
        }
    }

    /// The error of a program that is not ready: its time is over, or all its threads wait forever. A boot may take
    /// `boot_time` of CPU time, and `patience` times that by the wall clock.
    pub(super) fn not_ready(
        &self,
        stop: &Stop,
        process: &Process,
        is_server: bool,
        boot_time: Duration,
        patience: u64,
    ) -> BootError {
        let threads = process.thread_list();
        let why = match stop {
            Stop::Stuck { .. } | Stop::Waits { .. } => "before all its threads waited forever".to_owned(),
            Stop::WallLimit => {
                let time = Duration::from_nanos(nanoseconds(boot_time).saturating_mul(patience));
                format!("within {time:?} ({patience} times the limit boot_ms)")
            }
            _ => format!("within {boot_time:?} of CPU time (the limit boot_ms)"),
        };
        match &self.doing {
            Doing::WarmsUp { path, answered, .. } | Doing::Repeats { path, answered } => {
                let error = format!("it answered {answered} of them {why}; {threads}");
                BootError::WarmUp { path: path.clone(), error }
            }
            Doing::Settles => BootError::NeverRests { why, threads },
            Doing::BeforeFreeze { target } => {
                BootError::BeforeFreeze(format!("{target} was not answered {why}; {threads}"))
            }
            Doing::Starts if is_server && process.listeners().is_empty() => BootError::NeverListened { why, threads },
            // Of `ready`, the boot makes an error of its own: it knows the last answer.
            Doing::Starts | Doing::AsksReady { .. } => match stop {
                Stop::Stuck { call } | Stop::Waits { call, .. } => BootError::Stuck { call, threads },
                _ => BootError::TimedOut { why, threads },
            },
        }
    }
}
