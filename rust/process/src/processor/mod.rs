// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine's processor as a stub process: what it may reach, and where it stands.

pub(crate) mod events;
pub(crate) mod kicker;
pub(crate) mod pages;
pub(crate) mod processor;
pub(crate) mod registers;
pub(crate) mod source;
