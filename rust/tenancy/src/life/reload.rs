// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replaces a tenant's generation by another one. For errands.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mayfly_files::Unfinished;

use crate::config::TenantConfig;
use crate::host::resources;
use crate::life::boot::{make, publish};
use crate::life::env::BootEnv;
use crate::life::program::ProgramSource;
use crate::life::uploads;
use crate::model::generation::Generation;
use crate::model::outcome::{ReloadError, Reloaded};
use crate::model::tenant::{State, Tenant};
use crate::schedule::background::Background;

/// The result of an errand, or why there is none yet.
pub(crate) fn flat<T>(result: Result<Result<T, ReloadError>, Unfinished>) -> Result<T, ReloadError> {
    result.unwrap_or_else(|unfinished| {
        Err(match unfinished {
            // This has nothing to do with files.
            Unfinished::Thread(error) => {
                ReloadError::Boot(format!("cannot start a thread: {}", resources::with_advice(&error)))
            }
            unfinished => ReloadError::Held(unfinished.to_string()),
        })
    })
}

/// Gives the tenant another configuration, and a generation for it unless the tenant has not booted.
pub(crate) fn reconfigure(
    tenant: &Tenant,
    config: Arc<TenantConfig>,
    env: &BootEnv,
    background: &Background,
) -> Result<(), ReloadError> {
    let mut history = tenant.history()?;
    let former = std::mem::replace(&mut history.config, config);
    if matches!(tenant.state(), State::Unbooted) {
        return Ok(());
    }
    match make(tenant, &mut history, env, background, ProgramSource::File) {
        Ok(generation) => {
            tenant.reloads.fetch_add(1, Ordering::Relaxed);
            publish(tenant, &mut history, generation, env);
            Ok(())
        }
        Err(error) => {
            history.config = former;
            Err(not_replaced(tenant, error))
        }
    }
}

/// Boots a new generation and publishes it.
pub(crate) fn replace(
    tenant: &Tenant,
    env: &BootEnv,
    background: &Background,
    source: ProgramSource,
) -> Result<Reloaded, ReloadError> {
    let mut history = tenant.history()?;
    let generation =
        make(tenant, &mut history, env, background, source).map_err(|error| not_replaced(tenant, error))?;
    let reloaded = reloaded_report(&generation);
    tenant.reloads.fetch_add(1, Ordering::Relaxed);
    publish(tenant, &mut history, generation, env);
    tracing::info!(
        target: "mayfly::server", tenant = %tenant.name, generation = reloaded.generation, boot_ms = reloaded.boot_ms,
        "a new generation serves requests"
    );
    Ok(reloaded)
}

/// Switches back to the previous generation, without a boot.
pub(crate) fn roll_back(tenant: &Tenant, env: &BootEnv, uploads: Option<&Path>) -> Result<Reloaded, ReloadError> {
    let mut history = tenant.history()?;
    let generation = tenant.predecessor(&mut history).ok_or(ReloadError::NoPrevious)?;
    let reloaded = reloaded_report(&generation);
    tenant.reloads.fetch_add(1, Ordering::Relaxed);
    publish(tenant, &mut history, generation, env);
    drop(history);
    tracing::info!(target: "mayfly::server", tenant = %tenant.name, generation = reloaded.generation, "rolled back");
    if let Some(uploads) = uploads {
        uploads::swap(uploads, &tenant.name).map_err(|error| ReloadError::Persist(error.to_string()))?;
    }
    Ok(reloaded)
}

/// Switches to an uploaded program if it works, and stores it for later starts.
pub(crate) fn upload(
    tenant: &Tenant,
    env: &BootEnv,
    background: &Background,
    uploads: &Path,
    elf: Vec<u8>,
) -> Result<Reloaded, ReloadError> {
    let reloaded = replace(tenant, env, background, ProgramSource::Upload(elf.clone()))?;
    uploads::keep(uploads, &tenant.name, &elf).map_err(|error| ReloadError::Persist(error.to_string()))?;
    Ok(reloaded)
}

/// The report about a new generation, for the client or operator that asked for it.
fn reloaded_report(generation: &Generation) -> Reloaded {
    Reloaded { generation: generation.number, boot_ms: generation.snapshot.boot_time().as_secs_f64() * 1e3 }
}

/// Logs and counts a failed replacement.
fn not_replaced(tenant: &Tenant, error: ReloadError) -> ReloadError {
    tenant.reload_failures.fetch_add(1, Ordering::Relaxed);
    tracing::error!(target: "mayfly::server", tenant = %tenant.name, %error, "no new generation; the previous one keeps running");
    error
}
