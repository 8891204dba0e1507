// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests with real stubs.

mod attacks;
mod births;
mod deaths;
mod images;
mod kicks;
mod orders;
mod programs;
mod rewinds;
