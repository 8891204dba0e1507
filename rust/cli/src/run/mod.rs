// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly run`.

mod end;
mod gated;
mod serve;

pub use serve::run;
