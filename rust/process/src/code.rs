// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host code: what the stub's one executable page of the engine holds, and where in it system calls are made.

use std::sync::OnceLock;

use mayfly_machine::layout::{CONTROL, DOORBELL_ENTRY_OFFSET, PAGE_SIZE};

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

/// A ring's answer: enter the trampoline.
pub(crate) const ANSWER_REWIND: i64 = 1;
/// Make the ordered calls. Every other answer is the address of a context to restore.
pub(crate) const ANSWER_ORDERS: i64 = 2;

/// The signal by which the server interrupts a stub.
pub const KICK: i32 = libc::SIGUSR1;
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
    bell = const layout::BELL,
    control = const CONTROL,
    control_rax = const layout::CONTROL_RAX,
    resume = const layout::RESUME,
    resume_words = const layout::RESUME_WORDS,
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
    static mayfly_process_bell: u8;
    static mayfly_process_bell_after: u8;
    static mayfly_process_bell_return: u8;
    static mayfly_process_bell_end: u8;
    static mayfly_process_handler: u8;
    static mayfly_process_born: u8;
    static mayfly_process_orders: u8;
    static mayfly_process_handler_after: u8;
    static mayfly_process_ring_after: u8;
    static mayfly_process_order_after: u8;
    static mayfly_process_order_done: u8;
    static mayfly_process_order_failed: u8;
    static mayfly_process_trampoline: u8;
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

/// The page at [`DOORBELL`](mayfly_machine::layout::DOORBELL), which is the program's memory: room for the sandbox's
/// header, then the doorbell's code.
///
/// ```
/// use mayfly_machine::layout::DOORBELL_ENTRY_OFFSET;
///
/// let page = mayfly_process::doorbell_page();
/// assert_eq!((page.len(), page[0]), (4096, 0));
/// assert_eq!(page[DOORBELL_ENTRY_OFFSET as usize], 0xb8); // mov
/// ```
#[must_use]
pub fn doorbell_page() -> Vec<u8> {
    // SAFETY: as above.
    let bell = unsafe { between(&raw const mayfly_process_bell, &raw const mayfly_process_bell_end) };
    let mut page = vec![0; DOORBELL_ENTRY_OFFSET as usize];
    page.extend(bell);
    page.resize(PAGE_SIZE as usize, 0xcc);
    page
}

/// Where a program that was frozen behind the doorbell's system call goes on: past the question whether to rewind.
/// Every other address stays what it is.
#[must_use]
pub fn frozen_rip(rip: u64) -> u64 {
    if rip == places().bell_after { places().bell_return } else { rip }
}

/// Addresses, in a stub, of instructions that the server tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Places {
    /// Behind the doorbell's system call.
    pub(crate) bell_after: u64,
    /// The doorbell's return, behind its question whether to rewind.
    pub(crate) bell_return: u64,
    /// The signal handler.
    pub(crate) handler: u64,
    /// Behind its system call.
    pub(crate) handler_after: u64,
    /// A stub's first instruction, behind what is left of the handler.
    pub(crate) born: u64,
    /// Where orders are read, behind what is done with every other answer to a ring.
    pub(crate) orders: u64,
    /// Behind the ring's.
    pub(crate) ring_after: u64,
    /// Behind an order's.
    pub(crate) order_after: u64,
    /// Where all orders have been compared with their results.
    pub(crate) order_done: u64,
    /// Where one had another.
    pub(crate) order_failed: u64,
    /// The trampoline, behind the orders.
    pub(crate) trampoline: u64,
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
        let in_bell = |symbol: *const u8| {
            // SAFETY: as above, of the doorbell's blob.
            layout::BELL + unsafe { symbol.offset_from_unsigned(&raw const mayfly_process_bell) } as u64
        };
        Places {
            bell_after: in_bell(&raw const mayfly_process_bell_after),
            bell_return: in_bell(&raw const mayfly_process_bell_return),
            handler: address(&raw const mayfly_process_handler),
            handler_after: address(&raw const mayfly_process_handler_after),
            born: address(&raw const mayfly_process_born),
            orders: address(&raw const mayfly_process_orders),
            ring_after: address(&raw const mayfly_process_ring_after),
            order_after: address(&raw const mayfly_process_order_after),
            order_done: address(&raw const mayfly_process_order_done),
            order_failed: address(&raw const mayfly_process_order_failed),
            trampoline: address(&raw const mayfly_process_trampoline),
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
        let page = doorbell_page();
        let bell = [0xb8, 0x6e, 0, 0, 0, 0x0f, 0x05];
        assert_eq!(page[DOORBELL_ENTRY_OFFSET as usize..][..7], bell);
        assert_eq!(places().bell_after, layout::BELL + 7);
        let after = (places().bell_return - layout::BELL + DOORBELL_ENTRY_OFFSET) as usize;
        assert_eq!(page[after..after + 2], [0xc3, 0xcc]);
        assert_eq!(frozen_rip(places().bell_after), places().bell_return);
        assert_eq!(frozen_rip(0x40_0000), 0x40_0000);
    }

    #[test]
    fn the_doorbells_code_is_linked_to_the_control_line_and_the_trampoline() {
        let page = doorbell_page();
        let at = (places().bell_after - layout::BELL + DOORBELL_ENTRY_OFFSET) as usize;
        let distance = |at: usize| i64::from(i32::from_le_bytes(page[at..at + 4].try_into().unwrap()));
        let behind = |bytes: usize| (places().bell_after + bytes as u64).cast_signed();
        assert_eq!(page[at..at + 2], [0x83, 0x3d], "cmpl $0, distance(%rip)");
        assert_eq!(behind(7) + distance(at + 2), CONTROL.cast_signed());
        assert_eq!(page[at + 7..at + 9], [0x0f, 0x85], "jne");
        assert_eq!(behind(13) + distance(at + 9), places().trampoline.cast_signed());
        assert_eq!(behind(13), places().bell_return.cast_signed());
    }

    #[test]
    fn system_calls_are_made_at_the_known_places_and_in_the_zygote_only() {
        let text = text();
        let behind_calls: Vec<u64> =
            (2..text.len()).filter(|&at| text[at - 2..at] == [0x0f, 0x05]).map(|at| layout::CODE + at as u64).collect();
        let Places { handler_after, ring_after, order_after, restorer, .. } = *places();
        let (known, zygote) = behind_calls.split_at(3);
        assert_eq!(known, [handler_after, ring_after, order_after]);
        assert!(zygote.len() == 2 && zygote.iter().all(|&at| at > restorer), "{zygote:x?}");
        let page = doorbell_page();
        let calls = (2..page.len()).filter(|&at| page[at - 2..at] == [0x0f, 0x05]).count();
        assert_eq!(calls, 1);
    }
}
