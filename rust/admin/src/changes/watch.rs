// SPDX-License-Identifier: MIT OR Apache-2.0
//! The watch over the tenants file and the programs, and SIGHUP.
//!
//! Directories are watched and not files: who replaces a file well writes another one and renames it, and the watch of
//! a file would stay with the old one. An editor or a compiler changes a file in many steps, so a change is acted on
//! when nothing has followed it for a while ([`QUIET`]).
//!
//! The thread of this module never waits for a file system: each tenant's files are looked at, and watched, on an
//! errand of its own, and one whose file system does not answer is looked at again when it does.

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

/// A change is acted on when none has followed for so long,
const QUIET: Duration = Duration::from_millis(200);
/// or when they have not come to an end for so long.
const RESTLESS: Duration = Duration::from_secs(2);
/// A directory that is not there is looked for so often.
const RETRY: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 5_000 });
/// Tenants whose files are looked at side by side, besides those whose files are slow to answer.
const AT_A_TIME: usize = 4;
/// What a look at one tenant's files may take: each call of it may take a second.
const LOOK: Duration = Duration::from_secs(600);
/// Kubernetes and others replace whole directories of files by renaming a link of this name.
const LINKED_DATA: &str = "..data";

/// The directories that are watched, and for which names in them.
#[derive(Debug)]
pub(crate) struct Watched {
    /// `None`: the system gave none.
    inotify: Option<Arc<AsyncFd<OwnedFd>>>,
    /// By tenant; that of the tenants file has no name.
    errands: HashMap<String, Errands>,
    /// Those whose files do not answer.
    hanging: HashSet<String>,
    /// New names, of which it is not known yet whether they are links.
    unsure: Vec<PathBuf>,
    /// For looks at these.
    looks: Errands,
    directories: HashMap<PathBuf, Directory>,
    /// By the kernel's number. Two paths may lead to one directory, and then have one number.
    numbers: HashMap<i32, HashSet<PathBuf>>,
    /// Directories have come or gone where all of them count.
    is_stale: bool,
    /// Tenants of which it was said that not all their files are watched.
    told: HashSet<String>,
}

#[derive(Debug, Default)]
struct Directory {
    names: HashSet<OsString>,
    /// Whether every name counts.
    whole: bool,
    /// `None`: it is not watched, because it is not there or there are too many.
    number: Option<i32>,
    /// Whether that was said.
    told: bool,
}

/// What an errand has found out about a tenant's files, and now watches.
#[derive(Debug, Default)]
struct Found {
    directories: HashMap<PathBuf, Directory>,
    /// Why some are not watched.
    errors: HashMap<PathBuf, io::Error>,
    is_cut: bool,
}

type Survey = Vec<(String, Result<Found, Unfinished>)>;

/// Acts on changes, for ever.
pub(crate) async fn run<T: Tenants>(mut watched: Watched, reloads: Reloads<T>, mut hangup: Signal) {
    // Since it was read at the start the file may have changed, and nobody was watching yet.
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
    /// Watches what the configuration asks for, from now on. Inside a runtime.
    pub(crate) fn new(config: &Arc<Config>) -> Self {
        let inotify = inotify::open().inspect_err(|error| {
            tracing::warn!(target: "mayfly::admin", %error, "changes of files are not seen; SIGHUP still is");
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
            told: HashSet::new(),
        };
        let look = watched.look(config);
        let survey = look();
        watched.take(survey);
        watched
    }

    /// Whether everything is watched that should be.
    fn is_complete(&self) -> bool {
        self.hanging.is_empty() && self.directories.values().all(|directory| directory.number.is_some())
    }

    /// Watches what the configuration asks for now. Returns whether a directory is there that was not.
    async fn update(&mut self, config: &Arc<Config>) -> bool {
        self.is_stale = false;
        let look = self.look(config);
        // A panic has been told by the panic hook.
        let survey = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        self.take(survey)
    }

    /// What looks at all files that matter, and watches them: a second or so, whatever their file systems do.
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

    /// Goes by what was found. Returns whether a directory is there that was not, or answers that did not.
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
                            target: "mayfly::admin", tenant = name, reason = %unfinished, "changes of the tenant's files are not seen"
                        );
                    }
                    self.hanging.insert(name);
                    continue;
                }
            };
            // What has changed meanwhile was not seen.
            news |= hung.contains(&name);
            if found.is_cut && self.told.insert(name.clone()) {
                tracing::warn!(
                    target: "mayfly::admin", tenant = name,
                    "`watch` names more than is watched (256 directories, 16384 files): name the directories that change"
                );
            }
            for (path, new) in found.directories {
                // What is in it came before it was watched.
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
                    if !before.is_some_and(|before| before.told) {
                        let error = errors.remove(path).map(|error| error.to_string());
                        let path = path.display();
                        tracing::warn!(target: "mayfly::admin", %path, error, "changes in this directory are not seen; SIGHUP still is");
                    }
                    directory.told = true;
                }
            }
        }
        for number in former.values().filter_map(|directory| directory.number) {
            if !self.numbers.contains_key(&number) {
                // It fails if the directory is gone, and the watch with it.
                let _ = remove_watch(inotify, number);
            }
        }
        news
    }

    /// Waits for the quiet after a change.
    async fn quiet(&mut self) {
        let end = Instant::now() + RESTLESS;
        while timeout_at(end.min(Instant::now() + QUIET), self.change()).await.is_ok() {}
    }

    /// Waits for a change. Given up, it has missed none.
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
                // All events are read before any is judged, for none of them comes again.
                Ok(events) => {
                    let relevant = events.into_iter().filter(|event| self.concerns(event)).count();
                    if relevant > 0 {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(target: "mayfly::admin", %error, "changes of files are not seen any more; SIGHUP still is");
                    self.inotify = None;
                    self.directories.clear();
                }
            }
        }
    }

    /// Whether an event is about one of the files.
    fn concerns(&mut self, event: &inotify::Event) -> bool {
        if event.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return true;
        }
        let Some(paths) = self.numbers.get(&event.number) else { return false };
        if event
            .flags
            .intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED | ReadFlags::UNMOUNT)
        {
            // The path leads elsewhere now, or nowhere: it is looked for again.
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
        // A new file is empty yet; that it is written and closed is another event. A new link is whole: that is looked
        // at elsewhere.
        let is_new = event.flags.contains(ReadFlags::CREATE);
        if is_new {
            self.unsure.push(path.join(name));
        }
        !is_new
    }
}

/// Watches the files of a tenant that matter, which are its programs, and what it names besides; without a tenant, the
/// tenants file. On an errand.
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

/// A symbolic link, or one of several names of a file.
fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink() || metadata.nlink() > 1)
}
