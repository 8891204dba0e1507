// SPDX-License-Identifier: MIT OR Apache-2.0
//! The address space: a program's mappings and their protections.
//!
//! ```text
//!  USER_END  +-----------------------+
//!            | stack                 |  VmaKind::Stack, of fixed size, touched on demand
//!            +-----------------------+
//!            | guard gap, 1 MiB      |  no mapping is placed here unasked
//!            +-----------------------+  mmap_top
//!            | mmap, downwards       |
//!            |          ...          |
//!            | heap (brk), upwards   |
//!            | program               |
//!  USER_MIN  +-----------------------+
//! ```
//!
//! This is bookkeeping only: it holds no page and touches no machine. Callers apply to the machine what an operation
//! returns. A page outside of all mappings is in no page table; a page in a mapping may be absent until it is touched.
//!
//! # Invariants
//!
//! Mappings are not empty, ascending, disjoint, inside the program's part of the address space, and maximal: no two
//! adjacent ones could be merged. Their number and their total size stay within the limits.
//!
//! A sorted vector rather than a tree: a reset copies it with one `memcpy` and no allocation, see decision 0041.

pub(crate) mod brk;
pub(crate) mod mapped;
pub(crate) mod overlay;
pub(crate) mod place;
pub(crate) mod remap;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mayfly_machine::{Origin, Prot, layout};
use serde::{Deserialize, Serialize};

use crate::base::errno::Errno;
use crate::base::ids::InodeId;
use crate::base::limits::Limits;
use crate::base::pages::PageRange;
use crate::mm::mapped_file::MappedFiles;
use crate::mm::placement::Placement;
use crate::mm::vma::{Vma, VmaKind};

/// Size of the gap below the stack; Linux's `stack_guard_gap`.
const STACK_GUARD: u64 = 1 << 20;

/// A program's mappings.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AddressSpace {
    mappings: Vec<Vma>,
    /// The mapped files. Clones share the table until one of them maps another file.
    files: Arc<MappedFiles>,
    /// Overlay files that are mapped.
    overlay_files: Vec<InodeId>,
    /// Sum of the mappings' sizes in bytes.
    bytes: u64,
    /// The heap's start and the current break.
    heap_start: u64,
    heap_break: u64,
    /// Upper end of the area for new mappings.
    mmap_top: u64,
    /// Origin of new and changed mappings: `Snapshot` while booting, `Request` from the freeze on.
    origin: Origin,
    max_mappings: usize,
    max_bytes: u64,
    /// How often the limit on mappings refused one since the last [`AddressSpace::take_refusals`]. Statistics: neither
    /// restored nor cloned.
    #[serde(skip)]
    refusals: AtomicU32,
}

impl Clone for AddressSpace {
    fn clone(&self) -> Self {
        Self {
            mappings: self.mappings.clone(),
            files: Arc::clone(&self.files),
            overlay_files: self.overlay_files.clone(),
            refusals: AtomicU32::new(0),
            ..*self
        }
    }

    /// Does not allocate if the mappings fit the old allocation.
    fn clone_from(&mut self, source: &Self) {
        let mut mappings = std::mem::take(&mut self.mappings);
        mappings.clone_from(&source.mappings);
        let files = Arc::clone(&source.files);
        let mut overlay_files = std::mem::take(&mut self.overlay_files);
        overlay_files.clone_from(&source.overlay_files);
        *self = Self { mappings, files, overlay_files, refusals: AtomicU32::new(*self.refusals.get_mut()), ..*source };
    }
}

impl AddressSpace {
    /// An address space with only a stack of `stack_bytes`, rounded up to pages.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if the stack alone exceeds the limits or the address space.
    pub(crate) fn new(max_mappings: usize, max_bytes: u64, stack_bytes: u64, stack_prot: Prot) -> Result<Self, Errno> {
        let stack = crate::base::pages::align_up(stack_bytes)
            .and_then(|bytes| layout::USER_END.checked_sub(bytes))
            .and_then(|start| PageRange::new(start, layout::USER_END))
            .ok_or(Errno::ENOMEM)?;
        let mmap_top =
            stack.start().checked_sub(STACK_GUARD).filter(|&top| top > layout::USER_MIN).ok_or(Errno::ENOMEM)?;
        let mut space = Self {
            mappings: Vec::new(),
            files: Arc::default(),
            overlay_files: Vec::new(),
            bytes: 0,
            heap_start: layout::USER_MIN,
            heap_break: layout::USER_MIN,
            mmap_top,
            origin: Origin::Snapshot,
            max_mappings,
            max_bytes,
            refusals: AtomicU32::new(0),
        };
        space.map(Placement::FixedNoReplace(stack), stack.len(), stack_prot, VmaKind::Stack)?;
        Ok(space)
    }

    /// Whether a deserialised value keeps this type's invariants and the limits.
    pub(crate) fn is_sound(&self, limits: &Limits) -> bool {
        let ascend = self.mappings.is_sorted_by(|one, next| one.range.end() <= next.range.start());
        let size = self.mappings.iter().fold(0_u64, |sum, vma| sum.saturating_add(vma.range.len()));
        let is_within = |vma: &Vma| {
            let has_file = match vma.kind {
                VmaKind::File { file, .. } | VmaKind::Durable { file, .. } => self.mapped_file(file).is_some(),
                VmaKind::Overlay { inode, .. } => self.maps_overlay(inode),
                VmaKind::Private | VmaKind::Shared | VmaKind::Stack => true,
            };
            !vma.range.is_empty()
                && vma.range.start() >= layout::USER_MIN
                && vma.range.end() <= layout::USER_END
                && vma.origin == Origin::Snapshot
                && has_file
        };
        ascend
            && self.mappings.iter().all(is_within)
            && self.bytes == size
            && self.heap_start <= self.heap_break
            && [self.heap_start, self.heap_break, self.mmap_top].iter().all(|&at| at <= layout::USER_END)
            && self.origin == Origin::Request
            && (self.max_mappings, self.max_bytes) == (limits.mappings, limits.address_space_bytes)
    }

    /// How often the limit on mappings refused one since the last call.
    #[inline]
    pub(crate) fn take_refusals(&self) -> u32 {
        if self.refusals.load(Ordering::Relaxed) == 0 { 0 } else { self.refusals.swap(0, Ordering::Relaxed) }
    }

    /// Top of the stack.
    pub(crate) const fn stack_top() -> u64 {
        layout::USER_END
    }

    /// Marks all mappings as the snapshot's. Those made from now on are a request's.
    pub(crate) fn freeze(&mut self) {
        self.origin = Origin::Snapshot;
        let Some(all) = PageRange::new(layout::USER_MIN, layout::USER_END) else { return };
        // Merging cannot exceed a limit, so this cannot fail.
        let _ = self.rewrite(all, |vma| Some(Vma { origin: Origin::Snapshot, ..vma }), None);
        self.origin = Origin::Request;
    }

    /// The mapping that holds `address`.
    pub(crate) fn find(&self, address: u64) -> Option<&Vma> {
        let index = self.mappings.partition_point(|vma| vma.range.end() <= address);
        self.mappings.get(index).filter(|vma| vma.range.contains(address))
    }

    /// All mappings, ascending.
    pub(crate) fn all(&self) -> &[Vma] {
        &self.mappings
    }

    /// Sum of the mappings' sizes in bytes.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        self.bytes
    }

    /// From the heap's start to the break.
    pub(crate) fn heap(&self) -> Range<u64> {
        self.heap_start..self.heap_break
    }

    /// The parts of mappings that lie in `range`, ascending.
    pub(crate) fn within(&self, range: PageRange) -> impl Iterator<Item = Vma> + '_ {
        let overlapping = self.mappings.get(self.overlapping(range)).unwrap_or_default();
        overlapping.iter().filter_map(move |vma| Some(vma.covering(vma.range.intersection(range)?)))
    }

    /// The part of `range`, from its start, that is mapped without a gap.
    pub(crate) fn mapped_prefix(&self, range: PageRange) -> PageRange {
        let mut end = range.start();
        for vma in self.within(range) {
            if vma.range.start() != end {
                break;
            }
            end = vma.range.end();
        }
        range.before(end)
    }

    /// Maps `len` bytes, rounded up to pages, where `placement` says. For a `Fixed` placement, the returned range may
    /// hold pages of replaced mappings: the caller unmaps them first.
    pub(crate) fn map(
        &mut self,
        placement: Placement,
        len: u64,
        prot: Prot,
        kind: VmaKind,
    ) -> Result<PageRange, Errno> {
        let range = self.place(placement, len)?;
        let vma = Vma { range, prot, kind, origin: self.origin };
        self.rewrite(range, |_| None, Some(vma))?;
        Ok(range)
    }

    /// Whether the program has not been frozen yet.
    pub(crate) fn is_booting(&self) -> bool {
        self.origin == Origin::Snapshot
    }

    /// Removes the mappings in `range`. The caller unmaps the pages.
    pub(crate) fn unmap(&mut self, range: PageRange) -> Result<(), Errno> {
        self.rewrite(range, |_| None, None)
    }

    /// Changes the protection of the mappings in `range`, up to the first gap.
    ///
    /// Returns the part that was changed. It is shorter than `range` if there was a gap: Linux too changes what lies
    /// before one. The caller changes the pages of that part.
    pub(crate) fn protect(&mut self, range: PageRange, prot: Prot) -> Result<PageRange, Errno> {
        let mapped = self.mapped_prefix(range);
        let origin = self.origin;
        let change = |vma: Vma| Some(if vma.prot == prot { vma } else { Vma { prot, origin, ..vma } });
        self.rewrite(mapped, change, None)?;
        Ok(mapped)
    }

    /// Indices of the mappings that overlap `range`.
    fn overlapping(&self, range: PageRange) -> Range<usize> {
        if range.is_empty() {
            return 0..0;
        }
        let first = self.mappings.partition_point(|vma| vma.range.end() <= range.start());
        let past = self.mappings.partition_point(|vma| vma.range.start() < range.end());
        first..past.max(first)
    }

    /// All changes to mappings go through here. Splits them at the edges of `range`, replaces each part inside by the
    /// result of `inside`, inserts `added` (which lies inside `range`, where nothing remains), and merges.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if a limit would be exceeded; then nothing has changed. A change that lowers a figure never fails for
    /// it.
    fn rewrite(
        &mut self,
        range: PageRange,
        inside: impl Fn(Vma) -> Option<Vma>,
        added: Option<Vma>,
    ) -> Result<(), Errno> {
        if range.is_empty() {
            return Ok(());
        }
        let overlapping = match self.overlapping(range) {
            found if found.is_empty() => {
                let at = self.mappings.partition_point(|vma| vma.range.start() < range.start());
                at..at
            }
            found => found,
        };
        // Includes one neighbour on either side: a changed mapping may merge with it.
        let window = overlapping.start.saturating_sub(1)..overlapping.end.saturating_add(1).min(self.mappings.len());
        let old = self.mappings.get(window.clone()).unwrap_or_default();

        let mut new: Vec<Vma> = Vec::with_capacity(old.len().saturating_add(3));
        let mut push = |vma: Vma| match new.last_mut() {
            _ if vma.range.is_empty() => {}
            Some(last) if last.merges_with(&vma) => {
                // Adjacent ranges always make a range.
                last.range = PageRange::new(last.range.start(), vma.range.end()).unwrap_or(last.range);
            }
            _ => new.push(vma),
        };
        let mut added = added;
        for vma in old {
            push(vma.covering(vma.range.before(range.start())));
            if vma.range.end() > range.start()
                && let Some(vma) = added.take()
            {
                push(vma);
            }
            if let Some(middle) = vma.range.intersection(range)
                && let Some(vma) = inside(vma.covering(middle))
            {
                push(vma);
            }
            push(vma.covering(vma.range.after(range.end())));
        }
        if let Some(vma) = added {
            push(vma);
        }

        let size = |vmas: &[Vma]| vmas.iter().fold(0_u64, |sum, vma| sum.saturating_add(vma.range.len()));
        let bytes = self.bytes.saturating_sub(size(old)).saturating_add(size(&new));
        let count = self.mappings.len().saturating_sub(old.len()).saturating_add(new.len());
        if bytes > self.max_bytes && bytes > self.bytes {
            return Err(Errno::ENOMEM);
        }
        if count > self.max_mappings && count > self.mappings.len() {
            let refusals = self.refusals.get_mut();
            *refusals = refusals.saturating_add(1);
            return Err(Errno::ENOMEM);
        }
        self.bytes = bytes;
        self.mappings.splice(window, new);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
