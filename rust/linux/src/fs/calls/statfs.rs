// SPDX-License-Identifier: MIT OR Apache-2.0
//! `statfs(2)`: sizes are those of what the program may write, on every file system; only a writable one is not
//! read-only. The host's sizes are not disclosed.

use mayfly_machine::PAGE_SIZE;

use crate::base::arguments::{count, int};
use crate::base::halt::CallResult;
use crate::fs::mounts::is_at_or_below;
use crate::fs::object::Object;
use crate::fs::view::find::{find, plain};
use crate::fs::view::permissions;
use crate::kernel::call::Call;

/// Kinds of file systems: `<linux/magic.h>`.
const TMPFS: u64 = 0x0102_1994;
const PROC: u64 = 0x9fa0;
const SYSFS: u64 = 0x6265_6572;
const CGROUP2: u64 = 0x6367_7270;

const NAME_MAX: u64 = 255;
const ST_RDONLY: u64 = 0x1;
/// The flags are valid.
const ST_VALID: u64 = 0x20;

/// `statfs(2)`.
pub(crate) fn statfs(call: &mut Call<'_, '_>) -> CallResult {
    let [path, buffer, ..] = call.args;
    let path = call.user().read_path(path)?;
    let (path, node) = find(call, libc::AT_FDCWD, &path, true)?.existing()?;
    let device = node.attributes(call.process, &path).device;
    let words = file_system(call, &path, device, permissions::is_writable(call.process, &path));
    call.user().write_words(buffer, &words)?;
    Ok(0)
}

/// `fstatfs(2)`.
pub(crate) fn fstatfs(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, buffer, ..] = call.args;
    let open = call.process.files.open_file(int(fd))?;
    let device = open.object.attributes(call.view())?.device;
    // Pipes, sockets, and files without a path have a file system of their own.
    let is_nameless = matches!(open.object, Object::Pollable(_) | Object::Log(_) | Object::Memory { device: 0, .. });
    let is_writable = is_nameless || permissions::is_writable(call.process, plain(&open.path));
    let words = file_system(call, &open.path, device, is_writable);
    call.user().write_words(buffer, &words)?;
    Ok(0)
}

/// `struct statfs` for a file at `path`, of the mount with this `device`.
fn file_system(call: &Call<'_, '_>, path: &[u8], device: u32, is_writable: bool) -> [u64; 15] {
    let kind = match device {
        0 if is_at_or_below(path, b"/proc") => PROC,
        0 if is_at_or_below(path, b"/sys/fs/cgroup") => CGROUP2,
        0 if is_at_or_below(path, b"/sys") => SYSFS,
        _ => TMPFS,
    };
    let overlay = &call.process.overlay;
    let inodes = overlay.inodes();
    let durable = call.process.shared.mounts.find(plain(path)).and_then(|(mount, _)| mount.durable.as_ref());
    let [blocks, free, files, free_files] = if let Some(durable) = durable.filter(|_| kind == TMPFS) {
        let (limits, (bytes, names)) = (durable.limits(), durable.room());
        [limits.bytes / PAGE_SIZE, bytes / PAGE_SIZE, limits.files, names]
    } else if kind == TMPFS {
        let [entries, free] = [overlay.max_entries(), overlay.free_entries()].map(count);
        [inodes.max_bytes() / PAGE_SIZE, inodes.room() / PAGE_SIZE, entries, free]
    } else {
        [0; 4]
    };
    let flags = if is_writable { ST_VALID } else { ST_VALID | ST_RDONLY };
    // type, bsize, blocks, bfree, bavail, files, ffree, fsid, namelen, frsize, flags, spare
    [kind, PAGE_SIZE, blocks, free, free, files, free_files, device.into(), NAME_MAX, PAGE_SIZE, flags, 0, 0, 0, 0]
}
