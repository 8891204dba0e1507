// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host code: what the stub's one executable page of the engine holds, and where in it system calls are made.

use std::sync::OnceLock;

use crate::layout;

/// The system call of doorbell, handler and ring: the filters of container engines let it through, and it has no
/// effect should it ever be made.
pub(crate) const NR_BELL: i64 = libc::SYS_getppid;

/// A ring's first argument: the stub is there.
pub(crate) const OP_BORN: u64 = 1;
/// All orders were carried out.
pub(crate) const OP_DONE: u64 = 2;
/// An order had another result than expected.
pub(crate) const OP_FAILED: u64 = 3;

/// A ring's answer: go on with the context that was interrupted.
pub(crate) const ANSWER_RESTORE: i64 = 0;
/// Make the ordered calls. (1 is left for a rewind; every other answer is a context's address.)
pub(crate) const ANSWER_ORDERS: i64 = 2;

/// The signal by which the server interrupts a stub.
pub(crate) const KICK: i32 = libc::SIGUSR1;
/// Signals for which the handler rings.
pub(crate) const SIGNALS: [i32; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS, KICK];

/// Offsets in `ucontext_t` (Linux, `asm/sigcontext.h`): the general registers from R8 on, the address of the XSAVE
/// area, and the eight reserved words behind it.
pub(crate) const UC_REGS: u64 = 40;
pub(crate) const UC_XSAVE: u64 = 224;
pub(crate) const UC_RESERVED: u64 = 232;
/// Bytes of the kernel's `ucontext_t`: up to the signal mask, its last word.
pub(crate) const UC_BYTES: u64 = 304;

core::arch::global_asm!(
    include_str!("code.S"),
    bell_offset = const layout::BELL_OFFSET,
    nr_bell = const NR_BELL,
    nr_mmap = const libc::SYS_mmap,
    nr_exit_group = const libc::SYS_exit_group,
    op_born = const OP_BORN,
    op_done = const OP_DONE,
    op_failed = const OP_FAILED,
    answer_orders = const ANSWER_ORDERS,
    uc_regs = const UC_REGS,
    uc_xsave = const UC_XSAVE,
    uc_reserved = const UC_RESERVED,
    orders = const layout::ORDERS,
    script = const layout::SCRIPT,
    script_bytes = const layout::SCRIPT_BYTES,
    code = const layout::CODE,
    code_bytes = const layout::CODE_BYTES,
    options(att_syntax)
);

unsafe extern "C" {
    static mayfly_process_start: u8;
    static mayfly_process_end: u8;
    static mayfly_process_bell_after: u8;
    static mayfly_process_handler: u8;
    static mayfly_process_handler_after: u8;
    static mayfly_process_ring_after: u8;
    static mayfly_process_order_after: u8;
    static mayfly_process_restorer: u8;
    static mayfly_process_bootstrap_start: u8;
    static mayfly_process_bootstrap_end: u8;
}

/// The bytes from one symbol of code.S to another.
///
/// # Safety
///
/// Both lie in one section that nothing writes to, the end behind the start.
unsafe fn between(start: *const u8, end: *const u8) -> &'static [u8] {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

/// The host code, shorter than its page.
pub(crate) fn text() -> &'static [u8] {
    // SAFETY: code.S defines both symbols in its read-only section, in this order.
    unsafe { between(&raw const mayfly_process_start, &raw const mayfly_process_end) }
}

/// The first program of a zygote.
pub(crate) fn bootstrap() -> &'static [u8] {
    // SAFETY: as above.
    unsafe { between(&raw const mayfly_process_bootstrap_start, &raw const mayfly_process_bootstrap_end) }
}

/// Addresses, in a stub, of instructions that the server tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Places {
    /// Behind the doorbell's system call.
    pub(crate) bell_after: u64,
    /// The signal handler.
    pub(crate) handler: u64,
    /// Behind its system call.
    pub(crate) handler_after: u64,
    /// Behind the ring's.
    pub(crate) ring_after: u64,
    /// Behind an order's.
    pub(crate) order_after: u64,
    /// Where handlers would return to.
    pub(crate) restorer: u64,
}

/// The addresses.
pub(crate) fn places() -> &'static Places {
    static PLACES: OnceLock<Places> = OnceLock::new();
    PLACES.get_or_init(|| {
        let address = |symbol: *const u8| {
            // SAFETY: the symbols lie in one blob, none of them before its start.
            layout::CODE + unsafe { symbol.offset_from_unsigned(&raw const mayfly_process_start) } as u64
        };
        Places {
            bell_after: address(&raw const mayfly_process_bell_after),
            handler: address(&raw const mayfly_process_handler),
            handler_after: address(&raw const mayfly_process_handler_after),
            ring_after: address(&raw const mayfly_process_ring_after),
            order_after: address(&raw const mayfly_process_order_after),
            restorer: address(&raw const mayfly_process_restorer),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_code_fits_its_page_and_the_doorbell_is_where_the_layout_says() {
        let text = text();
        assert!(text.len() as u64 <= layout::CODE_BYTES, "{} bytes", text.len());
        // mov $110, %eax; syscall
        let bell = [0xb8, 0x6e, 0, 0, 0, 0x0f, 0x05];
        assert_eq!(text[layout::BELL_OFFSET as usize..][..7], bell);
        assert_eq!(places().bell_after, layout::CODE + layout::BELL_OFFSET + 7);
    }

    #[test]
    fn system_calls_are_made_at_the_known_places_and_in_the_zygote_only() {
        let text = text();
        let behind_calls: Vec<u64> =
            (2..text.len()).filter(|&at| text[at - 2..at] == [0x0f, 0x05]).map(|at| layout::CODE + at as u64).collect();
        let Places { bell_after, handler_after, ring_after, order_after, restorer, .. } = *places();
        let (known, zygote) = behind_calls.split_at(4);
        assert_eq!(known, [bell_after, handler_after, ring_after, order_after]);
        assert!(zygote.len() == 2 && zygote.iter().all(|&at| at > restorer), "{zygote:x?}");
    }
}
