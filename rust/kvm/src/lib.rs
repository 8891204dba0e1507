// SPDX-License-Identifier: MIT OR Apache-2.0
//! One KVM virtual machine with one vCPU, its guest memory, page tables and guest kernel.
//!
//! A [`Machine`] runs 64-bit user code at CPL 3 from exit to exit. It knows nothing of Linux or HTTP: the floor above answers
//! system calls and page faults through [`Machine`]'s methods. A booted machine can be frozen into an [`Image`], from which
//! workers are forked copy-on-write; [`Machine::reset`] takes a worker back to its image.
//!
//! KVM ioctls are made in this crate and nowhere else.
//!
//! | module | subject |
//! |---|---|
//! | [`layout`] | where things lie in a machine's address space |
//! | `context` | what user code has in the processor, taken out and put back |
//! | `host` | opening and probing KVM |
//! | `cpuid` | what the guest is told of the processor |
//! | `kernel` | the guest kernel's pages and vCPU state |
//! | `memory` | guest-physical memory and its copy-on-write backing |
//! | `shared` | memory that all machines of a program share |
//! | `files` | pages of files, from the host's page cache |
//! | `tables` | page-table entries |
//! | `translations` | the host's own small TLB for user addresses |
//! | `vcpu` | VM and vCPU, raw exits |
//! | `vdso` | telling the time inside the guest |
//! | `machine` | running from exit to exit |
//! | `space` | mapping, protecting, unmapping, copying in and out |
//! | `fork` | freeze, fork, reset |
//! | `saved` | images in files |
//! | `ground` | what an image stands on: processor, kind of KVM, guest kernel |
//! | `ledger` | what machines hold of the process's memory, and how much they may |
//! | [`heap`] | what the process's heap keeps of what is freed |
//! | [`floor`] | the least that KVM costs here, for benchmarks |

mod context;
mod cpuid;
mod error;
mod exit;
mod files;
pub mod floor;
mod fork;
mod ground;
pub mod heap;
mod host;
mod kernel;
pub mod layout;
mod ledger;
mod machine;
mod mapping;
mod memory;
mod saved;
mod shared;
mod space;
mod tables;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod translations;
mod vcpu;
mod vdso;

pub use context::{UserContext, VECTOR_STATE_BYTES, VectorState};
pub use error::{
    BadAddress, BadReturn, CreateError, FreezeError, HostError, LoadError, MemoryError, RunError, SaveError,
};
pub use exit::{Exit, PageFaultCode, Unexpected};
pub use files::{FileKey, FilePages};
pub use fork::{AuditedPage, Image, Learned, ResetReport};
pub use ground::OtherGround;
pub use host::{Host, HostKind};
pub use layout::PAGE_SIZE;
pub use ledger::{Account, Allowance, Held, Hold, Ledger, Purpose};
pub use machine::{Machine, Regs};
pub use saved::{SavedImage, checksum, digest};
pub use shared::SharedMemory;
pub use space::Origin;
pub use tables::Prot;
pub use vcpu::Kicker;
pub use vdso::{ClockLine, read_tsc};
#[cfg(test)]
mod tests;
