// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sealing a boot's memory with its frames in the order of their addresses.
//!
//! A boot's frames are in the order in which the program first touched its pages. A process that maps an image needs a
//! mapping for each run of pages with frames in a row: in the order of addresses these are as few as they can be.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use mayfly_machine::{FreezeError, PAGE_SIZE};

use crate::layout::PAGE;
use crate::memory::Memory;
use crate::sealed::{SealedMemory, memfd};
use crate::tables::{Tables, renumber};
use crate::take_back::Content;

/// Pages after which their originals are given back.
const BATCH: usize = 256;

/// A sealed image whose frames have new numbers.
#[derive(Debug)]
pub struct Ordered {
    /// The image.
    pub memory: SealedMemory,
    /// Its tables.
    pub tables: Tables,
    number: HashMap<u64, u64>,
}

impl Ordered {
    /// The new number of a frame that the tables name.
    #[must_use]
    pub fn number(&self, frame: u64) -> Option<u64> {
        self.number.get(&frame).copied()
    }
}

impl Memory {
    /// As [`Memory::seal`], with the frames in the order of the addresses where `tables` have them, and no others.
    ///
    /// # Errors
    ///
    /// As for [`Memory::seal`].
    pub fn seal_in_order(mut self, tables: Tables) -> Result<Ordered, FreezeError> {
        let frames = tables.frames(&self);
        let count = frames.len() as u64;
        let sorted = memfd(count * PAGE_SIZE, self.reach()).map_err(FreezeError::image("memfd_create"))?;
        let number: HashMap<u64, u64> = frames.iter().map(|(frame, _)| *frame).zip(0..).collect();
        let out = File::from(sorted);
        let (mut page, mut copied) = ([0; PAGE], Vec::with_capacity(BATCH));
        for ((frame, level), at) in frames.iter().zip((0..).step_by(PAGE)) {
            self.slice(frame * PAGE_SIZE, PAGE).copy_to(&mut page[..]);
            if let Some(level) = level {
                renumber(&mut page, *level, &number);
            }
            // Zeroes stay a hole.
            if page.iter().any(|byte| *byte != 0) {
                out.write_all_at(&page, at).map_err(FreezeError::image("pwrite"))?;
            }
            // Given back as it goes: at no time are there two of all of it.
            copied.push(*frame);
            if copied.len() == BATCH {
                let given = self.take_back(&mut copied, Content::Drop);
                given.map_err(|error| FreezeError::State(error.to_string()))?;
                copied.clear();
            }
        }
        let root = number.get(&(tables.cr3() / PAGE_SIZE)).copied().unwrap_or(0);
        let (shared, files, hold) = self.into_kept();
        let memory = SealedMemory::seal(out.into(), count, shared, files, hold)?;
        Ok(Ordered { memory, tables: Tables::at(root * PAGE_SIZE), number })
    }
}
