// SPDX-License-Identifier: MIT OR Apache-2.0
//! Workers, which serve requests.

mod background;
mod call;
mod cpu_meter;
pub(crate) mod handover;
mod hook;
pub(crate) mod inbox;
mod leg;
pub(crate) mod peer;
pub(crate) mod progress;
mod reset;
mod state;
pub(crate) mod worker;
