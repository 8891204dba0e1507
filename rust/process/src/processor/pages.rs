// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pages that a stub has mapped: a part of what its machine's page tables allow, as a processor's TLB is.
//!
//! # Invariants
//!
//! - A stub has no mapping that its tables do not allow, whenever it runs: what loses access or changes its frame is
//!   noted ([`Stale`]), and brought up to date by orders before the next run.
//! - What gains access is mapped when the stub faults on it, or with others.

use std::os::fd::BorrowedFd;

use mayfly_machine::layout::{PAGE_SIZE, USER_END, USER_MIN, page_floor};
use mayfly_machine::{FileKey, MemoryError, PageFaultCode, Prot};
use mayfly_memory::memory::Memory;
use mayfly_memory::tables::{Entry, Tables};

use crate::ring::order::{IMAGE, MEMORY, Order, PASSING};

/// How many pages around a fault are mapped with it, on either side, if they are neighbours in memory, too: one look at
/// the tables takes some ten nanoseconds, a fault 20,000.
const AROUND: u64 = 256;

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

    /// Hands out all of them, as parts that one order each brings up to date.
    pub(crate) fn take(&mut self, memory: &Memory, tables: Tables) -> Vec<Part> {
        self.0.sort_unstable();
        self.0.dedup();
        let mut parts: Vec<Part> = Vec::new();
        for address in self.0.drain(..).filter(|address| (USER_MIN..USER_END).contains(address)) {
            let part = Part::at(memory, tables, address);
            match parts.last_mut() {
                Some(last) if last.is_followed_by(&part) => last.pages += 1,
                _ => parts.push(part),
            }
        }
        parts
    }
}

/// What lies behind pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    /// Nothing that the program may reach.
    Nothing,
    /// Zeroes, which the kernel has for everyone who only reads.
    Zeroes,
    /// The machine's own file, from this page on.
    Own(u64),
    /// The image.
    Image(u64),
    /// A file.
    File(FileKey, u64),
    /// A file that is written through the mapping.
    SharedFile(FileKey, u64),
}

impl Behind {
    /// What lies behind the page that is `pages` further.
    fn further(self, pages: u64) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Zeroes => Self::Zeroes,
            Self::Own(page) => Self::Own(page + pages),
            Self::Image(page) => Self::Image(page + pages),
            Self::File(key, page) => Self::File(key, page + pages),
            Self::SharedFile(key, page) => Self::SharedFile(key, page + pages),
        }
    }
}

/// Pages in a row that one order maps, or unmaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    address: u64,
    pages: u64,
    prot: Prot,
    behind: Behind,
    /// The frame, by which a file is found.
    frame: u64,
}

impl Part {
    /// The page at `address`, as the tables have it.
    fn at(memory: &Memory, tables: Tables, address: u64) -> Self {
        let entry = tables.entry(memory, address);
        let frame = entry.frame().filter(|_| entry.is_user());
        let behind = match frame {
            None => Behind::Nothing,
            Some(frame) if memory.is_file(frame) => match memory.files().source(frame) {
                Some((key, _, page)) => Behind::File(key, page),
                None => Behind::Nothing,
            },
            Some(frame) if memory.is_shared_file(frame) => match memory.shared_files().source(frame) {
                Some((key, _, page)) => Behind::SharedFile(key, page),
                None => Behind::Nothing,
            },
            Some(frame) if frame >= memory.frames() => Behind::Nothing,
            Some(frame) if memory.is_zero_frame(frame) => Behind::Zeroes,
            Some(frame) if memory.owns(frame) => Behind::Own(frame),
            Some(frame) => Behind::Image(frame),
        };
        let prot = if behind == Behind::Nothing { Prot::NONE } else { entry.prot() };
        Self { address, pages: 1, prot, behind, frame: frame.unwrap_or(0) }
    }

    /// Whether one order can map both.
    fn is_followed_by(&self, next: &Self) -> bool {
        next.address == self.address + self.pages * PAGE_SIZE
            && next.prot == self.prot
            && next.behind == self.behind.further(self.pages)
    }

    /// The file that the order needs.
    pub(crate) fn file<'a>(&self, memory: &'a Memory) -> Option<BorrowedFd<'a>> {
        let source = match self.behind {
            Behind::File(..) => memory.files().source(self.frame),
            Behind::SharedFile(..) => memory.shared_files().source(self.frame),
            _ => None,
        };
        source.map(|(_, file, _)| file)
    }

    /// The order.
    pub(crate) fn order(&self) -> Result<Order, MemoryError> {
        let (address, bytes, prot) = (self.address, self.pages * PAGE_SIZE, self.prot);
        match self.behind {
            Behind::Nothing => Order::unmap(address, bytes),
            Behind::Zeroes => Order::map_zero(address, bytes, prot),
            Behind::Own(page) => Order::map_file(MEMORY, page * PAGE_SIZE, address, bytes, prot, true),
            Behind::Image(page) => Order::map_file(IMAGE, page * PAGE_SIZE, address, bytes, prot, false),
            Behind::File(_, page) => Order::map_file(PASSING, page * PAGE_SIZE, address, bytes, prot, false),
            Behind::SharedFile(_, page) => Order::map_file(PASSING, page * PAGE_SIZE, address, bytes, prot, true),
        }
    }
}

/// Whether the tables allow an access that has faulted.
pub(crate) fn allow(entry: Entry, code: PageFaultCode) -> bool {
    entry.is_user() && (!code.write() || entry.is_writable()) && (!code.fetch() || entry.is_executable())
}

/// The page at `address`, and neighbours that lie beside it in memory; `None` if there is no page.
pub(crate) fn around(memory: &Memory, tables: Tables, address: u64) -> Option<Part> {
    let mut all = Part::at(memory, tables, page_floor(address));
    if all.behind == Behind::Nothing || !(USER_MIN..USER_END).contains(&all.address) {
        return None;
    }
    for _ in 0..AROUND {
        let next = Part::at(memory, tables, all.address + all.pages * PAGE_SIZE);
        if !all.is_followed_by(&next) {
            break;
        }
        all.pages += 1;
    }
    for _ in 0..AROUND {
        let Some(address) = all.address.checked_sub(PAGE_SIZE).filter(|address| *address >= USER_MIN) else { break };
        let before = Part::at(memory, tables, address);
        if !before.is_followed_by(&all) {
            break;
        }
        all = Part { pages: all.pages + 1, ..before };
    }
    Some(all)
}
