// SPDX-License-Identifier: MIT OR Apache-2.0
//! Watches of directories (inotify(7)).

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

pub(crate) fn open() -> io::Result<AsyncFd<OwnedFd>> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // SAFETY: the `AsyncFd` owns the descriptor, and nothing replaces or closes it before the `AsyncFd` is dropped.
    Ok(unsafe { AsyncFd::register(inotify) }?)
}

pub(crate) fn add(inotify: &OwnedFd, directory: &Path, whole: bool) -> io::Result<i32> {
    let gone = if whole { WatchFlags::DELETE | WatchFlags::MOVED_FROM } else { WatchFlags::empty() };
    // Two paths may lead to one directory, and one of them may ask for fewer events.
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

/// An event of the kernel.
pub(crate) struct Event {
    pub(crate) number: i32,
    pub(crate) flags: ReadFlags,
    pub(crate) name: Option<OsString>,
}

/// Reads all pending events.
pub(crate) fn read(inotify: &OwnedFd) -> io::Result<Vec<Event>> {
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
