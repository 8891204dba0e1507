// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identities, limits and what the system tells of itself.

pub(crate) mod calls;
