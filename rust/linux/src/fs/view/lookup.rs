// SPDX-License-Identifier: MIT OR Apache-2.0
//! Path resolution: the only one, for every call that takes a path.
//!
//! Resolution takes place in the program's view. `.`, `..` and symbolic links are resolved here, name by name, against
//! the mounts. `..` of the root is the root, and a link is followed in the program's view whatever mount it lies in, so
//! nothing leaves the mounts. The host only gets paths without `..` and without links (`crate::host::files`), and
//! refuses any other.
//!
//! A path without links, which is almost every path, costs one look-up on the host, and two if nothing is there.
//!
//! Paths in this file are plain: empty for the root, otherwise `/a/b`.

use crate::base::errno::Errno;
use crate::fs::mounts::{Mount, SHARED_MEMORY, is_at_or_below};
use crate::fs::object::Object;
use crate::fs::overlay::{Layer, OverlayEntry};
use crate::fs::view::fs_view::FsView;
use crate::fs::view::procfs::{self, SyntheticFile};
use crate::host::attributes::{Attributes, Time};
use crate::host::files;
use crate::host::listing::DirectoryEntry;
use crate::kernel::process::Process;

/// Most symbolic links on a path, as on Linux.
const LINKS_MAX: usize = 40;
/// Most names that one walk resolves: a path of links to links of thousands of names each must not occupy a thread.
const NAMES_MAX: usize = 512;
/// Longest name.
const NAME_MAX: usize = 255;
const START: Time = Time { seconds: 0, nanoseconds: 0 };
/// The directory of an empty mount.
const TMP: OverlayEntry =
    OverlayEntry::Directory { opaque: false, number: 1, mode: 0o1777, accessed: START, modified: START };
/// Longest resolved path.
const PLAIN_MAX: usize = 4096;

/// A node of the program's file tree.
#[derive(Debug)]
pub(crate) enum Node {
    /// A file of the host's, in a mount.
    Host(files::HostNode),
    Synthetic(SyntheticFile),
    /// An entry of the overlay of the mount with this `device`.
    Overlay {
        entry: OverlayEntry,
        device: u32,
    },
}

/// Result of a resolution.
#[derive(Debug)]
pub(crate) struct Found {
    /// The plain path.
    pub(crate) path: Vec<u8>,
    /// The node. `None`: it does not exist, but its parent directory does.
    pub(crate) node: Option<Node>,
    /// The path ended with a slash.
    pub(crate) directory: bool,
}

impl Found {
    /// The node; `ENOENT` if it does not exist.
    pub(crate) fn existing(self) -> Result<(Vec<u8>, Node), Errno> {
        Ok((self.path, self.node.ok_or(Errno::ENOENT)?))
    }
}

impl Node {
    /// Its attributes, for `lstat`.
    pub(crate) fn attributes(&self, process: &Process, path: &[u8]) -> Attributes {
        let attributes = match self {
            Self::Overlay { entry, device } => process.overlay.attributes(entry, *device),
            Self::Host(node) => node.attributes,
            Self::Synthetic(file) => file.attributes(process, path),
        };
        if attributes.is_directory() { process.overlay.directory(path, attributes) } else { attributes }
    }

    pub(crate) fn is_directory(&self) -> bool {
        match self {
            Self::Host(node) => node.attributes.is_directory(),
            Self::Synthetic(file) => matches!(file, SyntheticFile::Directory | SyntheticFile::Descriptors),
            Self::Overlay { entry, .. } => matches!(entry, OverlayEntry::Directory { .. }),
        }
    }

    /// The target of a symbolic link; `None` for any other node.
    pub(crate) fn link_target(&self, view: FsView<'_>) -> Result<Option<Vec<u8>>, Errno> {
        match self {
            Self::Host(node) if node.attributes.kind() == libc::S_IFLNK => node.link_target(view.may_block).map(Some),
            Self::Host(_) => Ok(None),
            Self::Overlay { entry: OverlayEntry::Link { target, .. }, .. } => Ok(Some(target.clone())),
            Self::Overlay { .. } => Ok(None),
            Self::Synthetic(file) => Ok(file.link_target(view.process)),
        }
    }

    /// The target at which a walk continues. A link `/proc/self/fd/N` to a file without a path is not followed.
    fn leads_to(&self, view: FsView<'_>) -> Result<Option<Vec<u8>>, Errno> {
        let target = self.link_target(view)?;
        let Self::Synthetic(SyntheticFile::Descriptor(fd)) = self else { return Ok(target) };
        let nameless = match view.process.files.open_file(*fd).map(|open| &open.object) {
            Ok(Object::Memory { id, .. }) => !view.process.overlay.inodes().is_named(*id),
            _ => false,
        };
        Ok(target.filter(|target| !nameless && target.starts_with(b"/")))
    }
}

/// Resolves `path` relative to the directory `base`. `follow`: a symbolic link at its end is followed.
pub(crate) fn resolve(view: FsView<'_>, base: &[u8], path: &[u8], follow: bool) -> Result<Found, Errno> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    let mut walk = Walk { at: if path.starts_with(b"/") { Vec::new() } else { base.to_vec() }, pending: Vec::new() };
    walk.push(path);
    let directory = path.ends_with(b"/") || walk.ends_with_dot(path);
    let follow = follow || directory;
    if let Some(found) = walk.at_once(view, follow, directory)? {
        return Ok(found);
    }
    let (mut links, mut names): (usize, usize) = (0, 0);
    while let Some(name) = walk.pending.pop() {
        names = names.saturating_add(1);
        if names > NAMES_MAX {
            return Err(Errno::ELOOP);
        }
        match name.as_slice() {
            b"." => continue,
            b".." => {
                let parent = walk.at.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                walk.at.truncate(parent);
                continue;
            }
            _ if name.len() > NAME_MAX => return Err(Errno::ENAMETOOLONG),
            _ => {}
        }
        let last = walk.pending.is_empty();
        let mut here = walk.at.clone();
        here.push(b'/');
        here.extend(&name);
        if here.len() > PLAIN_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let node = match look_up(view, &here) {
            Err(Errno::ENOENT) if last => return Ok(Found { path: here, node: None, directory }),
            other => other?,
        };
        if (!last || follow)
            && let Some(target) = node.leads_to(view)?
        {
            links = links.saturating_add(1);
            if links > LINKS_MAX {
                return Err(Errno::ELOOP);
            }
            if target.is_empty() {
                return Err(Errno::ENOENT);
            }
            if target.starts_with(b"/") {
                walk.at.clear();
            }
            walk.push(&target);
            continue;
        }
        if !node.is_directory() && (!last || directory) {
            return Err(Errno::ENOTDIR);
        }
        if !last && is_closed(view.process, &here) {
            return Err(Errno::EACCES);
        }
        if last {
            return Ok(Found { path: here, node: Some(node), directory });
        }
        walk.at = here;
    }
    // The path ended at the current directory: the root, or after `.` or `..`.
    let node = look_up(view, &walk.at)?;
    if directory && !node.is_directory() {
        return Err(Errno::ENOTDIR);
    }
    Ok(Found { path: walk.at, node: Some(node), directory })
}

/// Whether the program's own directory at `path` has a mode without search permission for its owner.
fn is_closed(process: &Process, path: &[u8]) -> bool {
    process.overlay.directory_mode(path).is_some_and(|mode| mode & 0o100 == 0)
}

/// State of a resolution.
struct Walk {
    /// The current directory, without links.
    at: Vec<u8>,
    /// Remaining names, the next one last.
    pending: Vec<Vec<u8>>,
}

impl Walk {
    /// Puts the names of `path` in front of the remaining ones. Paths are at most 4 KiB long, and at most [`LINKS_MAX`]
    /// of them are added.
    fn push(&mut self, path: &[u8]) {
        let names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty());
        self.pending.extend(names.rev().map(<[u8]>::to_vec));
    }

    fn ends_with_dot(&self, path: &[u8]) -> bool {
        matches!(path.rsplit(|&byte| byte == b'/').next(), Some(b"." | b".."))
    }

    /// Tries to resolve the whole path with one look-up, which fails if there are links on it.
    fn at_once(&self, view: FsView<'_>, follow: bool, directory: bool) -> Result<Option<Found>, Errno> {
        let process = view.process;
        let plain = |name: &Vec<u8>| name.len() <= NAME_MAX && name != b"." && name != b"..";
        if self.pending.is_empty() || !self.pending.iter().all(plain) {
            return Ok(None);
        }
        let mut path = self.at.clone();
        for name in self.pending.iter().rev() {
            path.push(b'/');
            path.extend(name);
        }
        if path.len() > PLAIN_MAX {
            return Ok(None);
        }
        let Some((mount, rest)) = process.shared.mounts.find(&path).filter(|(mount, _)| mount.root.is_some()) else {
            return Ok(None);
        };
        if is_synthetic(&path) || procfs::is_first(process, &path) || (mount.writable && !process.overlay.is_empty()) {
            return Ok(None);
        }
        match look_in(view, mount, rest) {
            Ok(node) if node.attributes.kind() == libc::S_IFLNK && follow => Ok(None),
            Ok(node) if directory && !node.attributes.is_directory() => Err(Errno::ENOTDIR),
            Ok(node) => Ok(Some(Found { path, node: Some(Node::Host(node)), directory })),
            Err(Errno::ENOENT) => {
                // There are no links before the missing part, so its parent directory decides.
                let (parent, _) = path.split_at(path.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
                let known = [path.as_slice(), parent].iter().any(|path| procfs::find(process, path).is_some());
                let in_mount = process.shared.mounts.find(parent).filter(|(above, _)| above.device == mount.device);
                let Some((_, rest)) = in_mount.filter(|_| !known) else { return Ok(None) };
                match look_in(view, mount, rest) {
                    Ok(node) if node.attributes.is_directory() => Ok(Some(Found { path, node: None, directory })),
                    Err(errno @ (Errno::ENOENT | Errno::NOT_HERE)) => Err(errno),
                    _ => Ok(None),
                }
            }
            Err(Errno::NOT_HERE) => Err(Errno::NOT_HERE),
            // A link on the path, or something that is not the host's.
            Err(_) => Ok(None),
        }
    }
}

/// Whether `path` lies in a tree that is all synthetic.
pub(crate) fn is_synthetic(path: &[u8]) -> bool {
    [b"/proc".as_slice(), b"/dev", b"/sys"].iter().any(|tree| is_at_or_below(path, tree))
        && !is_at_or_below(path, SHARED_MEMORY)
}

/// The node at a plain path. All its names but the last are directories.
fn look_up(view: FsView<'_>, path: &[u8]) -> Result<Node, Errno> {
    let process = view.process;
    let synthetic = || procfs::find(process, path).map(Node::Synthetic);
    if is_synthetic(path) || procfs::is_first(process, path) {
        return synthetic().ok_or(Errno::ENOENT);
    }
    let Some((mount, rest)) = process.shared.mounts.find(path) else { return synthetic().ok_or(Errno::ENOENT) };
    let device = mount.device;
    if mount.writable {
        match process.overlay.find(path, mount.guest.len()) {
            Layer::Here(entry) => return Ok(Node::Overlay { entry: entry.clone(), device }),
            // A mount below it is reachable nevertheless.
            Layer::Hidden => return synthetic().ok_or(Errno::ENOENT),
            Layer::Below => {}
        }
    }
    let found = match &mount.root {
        Some(_) => look_in(view, mount, rest).map(Node::Host),
        None if rest.is_empty() => Ok(Node::Overlay { entry: TMP, device }),
        None => Err(Errno::ENOENT),
    };
    match found {
        Err(Errno::ENOENT) => synthetic().ok_or(Errno::ENOENT),
        other => other,
    }
}

/// Opens the regular file of a mount at the plain `path`, where one was just found.
pub(crate) fn open_host(view: FsView<'_>, path: &[u8]) -> Result<files::HostFile, Errno> {
    let mounts = &view.process.shared.mounts;
    let (mount, rest) = mounts.find(path).ok_or(Errno::ENOENT)?;
    mounts.open_file(mount, rest, view.may_block)
}

/// Looks up `rest` in a mount. While the program boots, the result is noted.
pub(crate) fn look_in(view: FsView<'_>, mount: &Mount, rest: &[u8]) -> Result<files::HostNode, Errno> {
    if view.process.memory.is_booting() && mount.durable.is_none() {
        return view.process.shared.witnesses.look_up(mount, rest);
    }
    let root = mount.root.as_ref().ok_or(Errno::ENOENT)?;
    let mut node = files::look_up(root, rest, mount.device, view.may_block)?;
    if mount.durable.is_some() {
        node.attributes = node.attributes.owned(node.accessed);
    }
    Ok(node)
}

/// Lists the directory `rest` of a mount, as [`look_in`].
pub(crate) fn list_in(view: FsView<'_>, mount: &Mount, rest: &[u8]) -> Result<Vec<(Vec<u8>, DirectoryEntry)>, Errno> {
    if view.process.memory.is_booting() && mount.durable.is_none() {
        return view.process.shared.witnesses.list(mount, rest);
    }
    let root = mount.root.as_ref().ok_or(Errno::ENOENT)?;
    files::list(root, rest, view.may_block)
}
