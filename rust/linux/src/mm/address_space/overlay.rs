// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mappings of files that the program has written.

use mayfly_machine::layout::{USER_END, USER_MIN};
use mayfly_machine::{PAGE_SIZE, Prot};

use super::AddressSpace;
use crate::base::errno::Errno;
use crate::base::ids::InodeId;
use crate::base::pages::PageRange;
use crate::mm::placement::Placement;
use crate::mm::vma::{FileId, Vma, VmaKind};

impl AddressSpace {
    /// Maps `len` bytes of an overlay file from `offset` on, as [`AddressSpace::map`] does.
    pub(crate) fn map_overlay(
        &mut self,
        placement: Placement,
        len: u64,
        prot: Prot,
        (inode, offset): (InodeId, u64),
        shared: bool,
        writable: bool,
    ) -> Result<PageRange, Errno> {
        let range = self.map(placement, len, prot, VmaKind::Overlay { inode, offset, shared, writable })?;
        if !self.maps_overlay(inode) {
            self.overlay_files.push(inode);
        }
        Ok(range)
    }

    /// Where the page at `offset` of an overlay file lies in shared mappings.
    pub(crate) fn views(&self, id: InodeId, offset: u64) -> impl Iterator<Item = u64> + '_ {
        self.mappings.iter().filter_map(move |vma| match vma.kind {
            VmaKind::Overlay { inode, offset: first, shared: true, .. } if inode == id => {
                let at = vma.range.start().saturating_add(offset.checked_sub(first)?);
                vma.range.contains(at).then_some(at)
            }
            _ => None,
        })
    }

    /// The mappings of pages of an overlay file that hold bytes `offset..end`: for each the part, and the offset where it
    /// starts.
    pub(crate) fn overlay_parts(&self, id: InodeId, offset: u64, end: u64) -> Vec<(Vma, u64)> {
        let offset = offset.checked_div(PAGE_SIZE).unwrap_or(0).saturating_mul(PAGE_SIZE);
        let part = |vma: &Vma| {
            let VmaKind::Overlay { inode, offset: first, .. } = vma.kind else { return None };
            let (from, to) = (offset.max(first), end.min(first.saturating_add(vma.range.len())));
            if inode != id || from >= to {
                return None;
            }
            let start = vma.range.start().saturating_add(from.saturating_sub(first));
            let range = PageRange::at(start, to.saturating_sub(from))?.intersection(vma.range)?;
            Some((vma.covering(range), from))
        };
        self.mappings.iter().filter_map(part).collect()
    }

    /// Makes the mappings of a host file those of an overlay file, which begins as a copy of it. Returns their ranges,
    /// and whether they are shared.
    pub(crate) fn adopt_overlay(&mut self, identity: (u32, u64), id: InodeId) -> Vec<(PageRange, bool)> {
        let is_same = |file: FileId| self.mapped_file(file).is_some_and(|known| known.file.identity() == identity);
        let files: Vec<FileId> = (0..self.files.len())
            .filter_map(|index| u16::try_from(index).ok().map(FileId))
            .filter(|id| is_same(*id))
            .collect();
        let new = |vma: &Vma| match vma.kind {
            VmaKind::File { file, offset, shared } if files.contains(&file) => {
                Some(VmaKind::Overlay { inode: id, offset, shared, writable: !shared })
            }
            _ => None,
        };
        let found: Vec<(PageRange, bool)> = self
            .mappings
            .iter()
            .filter_map(|vma| new(vma).map(|kind| (vma.range, matches!(kind, VmaKind::Overlay { shared: true, .. }))))
            .collect();
        if found.is_empty() {
            return found;
        }
        if let Some(all) = PageRange::new(USER_MIN, USER_END) {
            // Merging cannot exceed a limit, so this cannot fail.
            let _ = self.rewrite(all, |vma| Some(Vma { kind: new(&vma).unwrap_or(vma.kind), ..vma }), None);
        }
        self.overlay_files.push(id);
        found
    }

    /// Whether a host file is mapped.
    pub(crate) fn maps_host_file(&self, identity: (u32, u64)) -> bool {
        self.mappings.iter().any(|vma| match vma.kind {
            VmaKind::File { file, .. } => self.mapped_file(file).is_some_and(|known| known.file.identity() == identity),
            _ => false,
        })
    }

    /// Whether any overlay file is mapped.
    pub(crate) fn has_overlay_mappings(&self) -> bool {
        !self.overlay_files.is_empty()
    }

    /// Whether this overlay file is mapped.
    pub(crate) fn maps_overlay(&self, id: InodeId) -> bool {
        self.overlay_files.contains(&id)
    }

    /// Removes and returns the overlay files that are no longer mapped.
    pub(crate) fn forget_overlay_files(&mut self) -> Vec<InodeId> {
        let mapped = |id: InodeId| {
            self.mappings.iter().any(|vma| matches!(vma.kind, VmaKind::Overlay { inode, .. } if inode == id))
        };
        let gone: Vec<InodeId> = self.overlay_files.iter().copied().filter(|id| !mapped(*id)).collect();
        self.overlay_files.retain(|id| !gone.contains(id));
        gone
    }
}
