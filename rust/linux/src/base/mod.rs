// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all other floors share: error numbers, clocks, pages, tracked state, limits. Nothing here knows about
//! processes.

pub(crate) mod arguments;
pub(crate) mod clock;
pub(crate) mod context;
pub(crate) mod errno;
pub(crate) mod halt;
pub(crate) mod identity;
pub(crate) mod ids;
pub(crate) mod limits;
pub(crate) mod names;
pub(crate) mod pages;
pub(crate) mod resource_limits;
pub(crate) mod serde_with;
pub(crate) mod signal_names;
pub(crate) mod step;
pub(crate) mod tracked;
