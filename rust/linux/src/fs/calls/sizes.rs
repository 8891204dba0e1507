// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that change the size of a file, and what it takes: `truncate(2)`, `fallocate(2)`.

use mayfly_machine::PAGE_SIZE;

use super::{durable, overlay_mappings};
use crate::base::arguments::int;
use crate::base::errno::Errno;
use crate::base::halt::CallResult;
use crate::fs::calls::tree::copy_up_to_write;
use crate::fs::object::Object;
use crate::fs::view::find::find;
use crate::fs::view::permissions;
use crate::host::attributes::now;
use crate::kernel::call::Call;
use crate::kernel::work_limits;

/// `truncate(2)`.
pub(crate) fn truncate(call: &mut Call<'_, '_>) -> CallResult {
    let [path, size, ..] = call.args;
    let path = call.user().read_path(path)?;
    if size.cast_signed() < 0 {
        return Err(Errno::EINVAL.into());
    }
    let (path, node) = find(call, libc::AT_FDCWD, &path, true)?.existing()?;
    if node.is_directory() {
        return Err(Errno::EISDIR.into());
    }
    if node.attributes(call.process, &path).kind() != libc::S_IFREG {
        return Err(Errno::EINVAL.into());
    }
    permissions::check(call.process, &path, &node, permissions::WRITE)?;
    if durable::place(call.process, &path).is_some() {
        durable::change(call, &path, |call, place| {
            let permit = call.process.shared.mounts.permit()?;
            place.open(true, None, false, permit)?.resize(size)
        })?;
        return Ok(0);
    }
    let id = copy_up_to_write(call, &path, size > 0)?;
    overlay_mappings::resize(call, id, size)?;
    Ok(0)
}

/// `ftruncate(2)`.
pub(crate) fn ftruncate(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, size, ..] = call.args;
    let open = call.process.files.open_file(int(fd))?;
    let is_writable = open.is_writable();
    if is_writable
        && size.cast_signed() >= 0
        && let Some(file) = durable::file(call, int(fd))?
    {
        durable::change_file(call, &file, |file| file.resize(size))?;
        return Ok(0);
    }
    let open = call.process.files.open_file(int(fd))?;
    match open.object {
        _ if size.cast_signed() < 0 => Err(Errno::EINVAL.into()),
        Object::Memory { id, .. } if open.is_writable() => {
            overlay_mappings::resize(call, id, size)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `fallocate(2)`: reserves space, or punches a hole, as on tmpfs.
pub(crate) fn fallocate(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, mode, offset, len, ..] = call.args;
    let open = call.process.files.open_file(int(fd))?;
    if offset.cast_signed() < 0 || len.cast_signed() <= 0 {
        return Err(Errno::EINVAL.into());
    }
    if !open.is_writable() {
        return Err(Errno::EBADF.into());
    }
    if let Some(file) = durable::file(call, int(fd))? {
        offset.checked_add(len).filter(|&end| i64::try_from(end).is_ok()).ok_or(Errno::EFBIG)?;
        durable::change_file(call, &file, |file| match int(mode) {
            0 => file.allocate(offset, len),
            PUNCH_HOLE => file.punch(offset, len),
            // What is reserved beyond the size would not be counted.
            _ => Err(Errno::EOPNOTSUPP),
        })?;
        return Ok(0);
    }
    let Object::Memory { id, .. } = open.object else { return Err(Errno::ENODEV.into()) };
    offset.checked_add(len).filter(|&end| i64::try_from(end).is_ok()).ok_or(Errno::EFBIG)?;
    match int(mode) {
        grows @ (0 | libc::FALLOC_FL_KEEP_SIZE) => {
            let inodes = call.process.overlay.inodes();
            // Pages that it has already are looked at, which takes much less time than to make one.
            let known = inodes.content(id).map_or(0, |content| content.pages());
            let looked_at = known.saturating_mul(PAGE_SIZE / 16).min(len);
            work_limits::check_bytes(call, inodes.room().min(len).saturating_add(looked_at))?;
            call.process.overlay.edit().inodes_mut().reserve(id, offset, len, grows == 0, now())?;
        }
        PUNCH_HOLE => overlay_mappings::punch(call, id, offset, len)?,
        _ => return Err(Errno::EOPNOTSUPP.into()),
    }
    Ok(0)
}

/// The one way to punch a hole: Linux refuses it without FALLOC_FL_KEEP_SIZE.
const PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
