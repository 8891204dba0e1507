// SPDX-License-Identifier: MIT OR Apache-2.0
//! The world switch: what a stub asks, what it is answered, and how it is stopped.

pub(crate) mod check;
pub(crate) mod context;
pub(crate) mod kick;
pub(crate) mod order;
mod ordering;
#[allow(clippy::module_inception, reason = "the folder is about this type")]
pub(crate) mod ring;
pub(crate) mod vector;
