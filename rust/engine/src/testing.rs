// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines for tests, on the engine of the lane in which the tests run.

use std::sync::OnceLock;

use mayfly_machine::Regs;

use crate::host::{Choice, Host, Hosts};
use crate::machine::machine::Machine;

mod extremes;

pub use extremes::{Extreme, Way, extremes, ways};

/// The environment variable that names the engine for the tests: `kvm`, `process`, or `auto`, the default.
pub const ENGINE_VARIABLE: &str = "MAYFLY_ENGINE";

/// The lane's engine, probed once per process. Tests need one and do not skip.
///
/// # Panics
///
/// If it cannot be used.
#[must_use]
#[allow(clippy::expect_used)]
pub fn host() -> Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| {
        let name = std::env::var(ENGINE_VARIABLE).unwrap_or_else(|_| "auto".into());
        let choice = Choice::from_name(&name).expect("an engine's name");
        Hosts::new("/dev/kvm".as_ref()).choose(choice).expect("these tests need a usable engine")
    })
    .clone()
}

/// A machine in which nothing is mapped but Mayfly's own pages and an inbox of four.
///
/// # Panics
///
/// If the engine cannot be used.
#[must_use]
#[allow(clippy::expect_used)]
pub fn boot_machine(memory_bytes: u64) -> Machine {
    Machine::boot(&host(), memory_bytes, 4 * mayfly_machine::PAGE_SIZE).expect("a machine can be made")
}

/// Changes the arguments of the system call at which the machine has stopped. The machine stays at that exit, unlike
/// after [`Machine::set_regs`].
pub fn set_arguments(machine: &mut Machine, regs: &Regs) {
    machine.processor.set_arguments(regs);
}
