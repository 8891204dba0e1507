// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that name a file by its path. Only `crate::fs::view::lookup` resolves paths.

use super::{durable, fifos, overlay_mappings, texts, tree};
use crate::base::arguments::{count, int};
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt};
use crate::base::identity::UID;
use crate::fs::object::Object;
use crate::fs::open_files::OpenFile;
use crate::fs::overlay::OverlayEntry;
use crate::fs::view::find::{absolute, find};
use crate::fs::view::lookup::{self, Found, Node};
use crate::fs::view::permissions;
use crate::fs::view::procfs::SyntheticFile;
use crate::host::attributes::Attributes;
use crate::kernel::call::Call;
use crate::kernel::closing;
use crate::kernel::work_limits;

/// `open(2)`.
pub(crate) fn open(call: &mut Call<'_, '_>) -> CallResult {
    let [path, flags, mode, ..] = call.args;
    open_at(call, libc::AT_FDCWD, path, int(flags), mode)
}

/// `openat(2)`.
pub(crate) fn openat(call: &mut Call<'_, '_>) -> CallResult {
    let [directory, path, flags, mode, ..] = call.args;
    open_at(call, int(directory), path, int(flags), mode)
}

/// `openat2(2)`, without restrictions on path resolution: programs handle `ENOSYS` as on a kernel without the call.
pub(crate) fn openat2(call: &mut Call<'_, '_>) -> CallResult {
    /// OPEN_HOW_SIZE_VER0.
    const HOW_BYTES: u64 = 24;
    let [directory, path, how, size, ..] = call.args;
    if size < HOW_BYTES {
        return Err(Errno::EINVAL.into());
    }
    let [flags, mode, restrictions] = call.user().read_words(how)?;
    if restrictions != 0 || size > HOW_BYTES {
        return Err(Errno::ENOSYS.into());
    }
    let flags = i32::try_from(flags).map_err(|_| Errno::EINVAL)?;
    open_at(call, int(directory), path, flags, mode)
}

/// `creat(2)`.
pub(crate) fn creat(call: &mut Call<'_, '_>) -> CallResult {
    let [path, mode, ..] = call.args;
    open_at(call, libc::AT_FDCWD, path, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, mode)
}

fn open_at(call: &mut Call<'_, '_>, directory: i32, path: u64, flags: i32, mode: u64) -> CallResult {
    if flags & libc::O_TMPFILE == libc::O_TMPFILE {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let path = call.user().read_path(path)?;
    call.process.files.check_room()?;
    let exclusive = flags & (libc::O_CREAT | libc::O_EXCL) == libc::O_CREAT | libc::O_EXCL;
    let follow = flags & libc::O_NOFOLLOW == 0 && !exclusive;
    let found = find(call, directory, &path, follow)?;
    let (path, node) = match found {
        Found { node: Some(_), .. } if exclusive => return Err(Errno::EEXIST.into()),
        Found { node: None, directory: true, .. } if flags & libc::O_CREAT != 0 => return Err(Errno::EISDIR.into()),
        Found { node: None, path, .. } if flags & libc::O_CREAT != 0 => {
            if durable::place(call.process, &path).is_some() {
                let mode = tree::mode_of(call, mode);
                let object = durable::open(call, &path, flags, Some(mode))?;
                return install(call, OpenFile::new(object, &path, flags), flags);
            }
            let id = tree::create(call, &path, mode)?;
            let device = call.process.shared.mounts.find(&path).map_or(0, |(mount, _)| mount.device);
            return install(call, OpenFile::new(Object::Memory { id, device }, &path, flags), flags);
        }
        found => found.existing()?,
    };
    let file = open_node(call, &path, &node, flags)?;
    install(call, file, flags)
}

fn install(call: &mut Call<'_, '_>, file: OpenFile, flags: i32) -> CallResult {
    call.process.files.check_held(&file.object)?;
    let object = file.object.clone();
    let installed = call.process.files.edit().install(file, flags & libc::O_CLOEXEC != 0);
    if installed.is_err() {
        closing::forget(call, [object]);
    }
    let fd = installed?;
    Ok(fd.unsigned_abs().into())
}

/// Opens an existing node.
fn open_node(call: &mut Call<'_, '_>, path: &[u8], node: &Node, flags: i32) -> Result<OpenFile, Halt> {
    let attributes = node.attributes(call.process, path);
    let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0;
    if flags & libc::O_PATH == 0 {
        let reads = flags & libc::O_ACCMODE != libc::O_WRONLY;
        let read = if reads { permissions::READ } else { 0 };
        let write = if writes && !node.is_directory() { permissions::WRITE } else { 0 };
        permissions::check(call.process, path, node, read | write)?;
    }
    if node.is_directory() {
        if writes || flags & libc::O_CREAT != 0 {
            return Err(Errno::EISDIR.into());
        }
        return Ok(OpenFile::new(Object::Directory { listing: None, attributes }, absolute(path), flags));
    }
    if let Node::Synthetic(SyntheticFile::Descriptor(fd)) = node {
        // A file without a path: its open file is duplicated.
        let open = call.process.files.open_file(*fd)?;
        if let Object::Pollable(_) = open.object {
            // The error that Linux returns for sockets. A pollable belongs to one open file.
            return Err(Errno::ENXIO.into());
        }
        let again = OpenFile::new(open.object.clone(), &open.path, flags);
        if let Object::Memory { id, .. } = again.object
            && flags & libc::O_TRUNC != 0
        {
            overlay_mappings::resize(call, id, 0)?;
        }
        return Ok(again);
    }
    if let Some(target) = node.link_target(call.view())? {
        if flags & libc::O_PATH == 0 {
            return Err(Errno::ELOOP.into());
        }
        if flags & libc::O_DIRECTORY != 0 {
            return Err(Errno::ENOTDIR.into());
        }
        // It stands for the link. Nothing reads from it.
        return Ok(OpenFile::new(Object::Text { content: target.into(), attributes }, absolute(path), flags));
    }
    if flags & libc::O_DIRECTORY != 0 {
        return Err(Errno::ENOTDIR.into());
    }
    let object = match node {
        Node::Overlay { entry: OverlayEntry::File(id), device } => {
            if flags & libc::O_TRUNC != 0 {
                overlay_mappings::resize(call, *id, 0)?;
            }
            Object::Memory { id: *id, device: *device }
        }
        Node::Overlay { entry: OverlayEntry::Special { kind: libc::S_IFIFO, number, .. }, .. }
            if flags & libc::O_PATH == 0 =>
        {
            return fifos::open(call, absolute(path), *number, flags);
        }
        // A socket can only be connected to.
        Node::Overlay { entry: OverlayEntry::Special { .. }, .. } => return Err(Errno::ENXIO.into()),
        Node::Overlay { .. } => return Err(Errno::ENOENT.into()),
        Node::Host(_) if attributes.kind() == libc::S_IFREG && durable::place(call.process, path).is_some() => {
            durable::open(call, path, flags & !libc::O_EXCL, None)?
        }
        Node::Host(_) if writes && attributes.kind() == libc::S_IFREG => {
            let id = tree::copy_up_to_write(call, path, flags & libc::O_TRUNC == 0)?;
            Object::Memory { id, device: attributes.device }
        }
        Node::Synthetic(SyntheticFile::Device(device)) => device.object(),
        Node::Synthetic(_) if writes => return Err(Errno::EACCES.into()),
        Node::Synthetic(SyntheticFile::Text(text)) => {
            work_limits::check_listing(call)?;
            let content = texts::content(call, *text)?.into();
            Object::Text { content, attributes }
        }
        Node::Synthetic(_) => return Err(Errno::EACCES.into()),
        // A program may not open the host's FIFOs, sockets and devices.
        Node::Host(_) if attributes.kind() != libc::S_IFREG => return Err(Errno::EACCES.into()),
        Node::Host(_) => Object::Host(lookup::open_host(call.view(), path)?.into()),
    };
    Ok(OpenFile::new(object, absolute(path), flags))
}

/// `stat(2)`.
pub(crate) fn stat(call: &mut Call<'_, '_>) -> CallResult {
    let [path, buffer, ..] = call.args;
    stat_at(call, libc::AT_FDCWD, path, buffer, 0)
}

/// `lstat(2)`.
pub(crate) fn lstat(call: &mut Call<'_, '_>) -> CallResult {
    let [path, buffer, ..] = call.args;
    stat_at(call, libc::AT_FDCWD, path, buffer, libc::AT_SYMLINK_NOFOLLOW)
}

/// `newfstatat(2)`.
pub(crate) fn newfstatat(call: &mut Call<'_, '_>) -> CallResult {
    let [directory, path, buffer, flags, ..] = call.args;
    stat_at(call, int(directory), path, buffer, int(flags))
}

fn stat_at(call: &mut Call<'_, '_>, directory: i32, path: u64, buffer: u64, flags: i32) -> CallResult {
    let attributes = attributes_at(call, directory, path, flags)?;
    call.user().write(buffer, &attributes.stat())?;
    Ok(0)
}

/// `statx(2)`.
pub(crate) fn statx(call: &mut Call<'_, '_>) -> CallResult {
    const SYNC_TYPE: i32 = libc::AT_STATX_FORCE_SYNC | libc::AT_STATX_DONT_SYNC;
    const RESERVED: u32 = 0x8000_0000;
    let [directory, path, flags, mask, buffer, _] = call.args;
    if int(flags) & SYNC_TYPE == SYNC_TYPE || int(mask).cast_unsigned() & RESERVED != 0 {
        return Err(Errno::EINVAL.into());
    }
    let attributes = attributes_at(call, int(directory), path, int(flags) & !SYNC_TYPE)?;
    call.user().write(buffer, &attributes.statx())?;
    Ok(0)
}

/// The attributes of a file that is named by path, or by descriptor alone (AT_EMPTY_PATH).
fn attributes_at(call: &mut Call<'_, '_>, directory: i32, path: u64, flags: i32) -> Result<Attributes, Halt> {
    Ok(named_at(call, directory, path, flags)?.0)
}

/// As [`attributes_at`], with the plain path.
fn named_at(call: &mut Call<'_, '_>, directory: i32, path: u64, flags: i32) -> Result<(Attributes, Vec<u8>), Halt> {
    const KNOWN: i32 = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL.into());
    }
    // Since Linux 6.11 an empty path may be a null pointer.
    let path = if path == 0 && flags & libc::AT_EMPTY_PATH != 0 { Vec::new() } else { call.user().read_path(path)? };
    if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
        if directory != libc::AT_FDCWD {
            let open = call.process.files.open_file(directory)?;
            return Ok((open.attributes(call.view())?, open.path.to_vec()));
        }
        let (path, node) = find(call, directory, b".", true)?.existing()?;
        return Ok((node.attributes(call.process, &path), path));
    }
    let (path, node) = find(call, directory, &path, flags & libc::AT_SYMLINK_NOFOLLOW == 0)?.existing()?;
    if let Node::Synthetic(SyntheticFile::Descriptor(fd)) = node
        && flags & libc::AT_SYMLINK_NOFOLLOW == 0
    {
        return Ok((call.process.files.open_file(fd)?.attributes(call.view())?, path));
    }
    Ok((node.attributes(call.process, &path), path))
}

/// `access(2)`.
pub(crate) fn access(call: &mut Call<'_, '_>) -> CallResult {
    let [path, mode, ..] = call.args;
    access_at(call, libc::AT_FDCWD, path, int(mode), 0)
}

/// `faccessat(2)`, which takes no flags.
pub(crate) fn faccessat(call: &mut Call<'_, '_>) -> CallResult {
    let [directory, path, mode, ..] = call.args;
    access_at(call, int(directory), path, int(mode), 0)
}

/// `faccessat2(2)`.
pub(crate) fn faccessat2(call: &mut Call<'_, '_>) -> CallResult {
    let [directory, path, mode, flags, ..] = call.args;
    access_at(call, int(directory), path, int(mode), int(flags))
}

fn access_at(call: &mut Call<'_, '_>, directory: i32, path: u64, mode: i32, flags: i32) -> CallResult {
    const KNOWN: i32 = libc::AT_EACCESS | libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
    if mode & !(libc::R_OK | libc::W_OK | libc::X_OK) != 0 || flags & !KNOWN != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (attributes, path) = named_at(call, directory, path, flags & !libc::AT_EACCESS)?;
    // The owner's bits count for what is the program's own; else any bit does: the host decides at `open`.
    let is_own = attributes.user == UID && permissions::is_writable(call.process, &path);
    let none = |bits: u32| attributes.mode & if is_own { bits & 0o700 } else { bits } == 0;
    if mode & libc::W_OK != 0
        && matches!(attributes.kind(), libc::S_IFREG | libc::S_IFDIR)
        && !permissions::is_writable(call.process, &path)
    {
        return Err(Errno::EROFS.into());
    }
    if mode & libc::W_OK != 0 && is_own && none(0o222) {
        return Err(Errno::EACCES.into());
    }
    if (mode & libc::R_OK != 0 && none(0o444)) || (mode & libc::X_OK != 0 && none(0o111)) {
        return Err(Errno::EACCES.into());
    }
    Ok(0)
}

/// `readlink(2)`.
pub(crate) fn readlink(call: &mut Call<'_, '_>) -> CallResult {
    let [path, buffer, size, ..] = call.args;
    read_link(call, libc::AT_FDCWD, path, buffer, int(size))
}

/// `readlinkat(2)`.
pub(crate) fn readlinkat(call: &mut Call<'_, '_>) -> CallResult {
    let [directory, path, buffer, size, ..] = call.args;
    read_link(call, int(directory), path, buffer, int(size))
}

fn read_link(call: &mut Call<'_, '_>, directory: i32, path: u64, buffer: u64, size: i32) -> CallResult {
    let size = usize::try_from(size).ok().filter(|&size| size > 0).ok_or(Errno::EINVAL)?;
    let path = call.user().read_path(path)?;
    let (_, node) = find(call, directory, &path, false)?.existing()?;
    let target = node.link_target(call.view())?.ok_or(Errno::EINVAL)?;
    let shown = target.get(..size.min(target.len())).unwrap_or_default();
    call.user().write(buffer, shown)?;
    Ok(count(shown.len()))
}

/// `getcwd(2)`.
pub(crate) fn getcwd(call: &mut Call<'_, '_>) -> CallResult {
    let [buffer, size, ..] = call.args;
    let mut path = call.process.files.directory().to_vec();
    path.push(0);
    if size < count(path.len()) {
        return Err(Errno::ERANGE.into());
    }
    call.user().write(buffer, &path)?;
    Ok(count(path.len()))
}

/// `chdir(2)`.
pub(crate) fn chdir(call: &mut Call<'_, '_>) -> CallResult {
    let [path, ..] = call.args;
    let path = call.user().read_path(path)?;
    let (path, node) = find(call, libc::AT_FDCWD, &path, true)?.existing()?;
    if !node.is_directory() {
        return Err(Errno::ENOTDIR.into());
    }
    permissions::check(call.process, &path, &node, permissions::SEARCH)?;
    call.process.files.edit().set_directory(absolute(&path));
    Ok(0)
}

/// `fchdir(2)`.
pub(crate) fn fchdir(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, ..] = call.args;
    let open = call.process.files.open_file(int(fd))?;
    if !matches!(open.object, Object::Directory { .. }) {
        return Err(Errno::ENOTDIR.into());
    }
    let path = open.path.clone();
    call.process.files.edit().set_directory(&path);
    Ok(0)
}
