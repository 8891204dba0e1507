// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much of the program's address space is present.

use mayfly_machine::layout::{USER_END, USER_MIN};

use crate::machine::machine::Machine;
use mayfly_memory::tables::Residency;

/// Counting the pages of this many last-level tables (2 GiB without gaps) takes some hundred microseconds.
const TABLES_AT_ONCE: u64 = 1024;

impl Machine {
    /// The present pages of a range; `None` if counting them would take more than some hundred microseconds, and the
    /// thread may not block.
    #[must_use]
    pub fn residency(&self, address: u64, len: u64, may_block: bool) -> Option<Residency> {
        let (start, end) = (address.max(USER_MIN), address.saturating_add(len).min(USER_END));
        let tables = if may_block { u64::MAX } else { TABLES_AT_ONCE };
        self.tables.residency(&self.memory, start, end, tables)
    }
}
