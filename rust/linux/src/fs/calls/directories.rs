// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads directories.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::arguments::{count, int};
use crate::base::errno::Errno;
use crate::base::halt::CallResult;
use crate::fs::object::Object;
use crate::fs::overlay::{Layer, OverlayEntry};
use crate::fs::view::fs_view::FsView;
use crate::fs::view::{lookup, procfs};
use crate::host::attributes::Attributes;
use crate::host::listing::{DirectoryEntry, Listing};
use crate::kernel::call::Call;

/// Most bytes of entries that one call returns.
const ROOM_MAX: u64 = 64 << 10;

/// `getdents64(2)`. The first call lists the directory; later ones continue with that list. Seeking to the start lists
/// it anew.
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
            let listing = Arc::new(list(call.view(), &open.path, &attributes)?);
            let object = Object::Directory { listing: Some(Arc::clone(&listing)), attributes };
            call.process.files.check_held(&object)?;
            call.process.files.edit().open_file_mut(fd)?.object = object;
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

/// All entries of the directory `path`.
fn list(view: FsView<'_>, path: &[u8], attributes: &Attributes) -> Result<Listing, Errno> {
    let path = if path == b"/" { b"" } else { path };
    Ok(Listing::new(attributes.inode, entries(view, path)?))
}

/// Whether the directory at the plain `path` is empty.
pub(crate) fn is_empty(view: FsView<'_>, path: &[u8]) -> Result<bool, Errno> {
    Ok(entries(view, path)?.is_empty())
}

fn entries(view: FsView<'_>, path: &[u8]) -> Result<BTreeMap<Vec<u8>, DirectoryEntry>, Errno> {
    let process = view.process;
    let mut entries = BTreeMap::new();
    for (name, kind) in procfs::names(process, path) {
        let inode = procfs::inode(&[path, b"/", &name].concat());
        entries.insert(name, DirectoryEntry { inode, kind });
    }
    let Some((mount, rest)) = process.shared.mounts.find(path).filter(|_| !lookup::is_synthetic(path)) else {
        return Ok(entries);
    };
    let layer = process.overlay.find(path, mount.guest.len());
    let shows_through = match layer {
        Layer::Below => true,
        Layer::Here(entry) => matches!(entry, OverlayEntry::Directory { opaque: false, .. }),
        Layer::Hidden => false,
    };
    if mount.root.is_some() && shows_through {
        match lookup::list_in(view, mount, rest) {
            Ok(found) => entries.extend(found),
            // A directory of the overlay's, or one that leads to a mount.
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    for (name, entry) in process.overlay.names(path) {
        let attributes = process.overlay.attributes(entry, mount.device);
        let kind = match entry {
            OverlayEntry::File(_) => libc::DT_REG,
            OverlayEntry::Directory { .. } => libc::DT_DIR,
            OverlayEntry::Link { .. } => libc::DT_LNK,
            OverlayEntry::Special { kind: libc::S_IFIFO, .. } => libc::DT_FIFO,
            OverlayEntry::Special { .. } => libc::DT_SOCK,
            OverlayEntry::Gone => {
                entries.remove(name);
                continue;
            }
        };
        entries.insert(name.to_vec(), DirectoryEntry { inode: attributes.inode, kind });
    }
    Ok(entries)
}
