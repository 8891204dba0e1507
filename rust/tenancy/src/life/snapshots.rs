// SPDX-License-Identifier: MIT OR Apache-2.0
//! Snapshots on disk: what a tenant's first boot was frozen to, for the next start of the server.
//!
//! ```text
//!   start ── NAME-ORIGIN.snapshot ── good ──────────────────────> answers from it
//!              │  none, or refused: the reason is logged
//!              v
//!            boot ──> answers ──> its workers have learned, or 10 s have passed ──> saved, older ones removed
//! ```
//!
//! ORIGIN is a digest of what the program was booted from, so that a tenant goes back and forth between programs
//! without booting them. The file holds all else that it must agree with.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use mayfly_files::{Errands, Pending};
use mayfly_sandbox::{BootedFrom, Host, LogSink, Program, Snapshot, SnapshotFileError, SnapshotSaveError};

use crate::config::TenantConfig;
use crate::config::values::TenantName;
use crate::model::generation::Generation;

/// What a load may take: reading some gigabytes. A file that holds it up is noticed after a second.
const LOAD: Duration = Duration::from_secs(300);
const ENDING: &str = ".snapshot";
/// Snapshots of a tenant that are kept: of the present program and the one before.
const KEPT: usize = 2;
/// How long a snapshot waits for what the first requests teach; then it is saved without that.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the saver looks whether they have.
const INTERVAL: Duration = Duration::from_millis(200);

/// A server's snapshots, and the queue of those to be saved.
#[derive(Debug)]
pub(crate) struct Snapshots {
    pub(crate) directory: PathBuf,
    /// Until the server stops.
    sender: Mutex<Option<Sender<Offer>>>,
    /// Until a thread takes it.
    receiver: Mutex<Option<Receiver<Offer>>>,
}

impl Snapshots {
    pub(crate) fn new(directory: PathBuf) -> Self {
        let (sender, receiver) = mpsc::channel();
        Self { directory, sender: Mutex::new(Some(sender)), receiver: Mutex::new(Some(receiver)) }
    }

    /// Has a generation saved, if it was booted and can be saved.
    pub(crate) fn offer(&self, generation: &Arc<Generation>) {
        let Some(path) = generation.file.clone().filter(|_| generation.snapshot.booted_from() == BootedFrom::Program)
        else {
            return;
        };
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*sender {
            // It fails if the thread is lost; then nothing is saved.
            let _ = sender.send(Offer {
                path,
                tenant: generation.config.name.clone(),
                generation: Arc::downgrade(generation),
                due: Instant::now() + PATIENCE,
            });
        }
    }

    /// Saves what is offered, until [`Snapshots::close`]. For one thread.
    pub(crate) fn save_all(&self) {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(offers) = receiver {
            save_all(&offers);
        }
    }

    /// Ends the thread, without saving the rest.
    pub(crate) fn close(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// A generation to be saved.
#[derive(Debug)]
struct Offer {
    path: PathBuf,
    tenant: TenantName,
    /// A generation that no longer answers is not saved.
    generation: Weak<Generation>,
    due: Instant,
}

/// Where a tenant's snapshot is, of a program that was booted from this.
pub(crate) fn path(directory: &Path, tenant: &TenantName, origin: u64) -> PathBuf {
    directory.join(format!("{tenant}-{origin:016x}{ENDING}"))
}

/// The snapshot of a tenant's program, if there is a good one. Why one is not good is logged.
pub(crate) fn load(
    directory: &Path,
    config: &TenantConfig,
    program: &Program,
    host: &Host,
    log: Arc<dyn LogSink>,
    errands: &Errands,
) -> Option<Snapshot> {
    let limits = &config.limits.machine;
    let path = path(directory, &config.name, Snapshot::inputs_digest(program, limits));
    let load = {
        let (host, program, limits, path) = (host.clone(), program.clone(), limits.clone(), path.clone());
        move || Snapshot::load(&host, &program, &limits, log, &path)
    };
    // A directory that does not answer is no reason not to boot.
    let reason = match errands.begin(LOAD, load).and_then(Pending::wait) {
        Ok(Ok(snapshot)) => return Some(snapshot),
        Ok(Err(SnapshotFileError::Io(error))) if error.kind() == ErrorKind::NotFound => return None,
        Ok(Err(error)) => error.to_string(),
        Err(unfinished) => unfinished.to_string(),
    };
    tracing::warn!(
        target: "mayfly::server", tenant = %config.name, path = %path.display(), reason,
        "the tenant's snapshot is not used: its program boots"
    );
    None
}

/// Saves what is offered, until all senders are gone.
fn save_all(offers: &Receiver<Offer>) {
    let mut waiting: Vec<Offer> = Vec::new();
    loop {
        // While nothing waits to be saved there is no reason to wake.
        let next = if waiting.is_empty() {
            offers.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            offers.recv_timeout(INTERVAL)
        };
        match next {
            Ok(offer) => waiting.push(offer),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        waiting.retain(|offer| match offer.generation.upgrade() {
            None => false,
            Some(generation) if generation.snapshot.learned_pages() == 0 && Instant::now() < offer.due => true,
            Some(generation) => {
                offer.save(&generation);
                false
            }
        });
    }
}

impl Offer {
    fn save(&self, generation: &Generation) {
        let started = Instant::now();
        let result = keep(&self.path, &self.tenant, &generation.snapshot);
        generation.snapshot.keep_unsaved();
        let (tenant, path) = (&self.tenant, self.path.display());
        match result {
            Ok(()) => {
                let save_ms = started.elapsed().as_millis();
                tracing::info!(target: "mayfly::server", %tenant, %path, save_ms, "the tenant's snapshot is saved");
            }
            Err(error) => {
                tracing::warn!(target: "mayfly::server", %tenant, %path, reason = %error, "the tenant's snapshot is not saved");
            }
        }
    }
}

/// Saves a snapshot, and removes those that it makes superfluous.
pub(crate) fn keep(path: &Path, tenant: &TenantName, snapshot: &Snapshot) -> Result<(), SnapshotSaveError> {
    let io = |source| SnapshotSaveError::Io { path: path.into(), source };
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(io)?;
    snapshot.save(path)?;
    prune(directory, tenant).map_err(io)
}

/// Removes all but the newest of a tenant's snapshots, and what a crash has left of others.
fn prune(directory: &Path, tenant: &TenantName) -> io::Result<()> {
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        match kind_of(name, tenant) {
            Some(FileKind::Whole) => found.push((entry.metadata()?.modified()?, entry.path())),
            Some(FileKind::Unfinished) => fs::remove_file(entry.path())?,
            None => {}
        }
    }
    found.sort_unstable();
    for (_, path) in found.iter().rev().skip(KEPT) {
        fs::remove_file(path)?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum FileKind {
    Whole,
    Unfinished,
}

/// What a file is to a tenant, by its name. Another tenant's name may start with this one's.
fn kind_of(name: &str, tenant: &TenantName) -> Option<FileKind> {
    let rest = name.strip_prefix(tenant.as_str())?.strip_prefix('-')?;
    let (origin, rest) = rest.split_at_checked(16)?;
    let is_origin = origin.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    match rest.strip_prefix(ENDING).filter(|_| is_origin)? {
        "" => Some(FileKind::Whole),
        rest if rest.starts_with('.') && rest.ends_with(".part") => Some(FileKind::Unfinished),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> TenantName {
        TenantName::try_from(name.to_owned()).unwrap()
    }

    #[test]
    fn a_file_is_its_own_tenants() {
        let file = path(Path::new("d"), &name("a-b"), 0xab);
        let file = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(file, "a-b-00000000000000ab.snapshot");
        assert_eq!(kind_of(file, &name("a-b")), Some(FileKind::Whole));
        assert_eq!(kind_of(&format!("{file}.77-0.part"), &name("a-b")), Some(FileKind::Unfinished));
        for other in ["a", "a-", "a-b-0", "b"] {
            assert_eq!(kind_of(file, &name(other)), None, "{other}");
        }
        for other in
            ["a-b.snapshot", "a-b-xyz.snapshot", "a-b-00000000000000AB.snapshot", "a-b-00000000000000ab.snapshot.txt"]
        {
            assert_eq!(kind_of(other, &name("a-b")), None, "{other}");
        }
    }

    #[test]
    fn the_newest_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let at = |tenant: &str, origin| path(directory.path(), &name(tenant), origin);
        for (age, origin) in [(3, 1), (1, 2), (2, 3)] {
            fs::write(at("a", origin), "").unwrap();
            let then = SystemTime::now() - Duration::from_secs(60 * age);
            fs::File::open(at("a", origin)).unwrap().set_modified(then).unwrap();
        }
        fs::write(at("a-b", 1), "").unwrap();
        fs::write(directory.path().join("other"), "").unwrap();
        fs::write(directory.path().join("a-0000000000000009.snapshot.1-2.part"), "").unwrap();
        prune(directory.path(), &name("a")).unwrap();
        let mut left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        left.sort();
        assert_eq!(left, [at("a", 2), at("a", 3), at("a-b", 1), directory.path().join("other")]);
    }
}
