// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file tree in a program's view: path resolution, permissions, and synthetic files.

pub(crate) mod etc;
pub(crate) mod find;
pub(crate) mod fs_view;
pub(crate) mod lookup;
pub(crate) mod permissions;
pub(crate) mod procfs;
