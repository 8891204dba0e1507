// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reports of a server's state, to be serialised as JSON.

pub(crate) mod metrics;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use mayfly_sandbox::{Auto, Choice, Engine, EngineReport, PAGE_SIZE};
use serde::Serialize;

use crate::config::TenantConfig;
use crate::memory::MemoryReport;
use crate::model::failure::Failure;
use crate::model::meter::Event;
use crate::model::tenant::{State, Tenant};

/// A server's state at one moment. Counts are since the start. Counters of different threads are read one after
/// another.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The host, its engines, or why it cannot run machines.
    pub host: HostReport,
    /// The tenants, in configuration order.
    pub tenants: Vec<TenantReport>,
    /// Requests without a tenant.
    pub unrouted: u64,
    /// Current number of workers.
    pub workers: usize,
    /// Largest allowed number of workers.
    pub max_workers: usize,
    /// Requests that have exceeded their inline budget, left their loop, and are not answered yet.
    pub overflow: usize,
    /// Descriptors that the process has open.
    pub descriptors: u64,
    /// Largest number of descriptors that the process may have open.
    pub max_descriptors: u64,
    /// Resident memory of the process, including shared pages.
    pub resident_bytes: u64,
    /// Memory in use, its bounds, and what has been done to keep them.
    pub memory: MemoryReport,
}

/// Whether a server is ready for requests, as its configuration defines it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// An engine can run tenants, no tenant that boots at start is still in its first boot, and the server is not
    /// ending.
    pub ready: bool,
    /// Shutdown has begun: the server finishes the requests in progress.
    pub ending: bool,
    /// Tenants that boot at start and are still booting.
    pub booting: usize,
    /// Tenants that do not boot. They answer 503, and do not keep the server from being ready.
    pub failed: usize,
}

/// The host and its engines.
#[derive(Debug, Serialize)]
pub struct HostReport {
    /// Whether tenants can run here.
    #[serde(flatten)]
    pub state: HostState,
    /// What the engine `auto` means, if a tenant is to run on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto: Option<AutoReport>,
    /// All engines.
    pub engines: Vec<EngineState>,
}

/// What the engine `auto` means here.
#[derive(Debug, Serialize)]
pub struct AutoReport {
    /// The engine's name. `None`: no engine can be used.
    pub engine: Option<&'static str>,
    /// Why it is this one.
    pub why: String,
}

impl From<Auto> for AutoReport {
    fn from(auto: Auto) -> Self {
        Self { engine: auto.host.ok().map(|host| host.engine().name()), why: auto.why }
    }
}

/// An engine.
#[derive(Debug, Serialize)]
pub struct EngineState {
    /// Its name in configurations: `kvm` or `process`.
    pub engine: &'static str,
    /// What is known of it.
    #[serde(flatten)]
    pub usability: Usability,
}

/// Whether an engine can run programs here.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Usability {
    /// No tenant has needed it, so it was not tried.
    Unopened,
    /// It has run a program.
    Usable {
        /// `hardware` or `paging` for KVM, `process` for processes.
        kind: &'static str,
        /// What the probe found, in a few words.
        details: String,
    },
    /// It cannot run programs.
    Unusable {
        /// What is missing, and what to do about it.
        reason: String,
    },
}

impl From<(Engine, EngineReport)> for EngineState {
    fn from((engine, report): (Engine, EngineReport)) -> Self {
        let usability = match report {
            EngineReport::Unopened => Usability::Unopened,
            EngineReport::Usable { kind, details } => Usability::Usable { kind, details },
            EngineReport::Unusable { reason } => Usability::Unusable { reason },
        };
        Self { engine: engine.name(), usability }
    }
}

/// Whether tenants can run on this host.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum HostState {
    /// They can.
    Usable {
        /// The kind of KVM: `hardware` or `paging`; `none` if it cannot be used, or no tenant needs it.
        kvm: &'static str,
    },
    /// They cannot.
    Unusable {
        /// What is missing, and what to do about it.
        reason: String,
    },
}

/// One tenant.
#[derive(Debug, Serialize)]
pub struct TenantReport {
    /// Its name.
    pub name: String,
    /// Its routes, as in `shop.example/cart`.
    pub routes: Vec<String>,
    /// What happens to a worker's state after a request: `ephemeral`, `stateful`, or as in `reset-every-100`.
    pub mode: String,
    /// The engine that it runs on: `kvm` or `process`; `auto` if there is none that it could run on.
    pub engine: &'static str,
    /// The path of its program.
    pub program: PathBuf,
    /// Its place in its life cycle.
    #[serde(flatten)]
    pub state: TenantState,
    /// The file that its boot or reload waits for, and for how long, if one does not respond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Requests that were routed to it, answered or not.
    pub requests: u64,
    /// CPU time of its requests, including its storage program and resets.
    pub cpu_seconds: f64,
    /// The part of it that its programs used between requests.
    pub background_cpu_seconds: f64,
    /// Workers that were lost between requests, and replaced.
    pub background_failures: u64,
    /// Workers rolled back after a request.
    pub resets: u64,
    /// Resets that gave the changed memory back to the system, since it was more than a worker may keep.
    pub work_sets_given_back: u64,
    /// Workers forked.
    pub forks: u64,
    /// Workers that could not be forked.
    pub fork_failures: u64,
    /// Requests that left their loop: they exceeded their inline budget, or no worker was ready.
    pub parked: u64,
    /// Requests that have left their loop and are not answered yet.
    pub in_flight: u32,
    /// Its workers, if it has a fixed number of them for all loops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<FixedWorkersReport>,
    /// Calls of functions of the storage program.
    pub store_calls: u64,
    /// Outbound connections that the program began.
    pub connects: u64,
    /// Outbound connections that it was refused.
    pub refused_connects: u64,
    /// How often it was refused another process, by what it asked for: `fork` or `exec`.
    pub refused_processes: BTreeMap<&'static str, u64>,
    /// New generations since the start, including rollbacks.
    pub reloads: u64,
    /// New generations that failed.
    pub reload_failures: u64,
    /// How often the program was refused a descriptor, a thread or a mapping, by the limit's name.
    pub limit_hits: BTreeMap<&'static str, u64>,
    /// Memory that its machines hold, including its frozen programs.
    pub memory_bytes: u64,
    /// How often they were refused memory because the process had reached its bound.
    pub memory_refusals: u64,
    /// Requests that Mayfly answered in its place, by the answer's `error`.
    pub errors: BTreeMap<&'static str, u64>,
    /// How often its program brought a machine into a state that no well-behaved program reaches, in requests, boots
    /// and the storage program.
    pub violations: u64,
    /// Lines that the log limit dropped.
    pub dropped_log_lines: u64,
}

/// The workers of a tenant that has a fixed number of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FixedWorkersReport {
    /// How many there are to be.
    pub number: usize,
    /// Those that have no request now.
    pub idle: usize,
    /// Requests that wait for one.
    pub waiting: usize,
}

/// A tenant's place in its life cycle.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TenantState {
    /// It boots at its first request.
    Unbooted,
    /// Its program has not reached its first wait for a request yet.
    Booting,
    /// It serves requests.
    Ready {
        /// The number of the generation that serves requests.
        generation: u64,
        /// How long that generation took to boot or to load, in milliseconds.
        boot_ms: f64,
        /// `program` if it was booted, `snapshot` if it was loaded from a file.
        booted_from: &'static str,
    },
    /// It cannot run, and answers 503.
    Failed {
        /// Why.
        reason: String,
    },
}

impl TenantReport {
    /// `engine` names the engine that a choice means here.
    pub(crate) fn of(tenant: &Tenant, config: &TenantConfig, engine: impl Fn(Choice) -> &'static str) -> Self {
        let totals = tenant.totals();
        // After a rollback, or a change that failed, it is not the configured one.
        let choice = tenant.ready().map_or(config.engine, |generation| generation.config.engine);
        let state = match tenant.state() {
            State::Unbooted | State::Booting { .. } if tenant.errands.hang().is_some() => {
                TenantState::Failed { reason: tenant.excuse() }
            }
            State::Unbooted => TenantState::Unbooted,
            State::Booting { .. } => TenantState::Booting,
            State::Failed { reason, .. } => TenantState::Failed { reason },
            State::Ready(generation) => TenantState::Ready {
                generation: generation.number,
                boot_ms: generation.snapshot.boot_time().as_secs_f64() * 1e3,
                booted_from: generation.booted_from(),
            },
        };
        let errors = Failure::ALL
            .iter()
            .map(|&failure| (failure.word(), totals.failures(failure)))
            .filter(|&(_, count)| count > 0)
            .collect();
        let hits = [
            ("descriptors", Event::DescriptorLimit),
            ("threads", Event::ThreadLimit),
            ("mappings", Event::MappingLimit),
        ];
        Self {
            name: config.name.to_string(),
            routes: config.routes.iter().map(ToString::to_string).collect(),
            mode: config.mode.to_string(),
            engine: engine(choice),
            program: config.program.clone(),
            state,
            waits_for: tenant.errands.hang().map(|hang| hang.to_string()),
            requests: totals.events(Event::Request),
            cpu_seconds: totals.cpu_seconds(),
            background_cpu_seconds: totals.background_cpu_seconds(),
            background_failures: totals.events(Event::BackgroundFailure),
            resets: totals.events(Event::Reset),
            work_sets_given_back: totals.events(Event::WorkSetGivenBack),
            forks: totals.events(Event::Fork),
            fork_failures: totals.events(Event::ForkFailure),
            parked: totals.events(Event::Parked),
            in_flight: tenant.parked.load(Relaxed),
            workers: tenant.fixed.counted().map(|(number, idle, waiting)| FixedWorkersReport { number, idle, waiting }),
            store_calls: totals.events(Event::StoreCall),
            connects: totals.events(Event::Connect),
            refused_connects: totals.events(Event::RefusedConnect),
            refused_processes: [("fork", Event::RefusedFork), ("exec", Event::RefusedExec)]
                .into_iter()
                .map(|(call, event)| (call, totals.events(event)))
                .filter(|&(_, count)| count > 0)
                .collect(),
            reloads: tenant.reloads.load(Relaxed),
            reload_failures: tenant.reload_failures.load(Relaxed),
            limit_hits: hits
                .map(|(limit, event)| (limit, totals.events(event)))
                .into_iter()
                .filter(|&(_, count)| count > 0)
                .collect(),
            memory_bytes: tenant.account.held().saturating_mul(PAGE_SIZE),
            memory_refusals: tenant.account.refused(),
            errors,
            violations: tenant.log.violations(),
            dropped_log_lines: tenant.log.dropped_lines(),
        }
    }
}
