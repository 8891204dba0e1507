// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copies between a program's memory and the host's, on behalf of a system call.
//!
//! The machine's own `read` and `write` reach pages that are present. Missing pages are brought in one by one, as a
//! page fault would. So a call works on memory that the program has not touched yet, and fails with `EFAULT` on memory
//! that the program could not touch itself. Lengths are those of host slices: the caller has bounded the guest's
//! number.

use mayfly_engine::Machine;
use mayfly_machine::PAGE_SIZE;

use crate::base::errno::Errno;
use crate::base::halt::Halt;
use crate::base::pages::PAGE_BYTES;
use crate::mm::access::{Access, Refused};
use crate::mm::address_space::AddressSpace;
use crate::mm::fault;
use crate::store::inodes::Inodes;

/// Longest path, with its NUL.
const PATH_MAX: u64 = 4096;

/// A program's memory.
#[derive(Debug)]
pub(crate) struct UserMemory<'a> {
    pub(crate) machine: &'a mut Machine,
    pub(crate) space: &'a AddressSpace,
    /// The files that the program has written, which it may have mapped.
    pub(crate) inodes: &'a Inodes,
    /// Whether to wait for a page of a file that is not in memory; otherwise [`Errno::NOT_HERE`].
    pub(crate) may_block: bool,
}

impl UserMemory<'_> {
    /// Copies from `address` into `out`.
    pub(crate) fn read(&mut self, address: u64, out: &mut [u8]) -> Result<(), Halt> {
        if self.machine.read(address, out).is_ok() {
            return Ok(());
        }
        let mut at = address;
        let mut rest = out;
        while !rest.is_empty() {
            let (chunk, more) = rest.split_at_mut(to_page_end(at, rest.len()));
            if self.machine.read(at, chunk).is_err() {
                self.fault_in(at, Access::Read)?;
                self.machine.read(at, chunk).map_err(|_| Errno::EFAULT)?;
            }
            at = at.checked_add(chunk.len() as u64).ok_or(Errno::EFAULT)?;
            rest = more;
        }
        Ok(())
    }

    /// Copies `data` to `address`.
    pub(crate) fn write(&mut self, address: u64, data: &[u8]) -> Result<(), Halt> {
        if self.machine.write(address, data).is_ok() {
            return Ok(());
        }
        let mut at = address;
        let mut rest = data;
        while !rest.is_empty() {
            let (chunk, more) = rest.split_at(to_page_end(at, rest.len()));
            if self.machine.write(at, chunk).is_err() {
                self.fault_in(at, Access::Write)?;
                self.machine.write(at, chunk).map_err(|_| Errno::EFAULT)?;
            }
            at = at.checked_add(chunk.len() as u64).ok_or(Errno::EFAULT)?;
            rest = more;
        }
        Ok(())
    }

    pub(crate) fn read_array<const N: usize>(&mut self, address: u64) -> Result<[u8; N], Halt> {
        let mut bytes = [0; N];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn read_u32(&mut self, address: u64) -> Result<u32, Halt> {
        Ok(u32::from_le_bytes(self.read_array(address)?))
    }

    /// Reads `N` consecutive 64-bit words.
    pub(crate) fn read_words<const N: usize>(&mut self, address: u64) -> Result<[u64; N], Halt> {
        let mut words = [0; N];
        for (index, word) in (0_u64..).zip(&mut words) {
            let at = address.checked_add(index.saturating_mul(8)).ok_or(Errno::EFAULT)?;
            *word = u64::from_le_bytes(self.read_array(at)?);
        }
        Ok(words)
    }

    /// Writes consecutive 64-bit words.
    pub(crate) fn write_words(&mut self, address: u64, words: &[u64]) -> Result<(), Halt> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.write(address, &bytes)
    }

    /// Reads a NUL-terminated path, without its NUL. `ENAMETOOLONG` if there is no NUL within `PATH_MAX`.
    pub(crate) fn read_path(&mut self, address: u64) -> Result<Vec<u8>, Halt> {
        let mut path = Vec::new();
        let end = address.saturating_add(PATH_MAX);
        let mut at = address;
        while at < end {
            let mut page = [0; PAGE_BYTES];
            let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(page.len());
            let chunk = page.get_mut(..to_page_end(at, left)).unwrap_or_default();
            self.read(at, chunk)?;
            if let Some(nul) = chunk.iter().position(|&byte| byte == 0) {
                path.extend_from_slice(chunk.get(..nul).unwrap_or_default());
                return Ok(path);
            }
            path.extend_from_slice(chunk);
            at = at.saturating_add(chunk.len() as u64);
        }
        Err(Errno::ENAMETOOLONG.into())
    }

    fn fault_in(&mut self, address: u64, access: Access) -> Result<(), Halt> {
        let done = fault::fault_in(self.machine, self.space, self.inodes, address, access, self.may_block);
        done.map_err(|refused| match refused {
            Refused::Denied | Refused::PastEnd => Errno::EFAULT.into(),
            Refused::NotHere => Errno::NOT_HERE.into(),
            Refused::Machine(error) => error.into(),
        })
    }
}

/// How much of `len` bytes from `address` lies in the first page.
fn to_page_end(address: u64, len: usize) -> usize {
    let left = PAGE_SIZE.saturating_sub(address % PAGE_SIZE);
    usize::try_from(left).unwrap_or(usize::MAX).min(len)
}

#[cfg(test)]
mod tests {
    use super::to_page_end;

    #[test]
    fn chunks_end_where_pages_do() {
        assert_eq!(to_page_end(0x1000, 5000), 4096);
        assert_eq!(to_page_end(0x1fff, 5000), 1);
        assert_eq!(to_page_end(0x1ff0, 4), 4);
        assert_eq!(to_page_end(u64::MAX, 10), 1);
    }
}
