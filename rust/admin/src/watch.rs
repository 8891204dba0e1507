// SPDX-License-Identifier: MIT OR Apache-2.0
//! The watch over the tenants file and the programs, and SIGHUP.
//!
//! Directories are watched and not files: who replaces a file well writes another one and renames it, and the watch of a file would
//! stay with the old one. An editor or a compiler changes a file in many steps, so a change is acted on when nothing has followed it
//! for a while ([`QUIET`]).

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_tenancy::Config;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::Signal;
use tokio::time::{Instant, sleep, timeout_at};

use crate::reload::Reloads;
use crate::tenants::Tenants;

/// A change is acted on when none has followed for so long,
const QUIET: Duration = Duration::from_millis(200);
/// or when they have not come to an end for so long.
const RESTLESS: Duration = Duration::from_secs(2);
/// A directory that is not there is looked for so often.
const RETRY: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 5_000 });
/// Kubernetes and others replace whole directories of files by renaming a link of this name.
const LINKED_DATA: &str = "..data";

/// The directories that are watched, and for which names in them.
#[derive(Debug)]
pub(crate) struct Watched {
    /// `None`: the system gave none.
    inotify: Option<AsyncFd<OwnedFd>>,
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

/// Acts on changes, for ever.
pub(crate) async fn run<T: Tenants>(mut watched: Watched, reloads: Reloads<T>, mut hangup: Signal) {
    // Since it was read at the start the file may have changed, and nobody was watching yet.
    let mut look_again = reloads.file().await.applied.is_some();
    loop {
        if look_again || watched.is_stale || !watched.is_complete() {
            look_again = false;
            if watched.update(&reloads.tenants.config()) {
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
    pub(crate) fn new(config: &Config) -> Self {
        let inotify = open().inspect_err(|error| {
            tracing::warn!(target: "mayfly::admin", %error, "changes of files are not seen; SIGHUP still is");
        });
        let mut watched = Self {
            inotify: inotify.ok(),
            directories: HashMap::new(),
            numbers: HashMap::new(),
            is_stale: false,
            told: HashSet::new(),
        };
        watched.update(config);
        watched
    }

    /// Whether everything is watched that should be.
    fn is_complete(&self) -> bool {
        self.directories.values().all(|directory| directory.number.is_some())
    }

    /// Watches what the configuration asks for now. Returns whether a directory is there that was not.
    fn update(&mut self, config: &Config) -> bool {
        self.is_stale = false;
        let Some(inotify) = &self.inotify else { return false };
        let mut former = std::mem::take(&mut self.directories);
        self.numbers.clear();
        let mut found = false;
        let (files, whole) = if config.watch { wanted(config, &mut self.told) } else { Default::default() };
        for path in files {
            let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else { continue };
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            let directory = self.directories.entry(parent.to_owned()).or_default();
            directory.names.insert(name.to_owned());
        }
        for path in whole {
            // What is in it came before it was watched.
            found |= !former.contains_key(&path);
            self.directories.entry(path).or_default().whole = true;
        }
        for (path, directory) in &mut self.directories {
            let before = former.remove(path);
            match add(inotify, path, directory.whole) {
                Ok(number) => {
                    found |= before.is_some_and(|before| before.number.is_none());
                    directory.number = Some(number);
                    self.numbers.entry(number).or_default().insert(path.clone());
                }
                Err(error) => {
                    if !before.is_some_and(|before| before.told) {
                        let path = path.display();
                        tracing::warn!(target: "mayfly::admin", %path, %error, "changes in this directory are not seen; SIGHUP still is");
                    }
                    directory.told = true;
                }
            }
        }
        for number in former.values().filter_map(|directory| directory.number) {
            if !self.numbers.contains_key(&number) {
                // It fails if the directory is gone, and the watch with it.
                let _ = inotify::remove_watch(inotify, number);
            }
        }
        found
    }

    /// Waits for the quiet after a change.
    async fn quiet(&mut self) {
        let end = Instant::now() + RESTLESS;
        while timeout_at(end.min(Instant::now() + QUIET), self.change()).await.is_ok() {}
    }

    /// Waits for a change. Given up, it has missed none.
    async fn change(&mut self) {
        loop {
            let Some(inotify) = &self.inotify else { return std::future::pending().await };
            let events = match inotify.readable().await {
                Ok(mut ready) => {
                    let events = read(inotify.get_ref());
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
    fn concerns(&mut self, event: &Event) -> bool {
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
        let is_ours = |path: &PathBuf| {
            let names = self.directories.get(path).map(|directory| &directory.names);
            // A new file is empty yet; that it is written and closed is another event. A new link is whole.
            let is_whole = || !event.flags.contains(ReadFlags::CREATE) || is_link(&path.join(name));
            let whole = self.directories.get(path).is_some_and(|directory| directory.whole);
            (whole || name == LINKED_DATA || names.is_some_and(|names| names.contains(name))) && is_whole()
        };
        paths.iter().any(is_ours)
    }
}

/// The files that matter, which are the tenants file, all programs, and what tenants name besides, and the directories in which all do.
fn wanted(config: &Config, told: &mut HashSet<String>) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let mut files: Vec<PathBuf> = config.source.iter().cloned().collect();
    let mut whole = Vec::new();
    for tenant in &config.tenants {
        files.push(tenant.program.clone());
        files.extend(tenant.storage.as_ref().map(|storage| storage.program.clone()));
        let found = tenant.watched_files();
        files.extend(found.named);
        whole.extend(found.directories);
        if found.is_cut && told.insert(tenant.name.to_string()) {
            tracing::warn!(
                target: "mayfly::admin", tenant = %tenant.name,
                "`watch` names more than is watched (256 directories, 16384 files): name the directories that change"
            );
        }
    }
    (files, whole)
}

/// A symbolic link, or one of several names of a file.
fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink() || metadata.nlink() > 1)
}

fn open() -> io::Result<AsyncFd<OwnedFd>> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // SAFETY: the `AsyncFd` owns the descriptor, and nothing replaces or closes it before the `AsyncFd` is dropped.
    Ok(unsafe { AsyncFd::register(inotify) }?)
}

fn add(inotify: &AsyncFd<OwnedFd>, directory: &Path, whole: bool) -> io::Result<i32> {
    let gone = if whole { WatchFlags::DELETE | WatchFlags::MOVED_FROM } else { WatchFlags::empty() };
    // Two paths may lead to one directory, and one of them ask for less.
    let flags = WatchFlags::MASK_ADD
        | gone
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::CREATE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR;
    Ok(inotify::add_watch(inotify, directory, flags)?)
}

/// What the kernel tells.
struct Event {
    number: i32,
    flags: ReadFlags,
    name: Option<OsString>,
}

/// All events that wait.
fn read(inotify: &OwnedFd) -> io::Result<Vec<Event>> {
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut reader = inotify::Reader::new(inotify, &mut buffer);
    let mut events = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => events.push(Event {
                number: event.wd(),
                flags: event.events(),
                name: event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned()),
            }),
            Err(rustix::io::Errno::AGAIN) => return Ok(events),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
