// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where memory that is not the machine's own lies among its guest-physical addresses, and how processors reach it.

use mayfly_machine::PAGE_SIZE;
use mayfly_machine::layout::SHARED_MAX;

/// Size of a page.
pub const PAGE: usize = PAGE_SIZE as usize;
/// Guest-physical address of shared memory: above all frames of a machine that has any, and below the 36 bits that
/// CPUID tells guests.
pub const SHARED_PHYSICAL: u64 = 1 << 35;
/// Guest-physical address of files' pages: above shared memory, and below the 36 bits.
pub const FILES_PHYSICAL: u64 = SHARED_PHYSICAL + 2 * SHARED_MAX;
/// Most bytes of files that a machine maps from the page cache; the rest is copied.
pub const FILES_MAX: u64 = 8 << 30;
/// Guest-physical address of the pages of files that are mapped shared: above the other files' pages, and below the 36
/// bits.
pub const SHARED_FILES_PHYSICAL: u64 = FILES_PHYSICAL + FILES_MAX;
/// Most bytes of files that a machine has mapped shared at a time, in whole windows.
pub const SHARED_FILES_MAX: u64 = 4 << 30;

/// How a processor reaches its machine's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Through the host's mapping: a virtual machine.
    Mapping,
    /// Through mappings of its own of the same files: another process.
    Files,
}
