// SPDX-License-Identifier: MIT OR Apache-2.0
//! Permissions of what a program has written: it is the owner, and not root. Other files are readable as the host
//! permits, and those of writable mounts are writable, whatever their modes. What is in a durable mount is the program's.

use crate::base::errno::Errno;
use crate::base::identity::UID;
use crate::fs::mounts::Mount;
use crate::fs::view::lookup::{self, Node};
use crate::host::durable::Place;
use crate::kernel::process::Process;

/// Bits of the owner's part of a mode.
pub(crate) const READ: u32 = 0o400;
pub(crate) const WRITE: u32 = 0o200;
pub(crate) const SEARCH: u32 = 0o100;

/// The directory of a plain path.
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    path.get(..end).unwrap_or_default()
}

/// Refuses access to an own file or directory whose mode does not permit it; symbolic links permit all.
pub(crate) fn check(process: &Process, path: &[u8], node: &Node, wanted: u32) -> Result<(), Errno> {
    let attributes = match node {
        Node::Overlay { .. } => node.attributes(process, path),
        // In a durable mount.
        Node::Host(host) if host.attributes.user == UID => host.attributes,
        _ => return Ok(()),
    };
    if attributes.mode & wanted == wanted { Ok(()) } else { Err(Errno::EACCES) }
}

/// Refuses to change the entries of an own directory whose mode does not permit it.
pub(crate) fn check_parent(process: &Process, path: &[u8]) -> Result<(), Errno> {
    match process.overlay.directory_mode(parent(path)) {
        Some(mode) if mode & (WRITE | SEARCH) != WRITE | SEARCH => Err(Errno::EACCES),
        _ => Ok(()),
    }
}

/// The writable mount that a plain path lies in.
pub(crate) fn writable<'p>(process: &'p Process, path: &'p [u8]) -> Result<(&'p Mount, &'p [u8]), Errno> {
    process
        .shared
        .mounts
        .find(path)
        .filter(|(mount, _)| mount.writable && !lookup::is_synthetic(path))
        .ok_or(Errno::EROFS)
}

/// Whether `path` is writable, or a directory in which names can be created.
pub(crate) fn is_writable(process: &Process, path: &[u8]) -> bool {
    writable(process, path).is_ok() || place(process, path).is_some()
}

/// The place that a plain path is in a durable mount, if it is in one.
pub(crate) fn place<'p>(process: &'p Process, path: &'p [u8]) -> Option<Place<'p>> {
    if lookup::is_synthetic(path) {
        return None;
    }
    let (mount, rest) = process.shared.mounts.find(path)?;
    mount.place(rest)
}
