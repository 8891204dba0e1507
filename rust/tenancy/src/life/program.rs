// SPDX-License-Identifier: MIT OR Apache-2.0
//! Selects the program to boot: the configured file, or an upload that replaces it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use mayfly_files::{FileStamp, waiting_for};
use mayfly_sandbox::Program;

use crate::config::TenantConfig;
use crate::config::launch::LaunchError;
use crate::host::resources;
use crate::life::env::BootEnv;
use crate::life::uploads;
use crate::model::generation::digest;
use crate::model::outcome::ReloadError;
use crate::model::tenant::{State, Tenant};

/// The source of a generation.
#[derive(Debug)]
pub(crate) enum ProgramSource {
    /// A snapshot that an earlier run of the server has saved, or else the program's file.
    Kept,
    /// The program's file, as it is now.
    File,
    /// An upload.
    Upload(Vec<u8>),
}

/// The file that a boot would use now: the uploaded program, if there is one.
fn program_path(tenant: &Tenant, config: &TenantConfig, env: &BootEnv) -> PathBuf {
    let uploaded = env.uploads.as_ref().map(|uploads| uploads::path(uploads, &tenant.name));
    uploaded.filter(|path| waiting_for(path, || path.exists())).unwrap_or_else(|| config.program.clone())
}

/// The program to boot, and its file's stamp; an upload has no file yet.
pub(crate) fn launch(
    tenant: &Tenant,
    config: &TenantConfig,
    env: &BootEnv,
    uploaded: Option<Vec<u8>>,
) -> Result<(Program, Option<FileStamp>), ReloadError> {
    let refused = |error: LaunchError| match error {
        LaunchError::Program(error) => ReloadError::Program(resources::with_advice(&error)),
        LaunchError::Mount(error) => ReloadError::Boot(resources::with_advice(&error)),
    };
    if let Some(elf) = uploaded {
        return Ok((config.launch_upload(elf.into()).map_err(refused)?, None));
    }
    let path = program_path(tenant, config, env);
    // Taken before the content: a file that changes while it is read counts as changed at the next check.
    let stamp = FileStamp::of(&path).ok();
    let program = if path == config.program {
        config.launch()
    } else {
        Program::load(&path).map_err(LaunchError::from).and_then(|program| config.launch_upload(program.elf))
    };
    Ok((program.map_err(refused)?, stamp))
}

/// Whether the tenant's program files differ from the running programs, or watched files have changed.
pub(crate) fn has_changed(tenant: &Tenant, env: &BootEnv) -> Result<bool, ReloadError> {
    let Some(generation) = tenant.ready() else {
        let has_failed = matches!(tenant.state(), State::Failed { .. });
        // No change of files lets a tenant run whose engine cannot be used.
        return Ok(has_failed && env.hosts.choose(tenant.history()?.config.engine).is_ok());
    };
    let config = Arc::clone(&tenant.history()?.config);
    if generation.store.as_ref().is_some_and(|store| store.has_changed()) {
        return Ok(true);
    }
    if config.watched_files().digest() != generation.identity.watched {
        return Ok(true);
    }
    let path = program_path(tenant, &config, env);
    let now = match FileStamp::of(&path) {
        // A missing file may be about to be replaced: the program keeps running.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        now => now.ok(),
    };
    if now.is_some() && now == generation.identity.stamp {
        return Ok(false);
    }
    // A file that exists and cannot be read counts as changed: the reload reports the reason.
    Ok(Program::load(&path).map_or(true, |program| digest(&program.elf) != generation.identity.digest))
}
