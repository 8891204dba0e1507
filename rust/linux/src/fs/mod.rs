// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files as a program sees them: mounts, the overlay, open files.

pub(crate) mod calls;
pub(crate) mod directory_times;
pub(crate) mod locks;
pub(crate) mod mounts;
pub(crate) mod object;
pub(crate) mod open_files;
pub(crate) mod overlay;
pub(crate) mod view;
pub(crate) mod witnesses;
