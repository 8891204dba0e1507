// SPDX-License-Identifier: MIT OR Apache-2.0
//! The types that every engine uses: a machine's layout, registers, page protections, exits and errors.
//!
//! Nothing here knows how a machine is run: no KVM, no ioctl. The floors above use these types, so that they need not
//! know either.
//!
//! | module | what is in it |
//! |---|---|
//! | [`layout`] | the layout of a machine's virtual address space |
//! | `prot`, `origin` | a page's protection, and what it belongs to |
//! | `regs`, `context` | the processor state of user code |
//! | `exit` | why a machine's run ended |
//! | `error` | errors of a machine's memory |
//! | `file`, `shared`, `mapping` | files and memory of the host that machines map |
//! | `clock`, [`vdso`] | the numbers from which a program computes the time, and the shared object that does |

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make the files that they open"))]

mod clock;
mod context;
mod error;
mod exit;
mod file;
pub mod layout;
mod mapping;
mod origin;
mod prot;
mod regs;
mod shared;
pub mod vdso;

pub use clock::{ClockLine, read_tsc};
pub use context::{UserContext, VECTOR_STATE_BYTES, VectorState};
pub use error::{BadAddress, BadReturn, CreateError, FreezeError, MemoryError, RunError};
pub use exit::*;
pub use file::{FileKey, FilePages, OpenFile, SharedFile};
pub use layout::PAGE_SIZE;
pub use mapping::Mapping;
pub use origin::Origin;
pub use prot::{EnginePage, Prot};
pub use regs::Regs;
pub use shared::SharedMemory;
