// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where Mayfly's own pages lie in a machine on KVM, in addition to those of [`mayfly_machine::layout`], which has the
//! map: the trampoline and the guest kernel.

use mayfly_machine::PAGE_SIZE;
use mayfly_machine::layout::{DOORBELL, INBOX, MAYFLY_BASE, VDSO, is_own_code};

/// A worker's first instructions.
pub(crate) const TRAMPOLINE: u64 = DOORBELL + TRAMPOLINE_OFFSET;
/// Offset of the trampoline in the doorbell page; the same in kernel.h.
pub(crate) const TRAMPOLINE_OFFSET: u64 = 0x140;
pub(crate) const SYSCALL: u64 = MAYFLY_BASE + 0x4000;
pub(crate) const EXCEPTIONS: u64 = MAYFLY_BASE + 0x5000;
pub(crate) const TABLES: u64 = MAYFLY_BASE + 0x6000;
pub(crate) const TSS: u64 = MAYFLY_BASE + 0x7000;
pub(crate) const STACK: u64 = MAYFLY_BASE + 0x8000;
pub(crate) const STACK_TOP: u64 = STACK + PAGE_SIZE;

const _: () = assert!(is_own_code(DOORBELL) && is_own_code(STACK_TOP - 1) && !is_own_code(VDSO) && !is_own_code(INBOX));

/// I/O ports: see kernel.h.
pub(crate) const PORT_EXCEPTION: u16 = 0xa0;
pub(crate) const PORT_DOORBELL: u16 = 0xd0;
pub(crate) const PORT_SYSCALL: u16 = 0xd1;
