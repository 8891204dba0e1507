// SPDX-License-Identifier: MIT OR Apache-2.0
//! File mappings.
//!
//! A mapping refers to its file by index, so that mappings are plain numbers that a reset copies with one `memcpy`. The
//! files are in a separate table, which clones share until one of them maps another file.

use std::sync::Arc;

use mayfly_machine::Prot;

use super::AddressSpace;
use crate::base::errno::Errno;
use crate::base::pages::PageRange;
use crate::mm::mapped_file::MappedFile;
use crate::mm::placement::Placement;
use crate::mm::vma::{FileId, VmaKind};

/// Most files that are mapped at a time.
const MAPPED_FILES_MAX: usize = 1024;

/// From this size on, adding a file first drops those that are no longer mapped.
const SWEEP_FROM: usize = 32;

impl AddressSpace {
    /// Maps `len` bytes of `file` from `offset` on, as [`AddressSpace::map`] does.
    ///
    /// # Errors
    ///
    /// As [`AddressSpace::map`], and `ENFILE` if too many files are mapped.
    pub(crate) fn map_file(
        &mut self,
        placement: Placement,
        len: u64,
        prot: Prot,
        file: MappedFile,
        offset: u64,
        shared: bool,
    ) -> Result<PageRange, Errno> {
        let file = self.mapped_file_id(file)?;
        self.map(placement, len, prot, VmaKind::File { file, offset, shared })
    }

    /// Maps a file of a durable mount shared, as [`AddressSpace::map_file`] does. `writable`: whether the mapping may
    /// become writable.
    pub(crate) fn map_durable(
        &mut self,
        placement: Placement,
        len: u64,
        prot: Prot,
        file: MappedFile,
        offset: u64,
        writable: bool,
    ) -> Result<PageRange, Errno> {
        let file = self.mapped_file_id(file)?;
        self.map(placement, len, prot, VmaKind::Durable { file, offset, writable })
    }

    /// The files of durable mounts that are mapped shared.
    pub(crate) fn durable_files(&self) -> Vec<&MappedFile> {
        let mut ids: Vec<u16> = self.mappings.iter().filter_map(|vma| durable_id(vma.kind)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().filter_map(|id| self.mapped_file(FileId(id))).collect()
    }

    /// Whether files of durable mounts are mapped, or were a moment ago.
    pub(crate) fn has_durable_files(&self) -> bool {
        self.files.iter().flatten().any(|known| known.file.durable().is_some())
    }

    /// Whether a file of a durable mount is mapped shared at `address`.
    pub(crate) fn is_durable(&self, address: u64) -> bool {
        self.find(address).is_some_and(|vma| durable_id(vma.kind).is_some())
    }

    /// Drops files that no mapping refers to any more.
    pub(crate) fn forget_files(&mut self) {
        self.forget_unmapped();
    }

    /// The file of a mapping.
    pub(crate) fn mapped_file(&self, FileId(id): FileId) -> Option<&MappedFile> {
        self.files.get(usize::from(id))?.as_ref()
    }

    /// The index of `file`. A file that was mapped before under the same path keeps its index.
    fn mapped_file_id(&mut self, file: MappedFile) -> Result<FileId, Errno> {
        let is_writable = |file: &MappedFile| file.file.durable().is_some_and(|durable| durable.writable);
        let same = |known: &MappedFile| {
            known.file.identity() == file.file.identity()
                && known.path == file.path
                && is_writable(known) == is_writable(&file)
        };
        let known = self.files.iter().position(|known| known.as_ref().is_some_and(same));
        let free = || self.files.iter().position(Option::is_none);
        let index = match known.or_else(free) {
            Some(index) => index,
            // Each entry holds a descriptor of the host's.
            None if self.files.len() >= SWEEP_FROM => match self.forget_unmapped() {
                Some(index) => index,
                None if self.files.len() < MAPPED_FILES_MAX => self.files.len(),
                None => return Err(Errno::ENFILE),
            },
            None => self.files.len(),
        };
        if known.is_none() {
            let files = Arc::make_mut(&mut self.files);
            if files.len() <= index {
                files.resize(index.saturating_add(1), None);
            }
            if let Some(slot) = files.get_mut(index) {
                *slot = Some(file);
            }
        }
        u16::try_from(index).map(FileId).map_err(|_| Errno::ENFILE)
    }

    /// Drops files that no mapping refers to; returns a free index.
    fn forget_unmapped(&mut self) -> Option<usize> {
        let mut used = vec![false; self.files.len()];
        for vma in &self.mappings {
            if let VmaKind::File { file: FileId(id), .. } | VmaKind::Durable { file: FileId(id), .. } = vma.kind
                && let Some(used) = used.get_mut(usize::from(id))
            {
                *used = true;
            }
        }
        if self.files.iter().zip(&used).any(|(slot, used)| slot.is_some() && !used) {
            let files = Arc::make_mut(&mut self.files);
            for (slot, used) in files.iter_mut().zip(&used) {
                if !used {
                    *slot = None;
                }
            }
        }
        used.iter().position(|used| !used)
    }
}

/// The index of the file of a durable mount that a mapping shares.
fn durable_id(kind: VmaKind) -> Option<u16> {
    if let VmaKind::Durable { file: FileId(id), .. } = kind { Some(id) } else { None }
}
