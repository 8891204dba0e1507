// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frozen machines: forks, resets, files.

pub(crate) mod audit;
pub(crate) mod fork;
pub(crate) mod image;
pub(crate) mod reset;
pub(crate) mod saved;
