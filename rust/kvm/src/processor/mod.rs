// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine's processor on KVM: the vCPU, and where it stands.

pub(crate) mod at;
pub(crate) mod context;
pub(crate) mod processor;
