// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths of Unix sockets: `bind` makes a file in a writable mount, which `chmod`, `stat`, `rename` and `unlink` know,
//! and `connect` follows the path to it. Elsewhere, where Linux could not make a file, a path is a mere name, so that
//! programs can be configured for `/run`.

use crate::base::errno::Errno;
use crate::base::ids::PollableId;
use crate::fs::overlay::OverlayEntry;
use crate::fs::view::find::find;
use crate::fs::view::lookup::{Found, Node};
use crate::fs::view::permissions;
use crate::host::attributes::now;
use crate::kernel::call::Call;
use crate::net::address::Address;

/// Mode of a socket's file before the mask.
const MODE: u32 = 0o777;

/// The path of an address, if it is one.
fn path(address: &Address) -> Option<&[u8]> {
    match address {
        Address::Unix(name) if name.first() != Some(&0) => name.strip_suffix(b"\0"),
        _ => None,
    }
}

/// What the path of a socket leads to. `None`: nothing, and the program could not make a file there.
fn find_name(call: &Call<'_, '_>, path: &[u8], follow: bool) -> Result<Option<Found>, Errno> {
    match find(call, libc::AT_FDCWD, path, follow) {
        Err(Errno::NOT_HERE) => Err(Errno::NOT_HERE),
        Err(error) => {
            let whole = if path.starts_with(b"/") {
                path.to_vec()
            } else {
                [call.process.files.directory(), b"/", path].concat()
            };
            if permissions::is_writable(call.process, &whole) { Err(error) } else { Ok(None) }
        }
        Ok(found) => Ok(Some(found)),
    }
}

/// Makes the file of a socket that is about to be bound: its plain path, and its number. `None`: the address has none.
pub(crate) fn make(call: &mut Call<'_, '_>, address: &Address) -> Result<Option<(Vec<u8>, u64)>, Errno> {
    let Some(path) = path(address) else { return Ok(None) };
    let Some(found) = find_name(call, path, false)? else { return Ok(None) };
    if found.node.is_some() {
        return Err(Errno::EADDRINUSE);
    }
    if !permissions::is_writable(call.process, &found.path) {
        return Ok(None);
    }
    permissions::check_parent(call.process, &found.path)?;
    let mode = MODE & !call.process.resources.umask;
    let overlay = call.process.overlay.edit();
    let number = overlay.make_special(&found.path, libc::S_IFSOCK, mode, now())?;
    overlay.touch_directory(permissions::parent(&found.path), now());
    Ok(Some((found.path, number)))
}

/// Removes the file of a socket that could not be bound.
pub(crate) fn undo(call: &mut Call<'_, '_>, path: &[u8]) {
    // Removing an entry of the overlay's own needs no space.
    let _ = call.process.overlay.edit().remove(path, false);
}

/// The socket whose file is at `address`; `None`: there is no file. To reach the socket, the program must be permitted
/// to write to its file.
fn at_file(call: &Call<'_, '_>, kind: i32, address: &Address) -> Result<Option<PollableId>, Errno> {
    let pollables = &call.process.pollables;
    let found = path(address).map(|path| find_name(call, path, true)).transpose()?.flatten();
    let Some(Found { path, node: Some(node), .. }) = found else { return Ok(None) };
    permissions::check(call.process, &path, &node, permissions::WRITE)?;
    match node {
        Node::Overlay { entry: OverlayEntry::Special { kind: libc::S_IFSOCK, number, .. }, .. } => {
            let named = |id: &PollableId| pollables.socket(*id).is_ok_and(|socket| socket.node == Some(number));
            let id = pollables.ids().find(named).ok_or(Errno::ECONNREFUSED)?;
            if pollables.socket(id)?.kind == kind { Ok(Some(id)) } else { Err(Errno::EPROTOTYPE) }
        }
        _ => Err(Errno::ECONNREFUSED),
    }
}

/// The listener at `address`, for sockets of this kind; `None` if there is nothing there.
pub(crate) fn listener(call: &Call<'_, '_>, kind: i32, address: &Address) -> Result<Option<PollableId>, Errno> {
    let pollables = &call.process.pollables;
    match at_file(call, kind, address)? {
        Some(id) if pollables.socket(id)?.is_listening() => Ok(Some(id)),
        Some(_) => Err(Errno::ECONNREFUSED),
        None => Ok(pollables.listener(kind, address)),
    }
}

/// The Unix socket that receives datagrams at `address`.
pub(crate) fn receiver(call: &Call<'_, '_>, address: &Address) -> Result<PollableId, Errno> {
    if !matches!(address, Address::Unix(_)) {
        return Err(Errno::EINVAL);
    }
    if let Some(id) = at_file(call, libc::SOCK_DGRAM, address)? {
        return Ok(id);
    }
    let pollables = &call.process.pollables;
    let has_name = |id: &PollableId| {
        pollables.socket(*id).is_ok_and(|it| it.is_datagram() && it.node.is_none() && it.local == *address)
    };
    let none = if path(address).is_some() { Errno::ENOENT } else { Errno::ECONNREFUSED };
    pollables.ids().find(has_name).ok_or(none)
}
