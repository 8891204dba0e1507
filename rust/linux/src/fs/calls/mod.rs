// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handlers of system calls.

pub(crate) mod attributes;
pub(crate) mod copying;
pub(crate) mod descriptors;
pub(crate) mod directories;
pub(crate) mod durable;
pub(crate) mod durable_locks;
pub(crate) mod fifos;
pub(crate) mod files;
pub(crate) mod inotify;
pub(crate) mod locks;
pub(crate) mod objects;
pub(crate) mod overlay_mappings;
pub(crate) mod paths;
pub(crate) mod pollables;
pub(crate) mod sizes;
pub(crate) mod statfs;
pub(crate) mod texts;
pub(crate) mod tree;
