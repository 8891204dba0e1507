// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that change the file tree: create, link, remove, rename, and change attributes. All changes go to
//! the overlay of writable mounts.

use std::sync::Arc;

use super::{durable, overlay_mappings};
use crate::base::arguments::int;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt};
use crate::base::ids::InodeId;
use crate::fs::overlay::{Layer, OverlayEntry};
use crate::fs::view::find::find;
use crate::fs::view::fs_view::FsView;
use crate::fs::view::lookup::{self, Found, Node};
use crate::fs::view::permissions::{self, is_writable, parent, writable};
use crate::host::attributes::{Attributes, now};
use crate::kernel::call::Call;
use crate::kernel::closing::forget_file;
use crate::kernel::process::Process;
use crate::store::content::Content;
use crate::store::inodes::Status;

const AT_FDCWD: i32 = libc::AT_FDCWD;

/// The mode of a new file.
pub(crate) fn mode_of(call: &Call<'_, '_>, argument: u64) -> u32 {
    int(argument).cast_unsigned() & 0o7777 & !call.process.resources.umask
}

/// Whether the host's directory has something at `path`, hidden or not.
fn is_below(view: FsView<'_>, path: &[u8]) -> Result<bool, Errno> {
    let Some((mount, rest)) = view.process.shared.mounts.find(path) else { return Ok(false) };
    match lookup::look_in(view, mount, rest) {
        Err(Errno::NOT_HERE) => Err(Errno::NOT_HERE),
        found => Ok(found.is_ok()),
    }
}

/// Creates an empty file at a free path.
pub(crate) fn create(call: &mut Call<'_, '_>, path: &[u8], mode: u64) -> Result<InodeId, Errno> {
    writable(call.process, path)?;
    permissions::check_parent(call.process, path)?;
    let mode = mode_of(call, mode);
    let overlay = call.process.overlay.edit();
    let now = now();
    let status = Status { number: overlay.inodes_mut().number(), mode, accessed: now, modified: now };
    let id = overlay.create(path, Content::default(), status)?;
    touch_parent(call, path);
    Ok(id)
}

/// Makes a FIFO at a plain path where nothing is.
fn make_fifo(call: &mut Call<'_, '_>, path: &[u8], mode: u64) -> Result<(), Errno> {
    writable(call.process, path)?;
    permissions::check_parent(call.process, path)?;
    let mode = mode_of(call, mode);
    call.process.overlay.edit().make_special(path, libc::S_IFIFO, mode, now())?;
    touch_parent(call, path);
    Ok(())
}

/// Records that the entries of the directory of `path` have changed.
fn touch_parent(call: &mut Call<'_, '_>, path: &[u8]) {
    call.process.overlay.edit().touch_directory(parent(path), now());
}

/// Files of the host up to this size are copied whole: a larger one stays open as long as the copy exists.
pub(crate) const WHOLE_MAX: u64 = 16 << 10;

/// The overlay's file at `path`; puts one over the host's file if there is none yet. What has the host's file open or
/// mapped sees the new one.
pub(crate) fn copy_up(call: &mut Call<'_, '_>, path: &[u8], keep_content: bool) -> Result<InodeId, Halt> {
    let (mount, _) = writable(call.process, path)?;
    if let Layer::Here(OverlayEntry::File(id)) = call.process.overlay.find(path, mount.guest.len()) {
        return Ok(*id);
    }
    let file = Arc::new(lookup::open_host(call.view(), path)?);
    let attributes = file.attributes(call.context.may_block)?;
    let identity = file.identity();
    let content = if attributes.size > WHOLE_MAX {
        Content::over(file, attributes.size)
    } else {
        let mut bytes = vec![0; usize::try_from(attributes.size).map_err(|_| Errno::EFBIG)?];
        let got = file.read_at(0, &mut bytes, call.context.may_block)?;
        Content::of(bytes.get(..got).unwrap_or_default())
    };
    let Attributes { inode, mode, accessed, modified, .. } = attributes;
    let status = Status { number: inode, mode, accessed, modified };
    let content = if keep_content { content } else { Content::default() };
    let id = call.process.overlay.edit().create(path, content, status)?;
    overlay_mappings::adopt(call, identity, id, attributes.size)?;
    Ok(id)
}

/// As [`copy_up`], to write to the file: the program may write to all files of a writable mount, so it may do so again.
pub(crate) fn copy_up_to_write(call: &mut Call<'_, '_>, path: &[u8], keep_content: bool) -> Result<InodeId, Halt> {
    const OWNER_WRITES: u32 = 0o200;
    let id = copy_up(call, path, keep_content)?;
    let mode = call.process.overlay.inodes().attributes(id, 0).mode;
    if mode & OWNER_WRITES == 0 {
        call.process.overlay.edit().inodes_mut().set_mode(id, mode | OWNER_WRITES);
    }
    Ok(id)
}

/// The path of a new name: it is free, and its directory is writable.
fn vacant(call: &Call<'_, '_>, directory: i32, path: &[u8]) -> Result<Found, Errno> {
    let found = find(call, directory, path, false)?;
    if found.node.is_some() {
        return Err(Errno::EEXIST);
    }
    if !is_writable(call.process, &found.path) {
        return Err(Errno::EROFS);
    }
    permissions::check_parent(call.process, &found.path)?;
    Ok(found)
}

/// `mkdir(2)`.
pub(crate) fn mkdir(call: &mut Call<'_, '_>) -> CallResult {
    let [path, mode, ..] = call.args;
    make_directory(call, AT_FDCWD, path, mode)
}

/// `mkdirat(2)`.
pub(crate) fn mkdirat(call: &mut Call<'_, '_>) -> CallResult {
    let [directory, path, mode, ..] = call.args;
    make_directory(call, int(directory), path, mode)
}

fn make_directory(call: &mut Call<'_, '_>, directory: i32, path: u64, mode: u64) -> CallResult {
    let path = call.user().read_path(path)?;
    let Found { path, .. } = vacant(call, directory, &path)?;
    if durable::place(call.process, &path).is_some() {
        let mode = mode_of(call, mode);
        durable::change(call, &path, |_, place| place.make_directory(mode))?;
        return Ok(0);
    }
    // Entries of the host's directory, which was removed, must not reappear.
    let opaque = is_below(call.view(), &path)?;
    // It inherits S_ISGID; only chmod(2) sets that.
    let inherited = call.process.overlay.directory_mode(parent(&path)).unwrap_or(0) & libc::S_ISGID;
    let mode = mode_of(call, mode) & 0o1777 | inherited;
    call.process.overlay.edit().make_directory(&path, mode, opaque, now())?;
    touch_parent(call, &path);
    Ok(0)
}

/// `symlink(2)`.
pub(crate) fn symlink(call: &mut Call<'_, '_>) -> CallResult {
    let [target, path, ..] = call.args;
    make_link(call, target, AT_FDCWD, path)
}

/// `symlinkat(2)`.
pub(crate) fn symlinkat(call: &mut Call<'_, '_>) -> CallResult {
    let [target, directory, path, ..] = call.args;
    make_link(call, target, int(directory), path)
}

fn make_link(call: &mut Call<'_, '_>, target: u64, directory: i32, path: u64) -> CallResult {
    let target = call.user().read_path(target)?;
    let path = call.user().read_path(path)?;
    if target.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    let Found { path, directory, .. } = vacant(call, directory, &path)?;
    if directory {
        return Err(Errno::ENOENT.into());
    }
    // The host's own programs might follow it out of the mount.
    if durable::place(call.process, &path).is_some() {
        return Err(Errno::EPERM.into());
    }
    call.process.overlay.edit().make_link(&path, &target, now())?;
    touch_parent(call, &path);
    Ok(0)
}

/// `link(2)`.
pub(crate) fn link(call: &mut Call<'_, '_>) -> CallResult {
    let [old, new, ..] = call.args;
    link_at(call, [AT_FDCWD; 2], old, new, 0)
}

/// `linkat(2)`.
pub(crate) fn linkat(call: &mut Call<'_, '_>) -> CallResult {
    let [old_directory, old, new_directory, new, flags, _] = call.args;
    link_at(call, [int(old_directory), int(new_directory)], old, new, int(flags))
}

fn link_at(call: &mut Call<'_, '_>, [from, to]: [i32; 2], old: u64, new: u64, flags: i32) -> CallResult {
    if flags & !libc::AT_SYMLINK_FOLLOW != 0 {
        return Err(Errno::EINVAL.into());
    }
    let old = call.user().read_path(old)?;
    let new = call.user().read_path(new)?;
    let (old, node) = find(call, from, &old, flags & libc::AT_SYMLINK_FOLLOW != 0)?.existing()?;
    if node.is_directory() {
        return Err(Errno::EPERM.into());
    }
    let Found { path: new, .. } = vacant(call, to, &new)?;
    same_mount(call.process, &old, &new)?;
    if durable::place(call.process, &new).is_some() {
        durable::change(call, &new, |call, to| durable::place(call.process, &old).ok_or(Errno::EXDEV)?.link(&to))?;
        return Ok(0);
    }
    match node.attributes(call.process, &old).kind() {
        libc::S_IFREG => {
            let id = copy_up(call, &old, true)?;
            call.process.overlay.edit().link(&new, id)?;
        }
        libc::S_IFLNK => {
            own_link(call, &old, &node)?;
            call.process.overlay.edit().link_again(&old, &new)?;
        }
        _ => return Err(Errno::EPERM.into()),
    }
    touch_parent(call, &new);
    Ok(0)
}

fn same_mount(process: &Process, old: &[u8], new: &[u8]) -> Result<(), Errno> {
    let device = |path| process.shared.mounts.find(path).map(|(mount, _)| mount.device);
    if device(old) == device(new) { Ok(()) } else { Err(Errno::EXDEV) }
}

/// `unlink(2)`.
pub(crate) fn unlink(call: &mut Call<'_, '_>) -> CallResult {
    let [path, ..] = call.args;
    remove(call, AT_FDCWD, path, false)
}

/// `rmdir(2)`.
pub(crate) fn rmdir(call: &mut Call<'_, '_>) -> CallResult {
    let [path, ..] = call.args;
    remove(call, AT_FDCWD, path, true)
}

/// `unlinkat(2)`.
pub(crate) fn unlinkat(call: &mut Call<'_, '_>) -> CallResult {
    let [directory, path, flags, ..] = call.args;
    match int(flags) {
        0 => remove(call, int(directory), path, false),
        libc::AT_REMOVEDIR => remove(call, int(directory), path, true),
        _ => Err(Errno::EINVAL.into()),
    }
}

fn remove(call: &mut Call<'_, '_>, directory: i32, path: u64, is_directory: bool) -> CallResult {
    let path = call.user().read_path(path)?;
    if is_directory && matches!(path.rsplit(|&byte| byte == b'/').next(), Some(b".")) {
        return Err(Errno::EINVAL.into());
    }
    let (path, node) = find(call, directory, &path, false)?.existing()?;
    permissions::check_parent(call.process, &path)?;
    match (is_directory, node.is_directory()) {
        (true, false) => return Err(Errno::ENOTDIR.into()),
        (false, true) => return Err(Errno::EISDIR.into()),
        _ => {}
    }
    if durable::place(call.process, &path).is_some() {
        durable::check_no_mount(call.process, &path)?;
        durable::change(call, &path, |_, place| place.remove(is_directory))?;
        return Ok(0);
    }
    check_removable(call, &path, &node)?;
    remove_entry(call, &path)?;
    Ok(0)
}

/// Refuses to remove mounts, and directories that are not empty.
fn check_removable(call: &Call<'_, '_>, path: &[u8], node: &Node) -> Result<(), Errno> {
    let (_, rest) = writable(call.process, path)?;
    if rest.is_empty()
        || call.process.shared.mounts.iter().any(|mount| crate::fs::mounts::is_at_or_below(&mount.guest, path))
    {
        return Err(Errno::EBUSY);
    }
    if node.is_directory() && !super::directories::is_empty(call.view(), path)? {
        return Err(Errno::ENOTEMPTY);
    }
    Ok(())
}

/// Removes the entry at `path` from the program's view.
fn remove_entry(call: &mut Call<'_, '_>, path: &[u8]) -> Result<(), Errno> {
    let hides = is_below(call.view(), path)?;
    if let Some(id) = call.process.overlay.edit().remove(path, hides)? {
        forget_file(call, id);
    }
    touch_parent(call, path);
    Ok(())
}

/// `rename(2)`.
pub(crate) fn rename(call: &mut Call<'_, '_>) -> CallResult {
    let [old, new, ..] = call.args;
    rename_at(call, [AT_FDCWD; 2], old, new, 0)
}

/// `renameat(2)`.
pub(crate) fn renameat(call: &mut Call<'_, '_>) -> CallResult {
    let [old_directory, old, new_directory, new, ..] = call.args;
    rename_at(call, [int(old_directory), int(new_directory)], old, new, 0)
}

/// `renameat2(2)`, with no flag but RENAME_NOREPLACE.
pub(crate) fn renameat2(call: &mut Call<'_, '_>) -> CallResult {
    let [old_directory, old, new_directory, new, flags, _] = call.args;
    rename_at(call, [int(old_directory), int(new_directory)], old, new, int(flags).cast_unsigned())
}

fn rename_at(call: &mut Call<'_, '_>, [from, to]: [i32; 2], old: u64, new: u64, flags: u32) -> CallResult {
    if flags & !libc::RENAME_NOREPLACE != 0 {
        return Err(Errno::EINVAL.into());
    }
    let old = call.user().read_path(old)?;
    let new = call.user().read_path(new)?;
    let (old, node) = find(call, from, &old, false)?.existing()?;
    let target = find(call, to, &new, false)?;
    let (new, replaced) = (target.path, target.node);
    if replaced.is_some() && flags & libc::RENAME_NOREPLACE != 0 {
        return Err(Errno::EEXIST.into());
    }
    if durable::place(call.process, &old).is_some() || durable::place(call.process, &new).is_some() {
        if target.directory && !node.is_directory() {
            return Err(Errno::ENOTDIR.into());
        }
        let replaces = flags & libc::RENAME_NOREPLACE == 0;
        return rename_durable(call, &old, &new, replaces);
    }
    writable(call.process, &new)?;
    let (mount, rest) = writable(call.process, &old)?;
    if rest.is_empty() {
        return Err(Errno::EBUSY.into());
    }
    let mount_len = mount.guest.len();
    same_mount(call.process, &old, &new)?;
    if old == new {
        return Ok(0);
    }
    permissions::check_parent(call.process, &old)?;
    permissions::check_parent(call.process, &new)?;
    if node.is_directory() {
        if crate::fs::mounts::is_at_or_below(&new, &old) {
            return Err(Errno::EINVAL.into());
        }
        // As in Linux's overlayfs: only a directory of the overlay's own can be moved as a whole.
        let own = matches!(call.process.overlay.find(&old, mount_len), Layer::Here(_));
        if !own || (is_below(call.view(), &old)? && !is_opaque(call.process, &old, mount_len)) {
            return Err(Errno::EXDEV.into());
        }
    } else if target.directory {
        return Err(Errno::ENOTDIR.into());
    } else if node.attributes(call.process, &old).kind() == libc::S_IFREG {
        copy_up(call, &old, true)?;
    } else {
        own_link(call, &old, &node)?;
    }
    let hides = is_below(call.view(), &old)?;
    if let Some(replaced) = &replaced {
        match (node.is_directory(), replaced.is_directory()) {
            (true, false) => return Err(Errno::ENOTDIR.into()),
            (false, true) => return Err(Errno::EISDIR.into()),
            _ => check_removable(call, &new, replaced)?,
        }
        let same = |path: &[u8]| match call.process.overlay.find(path, mount_len) {
            Layer::Here(OverlayEntry::File(id)) => Some(*id),
            _ => None,
        };
        // Both names are of one file: nothing to do.
        if same(&old).is_some() && same(&old) == same(&new) {
            return Ok(0);
        }
        if let Some(id) = call.process.overlay.edit().remove(&new, false)? {
            forget_file(call, id);
        }
    }
    call.process.overlay.edit().rename(&old, &new)?;
    if hides {
        call.process.overlay.edit().remove(&old, true)?;
    }
    touch_parent(call, &old);
    touch_parent(call, &new);
    Ok(0)
}

/// Renames in a durable mount. What cannot be renamed to what else is the host's to say.
fn rename_durable(call: &mut Call<'_, '_>, old: &[u8], new: &[u8], replaces: bool) -> CallResult {
    if !is_writable(call.process, old) || !is_writable(call.process, new) {
        return Err(Errno::EROFS.into());
    }
    durable::check_no_mount(call.process, old)?;
    durable::check_no_mount(call.process, new)?;
    same_mount(call.process, old, new)?;
    if old == new {
        return Ok(0);
    }
    durable::change(call, old, |call, from| {
        let to = durable::place(call.process, new).ok_or(Errno::EXDEV)?;
        from.rename(&to, replaces)
    })?;
    Ok(0)
}

/// Copies a symbolic link of the host to the overlay, if it is not there yet.
fn own_link(call: &mut Call<'_, '_>, path: &[u8], node: &Node) -> Result<(), Errno> {
    if let Node::Host(link) = node {
        let target = link.link_target(call.context.may_block)?;
        call.process.overlay.edit().make_link(path, &target, link.attributes.modified)?;
    }
    Ok(())
}

fn is_opaque(process: &Process, path: &[u8], mount_len: usize) -> bool {
    matches!(process.overlay.find(path, mount_len), Layer::Here(OverlayEntry::Directory { opaque: true, .. }))
}

/// `mknod(2)`.
pub(crate) fn mknod(call: &mut Call<'_, '_>) -> CallResult {
    let [path, mode, ..] = call.args;
    make_node(call, AT_FDCWD, path, mode)
}

/// `mknodat(2)`.
pub(crate) fn mknodat(call: &mut Call<'_, '_>) -> CallResult {
    let [directory, path, mode, ..] = call.args;
    make_node(call, int(directory), path, mode)
}

/// Regular files and FIFOs: no program has the privilege to create devices.
fn make_node(call: &mut Call<'_, '_>, directory: i32, path: u64, mode: u64) -> CallResult {
    match int(mode).cast_unsigned() & libc::S_IFMT {
        0 | libc::S_IFREG | libc::S_IFIFO => {}
        libc::S_IFDIR | libc::S_IFSOCK | libc::S_IFCHR | libc::S_IFBLK => {
            return Err(Errno::EPERM.into());
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    let path = call.user().read_path(path)?;
    let Found { path, directory, .. } = vacant(call, directory, &path)?;
    if directory {
        return Err(Errno::ENOENT.into());
    }
    let is_fifo = int(mode).cast_unsigned() & libc::S_IFMT == libc::S_IFIFO;
    if durable::place(call.process, &path).is_some() {
        // The host's own programs might open it.
        if is_fifo {
            return Err(Errno::EPERM.into());
        }
        let mode = mode_of(call, mode);
        durable::open(call, &path, libc::O_CREAT | libc::O_EXCL, Some(mode))?;
        return Ok(0);
    }
    if is_fifo {
        make_fifo(call, &path, mode)?;
        return Ok(0);
    }
    let id = create(call, &path, mode)?;
    forget_file(call, id);
    Ok(0)
}
