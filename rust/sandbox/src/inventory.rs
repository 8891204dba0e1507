// SPDX-License-Identifier: MIT OR Apache-2.0
//! The inventory of all state that a request can change, and what restores each entry.
//!
//! A test (`tests/inventory.rs`) walks this table: it has a program dirty the entry, resets the worker, and compares
//! what the next request finds with what it finds in a fresh fork. The program (`tenants/faults`) keeps the same list;
//! the test holds the two against each other, so an entry cannot be in one only. State that no mechanism here restores
//! must not be offered to programs. The one exception is state that a tenant's configuration keeps: [`KEPT`].

/// What restores an entry of the inventory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoredBy {
    /// The page's content is copied back from the image, or zeroed.
    PageCopy,
    /// The page-table entry is put back from the undo log, and cached translations are invalidated.
    TableUndo,
    /// The personality's record of the process is put back from the snapshot's.
    Process,
    /// The trampoline restores it before the program's first instruction.
    Trampoline,
    /// The host overwrites it with every request, and clears what the last one left.
    InboxWrite,
    /// The host sets its word in front of the inbox again.
    Control,
    /// The vCPU is made as it was at the fork.
    StartOver,
    /// The host forgets it with the request.
    Forgotten,
}

/// One kind of state.
#[derive(Debug, Clone, Copy)]
pub struct Item {
    /// Name; the test program's too.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// What restores it; the first mechanism must work, the others help.
    pub restored_by: &'static [RestoredBy],
}

const fn item(name: &'static str, what: &'static str, restored_by: &'static [RestoredBy]) -> Item {
    Item { name, what, restored_by }
}

use RestoredBy::{Control, Forgotten, InboxWrite, PageCopy, Process, StartOver, TableUndo, Trampoline};

/// What a request can change and no reset restores, on purpose.
pub const KEPT: &[Item] = &[
    item("shared-memory", "memory that the program's workers share by its configuration", &[]),
    item("durable-file", "a file of a durable mount, written by a call or by a shared mapping", &[]),
];

/// What a request can leave in addition if it is given up while it is paused, at any instruction. A worker whose
/// request ended with its response cannot have these, and the test program cannot show them: `tests/pauses.rs` gives
/// requests up at instructions of all kinds, and compares.
pub const GIVEN_UP: &[Item] = &[
    item("privilege", "the vCPU at CPL 0, on its way to an exit", &[StartOver]),
    item("events", "an exception about to be delivered", &[StartOver]),
    item("instruction", "an instruction that the host has to complete", &[StartOver]),
    item("exception-frame", "a frame on the guest kernel's stack", &[PageCopy]),
    item("call", "a call of a storage program that has no result yet", &[Forgotten]),
    item("time", "CPU and wall-clock time used", &[Forgotten]),
];

/// All state that a request can change.
pub const INVENTORY: &[Item] = &[
    item("data", "initialised data", &[PageCopy]),
    item("bss", "zero-initialised data", &[PageCopy]),
    item("tls", "thread-local storage", &[PageCopy]),
    item("heap", "a block of the heap", &[PageCopy]),
    item("malloc", "the allocator's bookkeeping", &[PageCopy, Process]),
    item("stack", "a page of the stack that the boot left alone", &[PageCopy]),
    item("page-write", "a private anonymous page", &[PageCopy]),
    item("page-unmap", "a page of the snapshot, unmapped", &[TableUndo, Process]),
    item("page-protect-read", "a writable page, made read-only", &[TableUndo, Process]),
    item("page-protect-none", "a page, made inaccessible", &[TableUndo, Process]),
    item("page-make-writable", "a read-only page, made writable and written", &[TableUndo, Process]),
    item("page-replace", "a page, mapped over", &[TableUndo, Process]),
    item("page-discard", "a page, given back by MADV_DONTNEED", &[TableUndo]),
    item("page-move", "a page, moved by mremap", &[TableUndo, Process]),
    item("map-new", "a mapping at a chosen address", &[TableUndo, Process]),
    item("map-anywhere", "where the next mapping goes", &[Process]),
    item("break-grow", "the program break, raised", &[Process]),
    item("break-shrink", "the program break, lowered", &[Process, TableUndo]),
    item("break-content", "pages of the break, dropped and taken again", &[TableUndo, Process]),
    item("inbox-tail", "what a longer request left behind the present one", &[InboxWrite]),
    item("doorbell-mode", "that the doorbell returns, after a wrong ring or a call of a storage program", &[Control]),
    item("fd-close", "a descriptor, closed", &[Process]),
    item("fd-dup", "a descriptor, made", &[Process]),
    item("file-offset", "an open file's position", &[Process]),
    item("file-content", "a file in the overlay, written", &[Process]),
    item("file-made", "a file in the overlay, made", &[Process]),
    item("file-removed", "a file of the snapshot, removed", &[Process]),
    item("file-lock", "a lock of an open file, on the whole file", &[Process]),
    item("range-lock", "a lock of an open file, on a part of the file", &[Process]),
    item("directory-time", "the time of a directory whose entries have changed", &[Process]),
    item("socket-file", "the name of a Unix socket", &[Process]),
    item("datagram", "a message in the queue of a datagram socket", &[Process]),
    item("fifo", "a FIFO, made", &[Process]),
    item("shared-file", "a file in /dev/shm", &[Process]),
    item("io-figures", "bytes read and written, as /proc/self/io says", &[Process]),
    item("peak-memory", "the largest resident size, as the program was told", &[Process]),
    item("file-view", "a page that two mappings of a file share, written", &[PageCopy]),
    item("file-punched", "a page of a mapped file, given back", &[TableUndo, Process]),
    item("signal-handler", "a signal's action", &[Process]),
    item("signal-mask", "the signal mask", &[Process]),
    item("signal-pending", "a blocked signal that waits", &[Process]),
    item("signal-stack", "the alternate signal stack", &[Process]),
    item("umask", "the file mode mask", &[Process]),
    item("limit", "a resource limit", &[Process]),
    item("thread-name", "the thread's name", &[Process]),
    item("directory", "the working directory", &[Process]),
    item("alarm", "the alarm", &[Process]),
    item("timer", "a timer of timer_create", &[Process]),
    item("timer-cpu", "a timer of CPU time", &[Process]),
    item("cpu-general", "general registers", &[Trampoline]),
    item("cpu-stack", "the stack pointer", &[Trampoline]),
    item("cpu-flags", "flags: arithmetic, direction, alignment check, ID", &[Trampoline]),
    item("cpu-data-seg", "DS and ES selectors", &[Trampoline]),
    item("cpu-thread-seg", "FS and GS selectors", &[Trampoline]),
    item("cpu-fs-base", "FS base, by wrfsbase", &[Trampoline]),
    item("cpu-fs-base-call", "FS base, by arch_prctl", &[Trampoline]),
    item("cpu-gs-base", "GS base, by wrgsbase", &[Trampoline]),
    item("cpu-gs-base-call", "GS base, by arch_prctl", &[Trampoline]),
    item("cpu-x87", "x87 registers, control and status word", &[Trampoline]),
    item("cpu-x87-pointers", "x87 instruction and data pointers, opcode", &[Trampoline]),
    item("cpu-mxcsr", "MXCSR", &[Trampoline]),
    item("cpu-sse", "XMM registers", &[Trampoline]),
    item("cpu-avx", "upper halves of YMM registers", &[Trampoline]),
    item("cpu-avx512", "ZMM and mask registers", &[Trampoline]),
];
