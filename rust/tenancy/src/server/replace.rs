// SPDX-License-Identifier: MIT OR Apache-2.0
//! How one tenant's generation takes the place of another: work for errands.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mayfly_files::Unfinished;

use crate::background::Background;
use crate::config::TenantConfig;
use crate::generation::Generation;
use crate::reload::{ReloadError, Reloaded};
use crate::resources;
use crate::tenant::{Ground, Source, State, Tenant};

/// What came of an errand, or why nothing has yet.
pub(super) fn flat<T>(result: Result<Result<T, ReloadError>, Unfinished>) -> Result<T, ReloadError> {
    result.unwrap_or_else(|unfinished| {
        Err(match unfinished {
            // No file is to blame for that.
            Unfinished::Thread(error) => ReloadError::Boot(format!("no thread: {}", resources::with_advice(&error))),
            unfinished => ReloadError::Held(unfinished.to_string()),
        })
    })
}

/// Gives the tenant another configuration, and a generation that follows it, unless it has not booted.
pub(super) fn reconfigure(
    tenant: &Tenant,
    config: Arc<TenantConfig>,
    ground: &Ground,
    background: &Background,
) -> Result<(), ReloadError> {
    let mut history = tenant.history()?;
    let former = std::mem::replace(&mut history.config, config);
    if matches!(tenant.state(), State::Unbooted) {
        return Ok(());
    }
    match tenant.make(&mut history, ground, background, Source::File) {
        Ok(generation) => {
            tenant.reloads.fetch_add(1, Ordering::Relaxed);
            tenant.publish(&mut history, generation, ground);
            Ok(())
        }
        Err(error) => {
            history.config = former;
            Err(not_replaced(tenant, error))
        }
    }
}

/// Makes a new generation, which answers from then on.
pub(super) fn replace(
    tenant: &Tenant,
    ground: &Ground,
    background: &Background,
    source: Source,
) -> Result<Reloaded, ReloadError> {
    let mut history = tenant.history()?;
    let generation =
        tenant.make(&mut history, ground, background, source).map_err(|error| not_replaced(tenant, error))?;
    let reloaded = told(&generation);
    tenant.reloads.fetch_add(1, Ordering::Relaxed);
    tenant.publish(&mut history, generation, ground);
    tracing::info!(
        target: "mayfly::server", tenant = %tenant.name, generation = reloaded.generation, boot_ms = reloaded.boot_ms,
        "a new generation answers"
    );
    Ok(reloaded)
}

/// What a client or operator is told of a new generation.
pub(super) fn told(generation: &Generation) -> Reloaded {
    Reloaded { generation: generation.number, boot_ms: generation.snapshot.boot_time().as_secs_f64() * 1e3 }
}

/// Logs and counts that what runs was not replaced.
fn not_replaced(tenant: &Tenant, error: ReloadError) -> ReloadError {
    tenant.reload_failures.fetch_add(1, Ordering::Relaxed);
    tracing::error!(target: "mayfly::server", tenant = %tenant.name, %error, "no new generation; the former one goes on");
    error
}
