// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls that the server has a stub make.
//!
//! They change the stub's memory, which only its own calls can. All arguments are values; the kernel reads nothing
//! through them that the program could change between the comparison and the call.

use std::os::fd::RawFd;

use mayfly_machine::layout::{PAGE_SIZE, USER_END, USER_MIN};
use mayfly_machine::{MemoryError, Prot};

use crate::layout::{SCRIPT, SCRIPT_BYTES};

/// One call, and the result without which it counts as failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    number: i64,
    arguments: [u64; 6],
    expected: u64,
}

impl Order {
    pub(crate) const fn new(number: i64, arguments: [u64; 6], expected: u64) -> Self {
        Self { number, arguments, expected }
    }

    /// Replaces a range by private memory of zeroes.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Range`] if the range is empty, unaligned, or leaves the program's part of the address space.
    pub fn map_zero(address: u64, bytes: u64, prot: Prot) -> Result<Self, MemoryError> {
        check_range(address, bytes)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        Ok(Self::map(address, bytes, prot, flags, -1, 0))
    }

    /// Replaces a range by a part of a file, shared: the stub's descriptor `file`, from `offset` on.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Range`] as for [`Order::map_zero`], and for an offset that is not of whole pages.
    pub fn map_shared(address: u64, bytes: u64, prot: Prot, file: RawFd, offset: u64) -> Result<Self, MemoryError> {
        check_range(address, bytes)?;
        if !offset.is_multiple_of(PAGE_SIZE) {
            return Err(MemoryError::Range { address, len: bytes });
        }
        Ok(Self::map(address, bytes, prot, libc::MAP_SHARED | libc::MAP_FIXED, file, offset))
    }

    fn map(address: u64, bytes: u64, prot: Prot, flags: i32, file: RawFd, offset: u64) -> Self {
        let arguments = [address, bytes, access(prot), flags as u64, file as u64, offset];
        Self::new(libc::SYS_mmap, arguments, address)
    }

    /// Takes a range away.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Range`] as for [`Order::map_zero`].
    pub fn unmap(address: u64, bytes: u64) -> Result<Self, MemoryError> {
        check_range(address, bytes)?;
        Ok(Self::new(libc::SYS_munmap, [address, bytes, 0, 0, 0, 0], 0))
    }

    /// Changes what may be done with a range, all of which is mapped.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Range`] as for [`Order::map_zero`].
    pub fn protect(address: u64, bytes: u64, prot: Prot) -> Result<Self, MemoryError> {
        check_range(address, bytes)?;
        Ok(Self::new(libc::SYS_mprotect, [address, bytes, access(prot), 0, 0, 0], 0))
    }

    /// Gives the stub a table of descriptors of its own, with nothing in it.
    pub(crate) const fn close_all() -> Self {
        let all = u32::MAX as u64;
        Self::new(libc::SYS_close_range, [0, all, libc::CLOSE_RANGE_UNSHARE as u64, 0, 0, 0], 0)
    }

    /// Takes away what a stub shares with its zygote.
    pub(crate) const fn unmap_script() -> Self {
        Self::new(libc::SYS_munmap, [SCRIPT, SCRIPT_BYTES, 0, 0, 0, 0], 0)
    }

    pub(crate) const fn number(&self) -> i64 {
        self.number
    }

    pub(crate) const fn arguments(&self) -> [u64; 6] {
        self.arguments
    }

    /// The order as the host code reads it.
    pub(crate) const fn words(&self) -> [u64; 8] {
        let [a, b, c, d, e, f] = self.arguments;
        [self.number as u64, a, b, c, d, e, f, self.expected]
    }
}

/// `PROT_*` of a protection. Execute-only memory would take a protection key, so that code can always be read.
fn access(prot: Prot) -> u64 {
    let readable = if prot.contains(Prot::EXEC) { prot | Prot::READ } else { prot };
    readable.bits().into()
}

fn check_range(address: u64, bytes: u64) -> Result<(), MemoryError> {
    let end = address.checked_add(bytes);
    let inside = address >= USER_MIN && end.is_some_and(|end| end <= USER_END);
    let whole = (address | bytes).is_multiple_of(PAGE_SIZE) && bytes > 0;
    if inside && whole { Ok(()) } else { Err(MemoryError::Range { address, len: bytes }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_order_reaches_the_host_pages() {
        for (address, bytes) in [
            (USER_END, PAGE_SIZE),
            (USER_END - PAGE_SIZE, 2 * PAGE_SIZE),
            (crate::layout::CODE, PAGE_SIZE),
            (0, PAGE_SIZE),
            (USER_MIN, 0),
            (USER_MIN + 1, PAGE_SIZE),
            (USER_MIN, PAGE_SIZE + 1),
            (USER_MIN, u64::MAX - PAGE_SIZE + 1),
            (u64::MAX - PAGE_SIZE + 1, PAGE_SIZE),
        ] {
            let refused = MemoryError::Range { address, len: bytes };
            assert_eq!(Order::map_zero(address, bytes, Prot::READ), Err(refused));
            assert_eq!(Order::map_shared(address, bytes, Prot::READ, 0, 0), Err(refused));
            assert_eq!(Order::unmap(address, bytes), Err(refused));
            assert_eq!(Order::protect(address, bytes, Prot::READ), Err(refused));
        }
        assert!(Order::unmap(USER_MIN, USER_END - USER_MIN).is_ok());
        assert!(Order::map_shared(USER_MIN, PAGE_SIZE, Prot::READ, 0, 1).is_err(), "offset");
    }

    #[test]
    fn code_can_be_read() {
        assert_eq!(Order::protect(USER_MIN, PAGE_SIZE, Prot::EXEC).unwrap().arguments()[2], 5);
    }
}
