// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mounts: the host's directories that a program sees, and their paths in its view.
//!
//! There are none unless the tenant's configuration lists them: deny by default. A mount is read-only unless configured
//! writable. Writes to a writable one stay in the process (`crate::fs::overlay`): the host's files never change. Only
//! those to a durable one change them (`crate::host::durable`).
//!
//! `/proc`, `/dev` and `/sys` are synthetic (`crate::fs::view::procfs`), and nothing can be mounted there. `/dev/shm`
//! is an empty, writable directory, and so is `/tmp` unless something else is mounted on it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::base::errno::Errno;
use crate::host::durable::{self, Place};
use crate::host::permits::{OPEN, Permit};
use crate::host::quota::{Durable, DurableLimits};
use crate::host::{closing, files};

/// Most mounts of one program.
pub const MOUNTS_MAX: usize = 64;
/// Longest guest path of a mount.
const PATH_MAX: usize = 1024;
/// Trees in which nothing can be mounted.
const RESERVED: [&[u8]; 3] = [b"/proc", b"/dev", b"/sys"];

/// A directory of the host's, and its path in the program's view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// Absolute path in the program's view, without `.` and `..`.
    pub guest: String,
    /// The host's directory. Symbolic links on the way to it are followed once, when it is opened.
    pub host: PathBuf,
    /// What the program may do below it.
    pub access: MountAccess,
}

/// What a program may do in a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MountAccess {
    /// Read.
    #[default]
    ReadOnly,
    /// Write privately: reset discards it, and the host's files never change.
    Private,
    /// Write the host's files, up to these limits.
    Durable(DurableLimits),
}

/// Why a mount was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The guest path is not absolute, too long, or has empty, `.` or `..` components.
    #[error("mount {guest:?}: the path in the program's view must be absolute, plain and at most {PATH_MAX} bytes")]
    Path {
        /// The path.
        guest: String,
    },
    /// The guest path is reserved.
    #[error("mount {guest:?}: /proc, /dev and /sys are provided by Mayfly")]
    Reserved {
        /// The path.
        guest: String,
    },
    /// Two mounts have the same guest path.
    #[error("mount {guest:?}: something is mounted there already")]
    Twice {
        /// The path.
        guest: String,
    },
    /// Too many mounts.
    #[error("{count} mounts, but a program may have at most {MOUNTS_MAX}")]
    TooMany {
        /// Their number.
        count: usize,
    },
    /// The host's directory cannot be used.
    #[error("mount {guest:?}: cannot open the directory {}: {source}", host.display())]
    Open {
        /// The path in the program's view.
        guest: String,
        /// The host's directory.
        host: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The host's directory cannot be written to for good.
    #[error("mount {guest:?}: the directory {} cannot be durable: {reason}", host.display())]
    Durable {
        /// The path in the program's view.
        guest: String,
        /// The host's directory.
        host: PathBuf,
        /// Why.
        reason: String,
    },
}

/// A mount.
#[derive(Debug)]
pub(crate) struct Mount {
    /// Path in the program's view: empty for the root, otherwise `/a/b`.
    pub(crate) guest: Vec<u8>,
    /// The host's directory; a mount without one is an empty directory.
    pub(crate) root: Option<files::Root>,
    /// Whether the overlay has what the program writes.
    pub(crate) writable: bool,
    /// Of a durable mount: writes go to the host's directory.
    pub(crate) durable: Option<Arc<Durable>>,
    /// Device number, by which `st_dev` distinguishes files of different mounts.
    pub(crate) device: u32,
}

impl Mount {
    /// An empty directory that the program may write to.
    fn empty(guest: &[u8], device: u32) -> Self {
        Self { guest: guest.to_vec(), root: None, writable: true, durable: None, device }
    }

    /// The place `rest` in it, if it is durable.
    pub(crate) fn place<'a>(&'a self, rest: &'a [u8]) -> Option<Place<'a>> {
        let (root, durable) = self.root.as_ref().zip(self.durable.as_ref())?;
        Some(Place { root, durable, device: self.device, rest })
    }
}

/// Checks that a directory can be durable, and counts what it takes. The error is the reason for the user.
fn make_durable(root: &files::Root, limits: DurableLimits) -> Result<Arc<Durable>, String> {
    if root.storage() == files::Storage::Far {
        return Err("its file system is not known to be a local one, on which locks and writes hold".into());
    }
    let failed = |error: std::io::Error| error.to_string();
    if !root.is_writable().map_err(failed)? {
        return Err("this process may not write to it".into());
    }
    closing::start().map_err(failed)?;
    Durable::of(root.key().map_err(failed)?, limits, || durable::count(root)).map_err(failed)
}

/// The mounts of a program; cheap to clone, shared by its workers.
#[derive(Clone, Debug)]
pub struct Mounts {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Longest path first.
    all: Vec<Mount>,
    /// Number of host files that all processes of the program have open. A process that opens too many takes them from
    /// the others of its program only.
    open: Arc<AtomicUsize>,
}

impl Default for Mounts {
    /// No mounts but `/tmp` and `/dev/shm`.
    fn default() -> Self {
        Self::with(Vec::new())
    }
}

impl Mounts {
    /// Opens the host's directories.
    ///
    /// # Errors
    ///
    /// [`MountError`] names the mount and the reason.
    pub fn open(points: &[MountPoint]) -> Result<Self, MountError> {
        if points.len() > MOUNTS_MAX {
            return Err(MountError::TooMany { count: points.len() });
        }
        let mut all: Vec<Mount> = Vec::new();
        for (device, MountPoint { guest, host, access }) in (FIRST_DEVICE..).zip(points) {
            let path = plain(guest).ok_or_else(|| MountError::Path { guest: guest.clone() })?;
            if RESERVED.iter().any(|tree| is_at_or_below(&path, tree)) {
                return Err(MountError::Reserved { guest: guest.clone() });
            }
            if all.iter().any(|mount| mount.guest == path) {
                return Err(MountError::Twice { guest: guest.clone() });
            }
            let root = files::open_root(host).map_err(|source| MountError::Open {
                guest: guest.clone(),
                host: host.clone(),
                source,
            })?;
            let durable = match access {
                MountAccess::Durable(limits) => {
                    Some(make_durable(&root, *limits).map_err(|reason| MountError::Durable {
                        guest: guest.clone(),
                        host: host.clone(),
                        reason,
                    })?)
                }
                MountAccess::ReadOnly | MountAccess::Private => None,
            };
            let writable = *access == MountAccess::Private;
            all.push(Mount { guest: path, root: Some(root), writable, durable, device });
        }
        Ok(Self::with(all))
    }

    fn with(mut all: Vec<Mount>) -> Self {
        if !all.iter().any(|mount| mount.guest == b"/tmp") {
            all.push(Mount::empty(b"/tmp", TMP_DEVICE));
        }
        all.push(Mount::empty(SHARED_MEMORY, SHARED_MEMORY_DEVICE));
        all.sort_by_key(|mount| std::cmp::Reverse(mount.guest.len()));
        Self { inner: Arc::new(Inner { all, open: Arc::new(AtomicUsize::new(0)) }) }
    }

    /// The mount that `path` lies in, and the path relative to it.
    pub(crate) fn find<'p>(&self, path: &'p [u8]) -> Option<(&Mount, &'p [u8])> {
        self.inner.all.iter().find_map(|mount| {
            let rest = path.strip_prefix(mount.guest.as_slice())?;
            match rest.split_first() {
                None => Some((mount, rest)),
                Some((b'/', rest)) => Some((mount, rest)),
                Some(_) => None,
            }
        })
    }

    /// Treats all mounts as if they were on this kind of storage.
    #[cfg(test)]
    pub(crate) fn pretend(&mut self, storage: files::Storage) {
        let inner = Arc::get_mut(&mut self.inner).unwrap();
        inner.all.iter_mut().filter_map(|mount| mount.root.as_mut()).for_each(|root| root.pretend(storage));
    }

    /// All mounts.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.inner.all.iter()
    }

    /// Identifies a set of mounts by the paths in the program's view and the host's directories.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let root = |mount: &Mount| {
            mount.root.as_ref().map(|root| files::look_up(root, b"", mount.device, true).ok().map(|node| node.stamp))
        };
        let durable = |mount: &Mount| mount.durable.as_ref().map(|durable| durable.limits());
        let all: Vec<_> = self
            .iter()
            .map(|mount| (&mount.guest, mount.writable, durable(mount), mount.device, root(mount)))
            .collect();
        mayfly_engine::digest(&all)
    }

    /// Opens the regular file at `rest` in a mount.
    pub(crate) fn open_file(&self, mount: &Mount, rest: &[u8], may_block: bool) -> Result<files::HostFile, Errno> {
        let root = mount.root.as_ref().ok_or(Errno::ENOENT)?;
        files::HostFile::open(root, rest, mount.device, self.permit()?, may_block)
    }

    /// Whether the program may change the host's files.
    #[must_use]
    pub fn are_durable(&self) -> bool {
        self.iter().any(|mount| mount.durable.is_some())
    }

    /// A permit to open one more file of the host.
    pub(crate) fn permit(&self) -> Result<Permit, Errno> {
        let budget = Budget::of_process();
        take(&OPEN, budget.all)?;
        if let Err(errno) = take(&self.inner.open, budget.program) {
            OPEN.fetch_sub(1, Ordering::Relaxed);
            return Err(errno);
        }
        Ok(Permit(Arc::clone(&self.inner.open)))
    }
}

/// Descriptors that are never given to programs: the server needs them itself.
const LEFT: usize = 64;
/// Fewest files of the host for a program, whatever the limit.
const LEAST: usize = 8;

/// Budget for open files of the host. They are descriptors of the server, which needs its own for connections: all
/// programs together get half of its limit, and each of them at most an eighth, less where the limit is low.
#[derive(Clone, Copy)]
struct Budget {
    all: usize,
    program: usize,
}

impl Budget {
    fn of_process() -> Self {
        static BUDGET: OnceLock<Budget> = OnceLock::new();
        *BUDGET.get_or_init(|| {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(1 << 20);
            let all = (limit.saturating_sub(LEFT) / 2).max(LEAST);
            Self { all, program: all.div_ceil(4) }
        })
    }
}

fn take(counter: &AtomicUsize, max: usize) -> Result<(), Errno> {
    let room = |open: usize| (open < max).then(|| open.saturating_add(1));
    match counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room) {
        Ok(_) => Ok(()),
        Err(_) => Err(Errno::ENFILE),
    }
}

/// Where C libraries keep the files of `shm_open` and `sem_open`.
pub(crate) const SHARED_MEMORY: &[u8] = b"/dev/shm";

/// Device numbers of `/tmp`, `/dev/shm`, and of the first mount. Synthetic files have 0.
const TMP_DEVICE: u32 = 30;
const SHARED_MEMORY_DEVICE: u32 = 31;
const FIRST_DEVICE: u32 = 40;

/// Whether `path` is `tree` or lies below it.
pub(crate) fn is_at_or_below(path: &[u8], tree: &[u8]) -> bool {
    path.strip_prefix(tree).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// `guest` in the form of [`Mount::guest`].
fn plain(guest: &str) -> Option<Vec<u8>> {
    let rest = guest.strip_prefix('/')?;
    if rest.is_empty() {
        return Some(Vec::new());
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let good = |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains('\0');
    (guest.len() <= PATH_MAX && rest.split('/').all(good)).then(|| format!("/{rest}").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(guest: &str) -> MountPoint {
        MountPoint { guest: guest.into(), host: "/".into(), access: MountAccess::ReadOnly }
    }

    #[test]
    fn the_longest_path_that_ends_at_a_slash_wins() {
        let mounts = Mounts::open(&[mount("/usr"), mount("/usr/lib/"), mount("/tmp")]).unwrap();
        let find = |path: &str| {
            mounts.find(path.as_bytes()).map(|(mount, rest)| {
                (String::from_utf8(mount.guest.clone()).unwrap(), String::from_utf8(rest.to_vec()).unwrap())
            })
        };
        assert_eq!(find("/usr/lib/a/b"), Some(("/usr/lib".into(), "a/b".into())));
        assert_eq!(find("/usr/libx"), Some(("/usr".into(), "libx".into())));
        assert_eq!(find("/usr"), Some(("/usr".into(), String::new())));
        assert_eq!(find("/us"), None);
        assert_eq!(mounts.iter().count(), 4, "/tmp was replaced by the configuration's");
        assert_eq!(Mounts::default().iter().count(), 2);
    }

    #[test]
    fn invalid_mounts_are_refused() {
        for bad in ["", "usr", "/a/../b", "/a//b", "/./a", "/a\0b", &format!("/{}", "x".repeat(PATH_MAX))] {
            assert!(matches!(Mounts::open(&[mount(bad)]), Err(MountError::Path { .. })), "{bad:?}");
        }
        for bad in ["/proc", "/dev/shm", "/sys/fs"] {
            assert!(matches!(Mounts::open(&[mount(bad)]), Err(MountError::Reserved { .. })), "{bad}");
        }
        assert!(matches!(Mounts::open(&[mount("/a"), mount("/a/")]), Err(MountError::Twice { .. })));
        let missing = MountPoint { host: "/nowhere/at/all".into(), ..mount("/a") };
        let error = Mounts::open(&[missing]).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all") && error.contains("\"/a\""), "{error}");
        let many: Vec<_> = (0..65).map(|number| mount(&format!("/{number}"))).collect();
        assert!(matches!(Mounts::open(&many), Err(MountError::TooMany { count: 65 })));
    }

    #[test]
    fn a_file_cannot_be_mounted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let point = MountPoint { host: file.path().into(), ..mount("/a") };
        assert!(matches!(Mounts::open(&[point]), Err(MountError::Open { .. })));
    }

    #[test]
    fn permits_are_counted_and_returned() {
        let mounts = Mounts::default();
        let held: Vec<_> = (0..Budget::of_process().program).map(|_| mounts.permit().unwrap()).collect();
        assert_eq!(mounts.clone().permit().err(), Some(Errno::ENFILE), "clones share one budget");
        drop(held);
        assert!(mounts.permit().is_ok());
    }
}
