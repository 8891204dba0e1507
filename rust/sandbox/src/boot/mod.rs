// SPDX-License-Identifier: MIT OR Apache-2.0
//! Booting a program up to where it can be frozen.

mod ask;
pub(crate) mod boot;
mod doorbell;
mod progress;
mod ready;
mod server;
mod steady;
