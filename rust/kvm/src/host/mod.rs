// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's KVM: what it can do, and what kind it is.

pub(crate) mod fingerprint;
pub(crate) mod host;
