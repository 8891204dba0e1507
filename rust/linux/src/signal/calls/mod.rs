// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handlers of system calls.

pub(crate) mod signals;
