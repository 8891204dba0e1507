// SPDX-License-Identifier: MIT OR Apache-2.0
//! Snapshots on disk: the frozen result of a tenant's first boot, for the next start of the server.
//!
//! ```text
//!   start ── NAME-ORIGIN.snapshot ── valid ─────────────────────> serves from it
//!              │  none, or refused: the reason is logged
//!              v
//!            boot ──> serves ──> its workers have learned, or 10 s have passed ──> saved, older ones removed
//! ```
//!
//! ORIGIN is a digest of what the program was booted from, so that a tenant can alternate between programs without
//! booting them. The file holds everything else that must match.

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

/// How long a load may take: it may read several gigabytes. A wait for a file is noticed after a second.
const LOAD: Duration = Duration::from_secs(300);
const ENDING: &str = ".snapshot";
/// Number of snapshots kept for a tenant: those of the current program and the previous one.
const KEPT: usize = 2;
/// How long a snapshot waits to learn from the first requests which pages they write; then it is saved without that.
const LEARNING_TIME: Duration = Duration::from_secs(10);
/// How often the saver checks for that.
const INTERVAL: Duration = Duration::from_millis(200);

/// A server's snapshots, and the queue of those to be saved.
#[derive(Debug)]
pub(crate) struct Snapshots {
    pub(crate) directory: PathBuf,
    /// `None` once the server stops.
    sender: Mutex<Option<Sender<Offer>>>,
    /// `None` once the saver has taken it.
    receiver: Mutex<Option<Receiver<Offer>>>,
}

impl Snapshots {
    pub(crate) fn new(directory: PathBuf) -> Self {
        let (sender, receiver) = mpsc::channel();
        Self { directory, sender: Mutex::new(Some(sender)), receiver: Mutex::new(Some(receiver)) }
    }

    /// Queues a generation to be saved, if it was booted from its program and has a file.
    pub(crate) fn offer(&self, generation: &Arc<Generation>) {
        let Some(path) = generation.file.clone().filter(|_| generation.snapshot.booted_from() == BootedFrom::Program)
        else {
            return;
        };
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*sender {
            // Sending fails if the thread has ended; then nothing is saved.
            let _ = sender.send(Offer {
                path,
                tenant: generation.config.name.clone(),
                generation: Arc::downgrade(generation),
                due: Instant::now() + LEARNING_TIME,
            });
        }
    }

    /// Saves the queued generations, until [`Snapshots::close`]. For one thread.
    pub(crate) fn save_all(&self) {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(offers) = receiver {
            save_all(&offers);
        }
    }

    /// Ends the thread, without saving the rest of the queue.
    pub(crate) fn close(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// A generation to be saved.
#[derive(Debug)]
struct Offer {
    path: PathBuf,
    tenant: TenantName,
    /// A generation that has been replaced is not saved.
    generation: Weak<Generation>,
    due: Instant,
}

/// The path of the snapshot of a tenant's program with this origin.
pub(crate) fn path(directory: &Path, tenant: &TenantName, origin: u64) -> PathBuf {
    directory.join(format!("{tenant}-{origin:016x}{ENDING}"))
}

/// Loads the snapshot of a tenant's program, if there is a valid one. Logs why one is not valid.
pub(crate) fn load(
    directory: &Path,
    config: &TenantConfig,
    program: &Program,
    host: &Host,
    log: Arc<dyn LogSink>,
    errands: &Errands,
) -> Option<Snapshot> {
    let limits = &config.limits.machine;
    let path = path(directory, &config.name, Snapshot::inputs_digest(host, program, limits));
    let load = {
        let (host, program, limits, path) = (host.clone(), program.clone(), limits.clone(), path.clone());
        move || Snapshot::load(&host, &program, &limits, log, &path)
    };
    // If the directory does not respond, the program boots instead.
    let reason = match errands.begin(LOAD, load).and_then(Pending::wait) {
        Ok(Ok(snapshot)) => return Some(snapshot),
        Ok(Err(SnapshotFileError::Io(error))) if error.kind() == ErrorKind::NotFound => return None,
        Ok(Err(error)) => error.to_string(),
        Err(unfinished) => unfinished.to_string(),
    };
    tracing::warn!(
        target: "mayfly::server", tenant = %config.name, path = %path.display(), reason,
        "the tenant's snapshot is not used: the program is booted instead"
    );
    None
}

/// Saves the queued generations, until all senders are dropped.
fn save_all(offers: &Receiver<Offer>) {
    let mut waiting: Vec<Offer> = Vec::new();
    loop {
        // While nothing waits to be saved, there is no reason to wake up.
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
                tracing::info!(target: "mayfly::server", %tenant, %path, save_ms, "the tenant's snapshot was saved");
            }
            Err(error) => {
                tracing::warn!(target: "mayfly::server", %tenant, %path, reason = %error, "the tenant's snapshot could not be saved");
            }
        }
    }
}

/// Saves a snapshot, and removes obsolete ones.
pub(crate) fn keep(path: &Path, tenant: &TenantName, snapshot: &Snapshot) -> Result<(), SnapshotSaveError> {
    let io = |source| SnapshotSaveError::Io { path: path.into(), source };
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(io)?;
    snapshot.save(path)?;
    prune(directory, tenant).map_err(io)
}

/// Removes all but the newest of a tenant's snapshots, and incomplete files that a crash has left.
fn prune(directory: &Path, tenant: &TenantName) -> io::Result<()> {
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        match kind_of(name, tenant) {
            Some(FileKind::Complete) => found.push((entry.metadata()?.modified()?, entry.path())),
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
    Complete,
    Unfinished,
}

/// The kind of a tenant's snapshot file, by its name. Another tenant's name may start with this one's.
fn kind_of(name: &str, tenant: &TenantName) -> Option<FileKind> {
    let rest = name.strip_prefix(tenant.as_str())?.strip_prefix('-')?;
    let (origin, rest) = rest.split_at_checked(16)?;
    let is_origin = origin.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    match rest.strip_prefix(ENDING).filter(|_| is_origin)? {
        "" => Some(FileKind::Complete),
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
    fn a_file_belongs_to_exactly_one_tenant() {
        let file = path(Path::new("d"), &name("a-b"), 0xab);
        let file = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(file, "a-b-00000000000000ab.snapshot");
        assert_eq!(kind_of(file, &name("a-b")), Some(FileKind::Complete));
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
    fn the_newest_snapshots_are_kept() {
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
