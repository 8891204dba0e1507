// SPDX-License-Identifier: MIT OR Apache-2.0
//! The watch over the tenants file and the programs, and SIGHUP.
//!
//! The watches are on directories and not on files: a careful replacement writes another file and renames it, and a
//! watch on the file would stay with the old one. An editor or a compiler changes a file in many steps, so a change
//! takes effect when no other has followed it for a while ([`QUIET`]).
//!
//! The thread of this module never waits for a file system: an errand of each tenant looks at that tenant's files and
//! adds their watches. A tenant whose file system does not answer is looked at again when it does.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mayfly_files::{Errands, Pending, Unfinished, waiting_for};
use mayfly_tenancy::{Config, TenantConfig};
use rustix::fs::inotify::{ReadFlags, remove_watch};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::Signal;
use tokio::time::{Instant, sleep, timeout_at};

use crate::changes::inotify;
use crate::changes::reload::Reloads;
use crate::tenants::Tenants;

/// A change takes effect when no other has followed for this long,
const QUIET: Duration = Duration::from_millis(200);
/// or when changes have gone on for this long.
const RESTLESS: Duration = Duration::from_secs(2);
/// How often the watch looks for a directory that does not exist.
const RETRY: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 5_000 });
/// Tenants whose files are looked at in parallel, besides those whose files are slow to answer.
const AT_A_TIME: usize = 4;
/// Time limit for a look at one tenant's files: each of its file operations may take a second.
const LOOK: Duration = Duration::from_secs(600);
/// Kubernetes and others replace a whole directory of files by renaming a link of this name.
const LINKED_DATA: &str = "..data";

/// The directories under watch, and the names in them that count.
#[derive(Debug)]
pub(crate) struct Watched {
    /// `None`: the system refused one.
    inotify: Option<Arc<AsyncFd<OwnedFd>>>,
    /// By tenant; the empty name stands for the tenants file.
    errands: HashMap<String, Errands>,
    /// Tenants whose files do not answer.
    hanging: HashSet<String>,
    /// New names that may be links: not known yet.
    unsure: Vec<PathBuf>,
    /// Looks at `unsure`.
    looks: Errands,
    directories: HashMap<PathBuf, Directory>,
    /// By the kernel's watch descriptor. Two paths may lead to one directory, and then have the same one.
    numbers: HashMap<i32, HashSet<PathBuf>>,
    /// Directories have appeared or gone below one that is watched as a whole.
    is_stale: bool,
    /// Tenants for which the log says that not all their files are watched.
    cut_logged: HashSet<String>,
}

#[derive(Debug, Default)]
struct Directory {
    names: HashSet<OsString>,
    /// Whether every name counts.
    whole: bool,
    /// The watch descriptor. `None`: not watched, because it does not exist or there are too many.
    number: Option<i32>,
    /// Whether the log says so.
    is_logged: bool,
}

/// What an errand has found of a tenant's files, and now watches.
#[derive(Debug, Default)]
struct Found {
    directories: HashMap<PathBuf, Directory>,
    /// Why some directories are not watched.
    errors: HashMap<PathBuf, io::Error>,
    is_cut: bool,
}

type Survey = Vec<(String, Result<Found, Unfinished>)>;

/// Acts on changes, without end.
pub(crate) async fn run<T: Tenants>(mut watched: Watched, reloads: Reloads<T>, mut hangup: Signal) {
    // The file may have changed after it was read at the start and before the watch began.
    let mut look_again = reloads.file().await.applied.is_some();
    loop {
        if look_again || watched.is_stale || !watched.is_complete() {
            look_again = false;
            if watched.update(&reloads.tenants.config()).await {
                look_again = reloads.everything().await.applied.is_some();
                continue;
            }
        }
        tokio::select! {
            () = watched.change() => watched.quiet().await,
            // The sender lives in the runtime, so this ends only with it.
            _ = hangup.recv() => tracing::info!(target: "mayfly::admin", "SIGHUP: looking for changes"),
            () = sleep(RETRY), if !watched.is_complete() => continue,
        }
        look_again = reloads.everything().await.applied.is_some();
    }
}

impl Watched {
    /// Starts the watch that the configuration asks for. To be called inside a runtime.
    pub(crate) fn new(config: &Arc<Config>) -> Self {
        let inotify = inotify::open().inspect_err(|error| {
            tracing::warn!(target: "mayfly::admin", %error, "changes of files go unnoticed; SIGHUP still works");
        });
        let mut watched = Self {
            inotify: inotify.ok().map(Arc::new),
            errands: HashMap::new(),
            hanging: HashSet::new(),
            unsure: Vec::new(),
            looks: Errands::default(),
            directories: HashMap::new(),
            numbers: HashMap::new(),
            is_stale: false,
            cut_logged: HashSet::new(),
        };
        let look = watched.look(config);
        let survey = look();
        watched.take(survey);
        watched
    }

    /// Whether all watches that the configuration asks for exist.
    fn is_complete(&self) -> bool {
        self.hanging.is_empty() && self.directories.values().all(|directory| directory.number.is_some())
    }

    /// Watches what the configuration asks for now. Returns whether a directory exists that did not before.
    async fn update(&mut self, config: &Arc<Config>) -> bool {
        self.is_stale = false;
        let look = self.look(config);
        // The panic hook has logged a panic.
        let survey = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        self.take(survey)
    }

    /// A function that looks at all files that matter, and watches them. It takes about a second, whatever their file
    /// systems do.
    fn look(&mut self, config: &Arc<Config>) -> impl FnOnce() -> Survey + Send + 'static {
        let inotify = self.inotify.clone().filter(|_| config.watch);
        let tenants = config.tenants.iter().map(|tenant| (tenant.name.to_string(), Some(tenant.clone())));
        let all: Vec<(String, Option<TenantConfig>)> = match inotify {
            Some(_) => std::iter::once((String::new(), None)).chain(tenants).collect(),
            None => Vec::new(),
        };
        let former = std::mem::take(&mut self.errands);
        self.errands =
            all.iter().map(|(name, _)| (name.clone(), former.get(name).cloned().unwrap_or_default())).collect();
        let errands: Vec<Errands> =
            all.iter().map(|(name, _)| self.errands.get(name).cloned().unwrap_or_default()).collect();
        let source = config.source.clone();
        move || {
            let names: Vec<String> = all.iter().map(|(name, _)| name.clone()).collect();
            let works = errands.into_iter().zip(all).filter_map(|(errands, (_, tenant))| {
                let (inotify, source) = (Arc::clone(inotify.as_ref()?), source.clone());
                Some((errands, move || found(tenant.as_ref(), source, inotify.get_ref())))
            });
            names.into_iter().zip(mayfly_files::each(works, AT_A_TIME, LOOK)).collect()
        }
    }

    /// Takes over what was found. Returns whether a directory exists, or answers, that did not before.
    fn take(&mut self, survey: Survey) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let mut former = std::mem::take(&mut self.directories);
        let hung = std::mem::take(&mut self.hanging);
        self.numbers.clear();
        let mut news = false;
        let mut errors = HashMap::new();
        for (name, found) in survey {
            let found = match found {
                Ok(found) => found,
                Err(unfinished) => {
                    if !hung.contains(&name) {
                        tracing::warn!(
                            target: "mayfly::admin", tenant = name, reason = %unfinished, "changes of the tenant's files go unnoticed"
                        );
                    }
                    self.hanging.insert(name);
                    continue;
                }
            };
            // Changes in the meantime were not seen.
            news |= hung.contains(&name);
            if found.is_cut && self.cut_logged.insert(name.clone()) {
                tracing::warn!(
                    target: "mayfly::admin", tenant = name,
                    "`watch` names more than is watched (256 directories, 16384 files): name the directories that change"
                );
            }
            for (path, new) in found.directories {
                // Its content may be older than the watch.
                news |= new.whole && !former.contains_key(&path);
                let directory = self.directories.entry(path).or_default();
                directory.names.extend(new.names);
                directory.whole |= new.whole;
                directory.number = directory.number.or(new.number);
            }
            errors.extend(found.errors);
        }
        for (path, directory) in &mut self.directories {
            let before = former.remove(path);
            match directory.number {
                Some(number) => {
                    news |= before.is_some_and(|before| before.number.is_none());
                    self.numbers.entry(number).or_default().insert(path.clone());
                }
                None => {
                    if !before.is_some_and(|before| before.is_logged) {
                        let error = errors.remove(path).map(|error| error.to_string());
                        let path = path.display();
                        tracing::warn!(target: "mayfly::admin", %path, error, "changes in this directory go unnoticed; SIGHUP still works");
                    }
                    directory.is_logged = true;
                }
            }
        }
        for number in former.values().filter_map(|directory| directory.number) {
            if !self.numbers.contains_key(&number) {
                // It fails if the directory is gone, and its watch with it.
                let _ = remove_watch(inotify, number);
            }
        }
        news
    }

    /// Waits until changes stop.
    async fn quiet(&mut self) {
        let end = Instant::now() + RESTLESS;
        while timeout_at(end.min(Instant::now() + QUIET), self.change()).await.is_ok() {}
    }

    /// Waits for a change. If the caller drops the future, no change is lost.
    async fn change(&mut self) {
        loop {
            if !self.unsure.is_empty() {
                let (looks, paths) = (self.looks.clone(), self.unsure.clone());
                let look = move || paths.iter().any(|path| waiting_for(path, || is_link(path)));
                let look = move || looks.begin(LOOK, look).and_then(Pending::wait).unwrap_or(true);
                let is_link = tokio::task::spawn_blocking(look).await.unwrap_or(true);
                self.unsure.clear();
                if is_link {
                    return;
                }
            }
            let Some(inotify) = &self.inotify else { return std::future::pending().await };
            let events = match inotify.readable().await {
                Ok(mut ready) => {
                    let events = inotify::read(inotify.get_ref());
                    ready.clear_ready();
                    events
                }
                Err(error) => Err(error),
            };
            match events {
                // Judges events only after all are read: the kernel reports each only once.
                Ok(events) => {
                    let relevant = events.into_iter().filter(|event| self.concerns(event)).count();
                    if relevant > 0 {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(target: "mayfly::admin", %error, "changes of files go unnoticed from now on; SIGHUP still works");
                    self.inotify = None;
                    self.directories.clear();
                }
            }
        }
    }

    /// Whether an event concerns one of the files.
    fn concerns(&mut self, event: &inotify::Event) -> bool {
        if event.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return true;
        }
        let Some(paths) = self.numbers.get(&event.number) else { return false };
        if event
            .flags
            .intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED | ReadFlags::UNMOUNT)
        {
            // The path leads elsewhere now, or nowhere: the next update looks for it again.
            for path in paths {
                if let Some(directory) = self.directories.get_mut(path) {
                    directory.number = None;
                }
            }
            return true;
        }
        let Some(name) = &event.name else { return false };
        if paths.iter().any(|path| self.directories.get(path).is_some_and(|directory| directory.whole)) {
            self.is_stale |= event.flags.contains(ReadFlags::ISDIR);
            if event.flags.intersects(ReadFlags::ISDIR | ReadFlags::DELETE | ReadFlags::MOVED_FROM)
                || !event.flags.contains(ReadFlags::CREATE)
            {
                return true;
            }
        }
        let is_ours = |path: &&PathBuf| {
            let names = self.directories.get(*path).map(|directory| &directory.names);
            let whole = self.directories.get(*path).is_some_and(|directory| directory.whole);
            whole || name == LINKED_DATA || names.is_some_and(|names| names.contains(name))
        };
        let Some(path) = paths.iter().find(|path| is_ours(path)) else { return false };
        // A new file is still empty; another event reports that it is written and closed. A new link is complete, which
        // `change` finds out.
        let is_new = event.flags.contains(ReadFlags::CREATE);
        if is_new {
            self.unsure.push(path.join(name));
        }
        !is_new
    }
}

/// Watches a tenant's programs, and the files that its `watch` names; without a tenant, the tenants file. Runs on an
/// errand.
fn found(tenant: Option<&TenantConfig>, source: Option<PathBuf>, inotify: &OwnedFd) -> Found {
    let mut found = Found::default();
    let files = match tenant {
        None => source.into_iter().collect(),
        Some(tenant) => {
            let watched = tenant.watched_files();
            found.is_cut = watched.is_cut;
            for path in watched.directories {
                found.directories.entry(path).or_default().whole = true;
            }
            let storage = tenant.storage.as_ref().map(|storage| storage.program.clone());
            [tenant.program.clone()].into_iter().chain(storage).chain(watched.named).collect::<Vec<_>>()
        }
    };
    for path in files {
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else { continue };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        found.directories.entry(parent.to_owned()).or_default().names.insert(name.to_owned());
    }
    for (path, directory) in &mut found.directories {
        match waiting_for(path, || inotify::add(inotify, path, directory.whole)) {
            Ok(number) => directory.number = Some(number),
            Err(error) => drop(found.errors.insert(path.clone(), error)),
        }
    }
    found
}

/// Whether the path is a symbolic link, or one of several names of a file.
fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink() || metadata.nlink() > 1)
}
