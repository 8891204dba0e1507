// SPDX-License-Identifier: MIT OR Apache-2.0
//! A booted program of a tenant, which program that is, and its workers.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mayfly_sandbox::{Elf, ForkError, Snapshot, Worker, WorkerState};

use crate::config::{Mode, TenantConfig};
use crate::storage::Store;
use crate::workers::Permit;

/// A booted program.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) snapshot: Snapshot,
    pub(crate) config: Arc<TenantConfig>,
    pub(crate) store: Option<Arc<Store>>,
    /// Which program it is.
    pub(crate) origin: Origin,
    /// Where its snapshot is to be saved, if it is to be.
    pub(crate) file: Option<PathBuf>,
    /// Values of the headers that show the mode, if they are wanted.
    pub(crate) mode: String,
    pub(crate) number_text: String,
    pub(crate) made_at: Instant,
    /// It answered before, and does so again.
    pub(crate) is_rolled_back: bool,
}

/// Which program a generation runs, to tell whether its file has changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// None for an upload, which has no file when it boots.
    pub(crate) stamp: Option<Stamp>,
    pub(crate) digest: u64,
    /// Of the files that the tenant's `watch` names.
    pub(crate) watched: u64,
}

/// A file's identity, size and times: if these stay, its content is not read again.
pub(crate) type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

/// A worker, and the generation that it is of.
#[derive(Debug)]
pub(crate) struct Forked {
    /// Boxed: it changes hands on every request, and it is large.
    pub(crate) worker: Box<Worker>,
    pub(crate) generation: Arc<Generation>,
    // Copied out of the generation: every request asks for them, and after a world switch each line that is touched is a miss.
    pub(crate) number: u64,
    pub(crate) slice: Duration,
    /// None for a worker that serves one request and is not kept.
    pub(crate) permit: Option<Permit>,
}

impl Forked {
    /// Whether nothing is lost when it is closed.
    pub(crate) fn is_ephemeral(&self) -> bool {
        self.generation.config.mode == Mode::Ephemeral
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
        origin: Origin,
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
            origin,
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

    /// Whether workers of this generation take over the state of those of `former`.
    pub(crate) fn succeeds(&self, former: Option<&Self>) -> bool {
        self.keeps_live_state() && former.is_some_and(Self::keeps_live_state)
    }

    fn keeps_live_state(&self) -> bool {
        self.config.mode == Mode::Stateful && self.snapshot.has_handover()
    }
}

pub(crate) fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    let times = ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
    Some((file.dev(), file.ino(), file.size(), times.0, times.1))
}

/// Tells programs apart; not meant to withstand anybody who wants two to look the same, who would only cheat himself.
pub(crate) fn digest(elf: &Elf) -> u64 {
    let mut hasher = DefaultHasher::new();
    elf.hash(&mut hasher);
    hasher.finish()
}
