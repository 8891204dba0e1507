// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the process has from its host: descriptors, memory in use, advice for errors of the system.

pub(crate) mod clock;
pub(crate) mod descriptors;
pub(crate) mod resources;
pub(crate) mod workers;
