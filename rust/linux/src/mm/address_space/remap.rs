// SPDX-License-Identifier: MIT OR Apache-2.0
//! Grows, shrinks and moves a mapping: `mremap(2)`.

use mayfly_machine::layout;

use super::AddressSpace;
use crate::base::errno::Errno;
use crate::base::pages::PageRange;
use crate::mm::placement::Placement;
use crate::mm::vma::Vma;

/// What the caller has to do on the machine, in this order, and the mapping's address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Remapped {
    /// Pages to unmap: the mappings that the destination replaced.
    pub(crate) replaced: Option<PageRange>,
    /// Pages to unmap: the end that was cut off.
    pub(crate) cut: Option<PageRange>,
    /// Pages to move, and their new address.
    pub(crate) moved: Option<(PageRange, u64)>,
    /// The mapping's address now.
    pub(crate) address: u64,
}

impl AddressSpace {
    /// Changes the size of the mapping at `old` to `new_len` bytes (whole pages, not 0).
    ///
    /// With `destination` the mapping moves there and replaces what is mapped there. Otherwise it stays if it can, and
    /// moves if it must and `may_move` allows.
    ///
    /// # Errors
    ///
    /// `EFAULT` if `old` is not one mapping; `EINVAL` if the destination overlaps it or is not in the program's part;
    /// `ENOMEM` if there is no room or a limit would be exceeded. Then nothing has changed.
    pub(crate) fn remap(
        &mut self,
        old: PageRange,
        new_len: u64,
        may_move: bool,
        destination: Option<u64>,
    ) -> Result<Remapped, Errno> {
        let vma = self.uniform(old)?;
        if let Some(start) = destination {
            let target = PageRange::at(start, new_len).ok_or(Errno::EINVAL)?;
            let user = target.start() >= layout::USER_MIN && target.end() <= layout::USER_END;
            if !user || target.overlaps(old) {
                return Err(Errno::EINVAL);
            }
            return self.move_to(old, vma, target, Placement::Fixed(target));
        }
        let stays = PageRange::at(old.start(), new_len);
        if let Some(stays) = stays {
            if new_len <= old.len() {
                let cut = old.after(stays.end());
                self.unmap(cut)?;
                let cut = (!cut.is_empty()).then_some(cut);
                return Ok(Remapped { replaced: None, cut, moved: None, address: old.start() });
            }
            let more = stays.after(old.end());
            if stays.end() <= layout::USER_END && self.is_free(more) {
                let grown = Vma { origin: self.origin, ..vma.covering(more) };
                self.rewrite(more, |_| None, Some(grown))?;
                return Ok(Remapped { replaced: None, cut: None, moved: None, address: old.start() });
            }
        }
        if !may_move {
            return Err(Errno::ENOMEM);
        }
        let target = self.place(Placement::Anywhere, new_len)?;
        self.move_to(old, vma, target, Placement::FixedNoReplace(target))
    }

    /// Maps `target` with the attributes of `vma` and unmaps `old`: both or neither.
    fn move_to(
        &mut self,
        old: PageRange,
        vma: Vma,
        target: PageRange,
        placement: Placement,
    ) -> Result<Remapped, Errno> {
        let before = self.clone();
        self.unmap(old)?;
        if let Err(errno) = self.map(placement, target.len(), vma.prot, vma.kind) {
            *self = before;
            return Err(errno);
        }
        let replaced = matches!(placement, Placement::Fixed(_)).then_some(target);
        let kept = PageRange::at(old.start(), old.len().min(target.len())).ok_or(Errno::ENOMEM)?;
        let cut = old.after(kept.end());
        Ok(Remapped {
            replaced,
            cut: (!cut.is_empty()).then_some(cut),
            moved: Some((kept, target.start())),
            address: target.start(),
        })
    }

    /// The attributes of the mapping that covers all of `range`. Parts that differ only in their origin are one mapping
    /// to the program.
    fn uniform(&self, range: PageRange) -> Result<Vma, Errno> {
        let mut parts = self.within(range);
        let first = parts.next().ok_or(Errno::EFAULT)?;
        if self.mapped_prefix(range) == range && parts.all(|part| part.is_alike(&first)) {
            Ok(first)
        } else {
            Err(Errno::EFAULT)
        }
    }
}
