// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a machine has changed, for its reset to undo.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mayfly_machine::{MemoryError, PAGE_SIZE, Prot};

use mayfly_memory::files::Page;
use mayfly_memory::tables::Entry;

use crate::machine::aliases::Aliases;

/// The content of a work-set page when a request begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Birth {
    /// The image's content of the same frame.
    Image,
    /// Zeroes.
    Zero,
    /// The content of a file's frame.
    File { frame: u64, content: Arc<Page> },
}

/// A page of the work set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkPage {
    pub(crate) address: u64,
    pub(crate) frame: u64,
    pub(crate) prot: Prot,
    pub(crate) birth: Birth,
}

/// How many addresses a page table names: where shared files' pages lie is remembered so coarsely.
pub(crate) const TABLE_BYTES: u64 = 512 * PAGE_SIZE;
/// What a machine remembers of pages of files that are mapped shared.
#[derive(Debug, Default)]
pub(crate) struct SharedFilePages {
    /// The page tables that may name some: the first address of each.
    pub(crate) tables: HashSet<u64>,
    /// How many were mapped since all were removed.
    pub(crate) pages: u64,
    /// In how many runs of neighbours.
    pub(crate) runs: u64,
    /// How often the processor could not reach one since a leg began.
    pub(crate) losses: u32,
}

impl SharedFilePages {
    /// There may be a page at `address`.
    pub(crate) fn note(&mut self, address: u64) {
        self.tables.insert(address - address % TABLE_BYTES);
    }

    /// Whether that is known already.
    pub(crate) fn has_noted(&self, address: u64) -> bool {
        self.tables.contains(&(address - address % TABLE_BYTES))
    }
}

/// What a worker has changed since it was forked.
#[derive(Debug)]
pub(crate) struct Changes {
    /// At boot nothing is recorded: the snapshot will hold it all.
    pub(crate) recorded: bool,
    /// Sticky pages of the image, sticky zero pages, and sticky copies of files' pages.
    pub(crate) work: Vec<WorkPage>,
    /// How many of them are the image's.
    pub(crate) work_image_pages: u64,
    /// Table slot to the address that it is for and the entry that it had when the request began.
    pub(crate) undo: HashMap<u64, (u64, Entry)>,
    /// Frames allocated for the request.
    pub(crate) request_frames: Vec<u64>,
    /// Frames of the image that the request wrote and that are not in the work set. Table entries do not show these at
    /// the end: a page may have been written and then made inaccessible.
    pub(crate) request_image_frames: HashSet<u64>,
    /// Frames with more than one address.
    pub(crate) aliases: Aliases,
    /// Those of them that are in the work set.
    pub(crate) work_aliases: HashSet<u64>,
    /// Pages of files that are mapped shared.
    pub(crate) shared_files: SharedFilePages,
    pub(crate) limit_pages: u64,
    /// A buffer for frames to take back, kept for its allocation.
    pub(crate) scratch: Vec<u64>,
}

impl Changes {
    pub(crate) fn at_boot(limit_pages: u64) -> Self {
        Self {
            recorded: false,
            work: Vec::new(),
            work_image_pages: 0,
            undo: HashMap::new(),
            request_frames: Vec::new(),
            request_image_frames: HashSet::new(),
            aliases: Aliases::default(),
            work_aliases: HashSet::new(),
            shared_files: SharedFilePages::default(),
            limit_pages,
            scratch: Vec::new(),
        }
    }

    pub(crate) fn in_worker(limit_pages: u64, aliases: Aliases) -> Self {
        Self { recorded: true, aliases, ..Self::at_boot(limit_pages) }
    }

    pub(crate) fn limit(&self) -> MemoryError {
        MemoryError::Limit { limit_pages: self.limit_pages }
    }
}
