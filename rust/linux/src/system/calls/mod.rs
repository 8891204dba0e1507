// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handlers of system calls.

pub(crate) mod identity;
pub(crate) mod limits;
pub(crate) mod process;
pub(crate) mod system;
pub(crate) mod wait_pidfd;
