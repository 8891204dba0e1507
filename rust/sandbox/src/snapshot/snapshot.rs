// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boots a program and freezes it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mayfly_engine::{Hold, Image, Learned, Machine, Purpose};
use mayfly_linux::{ConnectionId, Connects, LimitHits, Network, Process, RefusedProcesses};
use mayfly_machine::{PAGE_SIZE, SharedMemory, layout};

use crate::abi::{AT_MAYFLY, RANDOM_OFFSET, page_header};
use crate::boot::boot::Boot;
use crate::entropy::Entropy;
use crate::error::BootError;
use crate::host::Host;
use crate::limits::Limits;
use crate::output::{LogSink, SharedLog};
use crate::program::Program;
use crate::protocol::{Protocol, Service, Target};
use crate::run::Runner;
use crate::snapshot::boot_inputs::BootInputs;
use crate::snapshot::frozen_clock::FrozenClock;
use crate::time::watchdog;

/// A booted, frozen program; cheap to clone, shared by its workers.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) image: Image,
    pub(crate) process: Process,
    /// For what the program keeps besides its image.
    pub(crate) _kept: Hold,
    pub(crate) limits: Limits,
    pub(crate) log: SharedLog,
    pub(crate) boot_time: Duration,
    pub(crate) booted_from: BootedFrom,
    pub(crate) inputs: BootInputs,
    pub(crate) has_handover: bool,
    pub(crate) service: Option<FrozenService>,
    pub(crate) clock: FrozenClock,
    pub(crate) limit_hits: LimitHits,
    pub(crate) connects: Connects,
    pub(crate) refused: RefusedProcesses,
    pub(crate) learned: Mutex<BTreeSet<Learned>>,
    pub(crate) learned_len: AtomicUsize,
}

/// How a snapshot was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootedFrom {
    /// The program was booted.
    Program,
    /// The snapshot was saved before, by this or another process.
    File,
}

/// What workers of a program that serves connections begin with.
#[derive(Debug)]
pub(crate) struct FrozenService {
    pub(crate) protocol: Arc<dyn Protocol>,
    /// The connection that the program kept open.
    pub(crate) connection: Option<ConnectionId>,
    /// What each fork and each reset worker is asked for before its first request.
    pub(crate) after_restore: Option<Arc<Target>>,
}

impl FrozenService {
    pub(crate) fn new(service: &Service, connection: Option<ConnectionId>) -> Self {
        let after_restore = service.after_restore.clone().map(Arc::new);
        Self { protocol: Arc::clone(&service.protocol), connection, after_restore }
    }
}

/// Holds the process's memory for what a frozen program keeps besides its image; `None` if there is none left.
pub(crate) fn hold_kept(host: &Host, process: &Process) -> Option<Hold> {
    let mut hold = Hold::new(host.machine.account(), Purpose::Boot);
    let pages = process.kept_bytes().div_ceil(PAGE_SIZE);
    hold.cover(pages).then_some(hold)
}

impl Snapshot {
    /// Boots `program` and freezes it where it first waits for a request.
    ///
    /// This takes as long as the program's start: never call it on an event loop. [`Limits::boot_time`] bounds its CPU
    /// time and, fourfold, its wall-clock time.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mayfly_sandbox::{BootedFrom, Host, Limits, NoLog, Program, Snapshot};
    /// # let path = std::path::Path::new("../../build/tenants/hello/hello"); // `make tenants` builds it.
    /// # let (Ok(host), true) = (Host::open(), path.exists()) else { return Ok(()) }; // Or no engine runs here.
    /// let program = Program::load(path)?;
    /// let snapshot = Snapshot::boot(&host, &program, &Limits::default(), Arc::new(NoLog))?;
    /// assert_eq!(snapshot.booted_from(), BootedFrom::Program);
    /// println!("{} bytes, booted in {:?}", snapshot.image_bytes(), snapshot.boot_time());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
        let mut entropy = Entropy::new()?;
        let mut random = [0; 16];
        entropy.fill(&mut random);
        machine.write_inbox(RANDOM_OFFSET, &random);

        let network = Network::new(&program.outbound);
        let description = program.for_linux(&network);
        let linux = limits.for_linux();
        let auxv = [(AT_MAYFLY, layout::DOORBELL)];
        let process = Process::exec(&mut machine, &description, &auxv, layout::INBOX + RANDOM_OFFSET, &linux)?;
        let log = SharedLog(log);
        watchdog::start()?;
        let mut runner = Runner { process, entropy, log: log.clone(), may_block: true };
        let boot = Boot::new(&mut machine, &mut runner, limits);
        let booted = match &program.service {
            None => boot.run_to_doorbell(),
            Some(service) => boot.run_to_service(service),
        };
        let ready = booted.map_err(|error| error.after(runner.process.take_limit_hits()))?;
        let Runner { mut process, .. } = runner;
        if let Some(path) = process.locked_file() {
            return Err(BootError::Locked { path });
        }
        process.freeze();
        let clock = FrozenClock::now(program.monotonic);
        let limit_hits = process.take_limit_hits();
        let connects = process.take_connects();
        let refused = process.take_refused_processes();
        // For a program at the doorbell, this is the result of its call; the calls of others have results of their own.
        let image = Image::freeze(machine, layout::INBOX)?;
        let kept = hold_kept(host, &process).ok_or(BootError::ServerMemory)?;
        let service = program.service.as_ref().map(|service| FrozenService::new(service, ready.connection));
        Ok(Self {
            inner: Arc::new(Inner {
                image,
                process,
                _kept: kept,
                limits: limits.clone(),
                log,
                boot_time: started.elapsed(),
                booted_from: BootedFrom::Program,
                inputs: BootInputs::of(program, limits),
                has_handover: ready.has_handover,
                service,
                clock,
                limit_hits,
                connects,
                refused,
                learned: Mutex::new(BTreeSet::new()),
                learned_len: AtomicUsize::new(0),
            }),
        })
    }

    /// Whether the program was booted, or the snapshot came from a file.
    #[must_use]
    pub fn booted_from(&self) -> BootedFrom {
        self.inner.booted_from
    }

    /// How long the boot took, or the loading.
    #[must_use]
    pub fn boot_time(&self) -> Duration {
        self.inner.boot_time
    }

    /// Whether the program can hand its state over to a later generation: see [`Worker::save`](crate::Worker::save).
    #[must_use]
    pub fn has_handover(&self) -> bool {
        self.inner.has_handover
    }

    /// The port, inside the machine, at which requests reach a program that serves connections.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.inner.process.application_port()
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

    /// How often the program used the network while it booted.
    #[must_use]
    pub fn connects(&self) -> Connects {
        self.inner.connects
    }

    /// How often the program was refused another process while it booted.
    #[must_use]
    pub fn refused_processes(&self) -> RefusedProcesses {
        self.inner.refused
    }

    /// System calls that the program made and Mayfly does not implement: number and count.
    #[must_use]
    pub fn unknown_calls(&self) -> Vec<mayfly_linux::UnknownCall> {
        self.inner.process.unknown_calls()
    }
}

impl Inner {
    fn learned_set(&self) -> MutexGuard<'_, BTreeSet<Learned>> {
        // No code panics while it holds the lock, so a poisoned lock is safe to use.
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pages that workers have been seen to write, for the next fork.
    pub(crate) fn learned(&self) -> Vec<Learned> {
        self.learned_set().iter().copied().collect()
    }

    /// Adds pages that a worker has written, up to the retained size.
    #[cold]
    pub(crate) fn learn(&self, pages: impl Iterator<Item = Learned>) {
        let most = (self.limits.retained_bytes / mayfly_machine::PAGE_SIZE) as usize;
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
