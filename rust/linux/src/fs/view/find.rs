// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resolves a path that a call specifies.

use crate::base::errno::Errno;
use crate::fs::object::Object;
use crate::fs::open_files::OpenFile;
use crate::fs::view::lookup::{self, Found};
use crate::kernel::call::Call;

/// What `path` leads to, relative to the directory that `fd` refers to.
pub(crate) fn find(call: &Call<'_, '_>, fd: i32, path: &[u8], follow: bool) -> Result<Found, Errno> {
    let files = &call.process.files;
    let base = match fd {
        _ if path.starts_with(b"/") || path.is_empty() => b"/",
        libc::AT_FDCWD => files.directory(),
        fd => match files.open_file(fd)? {
            OpenFile { object: Object::Directory { .. }, path, .. } => path,
            _ => return Err(Errno::ENOTDIR),
        },
    };
    let base = if base == b"/" { b"" } else { base };
    lookup::resolve(call.view(), base, path, follow)
}

/// The plain form of a path that programs see.
pub(crate) fn plain(path: &[u8]) -> &[u8] {
    if path == b"/" { b"" } else { path }
}

/// A plain path in the form that programs see.
pub(crate) fn absolute(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"/" } else { path }
}
