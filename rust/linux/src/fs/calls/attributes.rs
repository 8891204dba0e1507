// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that change attributes of files: modes, times, owners, and extended attributes, of which there are none. A
//! program changes only what it has written.

use std::sync::Arc;

use super::durable;
use crate::base::arguments::int;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt};
use crate::base::identity::{GID, UID};
use crate::base::ids::InodeId;
use crate::fs::object::Object;
use crate::fs::view::find::{find, plain};
use crate::fs::view::lookup::Node;
use crate::fs::view::permissions::writable;
use crate::host::attributes::{Time, Times, now};
use crate::host::files::HostFile;
use crate::kernel::call::Call;
use crate::kernel::process::Process;

const AT_FDCWD: i32 = libc::AT_FDCWD;

/// `chmod(2)`.
pub(crate) fn chmod(call: &mut Call<'_, '_>) -> CallResult {
    let [path, mode, ..] = call.args;
    change_mode(call, AT_FDCWD, path, mode)
}

/// `fchmodat(2)`.
pub(crate) fn fchmodat(call: &mut Call<'_, '_>) -> CallResult {
    let [directory, path, mode, ..] = call.args;
    change_mode(call, int(directory), path, mode)
}

fn change_mode(call: &mut Call<'_, '_>, directory: i32, path: u64, mode: u64) -> CallResult {
    let path = own_entry(call, directory, path, true)?;
    let mode = int(mode).cast_unsigned();
    if durable::place(call.process, &path).is_some() {
        durable::change(call, &path, |_, place| place.set_mode(mode))?;
        return Ok(0);
    }
    call.process.overlay.edit().set_mode(&path, mode);
    Ok(0)
}

/// `fchmod(2)`.
pub(crate) fn fchmod(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, mode, ..] = call.args;
    match own_open(call, int(fd))? {
        OwnFile::File(id) => call.process.overlay.edit().inodes_mut().set_mode(id, int(mode).cast_unsigned()),
        OwnFile::Directory(path) => call.process.overlay.edit().set_mode(&path, int(mode).cast_unsigned()),
        OwnFile::Durable(file) => {
            durable::change_file(call, &file, |file| file.set_mode(int(mode).cast_unsigned()))?;
        }
        OwnFile::DurableDirectory(path) => {
            durable::change(call, &path, |_, place| place.set_mode(int(mode).cast_unsigned()))?;
        }
    }
    Ok(0)
}

/// What a descriptor refers to, if the program owns it.
enum OwnFile {
    File(InodeId),
    /// The plain path of a directory.
    Directory(Vec<u8>),
    /// A file of a durable mount.
    Durable(Arc<HostFile>),
    /// The plain path of a directory in a durable mount.
    DurableDirectory(Vec<u8>),
}

/// The program's own file or directory that `fd` refers to; `EPERM` for others.
fn own_open(call: &Call<'_, '_>, fd: i32) -> Result<OwnFile, Errno> {
    let open = call.process.files.open_file(fd)?;
    if open.flags & libc::O_PATH != 0 {
        return Err(Errno::EBADF);
    }
    match &open.object {
        Object::Memory { id, .. } => Ok(OwnFile::File(*id)),
        Object::Host(file) if file.durable().is_some() => Ok(OwnFile::Durable(Arc::clone(file))),
        Object::Directory { .. } if durable::place(call.process, plain(&open.path)).is_some() => {
            Ok(OwnFile::DurableDirectory(plain(&open.path).to_vec()))
        }
        // As long as it is at the path at which it was opened.
        Object::Directory { attributes, .. }
            if call.process.overlay.owns_directory(&open.path, attributes.inode)
                || is_empty_mount(call.process, &open.path) =>
        {
            Ok(OwnFile::Directory(open.path.to_vec()))
        }
        _ => Err(Errno::EPERM),
    }
}

/// Whether a path is that of a mount without a directory of the host, whose own directory is the program's: `/tmp`.
fn is_empty_mount(process: &Process, path: &[u8]) -> bool {
    writable(process, path).is_ok_and(|(mount, rest)| rest.is_empty() && mount.root.is_none())
}

/// `utimensat(2)`.
pub(crate) fn utimensat(call: &mut Call<'_, '_>) -> CallResult {
    let [directory, path, times, flags, ..] = call.args;
    let times = if times == 0 {
        Times::both(now())
    } else {
        let [accessed, accessed_ns, modified, modified_ns] = call.user().read_words(times)?;
        Times { accessed: to_set(accessed, accessed_ns)?, modified: to_set(modified, modified_ns)? }
    };
    let changes = times.accessed.is_some() || times.modified.is_some();
    if path == 0 {
        // The file that the descriptor refers to.
        let own = own_open(call, int(directory))?;
        match own {
            _ if !changes => {}
            OwnFile::File(id) => call.process.overlay.edit().inodes_mut().set_times(id, times),
            OwnFile::Directory(path) => call.process.overlay.edit().set_times(&path, times),
            OwnFile::Durable(file) => durable::change_file(call, &file, |file| file.set_times(times))?,
            OwnFile::DurableDirectory(path) => durable::change(call, &path, |_, place| place.set_times(times))?,
        }
        return Ok(0);
    }
    let path = own_entry(call, int(directory), path, int(flags) & libc::AT_SYMLINK_NOFOLLOW == 0)?;
    if changes {
        set_times(call, &path, times)?;
    }
    Ok(0)
}

/// What a `struct timespec` for `utimensat(2)` sets.
fn to_set(seconds: u64, nanoseconds: u64) -> Result<Option<Time>, Errno> {
    match i64::try_from(nanoseconds) {
        Ok(libc::UTIME_NOW) => Ok(Some(now())),
        Ok(libc::UTIME_OMIT) => Ok(None),
        Ok(nanoseconds @ 0..=999_999_999) => {
            let nanoseconds = u32::try_from(nanoseconds).unwrap_or_default();
            Ok(Some(Time { seconds: seconds.cast_signed(), nanoseconds }))
        }
        _ => Err(Errno::EINVAL),
    }
}

/// `utimes(2)`: times in microseconds.
pub(crate) fn utimes(call: &mut Call<'_, '_>) -> CallResult {
    let [path, times, ..] = call.args;
    set_times_in_microseconds(call, AT_FDCWD, path, times)
}

/// `futimesat(2)`.
pub(crate) fn futimesat(call: &mut Call<'_, '_>) -> CallResult {
    let [directory, path, times, ..] = call.args;
    set_times_in_microseconds(call, int(directory), path, times)
}

fn set_times_in_microseconds(call: &mut Call<'_, '_>, directory: i32, path: u64, times: u64) -> CallResult {
    let times = if times == 0 {
        Times::both(now())
    } else {
        let [accessed, accessed_us, modified, modified_us] = call.user().read_words(times)?;
        let time = |seconds: u64, microseconds: u64| match u32::try_from(microseconds) {
            Ok(microseconds @ 0..1_000_000) => {
                Ok(Time { seconds: seconds.cast_signed(), nanoseconds: microseconds.saturating_mul(1000) })
            }
            _ => Err(Errno::EINVAL),
        };
        Times { accessed: Some(time(accessed, accessed_us)?), modified: Some(time(modified, modified_us)?) }
    };
    set_path_times(call, directory, path, times)
}

/// `utime(2)`: times in seconds.
pub(crate) fn utime(call: &mut Call<'_, '_>) -> CallResult {
    let [path, times, ..] = call.args;
    let times = if times == 0 {
        Times::both(now())
    } else {
        let [accessed, modified] = call
            .user()
            .read_words(times)?
            .map(|seconds: u64| Some(Time { seconds: seconds.cast_signed(), nanoseconds: 0 }));
        Times { accessed, modified }
    };
    set_path_times(call, AT_FDCWD, path, times)
}

fn set_path_times(call: &mut Call<'_, '_>, directory: i32, path: u64, times: Times) -> CallResult {
    let path = own_entry(call, directory, path, true)?;
    set_times(call, &path, times)?;
    Ok(0)
}

/// Sets the times of the program's own entry at a plain path.
fn set_times(call: &mut Call<'_, '_>, path: &[u8], times: Times) -> Result<(), Errno> {
    if durable::place(call.process, path).is_some() {
        return durable::change(call, path, |_, place| place.set_times(times));
    }
    call.process.overlay.edit().set_times(path, times);
    Ok(())
}

/// The plain path of an entry that the program owns. It may not change others: `EPERM`, or `EROFS` in a read-only
/// mount.
fn own_entry(call: &mut Call<'_, '_>, directory: i32, path: u64, follow: bool) -> Result<Vec<u8>, Halt> {
    let path = call.user().read_path(path)?;
    let (path, node) = find(call, directory, &path, follow)?.existing()?;
    if matches!(node, Node::Host(_)) && durable::place(call.process, &path).is_some() {
        return Ok(path);
    }
    writable(call.process, &path)?;
    match node {
        Node::Overlay { .. } => Ok(path),
        Node::Host(_) | Node::Synthetic(_) => Err(Errno::EPERM.into()),
    }
}

/// `chown(2)`, `lchown(2)`: only to the program's own user and group, and only files that the program has written.
pub(crate) fn chown(call: &mut Call<'_, '_>) -> CallResult {
    let [path, user, group, ..] = call.args;
    check_owner(user, group)?;
    own_entry(call, AT_FDCWD, path, false).map(|_| 0)
}

/// `fchownat(2)`.
pub(crate) fn fchownat(call: &mut Call<'_, '_>) -> CallResult {
    let [directory, path, user, group, ..] = call.args;
    check_owner(user, group)?;
    own_entry(call, int(directory), path, false).map(|_| 0)
}

/// `fchown(2)`.
pub(crate) fn fchown(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, user, group, ..] = call.args;
    check_owner(user, group)?;
    own_open(call, int(fd)).map(|_| Ok(0))?
}

/// -1 leaves an owner unchanged.
fn check_owner(user: u64, group: u64) -> Result<(), Errno> {
    let is = |id: u64, own: u32| int(id) == -1 || int(id).cast_unsigned() == own;
    if is(user, UID) && is(group, GID) { Ok(()) } else { Err(Errno::EPERM) }
}

/// `getxattr(2)`, `setxattr(2)`, `removexattr(2)`: there are no extended attributes.
pub(crate) fn no_attribute(call: &mut Call<'_, '_>) -> CallResult {
    no_attributes(call, true)?;
    Err(Errno::EOPNOTSUPP.into())
}

/// As [`no_attribute`], but for a symbolic link itself.
pub(crate) fn no_link_attribute(call: &mut Call<'_, '_>) -> CallResult {
    no_attributes(call, false)?;
    Err(Errno::EOPNOTSUPP.into())
}

/// As [`no_attribute`], but for an open file.
pub(crate) fn no_open_attribute(call: &mut Call<'_, '_>) -> CallResult {
    no_open_attributes(call)?;
    Err(Errno::EOPNOTSUPP.into())
}

/// `listxattr(2)`: an empty list.
pub(crate) fn listxattr(call: &mut Call<'_, '_>) -> CallResult {
    no_attributes(call, true)
}

/// `llistxattr(2)`.
pub(crate) fn llistxattr(call: &mut Call<'_, '_>) -> CallResult {
    no_attributes(call, false)
}

/// `flistxattr(2)`.
pub(crate) fn no_open_attributes(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, ..] = call.args;
    let open = call.process.files.open_file(int(fd))?;
    if open.flags & libc::O_PATH != 0 { Err(Errno::EBADF.into()) } else { Ok(0) }
}

/// The number of attributes of what a path leads to: 0 if it exists.
fn no_attributes(call: &mut Call<'_, '_>, follow: bool) -> CallResult {
    let [path, ..] = call.args;
    let path = call.user().read_path(path)?;
    find(call, AT_FDCWD, &path, follow)?.existing()?;
    Ok(0)
}
