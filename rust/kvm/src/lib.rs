// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine's processor as a KVM virtual machine with one vCPU, and the guest kernel in it.
//!
//! A [`Processor`] runs 64-bit user code at CPL 3 from exit to exit, over a machine's memory (`mayfly-memory`). It knows
//! nothing of Linux or HTTP. `mayfly-engine` makes machines of it: forks, reset, images.
//!
//! Only this crate makes KVM ioctls.
//!
//! The folders, the highest first; imports run downwards (`docs/architecture.md`):
//!
//! | folder | subject |
//! |---|---|
//! | `probe` | opening the device, and what kind of KVM it is |
//! | `processor` | running from exit to exit; what user code has in the processor |
//! | `vcpu` | VM and vCPU, raw exits, registers as KVM has them |
//! | `host` | what an opened KVM can do, and the fingerprint that an image depends on |
//! | `guest` | the guest kernel; the processor that programs see |
//! | `error`, `layout` | errors; where the engine's own pages lie |
//! | [`floor`] | the least that KVM costs here, for benchmarks |

mod error;
pub mod floor;
mod guest;
mod host;
mod layout;
mod probe;
mod processor;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod vcpu;

pub use crate::host::fingerprint::Fingerprint;
pub use crate::host::host::{Host, HostKind};
pub use crate::processor::processor::{Processor, pages};
pub use crate::vcpu::vcpu::Kicker;
pub use error::{FingerprintMismatch, HostError};
