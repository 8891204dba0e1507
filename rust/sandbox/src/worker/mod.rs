// SPDX-License-Identifier: MIT OR Apache-2.0
//! Workers, which serve requests.

pub(crate) mod handover;
pub(crate) mod inbox;
mod leg;
pub(crate) mod peer;
pub(crate) mod progress;
mod reset;
mod spent;
pub(crate) mod worker;
