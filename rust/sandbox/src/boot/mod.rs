// SPDX-License-Identifier: MIT OR Apache-2.0
//! Booting a program up to where it can be frozen.

pub(crate) mod boot;
mod doorbell;
mod progress;
mod server;
