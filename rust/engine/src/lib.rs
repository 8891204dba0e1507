// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines: a processor of one of the engines over memory of its own.
//!
//! A [`Machine`] runs 64-bit user code from exit to exit, be it a virtual machine (`mayfly-kvm`) or a process below a
//! seccomp filter (`mayfly-process`). It knows nothing of Linux or HTTP: the floor above serves system calls and page
//! faults through [`Machine`]'s methods, and need not know which engine it is. A booted machine can be frozen into an
//! [`Image`], from which workers are forked copy-on-write; [`Machine::reset`] takes a worker back to its image.
//!
//! The parts, the highest first; imports run downwards (`docs/architecture.md`):
//!
//! | part | subject |
//! |---|---|
//! | [`floor`] | the least that an engine costs here, for benchmarks |
//! | `image` | freezing, forks, reset, images in files |
//! | `machine` | running from exit to exit; the address space; the clock |
//! | `processor` | which engine's processor it is |
//! | `error` | errors of images in files |
//! | `fingerprint`, `host` | what an image depends on; the engines of this host, and which one to use |
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make the files that they open"))]

mod error;
mod fingerprint;
pub mod floor;
mod host;
mod image;
mod machine;
mod processor;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use crate::fingerprint::FingerprintMismatch;
pub use crate::host::{Auto, Choice, Engine, EngineState, Host, HostError, Hosts};
pub use crate::image::audit::AuditedPage;
pub use crate::image::fork::Learned;
pub use crate::image::image::Image;
pub use crate::image::reset::ResetReport;
pub use crate::image::saved::{SavedImage, checksum, digest};
pub use crate::machine::machine::Machine;
pub use crate::machine::residency::{RESIDENCY_AT_ONCE, Residency};
pub use crate::processor::Kicker;
pub use error::{LoadError, SaveError};
pub use mayfly_machine::{CreateError, FreezeError, RunError};
pub use mayfly_memory::heap;
pub use mayfly_memory::ledger::{Account, Allowance, Held, Hold, Ledger, Purpose};
#[cfg(test)]
mod tests;
