// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looks for changes: first the tenants file, then the programs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mayfly_files::{Errands, Pending};
use mayfly_tenancy::{Applied, Config, ConfigError, ReloadError, Reloaded};
use tokio::sync::Mutex;

use crate::tenants::Tenants;

/// Time limit for reading the tenants file: each of its file operations may take a second.
const READ: Duration = Duration::from_secs(60);

/// A server's tenants, and the right to look for their changes, which one task has at a time.
#[derive(Debug, Clone)]
pub(crate) struct Reloads<T> {
    pub(crate) tenants: T,
    one_at_a_time: Arc<Mutex<()>>,
    /// Reads the tenants file.
    file: Errands,
    /// The tenants file was refused when it was last read.
    is_refused: Arc<AtomicBool>,
}

/// The result of a look for changes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// What applying a changed tenants file has led to.
    pub(crate) applied: Option<Result<Applied, ConfigError>>,
    /// The programs that have changed.
    pub(crate) programs: Vec<(String, Result<Reloaded, ReloadError>)>,
}

impl Changes {
    /// Whether all that has changed is in force.
    pub(crate) fn all_in_force(&self) -> bool {
        let file = match &self.applied {
            None => true,
            Some(Ok(applied)) => applied.failed.is_empty(),
            Some(Err(_)) => false,
        };
        file && self.programs.iter().all(|(_, result)| result.is_ok())
    }
}

impl<T: Tenants> Reloads<T> {
    pub(crate) fn new(tenants: T) -> Self {
        Self { tenants, one_at_a_time: Arc::default(), file: Errands::default(), is_refused: Arc::default() }
    }

    /// Applies the tenants file if it differs from the configuration in force.
    pub(crate) async fn file(&self) -> Changes {
        self.look(false).await
    }

    /// Applies the tenants file and reloads the programs that changed.
    pub(crate) async fn everything(&self) -> Changes {
        self.look(true).await
    }

    async fn look(&self, also_at_programs: bool) -> Changes {
        let _one_at_a_time = self.one_at_a_time.lock().await;
        let (tenants, file, is_refused) = (self.tenants.clone(), self.file.clone(), Arc::clone(&self.is_refused));
        let look = move || Changes {
            applied: apply_file(&tenants, &file, &is_refused),
            programs: if also_at_programs { tenants.reload_changed() } else { Vec::new() },
        };
        // The panic hook has logged a panic; what was left undone is not known.
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }
}

fn apply_file(tenants: &impl Tenants, file: &Errands, is_refused: &AtomicBool) -> Option<Result<Applied, ConfigError>> {
    let now = tenants.config();
    let path = now.source.clone()?;
    let read = {
        let path = path.clone();
        file.begin(READ, move || Config::from_file(&path)).and_then(Pending::wait)
    };
    let read = read.unwrap_or_else(|unfinished| Err(ConfigError::unread(&path, unfinished)));
    if is_refused.swap(read.is_err(), Ordering::Relaxed)
        && let Ok(config) = &read
    {
        log_mended(&path, *config == *now);
    }
    match read {
        Ok(config) if config == *now => None,
        Ok(config) => {
            if config.admin.as_ref().map(|admin| admin.listen) != now.admin.as_ref().map(|admin| admin.listen) {
                tracing::warn!(target: "mayfly::admin", "`admin.listen` has changed; the new value needs a restart");
            }
            let applied = tenants.apply(config);
            for (tenant, reason) in &applied.failed {
                tracing::error!(target: "mayfly::admin", %tenant, reason, "the tenant goes on unchanged");
            }
            Some(Ok(applied))
        }
        Err(error) => {
            tracing::error!(target: "mayfly::admin", "the new configuration is refused; the former one stays in force: {error}");
            Some(Err(error))
        }
    }
}

/// The log has said that the file is refused. If it is the former one again, nothing else says that this is over.
fn log_mended(path: &Path, is_in_force: bool) {
    let (path, what) = (path.display(), if is_in_force { "it is what is in force" } else { "it is applied" });
    tracing::info!(target: "mayfly::admin", %path, "the tenants file is valid again: {what}");
}
