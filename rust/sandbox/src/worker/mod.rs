// SPDX-License-Identifier: MIT OR Apache-2.0
//! Workers, which serve requests.

mod call;
pub(crate) mod handover;
pub(crate) mod inbox;
mod leg;
pub(crate) mod peer;
pub(crate) mod progress;
mod reset;
mod spent;
mod state;
pub(crate) mod worker;
