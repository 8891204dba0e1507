// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pages that a stub has mapped: a part of what its machine's page tables allow, as a processor's TLB is.
//!
//! # Invariants
//!
//! - A stub has no mapping that its tables do not allow, whenever it runs: what loses access or changes its frame is
//!   noted ([`Stale`]), and brought up to date by orders before the next run.
//! - What gains access is mapped when the stub faults on it, or with others.

use mayfly_machine::layout::{PAGE_SIZE, USER_END, USER_MIN, page_floor};
use mayfly_machine::{MemoryError, PageFaultCode};
use mayfly_memory::memory::Memory;
use mayfly_memory::tables::{Entry, Run, Tables};

use crate::ring::order::Order;

/// A stub's descriptors for its orders.
const MEMORY: u32 = 0;
const IMAGE: u32 = 1;
/// How many pages around a fault are mapped with it, on either side, if they are neighbours in memory, too.
const AROUND: u64 = 16;

/// Pages whose mappings are out of date.
#[derive(Debug, Default)]
pub(crate) struct Stale(Vec<u64>);

impl Stale {
    /// The mapping of the page at `address` is.
    #[inline]
    pub(crate) fn add(&mut self, address: u64) {
        self.0.push(address);
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The orders that bring all of them up to date; none are out of date afterwards.
    pub(crate) fn orders(&mut self, memory: &Memory, tables: Tables) -> Result<Vec<Order>, MemoryError> {
        self.0.sort_unstable();
        self.0.dedup();
        let mut orders = Vec::new();
        let mut open: Option<Run> = None;
        for address in self.0.drain(..) {
            if !(USER_MIN..USER_END).contains(&address) {
                continue;
            }
            let run = run(memory, tables.entry(memory, address), address);
            match &mut open {
                Some(before) if continues(memory, before, &run) => before.pages += 1,
                _ => {
                    if let Some(done) = open.replace(run) {
                        orders.push(order(memory, &done)?);
                    }
                }
            }
        }
        if let Some(done) = open {
            orders.push(order(memory, &done)?);
        }
        Ok(orders)
    }
}

/// No frame.
const NONE: u64 = u64::MAX;

/// The page as a run of one; without a frame if the program has no access to it.
fn run(memory: &Memory, entry: Entry, address: u64) -> Run {
    match entry.frame().filter(|frame| entry.is_user() && *frame < memory.frames()) {
        Some(frame) => Run { address, frame, pages: 1, prot: entry.prot() },
        None => Run { address, frame: NONE, pages: 1, prot: mayfly_machine::Prot::NONE },
    }
}

/// Whether one order can map both.
fn continues(memory: &Memory, before: &Run, next: &Run) -> bool {
    let follows = next.address == before.address + before.pages * PAGE_SIZE;
    let same = match (before.frame, next.frame) {
        (NONE, NONE) => true,
        (NONE, _) | (_, NONE) => false,
        (first, frame) => {
            frame == first + before.pages && next.prot == before.prot && memory.owns(first) == memory.owns(frame)
        }
    };
    follows && same
}

/// The order that maps a run, or unmaps it.
pub(crate) fn order(memory: &Memory, run: &Run) -> Result<Order, MemoryError> {
    let bytes = run.pages * PAGE_SIZE;
    match run.frame {
        NONE => Order::unmap(run.address, bytes),
        frame => {
            let (file, shared) = if memory.owns(frame) { (MEMORY, true) } else { (IMAGE, false) };
            Order::map_file(file, frame * PAGE_SIZE, run.address, bytes, run.prot, shared)
        }
    }
}

/// Whether the tables allow an access that has faulted.
pub(crate) fn allow(entry: Entry, code: PageFaultCode) -> bool {
    entry.is_user()
        && (!code.write() || entry.is_writable())
        && (!code.fetch() || entry.is_executable())
}

/// The order that maps the page at `address`, and neighbours that lie beside it in memory; `None` if there is no page.
pub(crate) fn fill(memory: &Memory, tables: Tables, address: u64) -> Result<Option<Order>, MemoryError> {
    let page = page_floor(address);
    let at = |address| run(memory, tables.entry(memory, address), address);
    let mut all = at(page);
    if all.frame == NONE || !(USER_MIN..USER_END).contains(&page) {
        return Ok(None);
    }
    for _ in 0..AROUND {
        let next = at(all.address + all.pages * PAGE_SIZE);
        if !continues(memory, &all, &next) {
            break;
        }
        all.pages += 1;
    }
    for _ in 0..AROUND {
        let Some(address) = all.address.checked_sub(PAGE_SIZE).filter(|address| *address >= USER_MIN) else { break };
        let before = at(address);
        if before.frame == NONE || !continues(memory, &before, &Run { pages: 1, ..all }) {
            break;
        }
        all = Run { pages: all.pages + 1, ..before };
    }
    order(memory, &all).map(Some)
}
