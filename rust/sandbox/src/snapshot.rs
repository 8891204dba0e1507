// SPDX-License-Identifier: MIT OR Apache-2.0
//! Booting a program and freezing it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mayfly_kvm::{Image, Learned, Machine, SharedMemory, layout};
use mayfly_linux::{LimitHits, Process};

use crate::abi::{
    ABI_MAX, ABI_MIN, AT_MAYFLY, ENOSYS, EPROTO, OP_CALL, OP_HOOKS, OP_RESPOND, OP_WAIT, RANDOM_OFFSET, page_header,
    speaks,
};
use crate::clock;
use crate::entropy::Entropy;
use crate::error::BootError;
use crate::host::Host;
use crate::limits::{Limits, nanoseconds};
use crate::output::{LogSink, SharedLog};
use crate::program::Program;
use crate::run::{Exits, Runner, Stop};
use crate::watchdog::{self, Leg, NEVER, Watched};

/// A booted, frozen program; cheap to clone, shared by its workers.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) image: Image,
    pub(crate) process: Process,
    pub(crate) limits: Limits,
    pub(crate) log: SharedLog,
    boot_time: Duration,
    has_handover: bool,
    limit_hits: LimitHits,
    learned: Mutex<BTreeSet<Learned>>,
    learned_len: AtomicUsize,
}

impl Snapshot {
    /// Boots `program` and freezes it where it first waits for a request.
    ///
    /// This takes as long as the program's start, and at most [`Limits::boot_time`] and a little: never call it on an event loop.
    ///
    /// # Errors
    ///
    /// [`BootError`] names the cause.
    pub fn boot(host: &Host, program: &Program, limits: &Limits, log: Arc<dyn LogSink>) -> Result<Self, BootError> {
        let started = Instant::now();
        let mut machine = Machine::boot(&host.machine, limits.boot_memory_bytes, limits.request_bytes)?;
        if let Some(shared) = &program.shared {
            machine.share(shared)?;
        }
        let shared_bytes = program.shared.as_ref().map(SharedMemory::bytes);
        let header = page_header(limits.request_bytes, limits.response_bytes, shared_bytes);
        machine.load(layout::DOORBELL, &header).map_err(|error| BootError::Failed(error.to_string()))?;
        let failed = |error: std::io::Error| BootError::Failed(error.to_string());
        let mut entropy = Entropy::new().map_err(failed)?;
        let mut random = [0; 16];
        entropy.fill(&mut random);
        machine.write_inbox(RANDOM_OFFSET, &random);

        let description = mayfly_linux::Program {
            elf: program.elf.for_linux(),
            name: &program.name,
            args: &program.args,
            env: &program.env,
            mounts: &program.mounts,
        };
        let linux = mayfly_linux::Limits {
            mappings: limits.mappings as usize,
            descriptors: limits.descriptors as usize,
            threads: limits.threads,
            memory_bytes: limits.boot_memory_bytes,
            ..Default::default()
        };
        let auxv = [(AT_MAYFLY, layout::DOORBELL)];
        let process = Process::exec(&mut machine, &description, &auxv, layout::INBOX + RANDOM_OFFSET, &linux)?;
        let log = SharedLog(log);
        watchdog::start().map_err(failed)?;
        let mut runner = Runner { process, entropy, log: log.clone() };
        let has_handover = boot_until_ready(&mut machine, &mut runner, limits)?;
        let Runner { mut process, .. } = runner;
        process.freeze();
        let limit_hits = process.take_limit_hits();
        let image = Image::freeze(machine, layout::INBOX)?;
        Ok(Self {
            inner: Arc::new(Inner {
                image,
                process,
                limits: limits.clone(),
                log,
                boot_time: started.elapsed(),
                has_handover,
                limit_hits,
                learned: Mutex::new(BTreeSet::new()),
                learned_len: AtomicUsize::new(0),
            }),
        })
    }

    /// How long the boot took.
    #[must_use]
    pub fn boot_time(&self) -> Duration {
        self.inner.boot_time
    }

    /// Whether the program can hand its state over to a later generation: see [`Worker::save`](crate::Worker::save).
    #[must_use]
    pub fn has_handover(&self) -> bool {
        self.inner.has_handover
    }

    /// Size of the frozen memory in bytes.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        self.inner.image.bytes()
    }

    /// The limits that the program was booted with and its workers have.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Limits that the program hit while it booted.
    #[must_use]
    pub fn limit_hits(&self) -> LimitHits {
        self.inner.limit_hits
    }

    /// System calls that the program made and Mayfly does not have: number and count.
    #[must_use]
    pub fn unknown_calls(&self) -> Vec<mayfly_linux::UnknownCall> {
        self.inner.process.unknown_calls()
    }
}

/// A boot that gets little of the CPU may take so many times its limit of it in time.
const PATIENCE: u64 = 4;

/// Boots; returns whether the program has hooks for handing its state over.
fn boot_until_ready(machine: &mut Machine, runner: &mut Runner, limits: &Limits) -> Result<bool, BootError> {
    let began_ns = clock::monotonic_ns();
    let time_ns = nanoseconds(limits.boot_time);
    let leg = Leg {
        began_ns,
        slice_end_ns: NEVER,
        wall_end_ns: began_ns.saturating_add(time_ns.saturating_mul(PATIENCE)),
        cpu_end_ns: began_ns.saturating_add(time_ns),
    };
    let kicker = machine.kicker();
    let mut has_handover = false;
    let run = |watched: &Watched<'_>| boot_watched(machine, runner, watched, &mut has_handover);
    // SAFETY: `machine` is borrowed for as long.
    let result = unsafe { watchdog::watched(&kicker, &leg, run) };
    match result {
        Ok(abi) if speaks(abi) => Ok(has_handover),
        Ok(wanted) => Err(BootError::Abi { wanted, min: ABI_MIN, max: ABI_MAX }),
        Err(stop) => Err(boot_error(stop, limits)),
    }
}

/// Runs until the program waits for a request; returns the ABI that it speaks.
fn boot_watched(
    machine: &mut Machine,
    runner: &mut Runner,
    watched: &Watched<'_>,
    has_handover: &mut bool,
) -> Result<u64, Stop> {
    let mut exits = Exits::default();
    loop {
        runner.run(machine, watched, &mut exits)?;
        let regs = machine.regs();
        if regs.rdi == OP_WAIT {
            return Ok(regs.rdx);
        }
        let answer = match regs.rdi {
            OP_HOOKS if speaks(regs.rdx) => {
                *has_handover = true;
                0
            }
            // There is no request yet that it could respond to, or call for.
            OP_RESPOND | OP_CALL | OP_HOOKS => EPROTO,
            _ => ENOSYS,
        };
        machine.return_from_doorbell(answer as u64);
    }
}

fn boot_error(stop: Stop, limits: &Limits) -> BootError {
    match stop {
        Stop::Exited { status } => BootError::Exited { status },
        Stop::Faulted(fault) => BootError::Faulted(fault),
        Stop::CpuLimit | Stop::WallLimit | Stop::Slice => BootError::TimedOut { limit: limits.boot_time },
        Stop::Stuck { call } => BootError::Stuck { call },
        Stop::MemoryLimit => BootError::MemoryLimit { limit_bytes: limits.boot_memory_bytes },
        Stop::Failed(why) => BootError::Failed(why),
    }
}

impl Inner {
    fn learned_set(&self) -> MutexGuard<'_, BTreeSet<Learned>> {
        // Nothing panics while it holds the lock, so a poisoned one is as good as any.
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pages that workers have been seen to write, for the next fork.
    pub(crate) fn learned(&self) -> Vec<Learned> {
        self.learned_set().iter().copied().collect()
    }

    /// Adds pages that a worker has written, up to the retained size.
    #[cold]
    pub(crate) fn learn(&self, pages: impl Iterator<Item = Learned>) {
        let most = (self.limits.retained_bytes / mayfly_kvm::PAGE_SIZE) as usize;
        let mut learned = self.learned_set();
        for page in pages {
            if learned.len() >= most {
                break;
            }
            learned.insert(page);
        }
        self.learned_len.store(learned.len(), Ordering::Relaxed);
    }
}
