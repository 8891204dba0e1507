// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every engine speaks: where things lie in a machine, its registers, what may be done with a page, why a run
//! ended, and what can go wrong.
//!
//! Nothing here knows how a machine is run: no KVM, no ioctl. The floors above are written in these types, so that they
//! need not know either.
//!
//! | module | what is in it |
//! |---|---|
//! | [`layout`] | where things lie in a machine's virtual address space |
//! | `prot`, `origin` | what may be done with a page, and whose it is |
//! | `regs`, `context` | what user code has in the processor |
//! | `exit` | why a machine's run ended |
//! | `error` | what goes wrong in a machine's memory |
//! | `file`, `shared`, `mapping` | files and memory of the host that machines map |
//! | `clock` | what a program tells the time from |

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

pub use clock::{ClockLine, read_tsc};
pub use context::{UserContext, VECTOR_STATE_BYTES, VectorState};
pub use error::{BadAddress, BadReturn, MemoryError};
pub use exit::*;
pub use file::{FileKey, FilePages};
pub use layout::PAGE_SIZE;
pub use mapping::Mapping;
pub use origin::Origin;
pub use prot::Prot;
pub use regs::Regs;
pub use shared::SharedMemory;
