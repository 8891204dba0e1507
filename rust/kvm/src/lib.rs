// SPDX-License-Identifier: MIT OR Apache-2.0
//! One KVM virtual machine with one vCPU, its guest memory, page tables and guest kernel.
//!
//! A [`Machine`] runs 64-bit user code at CPL 3 from exit to exit. It knows nothing of Linux or HTTP: the floor above
//! serves system calls and page faults through [`Machine`]'s methods. A booted machine can be frozen into an [`Image`],
//! from which workers are forked copy-on-write; [`Machine::reset`] takes a worker back to its image.
//!
//! Only this crate makes KVM ioctls.
//!
//! The folders, the highest first; imports run downwards (`docs/architecture.md`):
//!
//! | folder | subject |
//! |---|---|
//! | `probe` | opening the device, and what kind of KVM it is |
//! | `image` | freezing, forks, reset, images in files |
//! | `machine` | running from exit to exit; what user code has in the processor; its address space; its clock |
//! | `vcpu` | VM and vCPU, raw exits, registers as KVM has them |
//! | `host` | what an opened KVM can do, and the fingerprint that an image depends on |
//! | `guest` | the guest kernel and the vDSO; the processor that programs see |
//! | `memory` | guest-physical memory, page tables, pages of files; the ledger of how much there may be |
//! | `error`, `layout` | errors of operations; where Mayfly's own pages lie |
//! | [`heap`] | how much freed memory the process's heap keeps |
//! | [`floor`] | the least that KVM costs here, for benchmarks |
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make the files that they open"))]

mod error;
pub mod floor;
mod guest;
pub mod heap;
mod host;
mod image;
mod layout;
mod machine;
mod memory;
mod probe;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod vcpu;

pub use crate::error::FingerprintMismatch;
pub use crate::host::host::{Host, HostKind};
pub use crate::image::audit::AuditedPage;
pub use crate::image::fork::Learned;
pub use crate::image::image::Image;
pub use crate::image::reset::ResetReport;
pub use crate::image::saved::{SavedImage, checksum, digest};
pub use crate::machine::machine::Machine;
pub use crate::memory::ledger::{Account, Allowance, Held, Hold, Ledger, Purpose};
pub use crate::vcpu::vcpu::Kicker;
pub use error::{CreateError, FreezeError, HostError, LoadError, RunError, SaveError};
#[cfg(test)]
mod tests;
