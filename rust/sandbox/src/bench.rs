// SPDX-License-Identifier: MIT OR Apache-2.0
//! What benchmarks need to know of the host's own costs; not for servers.

pub use mayfly_kvm::floor::*;
