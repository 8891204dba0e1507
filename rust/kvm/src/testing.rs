// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real KVM of the lane in which the tests run.

use std::path::Path;
use std::sync::OnceLock;

use crate::host::host::Host;

/// The host's KVM, probed once per process. Tests need one and do not skip.
///
/// # Panics
///
/// If KVM cannot be used.
#[must_use]
#[allow(clippy::expect_used)]
pub fn host() -> Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| Host::open(Path::new("/dev/kvm")).expect("these tests need a usable /dev/kvm")).clone()
}
