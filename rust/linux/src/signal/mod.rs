// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals: pending ones, actions, and frames of handlers.

pub(crate) mod calls;
pub(crate) mod frame;
pub(crate) mod signals;
