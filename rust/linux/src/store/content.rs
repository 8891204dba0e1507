// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a file holds: pages that the program has written, over those of a file of the host's, over zeroes.
//!
//! ```text
//!  own pages      [ 0 ]       [ 2 ]                  [ 7 ]
//!  base           [ 0 ][ 1 ][ 2 ][ 3 ]^              the host's file, as far as `len`
//!  the program    [own][base][own][base][ hole ... ][own]^ size
//! ```
//!
//! A write copies the pages that it changes. A hole takes no memory. Own pages lie in groups, so that a worker that
//! writes one page copies the addresses of one group and no others.
//!
//! # Invariants
//!
//! Own pages lie below the end, and what lies behind the end in the last one is zero. The base reaches to the end at
//! most: a file that was cut off and grew again has zeroes there. `pages` is the number of own pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use mayfly_machine::PAGE_SIZE;
use serde::{Deserialize, Serialize};

use crate::base::arguments::count;
use crate::base::errno::Errno;
use crate::base::pages::PAGE_BYTES;
use crate::host::files::HostFile;
use crate::store::page::Page;

/// Largest file: Linux's `MAX_LFS_FILESIZE`.
pub(crate) const SIZE_MAX: u64 = i64::MAX.cast_unsigned();
/// Pages of a group.
const GROUP: u64 = 64;

type Group = BTreeMap<u64, Page>;

/// A file of the host's below a written one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Base {
    #[serde(with = "crate::host::file_table::host_file")]
    pub(crate) file: Arc<HostFile>,
    /// How many of its bytes are the file's.
    len: u64,
    /// How many it has.
    whole: u64,
}

/// What a file holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Saved", into = "Saved")]
pub(crate) struct Content {
    size: u64,
    base: Option<Base>,
    groups: BTreeMap<u64, Arc<Group>>,
    pages: u64,
}

/// Where a page of a file comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    Own(&'a Page),
    /// The page of the host's file with the same number, whole or up to that file's end.
    Base(&'a Arc<HostFile>),
    Hole,
}

/// As [`Content`], in a file.
#[derive(Serialize, Deserialize)]
struct Saved {
    size: u64,
    base: Option<Base>,
    pages: Vec<(u64, Page)>,
}

impl From<Content> for Saved {
    fn from(content: Content) -> Self {
        let pages = content.own().map(|(index, page)| (index, page.clone())).collect();
        Self { size: content.size, base: content.base, pages }
    }
}

impl TryFrom<Saved> for Content {
    type Error = &'static str;

    fn try_from(saved: Saved) -> Result<Self, Self::Error> {
        let Saved { size, base, pages } = saved;
        let within = pages.iter().all(|(index, _)| *index < size.div_ceil(PAGE_SIZE));
        if size > SIZE_MAX || !within || base.as_ref().is_some_and(|base| base.len > size) {
            return Err("a file's content");
        }
        let mut content = Self { size, base, ..Self::default() };
        for (index, page) in pages {
            content.put(index, page);
        }
        content.clear_tail();
        Ok(content)
    }
}

/// Number of the page that holds the byte at `offset`.
fn page_of(offset: u64) -> u64 {
    offset / PAGE_SIZE
}

/// The parts of pages that bytes `offset..offset + len` are: the page's number, where in it they start, how many, and
/// how many come before.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0_usize;
    std::iter::from_fn(move || {
        let left = len.checked_sub(done).filter(|&left| left > 0)?;
        let at = offset.checked_add(count(done))?;
        let within = usize::try_from(at % PAGE_SIZE).unwrap_or(0);
        let part = left.min(PAGE_BYTES.saturating_sub(within));
        let before = done;
        done = done.saturating_add(part);
        Some((page_of(at), within, part, before))
    })
}

impl Content {
    /// These bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut content = Self { size: count(bytes.len()), ..Self::default() };
        for (index, page) in (0..).zip(bytes.chunks(PAGE_BYTES)) {
            content.put(index, Page::of(page));
        }
        content
    }

    /// What a file of the host's holds, `size` bytes.
    pub(crate) fn over(file: Arc<HostFile>, size: u64) -> Self {
        let size = size.min(SIZE_MAX);
        Self { size, base: Some(Base { file, len: size, whole: size }), ..Self::default() }
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Number of own pages.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Number of pages that have data, for `st_blocks`.
    pub(crate) fn used_pages(&self) -> u64 {
        let base = self.base.as_ref().map_or(0, |base| base.len.div_ceil(PAGE_SIZE));
        base.saturating_add(self.pages.saturating_sub(self.own_in(0, base)))
    }

    /// Where the page with this number comes from.
    pub(crate) fn source(&self, index: u64) -> Source<'_> {
        match (self.groups.get(&(index / GROUP)).and_then(|group| group.get(&index)), &self.base) {
            (Some(page), _) => Source::Own(page),
            (None, Some(base)) if index < base.len.div_ceil(PAGE_SIZE) => Source::Base(&base.file),
            _ => Source::Hole,
        }
    }

    /// Whether the page comes from the host's file as it is: none of its bytes was cut off.
    pub(crate) fn is_whole_base(&self, index: u64) -> bool {
        let end = index.saturating_add(1).saturating_mul(PAGE_SIZE);
        let whole = |base: &Base| end <= base.len || base.len == base.whole;
        matches!(self.source(index), Source::Base(_)) && self.base.as_ref().is_some_and(whole)
    }

    /// The content of a page, zeroes behind the end; `may_block`: as [`HostFile::read_at`].
    pub(crate) fn page(&self, index: u64, may_block: bool) -> Result<Page, Errno> {
        match self.source(index) {
            Source::Own(page) => Ok(page.clone()),
            Source::Hole => Ok(Page::zeroes()),
            Source::Base(file) => {
                let mut bytes = [0; PAGE_BYTES];
                let start = index.saturating_mul(PAGE_SIZE);
                let len = self.base.as_ref().map_or(0, |base| base.len.saturating_sub(start));
                let len = usize::try_from(len).unwrap_or(PAGE_BYTES).min(PAGE_BYTES);
                file.read_at(start, bytes.get_mut(..len).unwrap_or_default(), may_block)?;
                Ok(Page::of(&bytes))
            }
        }
    }

    /// Reads at `offset`; a short read means the end of the file.
    pub(crate) fn read(&self, offset: u64, out: &mut [u8], may_block: bool) -> Result<usize, Errno> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = out.len().min(left);
        let out = out.get_mut(..len).unwrap_or_default();
        // What the host's file has is read at once, and own pages are put over it.
        let based = self.base.as_ref().map_or(0, |base| base.len.saturating_sub(offset));
        let (below, above) = out.split_at_mut(usize::try_from(based).unwrap_or(len).min(len));
        above.fill(0);
        if let Some(base) = &self.base
            && self.own_in(page_of(offset), page_of(offset.saturating_add(count(below.len()))).saturating_add(1))
                < count(below.len()).div_ceil(PAGE_SIZE)
        {
            let got = base.file.read_at(offset, below, may_block)?;
            // The host's file has become shorter.
            below.get_mut(got..).unwrap_or_default().fill(0);
        } else if self.base.is_some() {
            for (index, within, part, before) in parts(offset, below.len()) {
                if let Source::Base(_) = self.source(index) {
                    let page = self.page(index, may_block)?;
                    copy(page.bytes().get(within..), below.get_mut(before..before.saturating_add(part)));
                }
            }
        }
        if self.pages > 0 {
            for (index, within, part, before) in parts(offset, len) {
                if let Source::Own(page) = self.source(index) {
                    copy(page.bytes().get(within..), out.get_mut(before..before.saturating_add(part)));
                }
            }
        }
        Ok(len)
    }

    /// How many own pages writing `len` bytes at `offset` adds.
    pub(crate) fn missing(&self, offset: u64, len: u64) -> u64 {
        if len == 0 {
            return 0;
        }
        self.missing_in(page_of(offset), offset.saturating_add(len).div_ceil(PAGE_SIZE))
    }

    /// How many own pages [`Content::reserve`] adds at most.
    pub(crate) fn holes(&self, offset: u64, len: u64) -> u64 {
        let based = self.base.as_ref().map_or(0, |base| base.len.div_ceil(PAGE_SIZE));
        let end = offset.saturating_add(len).div_ceil(PAGE_SIZE);
        self.missing_in(page_of(offset).max(based), end)
    }

    fn missing_in(&self, first: u64, end: u64) -> u64 {
        end.saturating_sub(first).saturating_sub(self.own_in(first, end))
    }

    /// Writes at `offset`; the file grows if it must. An error leaves it as it was.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8], may_block: bool) -> Result<(), Errno> {
        if data.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(count(data.len())).filter(|&end| end <= SIZE_MAX).ok_or(Errno::EFBIG)?;
        // The first and the last page may keep a part of what they have: it is read before anything changes.
        let mut edges = BTreeMap::new();
        let is_whole = |index: u64| {
            let start = index.saturating_mul(PAGE_SIZE);
            offset <= start && start.saturating_add(PAGE_SIZE) <= end
        };
        for index in [page_of(offset), page_of(end.saturating_sub(1))] {
            if let Source::Base(_) = self.source(index)
                && !is_whole(index)
            {
                edges.insert(index, self.page(index, may_block)?);
            }
        }
        self.size = self.size.max(end);
        for (index, within, part, before) in parts(offset, data.len()) {
            let data = data.get(before..before.saturating_add(part));
            match edges.remove(&index) {
                Some(page) => self.put(index, page),
                None if part == PAGE_BYTES => {
                    self.put(index, Page::of(data.unwrap_or_default()));
                    continue;
                }
                None => {}
            }
            copy(data, self.own_mut(index).bytes_mut().get_mut(within..));
        }
        Ok(())
    }

    /// Replaces a page below the end by what a mapping holds.
    pub(crate) fn set_page(&mut self, index: u64, bytes: &[u8]) {
        if index < self.size.div_ceil(PAGE_SIZE) {
            self.put(index, Page::of(bytes));
            if index == page_of(self.size) {
                self.clear_tail();
            }
        }
    }

    /// Sets the size: adds a hole, or cuts off.
    pub(crate) fn resize(&mut self, size: u64) {
        if size >= self.size {
            self.size = size.min(SIZE_MAX);
            return;
        }
        self.drop_pages(size.div_ceil(PAGE_SIZE), u64::MAX);
        self.size = size;
        self.cut_base(size);
        self.clear_tail();
    }

    /// The host's file is seen as far as `len` at most.
    fn cut_base(&mut self, len: u64) {
        self.base = self.base.take().map(|base| Base { len: base.len.min(len), ..base }).filter(|base| base.len > 0);
    }

    /// How many own pages [`Content::punch`] adds at most.
    pub(crate) fn punched(&self, offset: u64, len: u64) -> u64 {
        let end = offset.saturating_add(len).min(self.size);
        let based = self.base.as_ref().map_or(0, |base| base.len.div_ceil(PAGE_SIZE));
        let (first, last) = (page_of(offset), end.div_ceil(PAGE_SIZE));
        if last >= based && end == self.size { 1 } else { self.missing_in(first, last.min(based)) }
    }

    /// Makes bytes `offset..offset + len` zero, without a change of the size.
    pub(crate) fn punch(&mut self, offset: u64, len: u64, may_block: bool) -> Result<(), Errno> {
        let end = offset.saturating_add(len).min(self.size);
        if offset >= end {
            return Ok(());
        }
        let (first, last) = (offset.div_ceil(PAGE_SIZE), page_of(end));
        let last = if end == self.size { end.div_ceil(PAGE_SIZE) } else { last };
        // The edges lie in pages that stay.
        let head = offset..end.min(first.saturating_mul(PAGE_SIZE));
        let tail = if last >= first { last.saturating_mul(PAGE_SIZE).min(end)..end } else { end..end };
        for edge in [head, tail] {
            let zeroes = vec![0; usize::try_from(edge.end.saturating_sub(edge.start)).unwrap_or(0)];
            if !zeroes.is_empty() && !matches!(self.source(page_of(edge.start)), Source::Hole) {
                self.write(edge.start, &zeroes, may_block)?;
            }
        }
        self.drop_pages(first, last);
        // The host's pages there must not show.
        if let Some(base) = &self.base {
            let based = base.len.div_ceil(PAGE_SIZE);
            if last >= based && end == self.size {
                self.cut_base(first.saturating_mul(PAGE_SIZE));
            } else {
                (first..last.min(based)).for_each(|index| self.put(index, Page::zeroes()));
            }
        }
        Ok(())
    }

    /// Gives the holes in bytes `offset..offset + len` pages; the file grows if it must and `grows`.
    pub(crate) fn reserve(&mut self, offset: u64, len: u64, grows: bool) {
        let end = offset.saturating_add(len).min(SIZE_MAX);
        if grows {
            self.size = self.size.max(end);
        }
        let end = if len == 0 { 0 } else { end.min(self.size).div_ceil(PAGE_SIZE) };
        // The host's file has no holes here.
        let based = self.base.as_ref().map_or(0, |base| base.len.div_ceil(PAGE_SIZE));
        for index in page_of(offset).max(based)..end {
            if let Source::Hole = self.source(index) {
                self.put(index, Page::zeroes());
            }
        }
    }

    /// The first byte from `offset` on that is data, or that is not: `SEEK_DATA`, `SEEK_HOLE`. The end of the file
    /// is a hole. `None`: there is none, or `offset` lies behind the end.
    pub(crate) fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        if offset >= self.size {
            return None;
        }
        let is_data = |index: u64| match self.source(index) {
            Source::Own(page) => !page.is_reserved(),
            Source::Base(_) => true,
            Source::Hole => false,
        };
        let end = self.size.div_ceil(PAGE_SIZE);
        let based = self.base.as_ref().map_or(0, |base| base.len.div_ceil(PAGE_SIZE));
        let mut index = page_of(offset);
        while index < end && is_data(index) != data {
            // What is no own page is alike up to the next one.
            let next = self.own_from(index).map_or(end, |(next, _)| next.min(end));
            index = match self.source(index) {
                Source::Own(_) => index.saturating_add(1),
                Source::Base(_) => next.min(based),
                Source::Hole => next,
            };
        }
        match index.saturating_mul(PAGE_SIZE).max(offset) {
            _ if index >= end => (!data).then_some(self.size),
            found => Some(found),
        }
    }

    /// All own pages, ascending.
    fn own(&self) -> impl Iterator<Item = (u64, &Page)> {
        self.groups.values().flat_map(|group| group.iter().map(|(index, page)| (*index, page)))
    }

    /// The first own page from `index` on.
    fn own_from(&self, index: u64) -> Option<(u64, &Page)> {
        let groups = self.groups.range(index / GROUP..);
        groups.flat_map(|(_, group)| group.range(index..)).next().map(|(index, page)| (*index, page))
    }

    /// Number of own pages in `first..end`.
    pub(crate) fn own_in(&self, first: u64, end: u64) -> u64 {
        if first >= end || self.pages == 0 {
            return 0;
        }
        let groups = self.groups.range(first / GROUP..=end.saturating_sub(1) / GROUP);
        groups.map(|(_, group)| count(group.range(first..end).count())).sum()
    }

    fn group_mut(&mut self, index: u64) -> &mut Group {
        Arc::make_mut(self.groups.entry(index / GROUP).or_default())
    }

    /// The only way to add a page.
    fn put(&mut self, index: u64, page: Page) {
        if self.group_mut(index).insert(index, page).is_none() {
            self.pages = self.pages.saturating_add(1);
        }
    }

    /// The own page with this number, zeroes if there is none yet.
    fn own_mut(&mut self, index: u64) -> &mut Page {
        if !matches!(self.source(index), Source::Own(_)) {
            self.put(index, Page::zeroes());
        }
        self.group_mut(index).entry(index).or_insert_with(Page::zeroes)
    }

    /// The only way to remove pages.
    fn drop_pages(&mut self, first: u64, end: u64) {
        if first >= end {
            return;
        }
        let groups: Vec<u64> = self.groups.range(first / GROUP..).map(|(group, _)| *group).collect();
        for number in groups.into_iter().take_while(|number| number.saturating_mul(GROUP) < end) {
            let Some(group) = self.groups.get_mut(&number) else { continue };
            let before = group.len();
            Arc::make_mut(group).retain(|index, _| !(first..end).contains(index));
            let after = group.len();
            self.pages = self.pages.saturating_sub(count(before.saturating_sub(after)));
            if after == 0 {
                self.groups.remove(&number);
            }
        }
    }

    /// Makes zero what lies behind the end in the last page, if that is an own one.
    fn clear_tail(&mut self) {
        let (index, within) = (page_of(self.size), usize::try_from(self.size % PAGE_SIZE).unwrap_or(0));
        if within > 0
            && let Source::Own(page) = self.source(index)
            && page.bytes().iter().skip(within).any(|&byte| byte != 0)
        {
            self.own_mut(index).bytes_mut().get_mut(within..).unwrap_or_default().fill(0);
        }
    }
}

fn copy(from: Option<&[u8]>, to: Option<&mut [u8]>) {
    for (to, from) in to.unwrap_or_default().iter_mut().zip(from.unwrap_or_default()) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests;
