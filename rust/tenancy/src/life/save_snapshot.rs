// SPDX-License-Identifier: MIT OR Apache-2.0
//! Saves a tenant's snapshot without a server, for `mayfly snapshot`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mayfly_sandbox::{Hosts, LogSink, Snapshot};

use crate::config::Config;
use crate::life::{health, snapshots};
use crate::model::outcome::ReloadError;
use crate::model::store::Store;

impl Config {
    /// Boots a tenant's program on the tenant's engine and saves its snapshot: to `out`, or to where the server looks for it at start. Returns
    /// the path.
    ///
    /// If the tenant has a health request, it is made first, so that the snapshot records the pages that a request
    /// writes.
    ///
    /// # Errors
    ///
    /// [`ReloadError`].
    pub fn save_snapshot(
        &self,
        tenant: &str,
        out: Option<&Path>,
        log: Arc<dyn LogSink>,
    ) -> Result<PathBuf, ReloadError> {
        let config = self.tenants.iter().find(|config| config.name.as_str() == tenant);
        let config = config.ok_or(ReloadError::UnknownTenant)?;
        let host = &Hosts::new().choose(config.engine).map_err(|error| ReloadError::Host(error.to_string()))?;
        let program = config.launch().map_err(|error| ReloadError::Program(error.to_string()))?;
        let limits = &config.limits.machine;
        if config.shared.is_some() {
            return Err(ReloadError::Persist("the program's workers share memory (`shared_memory`)".to_owned()));
        }
        let path = match (out, &self.snapshots) {
            (Some(out), _) => out.to_owned(),
            (None, Some(directory)) => {
                snapshots::path(directory, &config.name, Snapshot::inputs_digest(host, &program, limits))
            }
            (None, None) => return Err(ReloadError::Persist("the configuration has no `snapshots`".to_owned())),
        };
        let snapshot = Snapshot::boot(host, &program, limits, Arc::clone(&log))
            .map_err(|error| ReloadError::Boot(error.to_string()))?;
        if let Some(health) = &config.health {
            let store = config.storage.as_ref().map(|store| Store::boot(store, host, Arc::clone(&log))).transpose()?;
            // No other request uses this storage program, so none is queued.
            health::check(&snapshot, config, health, store.as_ref(), &|_| {})?;
        }
        let saved = match out {
            Some(out) => snapshot.save(out),
            None => snapshots::keep(&path, &config.name, &snapshot),
        };
        saved.map_err(|error| ReloadError::Persist(error.to_string()))?;
        Ok(path)
    }
}
