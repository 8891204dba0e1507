// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boots a tenant's program into a generation and publishes it. For errands: this takes as long as programs and file
//! systems need.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use mayfly_sandbox::{BootError, BootedFrom, Host, LogSink, Program, Snapshot};

use crate::config::{Mode, TenantConfig};
use crate::host::workers::Workers;
use crate::host::{descriptors, resources};
use crate::life::env::BootEnv;
use crate::life::program::{self, ProgramSource};
use crate::life::{health, snapshots};
use crate::model::failure::RequestId;
use crate::model::generation::{Generation, ProgramIdentity, digest};
use crate::model::outcome::ReloadError;
use crate::model::store::Store;
use crate::model::tenant::{BOOT_BYTES, History, State, Tenant};
use crate::model::worker_mailbox::WorkerMailbox;
use crate::schedule::background::Background;
use crate::schedule::orders;

/// Boots the program of a tenant whose boot the caller has claimed.
pub(crate) fn boot(tenant: &Tenant, env: &BootEnv, background: &Background) {
    let holds = matches!(tenant.state(), State::Booting { holds: true });
    let bytes = tenant.boot_bytes.load(Ordering::Relaxed);
    let _turn = match env.memory.boot_turn(bytes, holds) {
        Ok(turn) => turn,
        Err(reason) => return tenant.fail_for_memory(reason),
    };
    let mut history = match tenant.history() {
        Ok(history) => history,
        Err(error) => return tenant.fail(error.to_string(), Instant::now() + History::FIRST_PAUSE),
    };
    let refused = tenant.account.refused();
    match make(tenant, &mut history, env, background, ProgramSource::Kept) {
        Ok(generation) => {
            let boot_ms = generation.snapshot.boot_time().as_millis();
            let (from, port) = (generation.booted_from(), generation.snapshot.port());
            tracing::info!(target: "mayfly::server", tenant = %tenant.name, boot_ms, from, port, "tenant is ready");
            for advice in generation.config.advice() {
                tracing::warn!(target: "mayfly::server", tenant = %tenant.name, "{advice}");
            }
            history.booted();
            publish(tenant, &mut history, generation, env);
        }
        // The program needed more memory than was available: its next boot waits for more.
        Err(error) if tenant.account.refused() != refused => {
            let most = history.config.limits.machine.boot_memory_bytes.max(BOOT_BYTES);
            tenant.boot_bytes.store(bytes.saturating_mul(2).min(most), Ordering::Relaxed);
            tenant.fail_for_memory(error.to_string());
        }
        // The engine was opened once, and stays as it was found.
        Err(ReloadError::Host(reason)) => tenant.fail_for_ever(&reason),
        Err(error) => {
            let retry_at = Instant::now() + history.next_pause();
            tenant.fail(error.to_string(), retry_at);
        }
    }
}

/// Boots and checks a generation, without publishing it.
pub(crate) fn make(
    tenant: &Tenant,
    history: &mut History,
    env: &BootEnv,
    background: &Background,
    source: ProgramSource,
) -> Result<Generation, ReloadError> {
    let made = make_unchecked(tenant, history, env, background, source);
    if let Err(ReloadError::Violation(what)) = &made {
        tenant.log.violation(RequestId::NONE, what);
    }
    made
}

fn make_unchecked(
    tenant: &Tenant,
    history: &mut History,
    env: &BootEnv,
    background: &Background,
    source: ProgramSource,
) -> Result<Generation, ReloadError> {
    let config = Arc::clone(&history.config);
    let host = &env.host(tenant, &config)?;
    let few = |error| ReloadError::Boot(resources::with_advice(&error));
    descriptors::for_program().map_err(few)?;
    let (uploaded, may_be_kept) = match source {
        ProgramSource::Kept => (None, true),
        ProgramSource::File => (None, false),
        ProgramSource::Upload(elf) => (Some(elf), false),
    };
    // Taken before anything is read: a file that changes meanwhile counts as changed at the next check.
    let watched = config.watched_files().digest();
    let (mut program, stamp) = program::launch(tenant, &config, env, uploaded)?;
    let identity = ProgramIdentity { stamp, digest: digest(&program.elf), watched };
    program.shared = history.shared_memory(&config)?;
    if background.is_ending() {
        // The errand may have waited for files for hours.
        return Err(ReloadError::Ending);
    }
    let store = store(tenant, history, &config, host, background)?;
    let check = |snapshot: &Snapshot| check_health(tenant, snapshot, &config, store.as_ref(), background);
    let kept = if may_be_kept { load(tenant, &config, &program, env, host, check) } else { None };
    let snapshot = match kept {
        Some(snapshot) => snapshot,
        None => {
            let sink = Arc::clone(&tenant.log) as Arc<dyn LogSink>;
            let booted = Snapshot::boot(host, &program, &config.limits.machine, sink);
            tenant.log.end_partial_lines();
            let snapshot = booted.map_err(|error| match error {
                BootError::Violation(_) => ReloadError::Violation(error.to_string()),
                error => ReloadError::Boot(resources::with_advice(&error)),
            })?;
            tenant.background.count_connects(snapshot.connects());
            tenant.background.count_refused_processes(snapshot.refused_processes());
            check(&snapshot)?;
            snapshot
        }
    };
    if let Some(note) = config.clock_note(&program.elf) {
        tracing::info!(target: "mayfly::server", tenant = %tenant.name, "{note}");
    }
    // The file's name identifies what the snapshot was made from. Without a directory there is no file.
    let file = env.snapshots.as_ref().filter(|_| program.shared.is_none());
    let file = file.map(|kept| {
        snapshots::path(&kept.directory, &config.name, Snapshot::inputs_digest(host, &program, &config.limits.machine))
    });
    if file.is_none() || snapshot.booted_from() == BootedFrom::File {
        snapshot.keep_unsaved();
    }
    history.last_number += 1;
    tenant.boot_bytes.store(snapshot.image_bytes().max(BOOT_BYTES), Ordering::Relaxed);
    Ok(Generation { file, ..Generation::new(history.last_number, snapshot, config, store, identity) })
}

/// Loads the saved snapshot, if it is valid and healthy.
fn load(
    tenant: &Tenant,
    config: &TenantConfig,
    program: &Program,
    env: &BootEnv,
    host: &Host,
    check: impl Fn(&Snapshot) -> Result<(), ReloadError>,
) -> Option<Snapshot> {
    let directory = &env.snapshots.as_ref().filter(|_| program.shared.is_none())?.directory;
    let sink = Arc::clone(&tenant.log) as Arc<dyn LogSink>;
    let snapshot = snapshots::load(directory, config, program, host, sink, &tenant.loads)?;
    match check(&snapshot) {
        Ok(()) => Some(snapshot),
        Err(reason) => {
            tracing::warn!(
                target: "mayfly::server", tenant = %tenant.name, %reason,
                "the tenant's snapshot is not used: the program is booted instead"
            );
            None
        }
    }
}

/// The tenant's storage program. Boots it if necessary, and replaces it if it has changed.
fn store(
    tenant: &Tenant,
    history: &mut History,
    config: &TenantConfig,
    host: &Host,
    background: &Background,
) -> Result<Option<Arc<Store>>, ReloadError> {
    let Some(wanted) = &config.storage else {
        history.store = None;
        return Ok(None);
    };
    let log = Arc::clone(&tenant.log) as Arc<dyn LogSink>;
    match &history.store {
        Some(store) => {
            let refreshed = store.refresh(wanted, host, log);
            // Requests that arrived meanwhile are queued, whatever the result.
            background.overflow.serve_queue(store);
            refreshed?;
        }
        None => history.store = Some(Arc::new(Store::boot(wanted, host, log)?)),
    }
    Ok(history.store.clone())
}

fn check_health(
    tenant: &Tenant,
    snapshot: &Snapshot,
    config: &TenantConfig,
    store: Option<&Arc<Store>>,
    background: &Background,
) -> Result<(), ReloadError> {
    let Some(health) = &config.health else { return Ok(()) };
    let send_on = |next| {
        if let Some(store) = store {
            background.overflow.send_on(store, next);
        }
    };
    let checked = health::check(snapshot, config, health, store.map(|store| &**store), &send_on);
    tenant.log.end_partial_lines();
    checked
}

/// Makes a generation the current one. Every loop's next worker is in its mailbox before the first loop looks for it.
pub(crate) fn publish(tenant: &Tenant, history: &mut History, generation: Generation, env: &BootEnv) {
    let generation = Arc::new(generation);
    let former = tenant.ready();
    let early = if fix_workers(tenant, &generation, former.as_deref(), env) { vec![] } else { tenant.live_mailboxes() };
    for mailbox in &early {
        if let Ok(forked) = tenant.fork_of(&generation, env.workers.permit()) {
            mailbox.put(forked);
        }
    }
    tenant.has_booted.store(true, Ordering::Relaxed);
    tenant.set_state(State::Ready(Arc::clone(&generation)));
    tenant.fixed.fill();
    if let Some(snapshots) = &env.snapshots {
        snapshots.offer(&generation);
    }
    fill_late(tenant, &early, &generation, &env.workers);
    for mailbox in tenant.live_mailboxes() {
        // The loops hand live state over, worker by worker. Workers without live state are closed now.
        if !generation.succeeds(former.as_deref()) {
            mailbox.drop_before(generation.number);
        }
    }
    if former.is_some() {
        history.previous = former;
    }
}

/// Gives the tenant its fixed number of workers, if the generation has one; returns whether it has. Workers that take
/// state over are forked when requests need them.
fn fix_workers(tenant: &Tenant, generation: &Arc<Generation>, former: Option<&Generation>, env: &BootEnv) -> bool {
    let fixed = &tenant.fixed;
    match generation.config.workers.map(|workers| workers.get() as usize) {
        Some(count) if fixed.is_open() && generation.succeeds(former) => fixed.resize(count),
        Some(count) => {
            let fork = |_| tenant.fork_of(generation, Some(env.workers.permit_of_fixed())).ok();
            fixed.open((0..count).map(fork).collect());
        }
        None if fixed.is_open() => fixed.open(vec![]),
        None => return false,
    }
    generation.config.workers.is_some()
}

/// Forks workers for the loops that have begun after the first ones were counted. Such a loop may have seen no
/// generation, and has ordered nothing. A worker that keeps state is made by its loop's first request: that may be in
/// progress, and a second worker would begin from scratch.
fn fill_late(tenant: &Tenant, early: &[Arc<WorkerMailbox>], generation: &Generation, workers: &Workers) {
    if generation.config.mode != Mode::Ephemeral {
        return;
    }
    for mailbox in tenant.live_mailboxes() {
        if !early.iter().any(|other| Arc::ptr_eq(other, &mailbox)) && mailbox.order() {
            orders::fork(workers, tenant, &mailbox);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::{Config, Server};

    #[test]
    fn a_late_loop_gets_a_worker_unless_its_first_request_makes_it() {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tenants/faults/faults");
        let tenants = serde_json::json!({"tenants": [
            {"name": "a", "path": "/a", "program": program},
            {"name": "b", "path": "/b", "program": program, "ephemeral": false},
            {"name": "c", "path": "/c", "program": program, "reset_every": 2},
        ]});
        let server = Server::start(Config::from_value(&tenants).unwrap()).unwrap();
        server.boots().wait(Duration::from_secs(120));
        for (tenant, is_filled) in server.set().tenants.iter().zip([true, false, false]) {
            let late = tenant.new_mailbox();
            fill_late(tenant, &[], &tenant.ready().unwrap(), &server.boots().env().workers);
            assert_eq!(!late.is_empty(), is_filled, "{}", tenant.name);
        }
    }
}
