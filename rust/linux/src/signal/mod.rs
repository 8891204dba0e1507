// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals: what is pending, which action, and the frame of a handler.

pub(crate) mod calls;
pub(crate) mod frame;
pub(crate) mod signals;
