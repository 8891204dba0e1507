// SPDX-License-Identifier: MIT OR Apache-2.0
//! The threads that do for the loops what takes too long for them, and what waits for these threads.

pub(crate) mod background;
pub(crate) mod deferred;
pub(crate) mod fair;
pub(crate) mod orders;
pub(crate) mod overflow;
pub(crate) mod readiness;
pub(crate) mod sleepers;
pub(crate) mod threads;
