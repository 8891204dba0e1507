// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process's resources on its host: descriptors, workers, memory in use, and advice about errors of the system.

pub(crate) mod affinity;
pub(crate) mod cgroup;
pub(crate) mod clock;
pub(crate) mod descriptors;
pub(crate) mod resources;
pub(crate) mod workers;
