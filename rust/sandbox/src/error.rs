// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors of booting, forking and calling.

use std::path::PathBuf;
use std::time::Duration;

use mayfly_engine::{CreateError, FreezeError, RunError};
use mayfly_files::Problem;
use mayfly_linux::{ExecError, Fault, LimitHits, Listeners, ThreadList};
use mayfly_machine::MemoryError;

use crate::entropy::EntropyError;
use crate::response::ResponseError;
use crate::time::watchdog::WatchdogError;

/// Why a program could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the program {path}: {source}")]
pub struct ProgramError {
    /// Its path.
    pub path: PathBuf,
    /// What is wrong with the file.
    pub source: Problem,
}

/// Why a program did not boot.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The machine could not be made.
    #[error("no machine for the program: {0}")]
    Machine(#[from] CreateError),
    /// The watchdog did not start.
    #[error("the boot cannot be watched: {0}")]
    Watchdog(#[from] WatchdogError),
    /// The system gave no randomness.
    #[error("no randomness for the program: {0}")]
    Entropy(#[from] EntropyError),
    /// The program could not be loaded.
    #[error("cannot load the program: {0}")]
    Exec(#[from] ExecError),
    /// The program ended before it waited for a request.
    #[error("the program exited with status {status} before it waited for a request")]
    Exited {
        /// Its exit status.
        status: i32,
    },
    /// The program was killed before it waited for a request.
    #[error("the program was {0} before it waited for a request")]
    Faulted(Fault),
    /// The program holds a lock that its workers cannot all have.
    #[error(
        "the program has locked {path:?}, in a durable mount, when it is ready: expected a lock that it takes in each request, and releases"
    )]
    Locked {
        /// The file, in the program's view.
        path: String,
    },
    /// The program took too long.
    #[error("the program did not wait for a request {why}; {threads}")]
    TimedOut {
        /// Its limit.
        why: String,
        /// What its threads did then.
        threads: ThreadList,
    },
    /// A program that is to serve connections never listened.
    #[error("the program never listened for connections {why}; {threads}")]
    NeverListened {
        /// Its limit, or why it will not listen any more.
        why: String,
        /// What its threads did then.
        threads: ThreadList,
    },
    /// The program is a server, but its tenant is not configured as one.
    #[error(
        "the program waits for connections to {listeners}, not for a request: it is a server, so its tenant needs \"serve\": \"connections\" (mayfly run --serve connections)"
    )]
    Listens {
        /// What it listens on.
        listeners: Listeners,
    },
    /// It is not clear which of the program's listeners is its application.
    #[error("the program listens on {listeners}: {}", choose(*.port))]
    Ambiguous {
        /// The port that is named.
        port: Option<u16>,
        /// What it listens on, in the order in which it began to.
        listeners: Listeners,
    },
    /// The program's application does not listen.
    #[error("the program listens on {listeners}, and not {}", wanted(*.port))]
    NotListening {
        /// The port that is named.
        port: Option<u16>,
        /// What it listens on, in the order in which it began to.
        listeners: Listeners,
    },
    /// The program waits for something that cannot come.
    #[error("the program waits forever in {call}, before it waited for a request; {threads}")]
    Stuck {
        /// What it waits in.
        call: &'static str,
        /// What all its threads wait in.
        threads: ThreadList,
    },
    /// The program ended after a limit had refused it something.
    #[error("{error}; before that, {}: if the program needs more, raise limits.{}", refused(.hits), first_of(.hits))]
    AfterLimit {
        /// How it ended.
        error: Box<Self>,
        /// What was refused.
        hits: LimitHits,
    },
    /// A warm-up request was not answered.
    #[error("the warm-up request for {path} was not answered: {error}")]
    WarmUp {
        /// Its path.
        path: String,
        /// What was wrong.
        error: String,
    },
    /// The program did not say in time that it is ready.
    #[error("the program was not ready {within}: {why}")]
    NotReady {
        /// How long it had: `within_ms`, or another limit that ended the boot first.
        within: String,
        /// What it answered last, or what it waited for.
        why: String,
    },
    /// The program does not come to rest, so that it cannot be frozen.
    #[error("the program did not come to rest for the freeze {why}; {threads}")]
    NeverRests {
        /// Its limit, or that all its threads wait forever.
        why: String,
        /// What its threads did then.
        threads: ThreadList,
    },
    /// What the program is asked for just before the freeze failed.
    #[error("\"before_freeze\": {0}")]
    BeforeFreeze(String),
    /// The program needed too much memory.
    #[error("the program needs more than {limit_bytes} bytes of memory to boot, its limit boot_memory_mib")]
    MemoryLimit {
        /// The limit.
        limit_bytes: u64,
    },
    /// The process's bound on memory is reached, and the boot needed more.
    #[error(
        "the server has no memory left to boot the program: its bound (max_memory_mib, or the limit of its cgroup or machine) is reached"
    )]
    ServerMemory,
    /// The program was built for another ABI.
    #[error(
        "the program speaks version {wanted} of the guest ABI; this host speaks {min} to {max}: rebuild it with this host's mayfly.h"
    )]
    Abi {
        /// The program's version.
        wanted: u64,
        /// Oldest version here.
        min: u32,
        /// Newest version here.
        max: u32,
    },
    /// The program has put its machine into a state that no program needs: this may be an attack.
    #[error("the program put its machine into a forbidden state: {0}")]
    Violation(String),
    /// The machine did something unexpected.
    #[error("the machine failed: {0}")]
    Failed(String),
    /// The engine failed.
    #[error("the machine failed: {0}")]
    Run(#[from] RunError),
    /// The booted machine could not be frozen.
    #[error("cannot freeze the booted program: {0}")]
    Freeze(#[from] FreezeError),
}

impl BootError {
    /// The error of a program to which limits had refused something before, which may be the reason.
    pub(crate) fn after(self, hits: LimitHits) -> Self {
        let is_of_the_program = matches!(
            self,
            Self::Exited { .. }
                | Self::Faulted(_)
                | Self::Stuck { .. }
                | Self::TimedOut { .. }
                | Self::NeverListened { .. }
                | Self::WarmUp { .. }
                | Self::NotReady { .. }
                | Self::NeverRests { .. }
                | Self::BeforeFreeze(_)
        );
        if is_of_the_program && hits != LimitHits::default() {
            Self::AfterLimit { error: Box::new(self), hits }
        } else {
            self
        }
    }
}

fn limits_of(hits: &LimitHits) -> impl Iterator<Item = (&'static str, u32)> {
    let all = [("descriptors", hits.descriptors), ("threads", hits.threads), ("mappings", hits.mappings)];
    all.into_iter().filter(|&(_, times)| times > 0)
}

/// As in "its limit threads was reached 3 times".
fn refused(hits: &LimitHits) -> String {
    let one = |(limit, times)| match times {
        1 => format!("its limit {limit} was reached"),
        times => format!("its limit {limit} was reached {times} times"),
    };
    limits_of(hits).map(one).collect::<Vec<_>>().join(", ")
}

fn first_of(hits: &LimitHits) -> &'static str {
    limits_of(hits).next().map_or("", |(limit, _)| limit)
}

/// What to do about several listeners.
fn choose(port: Option<u16>) -> String {
    match port {
        None => "set \"port\" of its tenant to the application's port (mayfly run --program-port)".into(),
        Some(port) => format!("have it listen on port {port} at one address of a family"),
    }
}

/// Where a program does not listen.
fn wanted(port: Option<u16>) -> String {
    match port {
        None => "on a port of TCP, by which requests reach it".into(),
        Some(port) => format!("on port {port}, which \"port\" of its tenant names (mayfly run --program-port)"),
    }
}

/// Why a worker could not be forked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForkError {
    /// The machine could not be made.
    #[error("cannot fork a worker: {0}")]
    Machine(#[from] CreateError),
    /// The watchdog did not start.
    #[error("cannot fork a worker: {0}")]
    Watchdog(#[from] WatchdogError),
    /// The system gave no randomness.
    #[error("cannot fork a worker: {0}")]
    Entropy(#[from] EntropyError),
}

impl ForkError {
    /// Whether the process's bound on memory is the reason.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Machine(error) if error.is_full())
    }
}

/// Why a request got no response from its program.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The request does not fit the inbox. The worker is as before.
    #[error("the request takes {bytes} bytes; the limit is {limit}")]
    RequestTooLarge {
        /// Its size with its frame.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The program sent something that is not a valid response. The worker must be reset.
    #[error("invalid response: {0}")]
    Response(#[from] ResponseError),
    /// What the program is asked for before the first request did not work. The worker must be reset.
    #[error("\"after_restore\": the program answered {status} instead of a status from 200 to 299")]
    AfterRestore {
        /// The program's answer.
        status: u16,
    },
    /// The program ended.
    #[error("the program exited with status {status}")]
    Exited {
        /// Its exit status.
        status: i32,
    },
    /// The program was killed.
    #[error("the program was {0}")]
    Faulted(Fault),
    /// The program used too much CPU time.
    #[error("the request ran longer than {limit:?}")]
    CpuLimit {
        /// The limit.
        limit: Duration,
    },
    /// The request took too long, by the wall clock.
    #[error("the request took longer than {limit:?}")]
    WallLimit {
        /// The limit.
        limit: Duration,
    },
    /// The program waits for something that cannot come, such as a signal: it would hit its time limit.
    #[error("the program waits forever in {call}")]
    Stuck {
        /// What it waits in.
        call: &'static str,
    },
    /// The program no longer listens for connections, or leaves too many of them waiting.
    #[error("the program does not accept a connection")]
    NotListening,
    /// The program wrote to, or asked for, too much memory.
    #[error("the request needs more than {limit_bytes} bytes of private memory")]
    MemoryLimit {
        /// The limit.
        limit_bytes: u64,
    },
    /// The process's bound on memory is reached, and the request needed more.
    #[error(
        "the server has no memory left for this request: its bound (max_memory_mib, or the limit of its cgroup or machine) is reached"
    )]
    ServerMemory,
    /// The program has no hooks for its state (`None`), or its hook failed. The worker is as after any request.
    #[error("the program did not hand its state over (status {status:?})")]
    Handover {
        /// The status that its hook answered instead of 200.
        status: Option<u16>,
    },
    /// The program has put its machine into a state that no program needs: this may be an attack. The worker is
    /// poisoned.
    #[error("the program put its machine into a forbidden state: {0}")]
    Violation(String),
    /// The machine failed, and the program did not cause it.
    #[error("the machine failed: {0}")]
    Failed(String),
    /// The worker had been poisoned before; nothing was run.
    #[error("the worker is poisoned and must be replaced")]
    Poisoned,
}

impl From<RunError> for CallError {
    fn from(error: RunError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<MemoryError> for CallError {
    fn from(error: MemoryError) -> Self {
        Self::Failed(error.to_string())
    }
}
