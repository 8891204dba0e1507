// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine, run from exit to exit.

pub(crate) mod alias_pages;
pub(crate) mod aliases;
pub(crate) mod changes;
pub(crate) mod clock;
pub(crate) mod file_pages;
pub(crate) mod frozen;
pub(crate) mod machine;
pub(crate) mod residency;
mod runs;
pub(crate) mod shared_file_pages;
pub(crate) mod space;
mod zeroes;
