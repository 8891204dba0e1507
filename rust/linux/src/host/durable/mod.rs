// SPDX-License-Identifier: MIT OR Apache-2.0
//! Directories of the host whose files programs change, for good: durable mounts.
//!
//! # Invariants
//!
//! * Every path is resolved as for other mounts (`crate::host::files`); a change is made to one name in a directory that
//!   was resolved so. No call follows a symbolic link, and none is made.
//! * Nothing here is called on a thread that may not block, except looks at what is open, and locks, which never wait.
//! * No file grows and no name is made without room (`crate::host::quota`).
//! * Files that the program makes have no mode beyond 0777: none is set-user-ID.

mod content;
mod count;
mod locks;
mod tree;

pub(crate) use count::count;
pub(crate) use tree::Place;
