// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identities, limits, and information on the system.

pub(crate) mod calls;
