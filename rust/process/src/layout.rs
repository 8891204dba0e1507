// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the process engine's own pages lie in a stub, among those that every engine has
//! ([`mayfly_machine::layout`]).
//!
//! ```text
//! 0x7fff_0000_0000  USER_END   nothing of a program's lies above; only code above it may ring or make ordered calls
//!         + 0x1000  DOORBELL   r-x   the program's memory: header, and the doorbell's code   (`doorbell_page`)
//!         + 0x2000  RESUME     r--   the program's memory: what the trampoline restores     (`resume_pages`)
//!         + 0x4000  ORDERS     r--   the worker's: orders                                  (1 page, server writes)
//!         + 0x5000  CONTEXT    r--   one context to load: `ucontext_t`, XSAVE area behind it (3 pages, as above)
//!         + 0x8000  CODE       r-x   one sealed file for all stubs: signal handler, ring, orders, restore, trampoline
//!         + 0x9000  VDSO       r-x   the program's memory
//!        + 0x10000  CONTROL    r--   the program's memory: control line and inbox
//!    + 0x3000_0000  FRAMES     rw-   alternate signal stack, which the server sees
//!    + 0x3800_0000  SCRIPT     rw-   a zygote's script; unmapped before a stub runs a program's first instruction
//!    + 0x4000_0000  SHARED     rw-   the program's memory
//! ```
//!
//! Every address above has the same upper half, by which the filter knows it. Of the program's memory there, DOORBELL
//! and VDSO can be executed, and never written by the program; calls are made there at known places only.

use mayfly_machine::layout::{
    CONTROL, DOORBELL, DOORBELL_ENTRY_OFFSET, INBOX, INBOX_MAX, MAYFLY_BASE, PAGE_SIZE, SHARED, SHARED_MAX, USER_END,
    USER_MIN, VDSO,
};

/// The upper 32 bits of every address of the engine's pages, and of no program's.
pub const HOST_HALF: u32 = (MAYFLY_BASE >> 32) as u32;

/// The host code, which no stub can change.
pub const CODE: u64 = MAYFLY_BASE + 0x8000;
/// Its bytes.
pub const CODE_BYTES: u64 = PAGE_SIZE;
/// The doorbell's code; the sandbox fills what lies before in its page.
pub(crate) const BELL: u64 = DOORBELL + DOORBELL_ENTRY_OFFSET;

/// What the trampoline restores: an XSAVE area, then words. See [`resume_pages`](crate::resume_pages).
pub const RESUME: u64 = MAYFLY_BASE + 0x2000;
/// Its bytes.
pub const RESUME_BYTES: u64 = 2 * PAGE_SIZE;
/// Where its words start.
pub(crate) const RESUME_WORDS: u64 = RESUME + PAGE_SIZE;
/// The word of the control line that the trampoline puts into RAX.
pub(crate) const CONTROL_RAX: u64 = CONTROL + 8;

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
/// Its bytes: a signal's frame has some 3.6 KiB, and a kick may nest in another signal's.
pub const FRAMES_BYTES: u64 = 4 * PAGE_SIZE;

/// A zygote's script and its data.
pub const SCRIPT: u64 = MAYFLY_BASE + 0x3800_0000;
/// Their bytes.
pub const SCRIPT_BYTES: u64 = 4 * PAGE_SIZE;

/// First address past what the kernel gives programs on processors with four levels of page tables.
pub(crate) const TOP: u64 = (1 << 47) - PAGE_SIZE;

/// Whether the range is whole pages, not empty, and the program's memory: in its part of the address space, or those
/// pages above it that hold memory of the program's.
#[must_use]
pub fn is_program_range(address: u64, bytes: u64) -> bool {
    const INBOX_END: u64 = (INBOX + INBOX_MAX).next_multiple_of(PAGE_SIZE);
    let Some(end) = address.checked_add(bytes) else { return false };
    let windows = [
        (USER_MIN, USER_END),
        (DOORBELL, DOORBELL + PAGE_SIZE),
        (RESUME, RESUME + RESUME_BYTES),
        (VDSO, VDSO + PAGE_SIZE),
        (CONTROL, INBOX_END),
        (SHARED, SHARED + SHARED_MAX),
    ];
    let whole = (address | bytes).is_multiple_of(PAGE_SIZE) && bytes > 0;
    whole && windows.iter().any(|&(from, to)| address >= from && end <= to)
}

const _: () = assert!(BELL > DOORBELL && DOORBELL + PAGE_SIZE <= RESUME && RESUME + RESUME_BYTES <= ORDERS);
const _: () = assert!(ORDERS + ORDERS_BYTES <= CODE && CODE + CODE_BYTES <= VDSO && VDSO + PAGE_SIZE <= CONTROL);
const _: () = assert!(CONTEXT_XSAVE + CONTEXT_XSAVE_BYTES == ORDERS + ORDERS_BYTES);
const _: () = assert!(INBOX + INBOX_MAX + PAGE_SIZE <= FRAMES && FRAMES + FRAMES_BYTES <= SCRIPT);
const _: () = assert!(SCRIPT + SCRIPT_BYTES <= SHARED && SHARED + SHARED_MAX <= TOP);
