// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tree of files in a program's view: how paths are walked, and what is made up.

pub(crate) mod lookup;
pub(crate) mod procfs;
