// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the process engine's own pages lie in a stub, among those that every engine has
//! ([`mayfly_machine::layout`]).
//!
//! ```text
//! 0x7fff_0000_0000  USER_END   nothing of a program's lies above; only code above it may ring or make ordered calls
//!         + 0x1000  CODE       r-x   one sealed file for all stubs: header and doorbell, signal handler, ring, orders
//!         + 0x4000  ORDERS     r--   the worker's: orders                                    (1 page, the server writes)
//!         + 0x5000  CONTEXT    r--   one context to load: `ucontext_t`, XSAVE area behind it (3 pages, as above)
//!        + 0x10000  CONTROL    r--   control line and inbox; not mapped yet
//!    + 0x3000_0000  FRAMES     rw-   alternate signal stack, which the server sees
//!    + 0x3800_0000  SCRIPT     rw-   a zygote's script; unmapped before a stub runs a program's first instruction
//!    + 0x4000_0000  SHARED     rw-   not mapped yet
//! ```
//!
//! Every address above has the same upper half, by which the filter knows it; none but CODE's can be executed.

use mayfly_machine::layout::{DOORBELL, DOORBELL_ENTRY_OFFSET, INBOX, INBOX_MAX, MAYFLY_BASE, PAGE_SIZE, SHARED};

/// The upper 32 bits of every address of the engine's pages, and of no program's.
pub const HOST_HALF: u32 = (MAYFLY_BASE >> 32) as u32;

/// The host code, which no stub can change.
pub const CODE: u64 = DOORBELL;
/// Its bytes.
pub const CODE_BYTES: u64 = PAGE_SIZE;
/// Where the doorbell's code starts in it; the sandbox fills what lies before.
pub(crate) const BELL_OFFSET: u64 = DOORBELL_ENTRY_OFFSET;

/// The worker's pages that only the server writes: orders, then a context.
pub const ORDERS: u64 = MAYFLY_BASE + 0x4000;
/// Bytes from [`ORDERS`] to the end of the context.
pub const ORDERS_BYTES: u64 = 4 * PAGE_SIZE;
/// A context that the stub can be made to load.
pub const CONTEXT: u64 = ORDERS + PAGE_SIZE;
/// Its XSAVE area, 64-byte aligned.
pub const CONTEXT_XSAVE: u64 = CONTEXT + PAGE_SIZE;
/// Bytes of the XSAVE area.
pub const CONTEXT_XSAVE_BYTES: u64 = 2 * PAGE_SIZE;

/// The alternate signal stack.
pub const FRAMES: u64 = MAYFLY_BASE + 0x3000_0000;
/// Its bytes: a signal's frame has some 3.6 KiB, and kicks may nest a few.
pub const FRAMES_BYTES: u64 = 0x1_0000;

/// A zygote's script and its data.
pub const SCRIPT: u64 = MAYFLY_BASE + 0x3800_0000;
/// Their bytes.
pub const SCRIPT_BYTES: u64 = 4 * PAGE_SIZE;

/// First address past what the kernel gives programs on processors with four levels of page tables.
pub(crate) const TOP: u64 = (1 << 47) - PAGE_SIZE;

const _: () = assert!(CODE + CODE_BYTES <= ORDERS && ORDERS + ORDERS_BYTES <= MAYFLY_BASE + 0x8000);
const _: () = assert!(CONTEXT_XSAVE + CONTEXT_XSAVE_BYTES == ORDERS + ORDERS_BYTES);
const _: () = assert!(INBOX + INBOX_MAX <= FRAMES && FRAMES + FRAMES_BYTES <= SCRIPT);
const _: () = assert!(SCRIPT + SCRIPT_BYTES <= SHARED && SHARED < TOP);
