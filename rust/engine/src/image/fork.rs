// SPDX-License-Identifier: MIT OR Apache-2.0
//! Forks workers from a frozen machine.

use std::sync::Arc;

use mayfly_machine::{CreateError, MemoryError, Origin, Prot};
use serde::{Deserialize, Serialize};

use crate::image::image::Image;
use crate::machine::changes::{Birth, Changes};
use crate::machine::frozen::Frozen;
use crate::machine::machine::Machine;
use crate::processor::Processor;
use mayfly_memory::layout::Reach;
use mayfly_memory::ledger::{Hold, Purpose};
use mayfly_memory::memory::Memory;
use mayfly_memory::translations::Translations;

/// A page that a worker has made private, as advice for the next fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Learned {
    address: u64,
    prot: u8,
    content: InitialContent,
}

/// What a page holds at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
enum InitialContent {
    Image,
    Zero,
    /// The content of this frame of a file.
    File(u64),
}

/// Pages that a worker has from the start: its control line, its stack, tables.
const FIRST_PAGES: u64 = 16;
/// A table with more room for changes than this is made smaller after the request.
pub(crate) const KEPT_CHANGES: usize = 16_384;
/// About how many pages need one more page table of the worker's own.
const PAGES_A_TABLE: u64 = 8;

/// The frames that a worker writes before its program runs, or is known to write.
fn first_writes(frozen: &Frozen, memory: &Memory, learned: &[Learned]) -> Vec<u64> {
    let mut frames = vec![frozen.inbox.first_frame];
    for page in learned {
        let (table, leaf) = frozen.tables.image_frames(memory, page.address);
        frames.extend(table.into_iter().chain(leaf.filter(|_| page.content == InitialContent::Image)));
    }
    frames
}

impl Machine {
    /// Forks a worker that may have up to `private_pages` pages of its own; `learned` ones are made private now.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if the kernel refuses.
    pub fn fork(image: &Image, private_pages: u64, learned: &[Learned]) -> Result<Self, CreateError> {
        let frozen = &image.frozen;
        let mut hold = Hold::new(image.host.account(), Purpose::Fork);
        // The pages that are known beforehand, and a table for every few of them.
        let known = FIRST_PAGES + learned.len() as u64;
        if !hold.cover_machine(image.host.reach()) || !hold.cover(hold.overhead() + known + known / PAGES_A_TABLE) {
            return Err(MemoryError::Full.into());
        }
        let mut memory = match image.host.reach() {
            Reach::Mapping => Memory::fork(&frozen.memory, private_pages, hold)?,
            Reach::Files => {
                let inbox = (frozen.inbox.first_frame, frozen.inbox.pages);
                Memory::fork_file(&frozen.memory, private_pages, inbox, hold)?
            }
        };
        memory.serve_requests();
        memory.populate(&mut first_writes(frozen, &memory, learned));
        let processor = Processor::fork(&image.host, &frozen.source, &memory, frozen.tables)?;
        let mut machine = Self {
            processor,
            memory,
            tables: frozen.tables,
            translations: Translations::new(),
            changes: Changes::in_worker(private_pages, frozen.aliases.clone()),
            host: image.host.clone(),
            inbox: frozen.inbox,
            inbox_used_pages: 0,
            host_pages: 0,
            frozen: Some(Arc::clone(frozen)),
            rewinds: false,
        };
        machine.write_control();
        for page in learned {
            machine.prepare(*page);
        }
        let mut own: Vec<u64> = machine.changes.work.iter().map(|page| page.address).collect();
        own.sort_unstable();
        machine.processor.start(&machine.memory, machine.tables, &own)?;
        machine.memory.close_file();
        machine.rewind();
        Ok(machine)
    }

    /// Makes a learned page private ahead of its first write. Advice only: a page that does not fit is left to the page
    /// fault.
    fn prepare(&mut self, page: Learned) {
        let Some(prot) = Prot::from_bits(page.prot.into()) else { return };
        let done = match page.content {
            InitialContent::Image => self.make_writable(page.address, Origin::Snapshot),
            InitialContent::Zero => self.map_zero(page.address, prot, Origin::Snapshot),
            InitialContent::File(frame) => self.prepare_file_copy(page.address, prot, frame),
        };
        if done.is_ok()
            && page.content == InitialContent::Zero
            && let Some(page) = self.changes.work.last()
        {
            self.memory.populate(&mut vec![page.frame]);
        }
    }

    /// Pages of the work set, as advice for the next fork.
    pub fn learned(&self) -> impl Iterator<Item = Learned> + '_ {
        self.changes.work.iter().map(|page| Learned {
            address: page.address,
            prot: page.prot.bits(),
            content: match page.birth {
                Birth::Image => InitialContent::Image,
                Birth::Zero => InitialContent::Zero,
                Birth::File { frame, .. } => InitialContent::File(frame),
            },
        })
    }

    /// Number of pages in the work set.
    #[inline]
    #[must_use]
    pub fn work_pages(&self) -> usize {
        self.changes.work.len()
    }
}
