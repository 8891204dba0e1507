// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines for tests, on the real KVM of the lane in which the tests run.

use std::path::Path;
use std::sync::OnceLock;

use mayfly_machine::Regs;

use crate::host::host::Host;
use crate::machine::machine::Machine;

mod extremes;

pub use extremes::{Extreme, Way, extremes, ways};

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

/// A machine in which nothing is mapped but Mayfly's own pages and an inbox of four.
///
/// # Panics
///
/// If KVM cannot be used.
#[must_use]
#[allow(clippy::expect_used)]
pub fn boot_machine(memory_bytes: u64) -> Machine {
    Machine::boot(&host(), memory_bytes, 4 * mayfly_machine::PAGE_SIZE).expect("a machine can be made")
}

/// Changes the arguments of the system call at which the machine has stopped. The machine stays at that exit, unlike
/// after [`Machine::set_regs`].
pub fn set_arguments(machine: &mut Machine, regs: &Regs) {
    machine.vcpu.set_regs(regs);
}
