// SPDX-License-Identifier: MIT OR Apache-2.0
//! One tenant at run time: its snapshot, or why there is none.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use mayfly_sandbox::{ForkError, Host, LogSink, Program, Snapshot, Worker, WorkerState};

use crate::config::{Mode, TenantConfig};
use crate::tenant_log::TenantLog;

/// A tenant, shared by all threads.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) config: TenantConfig,
    pub(crate) log: Arc<TenantLog>,
    /// The number of the generation in `state`, 0 while there is none: what a loop compares on every request.
    generation: AtomicU64,
    state: RwLock<State>,
    /// Requests of this tenant that wait for a background thread.
    pub(crate) deferred: AtomicUsize,
}

/// Where a tenant is in its life.
#[derive(Debug, Clone)]
pub(crate) enum State {
    Booting,
    Failed { reason: String },
    Ready(Generation),
}

/// A booted program.
#[derive(Debug, Clone)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) snapshot: Snapshot,
}

/// A worker, and the generation that it is of.
#[derive(Debug)]
pub(crate) struct Forked {
    /// Boxed: it changes hands on every request, and it is large.
    pub(crate) worker: Box<Worker>,
    pub(crate) generation: u64,
}

impl Forked {
    /// Whether the worker can take another request.
    pub(crate) fn is_ready(&self) -> bool {
        self.worker.state() == WorkerState::Ready
    }
}

impl Tenant {
    pub(crate) fn new(config: TenantConfig) -> Self {
        let log = Arc::new(TenantLog::new(config.name.clone(), config.limits.log_bytes_per_second));
        Self {
            config,
            log,
            generation: AtomicU64::new(0),
            state: RwLock::new(State::Booting),
            deferred: AtomicUsize::new(0),
        }
    }

    /// The number of the generation that answers requests now; 0 means none.
    pub(crate) fn generation(&self) -> u64 {
        // Only the number is compared; the snapshot behind it is read under the lock.
        self.generation.load(Ordering::Relaxed)
    }

    pub(crate) fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_state(&self, state: State) {
        let number = match &state {
            State::Ready(generation) => generation.number,
            State::Booting | State::Failed { .. } => 0,
        };
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        self.generation.store(number, Ordering::Relaxed);
    }

    /// Boots the program, which takes as long as it takes, up to its limit.
    pub(crate) fn boot(&self, host: &Host) {
        let booted = self.program().and_then(|program| {
            Snapshot::boot(host, &program, &self.config.limits.machine, Arc::clone(&self.log) as Arc<dyn LogSink>)
                .map_err(|error| error.to_string())
        });
        self.log.end_partial_lines();
        match booted {
            Ok(snapshot) => {
                let boot_ms = snapshot.boot_time().as_millis();
                tracing::info!(target: "mayfly::server", tenant = %self.config.name, boot_ms, "tenant is ready");
                self.set_state(State::Ready(Generation { number: 1, snapshot }));
            }
            Err(reason) => self.fail(&reason),
        }
    }

    fn program(&self) -> Result<Program, String> {
        let program = Program::load(&self.config.program).map_err(|error| error.to_string())?;
        Ok(Program { args: self.config.args.clone(), env: self.config.env.clone(), ..program })
    }

    /// Keeps the tenant with the reason why it cannot answer.
    pub(crate) fn fail(&self, reason: &str) {
        let program = self.config.program.display();
        tracing::error!(target: "mayfly::server", tenant = %self.config.name, %program, reason, "tenant cannot answer requests");
        self.set_state(State::Failed { reason: reason.to_owned() });
    }

    /// Forks a worker: hundreds of microseconds, never on a loop thread.
    ///
    /// # Errors
    ///
    /// The reason why there is none, in words for the client.
    pub(crate) fn fork(&self) -> Result<Forked, String> {
        match self.state() {
            State::Ready(generation) => self
                .fork_from(&generation.snapshot)
                .map(|worker| Forked { worker: Box::new(worker), generation: generation.number })
                .map_err(|error| {
                    tracing::error!(target: "mayfly::server", tenant = %self.config.name, %error, "a worker could not be forked");
                    "no worker could be forked".to_owned()
                }),
            State::Booting | State::Failed { .. } => Err(self.excuse()),
        }
    }

    fn fork_from(&self, snapshot: &Snapshot) -> Result<Worker, ForkError> {
        if self.config.mode == Mode::Ephemeral { Worker::fork(snapshot) } else { Worker::fork_keeping_state(snapshot) }
    }

    /// Why there is no generation, in words for the client.
    pub(crate) fn excuse(&self) -> String {
        match self.state() {
            State::Failed { reason } => format!("the tenant cannot run: {reason}"),
            // It may have become ready since the caller looked; the client comes again in a second.
            State::Booting | State::Ready(_) => "the tenant is still booting".to_owned(),
        }
    }
}
