// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frozen programs: made by a boot, or loaded from a file.

pub(crate) mod file;
pub(crate) mod frozen_clock;
pub(crate) mod origin;
pub(crate) mod snapshot;
