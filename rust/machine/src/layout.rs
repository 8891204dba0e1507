// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where things lie in a machine's virtual address space.
//!
//! ```text
//! 0x0000_0000_0001_0000  USER_MIN      program: image, heap, mappings, stack
//! 0x0000_7fff_0000_0000  USER_END = MAYFLY_BASE
//!              + 0x1000  DOORBELL      user  r-x   header, doorbell entry, trampoline and what it restores
//!              + 0x4000  SYSCALL       r-x         LSTAR; user-readable only where `syscall` stays at CPL 3
//!              + 0x5000  EXCEPTIONS    super r-x
//!              + 0x6000  TABLES        super r--   GDT, IDT
//!              + 0x7000  TSS           super r--   TSS and I/O bitmap
//!              + 0x8000  STACK         super rw-   exception frames
//!              + 0x9000  VDSO          user  r-x   shared object whose functions tell the time
//!             + 0x10000  CONTROL       user  r--   64 bytes of the machine's own, the clocks among them
//!             + 0x10040  INBOX         user  r--   the request, written by the host only
//!         + 0x4000_0000  SHARED        user  rw-   memory that all machines of a program share, if it has any
//! ```
//!
//! The base is a multiple of 4 GiB. Should a program manage to leave 64-bit mode, then the truncated address of any
//! page above is below [`USER_MIN`], where nothing is ever mapped: the worker faults instead of running the program's
//! bytes as its own trampoline.

/// Size of a page in bytes; Mayfly uses no others.
pub const PAGE_SIZE: u64 = 4096;

/// Lowest address that a program may map: as Linux's default `vm.mmap_min_addr`.
pub const USER_MIN: u64 = 0x1_0000;

/// First address past what a program may map.
pub const USER_END: u64 = 0x7fff_0000_0000;

/// First address past the lower half of the address space: every user address lies below.
pub const LOWER_HALF_END: u64 = 1 << 47;

/// Start of the pages that Mayfly maps into every machine.
pub const MAYFLY_BASE: u64 = USER_END;

/// The page whose address a program finds in its auxiliary vector.
pub const DOORBELL: u64 = MAYFLY_BASE + 0x1000;

/// Offset of the doorbell's code in its page; the sandbox fills the bytes before it.
pub const DOORBELL_ENTRY_OFFSET: u64 = 0x100;

/// Address of the doorbell's entry.
pub const DOORBELL_ENTRY: u64 = DOORBELL + DOORBELL_ENTRY_OFFSET;

/// The vDSO's page, which programs find by `AT_SYSINFO_EHDR`.
pub const VDSO: u64 = MAYFLY_BASE + 0x9000;

/// The machine's own line in front of the inbox. Its first word says whether the doorbell rewinds; from byte 16 on it
/// is [`ClockLine`](crate::ClockLine)'s.
pub const CONTROL: u64 = MAYFLY_BASE + 0x1_0000;

/// Offset in that line of the value that a worker finds in RAX when it enters the frozen program.
pub const CONTROL_RAX: u64 = 8;

/// Bytes of that line.
pub const CONTROL_BYTES: u64 = 64;

/// Where the inbox starts, 64-byte aligned; its size is chosen at boot.
pub const INBOX: u64 = CONTROL + CONTROL_BYTES;

/// Most bytes an inbox may have: small enough to end below the next 4 GiB.
pub const INBOX_MAX: u64 = 64 << 20;

/// Where shared memory starts; above [`USER_END`], so that no program can unmap or protect it, or map over it.
pub const SHARED: u64 = MAYFLY_BASE + 0x4000_0000;

/// Most bytes of shared memory. Every machine pays for a region with KVM's bookkeeping (a fork takes half as long again
/// for this much), and every image with page tables of 1/512 of its size.
pub const SHARED_MAX: u64 = 1 << 30;

const _: () = assert!(INBOX + INBOX_MAX < SHARED && SHARED + SHARED_MAX < LOWER_HALF_END);

/// Rounds up to whole pages; `None` if that does not fit in 64 bits.
#[must_use]
pub const fn page_ceil(bytes: u64) -> Option<u64> {
    match bytes.checked_add(PAGE_SIZE - 1) {
        Some(sum) => Some(sum & !(PAGE_SIZE - 1)),
        None => None,
    }
}

/// Rounds down to a page's start.
#[must_use]
pub const fn page_floor(address: u64) -> u64 {
    address & !(PAGE_SIZE - 1)
}

/// Whether a program may be made to go on at this address: in its own part of the address space, or in the pages that
/// Mayfly gives it.
#[must_use]
pub const fn is_program_address(address: u64) -> bool {
    address < USER_END + INBOX_MAX
}

/// Whether Mayfly's own code lies at this address, or tables of the guest kernel: pages through which requests come and
/// go, and whose registers may be another request's. The vDSO is not one of them: it runs for its caller only, as on
/// Linux.
#[must_use]
pub const fn is_own_code(address: u64) -> bool {
    MAYFLY_BASE <= address && address < VDSO
}
