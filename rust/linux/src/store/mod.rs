// SPDX-License-Identifier: MIT OR Apache-2.0
//! The content of files that a program has written.

pub(crate) mod content;
pub(crate) mod inodes;
pub(crate) mod page;
