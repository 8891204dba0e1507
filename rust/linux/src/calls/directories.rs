// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading directories.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::{count, int};
use crate::errno::{CallResult, Errno};
use crate::files::Object;
use crate::files::attributes::Attributes;
use crate::files::listing::{Entry, Listing};
use crate::host;
use crate::made_up;
use crate::process::Process;
use crate::table::Call;

/// Most bytes of entries that one call gives.
const ROOM_MAX: u64 = 64 << 10;

/// `getdents64(2)`. The entries are those of when the reading began; going back to the start begins anew.
pub(crate) fn getdents64(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, buffer, size, ..] = call.args;
    let fd = int(fd);
    let open = call.process.files.open_file(fd)?;
    let Object::Directory { listing, attributes } = &open.object else { return Err(Errno::ENOTDIR.into()) };
    let (offset, attributes) = (open.offset, *attributes);
    if open.flags & libc::O_PATH != 0 {
        return Err(Errno::EBADF.into());
    }
    let listing = match listing {
        Some(listing) if offset > 0 => Arc::clone(listing),
        _ => {
            let listing = Arc::new(list(call.process, &open.path, &attributes)?);
            call.process.files.edit().open_file_mut(fd)?.object =
                Object::Directory { listing: Some(Arc::clone(&listing)), attributes };
            listing
        }
    };
    let room = usize::try_from(size.min(ROOM_MAX)).unwrap_or(0);
    let (bytes, taken) = listing.records(offset, room).ok_or(Errno::EINVAL)?;
    call.user().write(buffer, &bytes)?;
    if taken > 0 {
        call.process.files.edit().open_file_mut(fd)?.offset = offset.saturating_add(taken);
    }
    Ok(count(bytes.len()))
}

/// All that is in the directory `path`.
fn list(process: &Process, path: &[u8], attributes: &Attributes) -> Result<Listing, Errno> {
    let path = if path == b"/" { b"" } else { path };
    let mut entries = BTreeMap::new();
    for (name, kind) in made_up::names(process, path) {
        let inode = made_up::inode(&[path, b"/", &name].concat());
        entries.insert(name, Entry { inode, kind });
    }
    if attributes.device != 0
        && let Some((mount, rest)) = process.shared.mounts.find(path)
        && let Some(root) = &mount.root
    {
        entries.extend(host::list(root.as_fd(), rest)?);
    }
    Ok(Listing::new(attributes.inode, entries))
}
