// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's files: the only place where the personality makes system calls on them.
//!
//! # Invariants
//!
//! * Every path goes through `openat2` from a mount's directory with [`FENCE`]: it cannot leave the directory, follows
//!   no symbolic link (the resolver does, in the program's own view) and no magic link, and enters no other file system
//!   of the host's.
//! * A node is looked up with `O_PATH`, which opens nothing, before it is opened. Only regular files and directories
//!   are opened, and only for reading but in durable mounts (`crate::host::durable`), so no FIFO wakes a writer and no
//!   device is affected.
//! * If the thread may not block ([`crate::base::context::Context::may_block`]), nothing here waits for a disk or a
//!   server: for data that is not in memory the result is [`Errno::NOT_HERE`]. How that is found out depends on the
//!   [`Storage`]; see decision 0210.
//! * Files are read by `pread`, and through read-only mappings of the machine's. A descriptor has no state, so a
//!   snapshot and its workers share it.

use std::ffi::OsStr;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mayfly_files::{FileStamp, waiting_for, waiting_for_some};
use mayfly_machine::FileKey;
use rustix::fs::{Access, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::ReadWriteFlags;
use serde::{Deserialize, Serialize};

use crate::base::errno::Errno;
use crate::host::attributes::{Attributes, Time};
use crate::host::closing::{self, Closing};
use crate::host::listing::DirectoryEntry;
use crate::host::permits::Permit;
use crate::host::quota::{Durable, Inode};

/// How paths are resolved.
const FENCE: ResolveFlags = ResolveFlags::IN_ROOT
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_XDEV);
/// `openat2` returns `EAGAIN` if something was renamed meanwhile.
const ATTEMPTS: u32 = 8;
/// Device number of a program's own file; no mount has it.
const PROGRAM_DEVICE: u32 = 20;
/// Most entries of a directory.
const ENTRIES_MAX: usize = 65_536;
/// Longest symbolic link that every file system of [`Storage::Disk`] stores in the inode, and so has in memory: that of
/// ext4.
const SHORT_LINK: u64 = 59;

/// What an access to a file system may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// Nothing.
    Memory,
    /// A disk, unless the kernel has the data in memory. The kernel can be asked whether it has.
    Disk,
    /// Anything: a network, a program. The kernel cannot tell in advance.
    Far,
}

impl Storage {
    /// The storage of the file system that `fd` lies in.
    pub(crate) fn of(fd: impl AsFd) -> rustix::io::Result<Self> {
        // The type and sign of the `statfs(2)` field differ from one architecture to another.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the numbers have 32 bits")]
        let kind = rustix::fs::fstatfs(fd)?.f_type as u32;
        Ok(match kind {
            // tmpfs, ramfs, hugetlbfs
            0x0102_1994 | 0x8584_58f6 | 0x9584_58f6 => Self::Memory,
            // ext2 to ext4, XFS, Btrfs, F2FS, bcachefs, ZFS, overlayfs, EROFS, SquashFS, ISO 9660
            0xef53 | 0x5846_5342 | 0x9123_683e | 0xf2f5_2010 | 0xca45_1a4e | 0x2fc1_2fc1 | 0x794c_7630
            | 0xe0f5_e1e2 | 0x7371_7368 | 0x9660 => Self::Disk,
            _ => Self::Far,
        })
    }

    /// Whether a thread that may not block may access this storage at all, for data that the kernel has in memory.
    fn check(self, may_block: bool) -> Result<(), Errno> {
        if self == Self::Far && !may_block { Err(Errno::NOT_HERE) } else { Ok(()) }
    }
}

/// The host's directory of a mount.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    storage: Storage,
    /// For messages.
    path: PathBuf,
}

/// Makes a call that may block. While a program boots, the path is published, and the caller's wait is bounded.
pub(crate) fn wait<T>(root: &Root, rest: &[u8], call: impl FnOnce() -> T) -> T {
    waiting_for_some(|| root.path.join(OsStr::from_bytes(rest)), call)
}

impl Root {
    /// Device and inode number on the host.
    pub(crate) fn key(&self) -> std::io::Result<(u64, u64)> {
        let stat = waiting_for(&self.path, || rustix::fs::fstat(&self.fd))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Whether this process may write to it.
    pub(crate) fn is_writable(&self) -> std::io::Result<bool> {
        let check = || rustix::fs::accessat(&self.fd, c".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
        match waiting_for(&self.path, check) {
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::ROFS | rustix::io::Errno::PERM) => Ok(false),
            other => Ok(other.map(|()| true)?),
        }
    }

    /// The kind of storage that it lies on.
    pub(crate) fn storage(&self) -> Storage {
        self.storage
    }

    /// Pretends that the directory is on this kind of storage: for tests.
    #[cfg(test)]
    pub(crate) fn pretend(&mut self, storage: Storage) {
        self.storage = storage;
    }
}

/// Opens the directory of a mount.
#[allow(clippy::disallowed_methods, reason = "`O_PATH` opens nothing, and only a directory is accepted")]
pub(crate) fn open_root(path: &Path) -> std::io::Result<Root> {
    waiting_for(path, || {
        let root = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        // Fails at once if the kernel is too old.
        rustix::fs::openat2(&root, c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), FENCE)?;
        // No other file system is reachable from here, so one kind of storage holds for all of it.
        let storage = Storage::of(&root)?;
        Ok(Root { fd: root, storage, path: path.to_owned() })
    })
}

/// A node that was looked up but not opened.
#[derive(Debug)]
pub(crate) struct HostNode {
    pub(crate) fd: OwnedFd,
    pub(crate) attributes: Attributes,
    /// When the host's file was last accessed; by whom is no program's business, unless it owns the file.
    pub(crate) accessed: Time,
    pub(crate) stamp: FileStamp,
}

/// The stamp by which a process that is loaded later recognises a file: without the device, and for a directory without
/// its content.
fn stamp(stat: &Stat) -> FileStamp {
    let stamp = FileStamp::of_stat(stat).without_device();
    let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
    if is_directory { stamp.without_content() } else { stamp }
}

/// Location of an opened file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FileLocation {
    /// The program's own file.
    Program,
    /// A path in the mount with this `device`.
    Mount { device: u32, rest: Vec<u8> },
}

impl FileLocation {
    /// For messages: a program's own file, or the path below its mount.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Program => PathBuf::from("its program"),
            Self::Mount { rest, .. } => PathBuf::from(OsStr::from_bytes(rest)),
        }
    }
}

impl HostNode {
    /// The target of a symbolic link.
    pub(crate) fn link_target(&self, may_block: bool) -> Result<Vec<u8>, Errno> {
        if !may_block && self.attributes.size > SHORT_LINK {
            return Err(Errno::NOT_HERE);
        }
        let target = rustix::fs::readlinkat(&self.fd, c"", Vec::new()).map_err(guest_errno)?;
        Ok(target.into_bytes())
    }
}

/// Looks up `rest`, which is relative to `root`. A symbolic link at its end is found; one before is `ELOOP`.
pub(crate) fn look_up(root: &Root, rest: &[u8], device: u32, may_block: bool) -> Result<HostNode, Errno> {
    let fd = open(root, rest, OFlags::PATH | OFlags::NOFOLLOW, may_block)?;
    let stat = wait(root, rest, || rustix::fs::fstat(&fd)).map_err(guest_errno)?;
    Ok(HostNode { fd, attributes: attributes(&stat, device), accessed: accessed(&stat), stamp: stamp(&stat) })
}

/// A regular file, open for reading.
#[derive(Debug)]
pub(crate) struct HostFile {
    /// Always there until it is dropped.
    fd: Option<OwnedFd>,
    device: u32,
    inode: u64,
    key: FileKey,
    location: FileLocation,
    stamp: FileStamp,
    storage: Storage,
    /// Its file system has proved not to support RWF_NOWAIT: overlayfs, for one.
    cannot_tell: AtomicBool,
    permit: Option<Permit>,
    durable: Option<DurableFile>,
}

/// What a file of a durable mount has besides.
#[derive(Debug)]
pub(crate) struct DurableFile {
    pub(crate) inode: Arc<Inode>,
    /// Whether the descriptor is open for writing, too.
    pub(crate) writable: bool,
    /// A snapshot's workers share the descriptor: none of them may lock by it or move its offset.
    pub(crate) is_shared: AtomicBool,
    /// Whether it may hold locks.
    pub(crate) has_locks: AtomicBool,
}

impl Drop for HostFile {
    fn drop(&mut self) {
        let (Some(durable), Some(fd)) = (self.durable.take(), self.fd.take()) else { return };
        // Others may want the locks now; the file is closed later.
        if durable.has_locks.load(Ordering::Relaxed) {
            let _ = rustix::fs::flock(&fd, rustix::fs::FlockOperation::NonBlockingUnlock);
            let _ = mayfly_files::set_lock(&fd, mayfly_files::LockRange::ALL, None);
        }
        closing::close(Closing { _inode: durable.inode, _fd: fd, _permit: self.permit.take() });
    }
}

impl HostFile {
    /// The same for a file of a durable mount, which was opened with this access mode. The tree is locked.
    pub(crate) fn of_durable(
        fd: OwnedFd,
        device: u32,
        rest: &[u8],
        storage: Storage,
        permit: Permit,
        (durable, writable): (&Arc<Durable>, bool),
    ) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(&fd).map_err(guest_errno)?;
        let location = FileLocation::Mount { device, rest: rest.to_vec() };
        let opened = Self::of(fd, device, location, storage, permit).map_err(guest_errno)?.ok_or(Errno::EACCES)?;
        let inode = durable.inode(stat.st_ino, u64::try_from(stat.st_size).unwrap_or(0));
        Ok(opened.with_durable(inode, writable))
    }

    fn with_durable(mut self, inode: Arc<Inode>, writable: bool) -> Self {
        let no = || AtomicBool::new(false);
        self.durable = Some(DurableFile { inode, writable, is_shared: no(), has_locks: no() });
        self
    }

    /// Opens a file of a durable mount again, by its descriptor: its name may be gone, or another file's.
    #[allow(clippy::disallowed_methods, reason = "this very file, which is regular")]
    pub(crate) fn open_again(&self, writable: bool, permit: Permit) -> Result<Self, Errno> {
        let durable = self.durable.as_ref().ok_or(Errno::EBADF)?;
        let path = format!("/proc/self/fd/{}", self.as_fd().as_raw_fd());
        let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let open = || rustix::io::retry_on_intr(|| rustix::fs::open(&*path, flags, Mode::empty()));
        let fd = waiting_for_some(|| self.location.path(), open).map_err(guest_errno)?;
        let opened = Self::of(fd, self.device, self.location.clone(), self.storage, permit).map_err(guest_errno)?;
        let opened = opened.filter(|opened| opened.key == self.key).ok_or(Errno::EIO)?;
        Ok(opened.with_durable(Arc::clone(&durable.inode), writable))
    }

    /// What it has as a file of a durable mount, if it is one.
    pub(crate) fn durable(&self) -> Option<&DurableFile> {
        self.durable.as_ref()
    }

    /// Opens `rest`, where a regular file was looked up.
    pub(crate) fn open(root: &Root, rest: &[u8], device: u32, permit: Permit, may_block: bool) -> Result<Self, Errno> {
        let fd = open(root, rest, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW, may_block)?;
        let location = FileLocation::Mount { device, rest: rest.to_vec() };
        Self::of(fd, device, location, root.storage, permit).map_err(guest_errno)?.ok_or(Errno::EACCES)
    }

    /// A program's own file, which may lie outside of all mounts.
    pub(crate) fn of_program(file: &std::fs::File, permit: Permit) -> std::io::Result<Self> {
        let fd = OwnedFd::from(file.try_clone()?);
        let storage = Storage::of(&fd)?;
        let not_regular = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file");
        Self::of(fd, PROGRAM_DEVICE, FileLocation::Program, storage, permit)?.ok_or_else(not_regular)
    }

    /// `None` if it is not a regular file.
    fn of(
        fd: OwnedFd,
        device: u32,
        location: FileLocation,
        storage: Storage,
        permit: Permit,
    ) -> rustix::io::Result<Option<Self>> {
        let stat = rustix::fs::fstat(&fd)?;
        let seen = attributes(&stat, device);
        let key = FileKey(stat.st_dev, stat.st_ino);
        let is_regular = seen.kind() == libc::S_IFREG;
        let stamp = stamp(&stat);
        let inode = seen.inode;
        let cannot_tell = AtomicBool::new(false);
        Ok(is_regular.then_some(Self {
            fd: Some(fd),
            device,
            inode,
            key,
            location,
            stamp,
            storage,
            cannot_tell,
            permit: Some(permit),
            durable: None,
        }))
    }

    /// Location where it was opened.
    pub(crate) fn location(&self) -> &FileLocation {
        &self.location
    }

    /// Its stamp when it was opened.
    pub(crate) fn stamp(&self) -> FileStamp {
        self.stamp
    }

    /// Identifies the file on the host. The program's view of it, [`HostFile::identity`], identifies most.
    pub(crate) fn key(&self) -> FileKey {
        self.key
    }

    /// Device and inode number in the program's view.
    pub(crate) fn identity(&self) -> (u32, u64) {
        (self.device, self.inode)
    }

    pub(crate) fn attributes(&self, may_block: bool) -> Result<Attributes, Errno> {
        self.storage.check(may_block)?;
        let stat = waiting_for_some(|| self.location.path(), || rustix::fs::fstat(self.as_fd()));
        let stat = stat.map_err(guest_errno)?;
        let attributes = attributes(&stat, self.device);
        Ok(if self.durable.is_some() { attributes.owned(accessed(&stat)) } else { attributes })
    }

    /// Number of consecutive bytes in memory, out of `len` from `offset` on; [`Errno::NOT_HERE`] if the first one is
    /// not. 0 past the end.
    ///
    /// Reading is the only way to find out: `mincore(2)` and `cachestat(2)` answer truthfully only for files that the
    /// caller owns or may write.
    pub(crate) fn cached(&self, offset: u64, len: usize) -> Result<usize, Errno> {
        self.storage.check(false)?;
        if self.storage == Storage::Memory {
            return Ok(len);
        }
        let mut bytes = vec![0; len];
        loop {
            match self.try_read(offset, &mut bytes) {
                Err(Errno::EINTR) => {}
                other => return other,
            }
        }
    }

    /// Makes the kernel fetch a part of the file, without waiting for it.
    pub(crate) fn fetch(&self, offset: u64, len: u64) {
        // Best effort.
        let _ = rustix::fs::fadvise(self.as_fd(), offset, std::num::NonZeroU64::new(len), rustix::fs::Advice::WillNeed);
    }

    /// Reads at `offset`; a short read means the end of the file.
    pub(crate) fn read_at(&self, offset: u64, out: &mut [u8], may_block: bool) -> Result<usize, Errno> {
        self.storage.check(may_block)?;
        let waits = may_block || self.storage == Storage::Memory;
        let mut done: usize = 0;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some(at) = offset.checked_add(done as u64).filter(|&at| i64::try_from(at).is_ok()) else { break };
            let got = if waits {
                let read = || rustix::io::pread(self.as_fd(), rest, at);
                waiting_for_some(|| self.location.path(), read).map_err(read_errno)
            } else {
                self.try_read(at, rest)
            };
            match got {
                Ok(0) => break,
                Ok(got) => done = done.saturating_add(got),
                Err(Errno::EINTR) => {}
                // Drops the bytes read so far: the whole read is repeated on another thread.
                Err(Errno::NOT_HERE) => return Err(Errno::NOT_HERE),
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Reads the bytes that are in memory, if any. The kernel begins to fetch the others.
    fn try_read(&self, at: u64, out: &mut [u8]) -> Result<usize, Errno> {
        if self.cannot_tell.load(Ordering::Relaxed) {
            return Err(Errno::NOT_HERE);
        }
        match rustix::io::preadv2(self.as_fd(), &mut [IoSliceMut::new(out)], at, ReadWriteFlags::NOWAIT) {
            Err(rustix::io::Errno::AGAIN) => Err(Errno::NOT_HERE),
            Err(rustix::io::Errno::OPNOTSUPP) => {
                self.cannot_tell.store(true, Ordering::Relaxed);
                Err(Errno::NOT_HERE)
            }
            got => got.map_err(read_errno),
        }
    }
}

impl AsFd for HostFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // What is used in place of a descriptor is refused by every call on files.
        self.fd.as_ref().map_or(rustix::fs::CWD, AsFd::as_fd)
    }
}

/// The entries of the directory `rest`, without `.` and `..`. Not on a thread that may not block: nothing tells whether
/// a directory is in memory, and even then listing it may take milliseconds.
pub(crate) fn list(root: &Root, rest: &[u8], may_block: bool) -> Result<Vec<(Vec<u8>, DirectoryEntry)>, Errno> {
    if !may_block {
        return Err(Errno::NOT_HERE);
    }
    let fd = open(root, rest, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, true)?;
    wait(root, rest, || read_names(fd))
}

fn read_names(fd: OwnedFd) -> Result<Vec<(Vec<u8>, DirectoryEntry)>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::new(fd).map_err(guest_errno)? {
        let entry = entry.map_err(guest_errno)?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if found.len() == ENTRIES_MAX {
            return Err(Errno::EOVERFLOW);
        }
        let kind = match entry.file_type() {
            FileType::RegularFile => libc::DT_REG,
            FileType::Directory => libc::DT_DIR,
            FileType::Symlink => libc::DT_LNK,
            FileType::Fifo => libc::DT_FIFO,
            FileType::Socket => libc::DT_SOCK,
            FileType::CharacterDevice => libc::DT_CHR,
            FileType::BlockDevice => libc::DT_BLK,
            FileType::Unknown => libc::DT_UNKNOWN,
        };
        found.push((name.to_vec(), DirectoryEntry { inode: entry.ino(), kind }));
    }
    Ok(found)
}

/// Opens `rest`, which is relative to `root`.
pub(crate) fn open(root: &Root, rest: &[u8], flags: OFlags, may_block: bool) -> Result<OwnedFd, Errno> {
    open_or_create(root, rest, flags, Mode::empty(), may_block)
}

/// As [`open`], with flags that may create a file of this mode.
#[allow(clippy::disallowed_methods, reason = "within a mount, and without waiting for a FIFO or a device: see above")]
pub(crate) fn open_or_create(
    root: &Root,
    rest: &[u8],
    flags: OFlags,
    mode: Mode,
    may_block: bool,
) -> Result<OwnedFd, Errno> {
    root.storage.check(may_block)?;
    // tmpfs is always in memory, but does not cache negative look-ups.
    let only_cached = !may_block && root.storage == Storage::Disk;
    let resolve = if only_cached { FENCE | ResolveFlags::CACHED } else { FENCE };
    let path = if rest.is_empty() { b"." } else { rest };
    for _ in 0..ATTEMPTS {
        let open = || rustix::fs::openat2(root.fd.as_fd(), path, flags | OFlags::CLOEXEC, mode, resolve);
        match wait(root, rest, open) {
            Err(rustix::io::Errno::AGAIN) if only_cached => return Err(Errno::NOT_HERE),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            other => return other.map_err(guest_errno),
        }
    }
    Err(Errno::EIO)
}

/// The attributes of a host file as programs see them: owned by root, which a program never is; access and change times
/// equal the modification time.
#[allow(clippy::useless_conversion, reason = "the fields' types differ from one architecture to another")]
fn attributes(stat: &Stat, device: u32) -> Attributes {
    let modified =
        Time { seconds: stat.st_mtime.into(), nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default() };
    Attributes {
        device,
        inode: stat.st_ino,
        mode: stat.st_mode,
        links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        user: 0,
        group: 0,
        special: (0, 0),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
        accessed: modified,
        modified,
    }
}

#[allow(clippy::useless_conversion, reason = "the fields' types differ from one architecture to another")]
fn accessed(stat: &Stat) -> Time {
    Time { seconds: stat.st_atime.into(), nanoseconds: u32::try_from(stat.st_atime_nsec).unwrap_or_default() }
}

/// As [`guest_errno`], for a read, which is repeated after a signal.
fn read_errno(error: rustix::io::Errno) -> Errno {
    if error == rustix::io::Errno::INTR { Errno::EINTR } else { guest_errno(error) }
}

/// The guest's error number for one of the host's.
pub(crate) fn guest_errno(error: rustix::io::Errno) -> Errno {
    use rustix::io::Errno as Host;
    match error {
        Host::NOENT => Errno::ENOENT,
        Host::NOTDIR => Errno::ENOTDIR,
        // Another file system of the host's below the mount is not part of it.
        Host::ACCESS | Host::PERM | Host::XDEV => Errno::EACCES,
        Host::LOOP => Errno::ELOOP,
        Host::NAMETOOLONG => Errno::ENAMETOOLONG,
        Host::INVAL => Errno::EINVAL,
        Host::ISDIR => Errno::EISDIR,
        Host::NOMEM => Errno::ENOMEM,
        Host::MFILE | Host::NFILE => Errno::ENFILE,
        Host::EXIST => Errno::EEXIST,
        Host::NOTEMPTY => Errno::ENOTEMPTY,
        Host::NOSPC | Host::DQUOT => Errno::ENOSPC,
        Host::ROFS => Errno::EROFS,
        Host::FBIG => Errno::EFBIG,
        Host::MLINK => Errno::EMLINK,
        Host::BUSY => Errno::EBUSY,
        Host::OPNOTSUPP => Errno::EOPNOTSUPP,
        Host::NOLCK => Errno::ENOLCK,
        _ => Errno::EIO,
    }
}
