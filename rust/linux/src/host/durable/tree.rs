// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names in durable directories: make, remove, rename, link, open.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps};

use crate::base::errno::Errno;
use crate::host::attributes::{Time, Times};
use crate::host::files::{self, HostFile, Root, guest_errno};
use crate::host::permits::Permit;
use crate::host::quota::Durable;

/// How often a file may appear and disappear while it is opened.
const ATTEMPTS: u32 = 8;
/// The mode bits that a program may set.
const MODE: u32 = 0o777;

/// The owner may make and remove names in a directory.
const WRITE_AND_SEARCH: u32 = 0o300;

/// A path in a durable directory: plain, relative, empty for the directory itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) root: &'a Root,
    pub(crate) durable: &'a Arc<Durable>,
    /// The mount's device number in the program's view.
    pub(crate) device: u32,
    pub(crate) rest: &'a [u8],
}

impl<'a> Place<'a> {
    /// The directory that the name lies in, and the name.
    fn split(&self) -> Result<(OwnedFd, &'a [u8]), Errno> {
        let at = self.rest.iter().rposition(|&byte| byte == b'/');
        let (directory, name) = match at {
            Some(at) => (self.rest.get(..at), self.rest.get(at.saturating_add(1)..)),
            None => (Some(&b""[..]), Some(self.rest)),
        };
        // The paths are plain; all the same, no call gets a name that means a directory.
        let name = name.filter(|name| !matches!(*name, b"" | b"." | b"..")).ok_or(Errno::EBUSY)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        Ok((files::open(self.root, directory.unwrap_or_default(), flags, true)?, name))
    }

    /// As [`Place::split`], for a change of the directory's entries, which its owner must be permitted: the program is
    /// it, whatever this process may do.
    fn split_to_change(&self) -> Result<(OwnedFd, &'a [u8]), Errno> {
        let (directory, name) = self.split()?;
        let stat = self.wait(|| rustix::fs::fstat(&directory))?;
        if stat.st_mode & WRITE_AND_SEARCH == WRITE_AND_SEARCH { Ok((directory, name)) } else { Err(Errno::EACCES) }
    }

    /// Makes a call that may wait for the disk, again after a signal.
    fn wait<T>(&self, mut call: impl FnMut() -> rustix::io::Result<T>) -> Result<T, Errno> {
        files::wait(self.root, self.rest, || rustix::io::retry_on_intr(&mut call)).map_err(guest_errno)
    }

    fn stat(&self, directory: &OwnedFd, name: &[u8]) -> Result<Stat, Errno> {
        self.wait(|| rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW))
    }

    /// Opens the file, or makes it with this mode (`create`). `exclusive`: it must not exist.
    pub(crate) fn open(
        &self,
        writes: bool,
        create: Option<u32>,
        exclusive: bool,
        permit: Permit,
    ) -> Result<HostFile, Errno> {
        let common = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
        let _tree = self.durable.tree();
        for _ in 0..ATTEMPTS {
            if let Some(mode) = create {
                self.split_to_change()?;
                self.durable.take_name()?;
                let flags = common | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
                match files::open_or_create(self.root, self.rest, flags, Mode::from_raw_mode(mode & MODE), true) {
                    Ok(fd) => return self.opened(fd, true, permit),
                    Err(error) => {
                        self.durable.give_name();
                        if error != Errno::EEXIST || exclusive {
                            return Err(error);
                        }
                    }
                }
            }
            let access = if writes { OFlags::RDWR } else { OFlags::RDONLY };
            match files::open(self.root, self.rest, common | access, true) {
                Err(Errno::ENOENT) if create.is_some() => {}
                fd => return self.opened(fd?, writes, permit),
            }
        }
        Err(Errno::EIO)
    }

    fn opened(&self, fd: OwnedFd, writable: bool, permit: Permit) -> Result<HostFile, Errno> {
        HostFile::of_durable(fd, self.device, self.rest, self.root.storage(), permit, (self.durable, writable))
    }

    /// Makes a directory.
    pub(crate) fn make_directory(&self, mode: u32) -> Result<(), Errno> {
        let (directory, name) = self.split_to_change()?;
        let _tree = self.durable.tree();
        self.durable.take_name()?;
        let made = self.wait(|| rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(mode & MODE)));
        if made.is_err() {
            self.durable.give_name();
        }
        made
    }

    /// Removes a file, or an empty directory.
    pub(crate) fn remove(&self, is_directory: bool) -> Result<(), Errno> {
        let (directory, name) = self.split_to_change()?;
        let _tree = self.durable.tree();
        let stat = self.stat(&directory, name)?;
        let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        self.wait(|| rustix::fs::unlinkat(&directory, name, flags))?;
        self.lost(&stat);
        Ok(())
    }

    /// A name of a file with these attributes is gone.
    fn lost(&self, stat: &Stat) {
        self.durable.give_name();
        if FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_nlink < 2 {
            self.durable.lost_last_name(stat.st_ino, u64::try_from(stat.st_size).unwrap_or(0));
        }
    }

    /// Renames to a place in the same directory tree.
    pub(crate) fn rename(&self, to: &Self, replaces: bool) -> Result<(), Errno> {
        let (old_directory, old) = self.split_to_change()?;
        let (new_directory, new) = to.split_to_change()?;
        let _tree = self.durable.tree();
        let source = self.stat(&old_directory, old)?;
        let target = match self.stat(&new_directory, new) {
            Err(Errno::ENOENT) => None,
            other => Some(other?),
        };
        let flags = if replaces { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        self.wait(|| rustix::fs::renameat_with(&old_directory, old, &new_directory, new, flags))?;
        // Two names of one file both stay.
        if let Some(target) = target.filter(|target| target.st_ino != source.st_ino) {
            self.lost(&target);
        }
        Ok(())
    }

    /// Gives a file another name in the same directory tree.
    pub(crate) fn link(&self, to: &Self) -> Result<(), Errno> {
        let (old_directory, old) = self.split()?;
        let (new_directory, new) = to.split_to_change()?;
        let _tree = self.durable.tree();
        if !FileType::from_raw_mode(self.stat(&old_directory, old)?.st_mode).is_file() {
            return Err(Errno::EPERM);
        }
        self.durable.take_name()?;
        let made = self.wait(|| rustix::fs::linkat(&old_directory, old, &new_directory, new, AtFlags::empty()));
        if made.is_err() {
            self.durable.give_name();
        }
        made
    }

    /// Opens a file or a directory to change or store what belongs to it; nothing else can be opened so.
    fn open_node(&self) -> Result<OwnedFd, Errno> {
        let look = files::look_up(self.root, self.rest, self.device, true)?;
        if !matches!(look.attributes.kind(), libc::S_IFREG | libc::S_IFDIR) {
            return Err(Errno::EPERM);
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
        files::open(self.root, self.rest, flags, true)
    }

    /// Sets the mode of a file or a directory.
    pub(crate) fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        let node = self.open_node()?;
        self.wait(|| rustix::fs::fchmod(&node, Mode::from_raw_mode(mode & MODE)))
    }

    /// Sets the time of access and modification of what is there, a symbolic link included.
    pub(crate) fn set_times(&self, times: Times) -> Result<(), Errno> {
        let times = timestamps(times);
        if self.rest.is_empty() {
            let node = self.open_node()?;
            return self.wait(|| rustix::fs::futimens(&node, &times));
        }
        let (directory, name) = self.split()?;
        self.wait(|| rustix::fs::utimensat(&directory, name, &times, AtFlags::SYMLINK_NOFOLLOW))
    }

    /// Makes the names in a directory survive a crash of the host.
    pub(crate) fn sync(&self) -> Result<(), Errno> {
        let node = self.open_node()?;
        self.wait(|| rustix::fs::fsync(&node))
    }
}

/// The times as the host's kernel takes them.
pub(super) fn timestamps(times: Times) -> Timestamps {
    let stamp = |time: Option<Time>| match time {
        Some(time) => Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() },
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
    };
    Timestamps { last_access: stamp(times.accessed), last_modification: stamp(times.modified) }
}
