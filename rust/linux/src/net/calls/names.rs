// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths of Unix sockets: `bind` makes a file in a writable mount, which `chmod`, `stat`, `rename` and `unlink` know,
//! and `connect` follows the path to it. Elsewhere, where Linux could not make a file, a path is a mere name, so that
//! programs can be configured for `/run`.

use crate::base::errno::Errno;
use crate::base::ids::PollableId;
use crate::fs::overlay::OverlayEntry;
use crate::fs::view::lookup::{self, Found, Node};
use crate::host::attributes::now;
use crate::kernel::call::Call;
use crate::net::address::Address;

/// Mode of a socket's file before the mask.
const MODE: u32 = 0o777;
const OWNER_WRITES_AND_SEARCHES: u32 = 0o300;

/// The path of an address, if it is one.
fn path(address: &Address) -> Option<&[u8]> {
    match address {
        Address::Unix(name) if name.first() != Some(&0) => name.strip_suffix(b"\0"),
        _ => None,
    }
}

fn find(call: &Call<'_, '_>, path: &[u8], follow: bool) -> Result<Found, Errno> {
    let base = call.process.files.directory();
    lookup::resolve(call.view(), if base == b"/" { b"" } else { base }, path, follow)
}

/// Whether the program can make files at `path`.
fn is_writable(call: &Call<'_, '_>, path: &[u8]) -> bool {
    let mount = call.process.shared.mounts.find(path);
    mount.is_some_and(|(mount, _)| mount.writable) && !lookup::is_synthetic(path)
}

/// Makes the file of a socket that is about to be bound: its plain path, and its number. `None`: the address has none.
pub(crate) fn make(call: &mut Call<'_, '_>, address: &Address) -> Result<Option<(Vec<u8>, u64)>, Errno> {
    let Some(path) = path(address) else { return Ok(None) };
    let found = match find(call, path, false) {
        Ok(found) => found,
        Err(Errno::NOT_HERE) => return Err(Errno::NOT_HERE),
        Err(error) => {
            let whole = if path.starts_with(b"/") {
                path.to_vec()
            } else {
                [call.process.files.directory(), b"/", path].concat()
            };
            return if is_writable(call, &whole) { Err(error) } else { Ok(None) };
        }
    };
    if found.node.is_some() {
        return Err(Errno::EADDRINUSE);
    }
    if !is_writable(call, &found.path) {
        return Ok(None);
    }
    let end = found.path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    let parent = found.path.get(..end).unwrap_or_default();
    let closed = |mode| mode & OWNER_WRITES_AND_SEARCHES != OWNER_WRITES_AND_SEARCHES;
    if call.process.overlay.directory_mode(parent).is_some_and(closed) {
        return Err(Errno::EACCES);
    }
    let mode = MODE & !call.process.resources.umask;
    let overlay = call.process.overlay.edit();
    let number = overlay.make_socket(&found.path, mode, now())?;
    overlay.touch_directory(parent, now());
    Ok(Some((found.path, number)))
}

/// Removes the file of a socket that could not be bound.
pub(crate) fn undo(call: &mut Call<'_, '_>, path: &[u8]) {
    // Removing an entry of the overlay's own needs no space.
    let _ = call.process.overlay.edit().remove(path, false);
}

/// The listener at `address`, for sockets of this kind; `None` if there is nothing there.
pub(crate) fn listener(call: &Call<'_, '_>, kind: i32, address: &Address) -> Result<Option<PollableId>, Errno> {
    let pollables = &call.process.pollables;
    let found = match path(address).map(|path| find(call, path, true)) {
        None => None,
        Some(Err(Errno::NOT_HERE)) => return Err(Errno::NOT_HERE),
        Some(found) => found.ok().and_then(|found| found.node),
    };
    match found {
        None => Ok(pollables.listener(kind, address)),
        Some(Node::Overlay { entry: OverlayEntry::Socket { number, .. }, .. }) => {
            let named = |id: &PollableId| pollables.socket(*id).is_ok_and(|socket| socket.node == Some(number));
            let id = pollables.listeners.iter().copied().find(named).ok_or(Errno::ECONNREFUSED)?;
            if pollables.socket(id)?.kind == kind { Ok(Some(id)) } else { Err(Errno::EPROTOTYPE) }
        }
        Some(_) => Err(Errno::ECONNREFUSED),
    }
}

/// The error of a datagram to `address`, which no socket receives: whether there is a file at a path shows.
pub(crate) fn no_receiver(call: &Call<'_, '_>, address: &Address) -> Result<Errno, Errno> {
    let is_path = path(address).is_some();
    match listener(call, libc::SOCK_DGRAM, address) {
        Ok(_) => Ok(if is_path { Errno::ENOENT } else { Errno::ECONNREFUSED }),
        Err(Errno::NOT_HERE) => Err(Errno::NOT_HERE),
        Err(error) => Ok(error),
    }
}
