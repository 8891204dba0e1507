// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that name a file. There is no file system yet: no path leads to anything, except that a program may ask where it
//! comes from itself (`/proc/self/exe`) and about descriptors by an empty path.

use super::{count, int};
use crate::errno::{CallResult, Errno, Halt};
use crate::files::attributes::Attributes;
use crate::identity::PID;
use crate::table::Call;

/// `open(2)`.
pub(crate) fn open(call: &mut Call<'_, '_>) -> CallResult {
    let [path, ..] = call.args;
    look_up(call, None, path)
}

/// `openat(2)`.
pub(crate) fn openat(call: &mut Call<'_, '_>) -> CallResult {
    let [directory, path, ..] = call.args;
    look_up(call, Some(int(directory)), path)
}

/// `stat(2)`, `lstat(2)`.
pub(crate) fn stat(call: &mut Call<'_, '_>) -> CallResult {
    let [path, ..] = call.args;
    look_up(call, None, path)
}

/// `newfstatat(2)`.
pub(crate) fn newfstatat(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, path, buffer, flags, ..] = call.args;
    let file = by_descriptor(call, int(fd), path, int(flags))?;
    call.user().write(buffer, &file.stat())?;
    Ok(0)
}

/// `statx(2)`.
pub(crate) fn statx(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, path, flags, _, buffer, _] = call.args;
    let file = by_descriptor(call, int(fd), path, int(flags))?;
    call.user().write(buffer, &file.statx())?;
    Ok(0)
}

/// `access(2)`.
pub(crate) fn access(call: &mut Call<'_, '_>) -> CallResult {
    let [path, ..] = call.args;
    look_up(call, None, path)
}

/// `faccessat(2)`.
pub(crate) fn faccessat(call: &mut Call<'_, '_>) -> CallResult {
    let [directory, path, ..] = call.args;
    look_up(call, Some(int(directory)), path)
}

/// `readlink(2)`.
pub(crate) fn readlink(call: &mut Call<'_, '_>) -> CallResult {
    let [path, buffer, size, ..] = call.args;
    read_link(call, None, path, buffer, int(size))
}

/// `readlinkat(2)`.
pub(crate) fn readlinkat(call: &mut Call<'_, '_>) -> CallResult {
    let [directory, path, buffer, size, ..] = call.args;
    read_link(call, Some(int(directory)), path, buffer, int(size))
}

fn read_link(call: &mut Call<'_, '_>, directory: Option<i32>, path: u64, buffer: u64, size: i32) -> CallResult {
    let size = usize::try_from(size).ok().filter(|&size| size > 0).ok_or(Errno::EINVAL)?;
    let path = call.user().read_path(path)?;
    if path != b"/proc/self/exe" && path != format!("/proc/{PID}/exe").as_bytes() {
        return Err(missing(call, directory, &path));
    }
    let target = call.process.shared.executable.clone();
    let shown = target.as_bytes().get(..size.min(target.len())).unwrap_or_default();
    call.user().write(buffer, shown)?;
    Ok(count(shown.len()))
}

/// `getcwd(2)`: the root of what will be the tenant's own tree.
pub(crate) fn getcwd(call: &mut Call<'_, '_>) -> CallResult {
    let [buffer, size, ..] = call.args;
    let path = b"/\0";
    if size < count(path.len()) {
        return Err(Errno::ERANGE.into());
    }
    call.user().write(buffer, path)?;
    Ok(count(path.len()))
}

/// `chdir(2)`.
pub(crate) fn chdir(call: &mut Call<'_, '_>) -> CallResult {
    let [path, ..] = call.args;
    look_up(call, None, path)
}

/// Looks for a file and does not find it.
fn look_up(call: &mut Call<'_, '_>, directory: Option<i32>, path: u64) -> CallResult {
    let path = call.user().read_path(path)?;
    Err(missing(call, directory, &path))
}

/// What it means that `path` is not there: a relative one is looked for in a directory first, and no descriptor is one.
fn missing(call: &Call<'_, '_>, directory: Option<i32>, path: &[u8]) -> Halt {
    let errno = match directory {
        Some(fd) if fd != libc::AT_FDCWD && !path.starts_with(b"/") && !path.is_empty() => {
            call.process.files.get(fd).err().unwrap_or(Errno::ENOTDIR)
        }
        _ => Errno::ENOENT,
    };
    errno.into()
}

/// The file of a call that may name it by descriptor alone (AT_EMPTY_PATH).
fn by_descriptor(call: &mut Call<'_, '_>, fd: i32, path: u64, flags: i32) -> Result<Attributes, Halt> {
    let path = call.user().read_path(path)?;
    if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 && fd != libc::AT_FDCWD {
        Ok(call.process.files.open_file(fd)?.object.attributes())
    } else {
        Err(missing(call, Some(fd), &path))
    }
}
