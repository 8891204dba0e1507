// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly run`.

mod end;
mod gated;
mod reply;
mod serve;
mod start;
mod tenants;

pub use start::run;
