// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files that a program has written, without their names, and what all of it may take.
//!
//! # Invariants
//!
//! `bytes` is the size of all own pages, and of what else was charged. A call that would exceed `max_bytes` is
//! `ENOSPC`. Only what a shared mapping held may: it is stored when the mapping goes ([`Inodes::set_page`]), and no
//! further page of a file becomes writable then before there is room again. So the most that is ever stored is
//! `max_bytes`, and as much as the program's memory holds.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::arguments::count;
use crate::base::errno::Errno;
use crate::base::ids::InodeId;
use crate::base::pages::PAGE_BYTES;
use crate::host::attributes::{Attributes, Time, Times};
use crate::store::content::Content;

/// Most hard links to one file.
const LINKS_MAX: u32 = 1000;
/// First inode number: above those of synthetic files, and of most of the host's.
const FIRST_INODE: u64 = 1 << 40;
/// Size of a page.
const PAGE: u64 = PAGE_BYTES as u64;

const SEAL_SHRINK: u32 = 0x2;
const SEAL_GROW: u32 = 0x4;
/// F_SEAL_WRITE, F_SEAL_FUTURE_WRITE.
const SEAL_ANY_WRITE: u32 = 0x8 | 0x10;

/// What is known of a file besides its content.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) number: u64,
    pub(crate) mode: u32,
    pub(crate) accessed: Time,
    pub(crate) modified: Time,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Inode {
    /// Shared with the snapshot until it is written.
    content: Arc<Content>,
    status: Status,
    links: u32,
    /// F_SEAL_SEAL and the like, of files made by `memfd_create`; others have none.
    seals: Option<u32>,
}

/// All files that a program has written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Inodes {
    all: Vec<Option<Inode>>,
    bytes: u64,
    max_bytes: u64,
    next_number: u64,
}

impl Inodes {
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { all: Vec::new(), bytes: 0, max_bytes, next_number: FIRST_INODE }
    }

    /// Whether a deserialised value keeps this type's invariants, with `other` bytes charged, and this limit.
    pub(crate) fn is_sound(&self, other: u64, max_bytes: u64) -> bool {
        let contents = self.all.iter().flatten().map(|inode| inode.content.pages().saturating_mul(PAGE));
        self.bytes == contents.fold(other, u64::saturating_add) && self.max_bytes == max_bytes
    }

    /// Bytes that may be used in all.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Bytes used.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that may still be used.
    pub(crate) fn room(&self) -> u64 {
        self.max_bytes.saturating_sub(self.bytes)
    }

    /// Replaces `old` bytes that were charged by `new` ones.
    pub(crate) fn charge(&mut self, old: u64, new: u64) -> Result<(), Errno> {
        if new.saturating_sub(old) > self.room() {
            return Err(Errno::ENOSPC);
        }
        self.bytes = self.bytes.saturating_sub(old).saturating_add(new);
        Ok(())
    }

    fn check_pages(&self, pages: u64) -> Result<(), Errno> {
        if pages > self.room() / PAGE { Err(Errno::ENOSPC) } else { Ok(()) }
    }

    /// A new inode number.
    pub(crate) fn number(&mut self) -> u64 {
        self.next_number = self.next_number.saturating_add(1);
        self.next_number
    }

    /// Creates a file with this content and one name, or with seals and none.
    pub(crate) fn create(&mut self, content: Content, status: Status, seals: Option<u32>) -> Result<InodeId, Errno> {
        self.check_pages(content.pages())?;
        self.bytes = self.bytes.saturating_add(content.pages().saturating_mul(PAGE));
        let index = self.all.iter().position(Option::is_none).unwrap_or(self.all.len());
        if self.all.len() <= index {
            self.all.resize(index.saturating_add(1), None);
        }
        let links = u32::from(seals.is_none());
        if let Some(slot) = self.all.get_mut(index) {
            *slot = Some(Inode { content: Arc::new(content), status, links, seals });
        }
        Ok(InodeId(index))
    }

    pub(crate) fn exists(&self, id: InodeId) -> bool {
        self.inode(id).is_some()
    }

    /// A file's content.
    pub(crate) fn content(&self, id: InodeId) -> Option<&Content> {
        Some(&self.inode(id)?.content)
    }

    /// A file's size in bytes.
    pub(crate) fn size(&self, id: InodeId) -> u64 {
        self.content(id).map_or(0, Content::size)
    }

    /// Attributes of a file, for `fstat`.
    pub(crate) fn attributes(&self, id: InodeId, device: u32) -> Attributes {
        let Some(inode) = self.inode(id) else { return Attributes::synthetic(0, libc::S_IFREG) };
        Attributes {
            device,
            links: inode.links,
            size: inode.content.size(),
            blocks: inode.content.used_pages().saturating_mul(PAGE / 512),
            accessed: inode.status.accessed,
            modified: inode.status.modified,
            ..Attributes::synthetic(inode.status.number, libc::S_IFREG | inode.status.mode)
        }
    }

    /// Reads at `offset`; a short read means the end of the file. `may_block`: as [`crate::Context::may_block`].
    pub(crate) fn read(&self, id: InodeId, offset: u64, out: &mut [u8], may_block: bool) -> Result<usize, Errno> {
        self.content(id).map_or(Ok(0), |content| content.read(offset, out, may_block))
    }

    /// How many of `len` bytes at `offset` can be written: as on Linux, whole pages of them if not all.
    pub(crate) fn fitting(&self, id: InodeId, offset: u64, len: usize) -> usize {
        let Some(content) = self.content(id) else { return len };
        let most = self.room() / PAGE;
        let len_bytes = count(len);
        if content.missing(offset, len_bytes) <= most {
            return len;
        }
        let to_page_end = PAGE.saturating_sub(offset % PAGE);
        let ends = (0..).map(|page: u64| to_page_end.saturating_add(page.saturating_mul(PAGE)));
        let fits = ends.take_while(|&end| end < len_bytes && content.missing(offset, end) <= most).last();
        usize::try_from(fits.unwrap_or(0)).unwrap_or(0)
    }

    /// Writes `data` at `offset`; a gap after the old end becomes a hole.
    pub(crate) fn write(
        &mut self,
        id: InodeId,
        offset: u64,
        data: &[u8],
        now: Time,
        may_block: bool,
    ) -> Result<(), Errno> {
        let content = self.content(id).ok_or(Errno::EIO)?;
        let end = offset.saturating_add(count(data.len()));
        if self.is_sealed(id, SEAL_ANY_WRITE) || end > content.size() && self.is_sealed(id, SEAL_GROW) {
            return Err(Errno::EPERM);
        }
        if end > crate::store::content::SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        self.check_pages(content.missing(offset, count(data.len())))?;
        self.change(id, now, |content| content.write(offset, data, may_block))
    }

    /// Sets a file's size: adds a hole, or truncates.
    pub(crate) fn resize(&mut self, id: InodeId, size: u64, now: Time) -> Result<(), Errno> {
        let old = self.size(id);
        if size > old && self.is_sealed(id, SEAL_GROW) || size < old && self.is_sealed(id, SEAL_SHRINK) {
            return Err(Errno::EPERM);
        }
        if size > crate::store::content::SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        self.change(id, now, |content| {
            content.resize(size);
            Ok(())
        })
    }

    /// Makes a part of a file zero.
    pub(crate) fn punch(
        &mut self,
        id: InodeId,
        offset: u64,
        len: u64,
        now: Time,
        may_block: bool,
    ) -> Result<(), Errno> {
        if self.is_sealed(id, SEAL_ANY_WRITE) {
            return Err(Errno::EPERM);
        }
        self.check_pages(self.content(id).map_or(0, |content| content.punched(offset, len)))?;
        self.change(id, now, |content| content.punch(offset, len, may_block))
    }

    /// Reserves space for a part of a file, which grows if it must and `grows`.
    pub(crate) fn reserve(&mut self, id: InodeId, offset: u64, len: u64, grows: bool, now: Time) -> Result<(), Errno> {
        let content = self.content(id).ok_or(Errno::EIO)?;
        let end = offset.checked_add(len).filter(|&end| end <= crate::store::content::SIZE_MAX).ok_or(Errno::EFBIG)?;
        if grows && end > content.size() && self.is_sealed(id, SEAL_GROW) {
            return Err(Errno::EPERM);
        }
        self.check_pages(content.holes(offset, len))?;
        self.change(id, now, |content| {
            content.reserve(offset, len, grows);
            Ok(())
        })
    }

    /// Stores a page that a shared mapping held.
    pub(crate) fn set_page(&mut self, id: InodeId, index: u64, bytes: &[u8]) {
        let Some(inode) = self.inode(id) else { return };
        let modified = inode.status.modified;
        // The content cannot refuse it.
        let _ = self.change(id, modified, |content| {
            content.set_page(index, bytes);
            Ok(())
        });
    }

    /// The only way to change content.
    fn change(
        &mut self,
        id: InodeId,
        now: Time,
        edit: impl FnOnce(&mut Content) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let InodeId(index) = id;
        let inode = self.all.get_mut(index).and_then(Option::as_mut).ok_or(Errno::EIO)?;
        let content = Arc::make_mut(&mut inode.content);
        let before = content.pages();
        let result = edit(content);
        let after = content.pages();
        if result.is_ok() {
            inode.status.modified = now;
        }
        let bytes = self.bytes.saturating_sub(before.saturating_mul(PAGE));
        self.bytes = bytes.saturating_add(after.saturating_mul(PAGE));
        result
    }

    /// The seals of a file; `None` if it cannot have any.
    pub(crate) fn seals(&self, id: InodeId) -> Option<u32> {
        self.inode(id)?.seals
    }

    pub(crate) fn set_seals(&mut self, id: InodeId, seals: u32) {
        if let Some(inode) = self.inode_mut(id) {
            inode.seals = Some(seals);
        }
    }

    /// Whether a file has any of these seals.
    fn is_sealed(&self, id: InodeId, seals: u32) -> bool {
        self.seals(id).is_some_and(|own| own & seals != 0)
    }

    /// Whether writing to a file is sealed, now or for later mappings.
    pub(crate) fn is_write_sealed(&self, id: InodeId) -> bool {
        self.is_sealed(id, SEAL_ANY_WRITE)
    }

    /// Counts a name more.
    pub(crate) fn link(&mut self, id: InodeId) {
        if let Some(inode) = self.inode_mut(id) {
            inode.links = inode.links.saturating_add(1);
        }
    }

    /// Whether a file may have a name more.
    pub(crate) fn may_be_linked(&self, id: InodeId) -> bool {
        self.inode(id).is_some_and(|inode| inode.links < LINKS_MAX)
    }

    /// Counts a name less; returns whether it was the last.
    pub(crate) fn unlink(&mut self, id: InodeId) -> bool {
        let Some(inode) = self.inode_mut(id) else { return false };
        inode.links = inode.links.saturating_sub(1);
        inode.links == 0
    }

    /// Whether a file has a name.
    pub(crate) fn is_named(&self, id: InodeId) -> bool {
        self.inode(id).is_some_and(|inode| inode.links > 0)
    }

    /// Drops a file that has no name and is no longer open.
    pub(crate) fn forget(&mut self, InodeId(index): InodeId) {
        if let Some(slot) = self.all.get_mut(index)
            && let Some(inode) = slot.take_if(|inode| inode.links == 0)
        {
            self.bytes = self.bytes.saturating_sub(inode.content.pages().saturating_mul(PAGE));
        }
    }

    /// Sets the mode of a file.
    pub(crate) fn set_mode(&mut self, id: InodeId, new: u32) {
        if let Some(inode) = self.inode_mut(id) {
            inode.status.mode = new & 0o7777;
        }
    }

    /// Sets the times of a file. Reading it does not: it would be a change for a reset to take back.
    pub(crate) fn set_times(&mut self, id: InodeId, times: Times) {
        if let Some(inode) = self.inode_mut(id) {
            let status = &mut inode.status;
            status.accessed = times.accessed.unwrap_or(status.accessed);
            status.modified = times.modified.unwrap_or(status.modified);
        }
    }

    fn inode(&self, InodeId(index): InodeId) -> Option<&Inode> {
        self.all.get(index)?.as_ref()
    }

    fn inode_mut(&mut self, InodeId(index): InodeId) -> Option<&mut Inode> {
        self.all.get_mut(index)?.as_mut()
    }
}
