// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frozen programs: made by a boot, or loaded from a file.

pub(crate) mod boot_inputs;
pub(crate) mod file;
pub(crate) mod frozen_clock;
pub(crate) mod snapshot;
