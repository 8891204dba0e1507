// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tenant's booted program, its identity, and its workers.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mayfly_files::FileStamp;
use mayfly_sandbox::{BootedFrom, Elf, ForkError, Snapshot, Worker, WorkerState};

use crate::config::cpu_share::CpuShare;
use crate::config::{Mode, TenantConfig};
use crate::host::workers::WorkerPermit;
use crate::model::leg_timer::LegTimer;
use crate::model::slot_permit::SlotPermit;
use crate::model::store::Store;

/// A booted program.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) snapshot: Snapshot,
    pub(crate) config: Arc<TenantConfig>,
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) identity: ProgramIdentity,
    /// The file that its snapshot is to be saved to, if any.
    pub(crate) file: Option<PathBuf>,
    /// Values of the response headers that show the mode and the generation, if the configuration asks for them.
    pub(crate) mode: String,
    pub(crate) number_text: String,
    pub(crate) made_at: Instant,
    /// It served before, and a rollback has brought it back.
    pub(crate) is_rolled_back: bool,
}

/// Identifies the program that a generation runs, so that a later change of its file is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProgramIdentity {
    /// `None` for an upload, which has no file when it boots.
    pub(crate) stamp: Option<FileStamp>,
    pub(crate) digest: u64,
    /// Digest of the files that the tenant's `watch` names.
    pub(crate) watched: u64,
}

/// A worker and its generation.
#[derive(Debug)]
pub(crate) struct Forked {
    /// Boxed: it is moved on every request, and it is large.
    pub(crate) worker: Box<Worker>,
    pub(crate) generation: Arc<Generation>,
    // Copies of the generation's values. Every request reads them, and after a world switch each cache line that it
    // touches is a miss.
    pub(crate) number: u64,
    pub(crate) slice: Duration,
    /// `None` for a worker that serves one request and is not kept.
    pub(crate) permit: Option<WorkerPermit>,
    /// For a worker whose program runs between requests.
    pub(crate) legs: Option<Box<LegTimer>>,
    /// For one of a fixed number of workers: dropped after the worker, so that there is room for the next one.
    pub(crate) slot: Option<Box<SlotPermit>>,
}

impl Forked {
    /// Whether closing it loses no state.
    pub(crate) fn is_ephemeral(&self) -> bool {
        self.generation.config.mode == Mode::Ephemeral
    }

    /// Whether its next request would begin with the program's hook.
    #[inline]
    pub(crate) fn needs_hook(&self) -> bool {
        self.worker.needs_hook()
    }

    /// The number of its entry in the timetable.
    pub(crate) fn leg_number(&self) -> Option<u64> {
        self.legs.as_ref()?.entry.as_ref().map(|entry| entry.number)
    }

    /// Whether the worker can take another request.
    pub(crate) fn is_ready(&self) -> bool {
        self.worker.state() == WorkerState::Ready
    }
}

impl Generation {
    pub(crate) fn new(
        number: u64,
        snapshot: Snapshot,
        config: Arc<TenantConfig>,
        store: Option<Arc<Store>>,
        identity: ProgramIdentity,
    ) -> Self {
        Self {
            number,
            snapshot,
            mode: config.mode.to_string(),
            number_text: number.to_string(),
            made_at: Instant::now(),
            is_rolled_back: false,
            config,
            store,
            identity,
            file: None,
        }
    }

    pub(crate) fn fork(&self) -> Result<Worker, ForkError> {
        match self.config.mode {
            Mode::Ephemeral => Worker::fork(&self.snapshot),
            Mode::Stateful => Worker::fork_keeping_state(&self.snapshot),
            Mode::ResetEvery(requests) => Worker::fork_resetting_every(&self.snapshot, requests),
        }
    }

    /// Whether programs of this generation run between requests.
    pub(crate) fn runs_between_requests(&self) -> bool {
        self.config.background_cpu() != CpuShare::NONE
    }

    /// How the snapshot was made, as a word for logs and reports.
    pub(crate) fn booted_from(&self) -> &'static str {
        match self.snapshot.booted_from() {
            BootedFrom::Program => "program",
            BootedFrom::File => "snapshot",
        }
    }

    /// Whether workers of this generation take over the state of workers of `former`.
    pub(crate) fn succeeds(&self, former: Option<&Self>) -> bool {
        self.keeps_live_state() && former.is_some_and(Self::keeps_live_state)
    }

    fn keeps_live_state(&self) -> bool {
        self.config.mode == Mode::Stateful && self.snapshot.has_handover()
    }
}

/// Distinguishes programs. It does not resist a tenant that constructs a collision, which would harm only that tenant.
pub(crate) fn digest(elf: &Elf) -> u64 {
    let mut hasher = DefaultHasher::new();
    elf.hash(&mut hasher);
    hasher.finish()
}
