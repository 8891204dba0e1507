// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls that the server has a stub make.
//!
//! They change the stub's memory, which only its own calls can. All arguments are values; the kernel reads nothing
//! through them that the program could change between the comparison and the call.

use mayfly_machine::layout::PAGE_SIZE;
use mayfly_machine::{MemoryError, Prot};

use crate::layout::{self, SCRIPT, SCRIPT_BYTES};

/// A stub's descriptors: the machine's memory, the image, and a file that is there for some orders only.
pub(crate) const MEMORY: u32 = 0;
pub(crate) const IMAGE: u32 = 1;
pub(crate) const PASSING: u32 = 2;

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
    /// [`MemoryError::Range`] if the range is empty, unaligned, or not the program's memory, which lies in its part of
    /// the address space, and in some pages above it (doorbell, resume, vDSO, control line and inbox, shared memory).
    pub fn map_zero(address: u64, bytes: u64, prot: Prot) -> Result<Self, MemoryError> {
        check_range(address, bytes)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        Ok(Self::map(address, bytes, prot, flags, -1, 0))
    }

    /// Replaces a range by a part of a file: the stub's descriptor `descriptor`, from `offset` on; 0 is the machine's
    /// memory, 1 the image, 2 the file of [`Stub::with_file`](crate::Stub::with_file).
    ///
    /// A shared mapping's writes reach the file; a private one's do not.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Range`] as for [`Order::map_zero`], for an offset that is not of whole pages, and for another
    /// descriptor.
    pub fn map_file(
        descriptor: u32,
        offset: u64,
        address: u64,
        bytes: u64,
        prot: Prot,
        shared: bool,
    ) -> Result<Self, MemoryError> {
        check_range(address, bytes)?;
        if !offset.is_multiple_of(PAGE_SIZE) || descriptor > PASSING {
            return Err(MemoryError::Range { address, len: bytes });
        }
        let sharing = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        Ok(Self::map(address, bytes, prot, sharing | libc::MAP_FIXED | libc::MAP_NORESERVE, descriptor as i32, offset))
    }

    fn map(address: u64, bytes: u64, prot: Prot, flags: i32, file: i32, offset: u64) -> Self {
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

    /// Closes the file that was there for some orders.
    pub(crate) const fn close_passing() -> Self {
        Self::new(libc::SYS_close, [PASSING as u64, 0, 0, 0, 0, 0], 0)
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

    pub(crate) const fn expected(&self) -> u64 {
        self.expected
    }

    /// The order as the host code reads it.
    pub(crate) const fn words(&self) -> [u64; 8] {
        let [a, b, c, d, e, f] = self.arguments;
        [self.number as u64, a, b, c, d, e, f, self.expected]
    }
}

/// `PROT_*` of a protection. Execute-only memory would take a protection key, so that code can always be read.
pub(crate) fn access(prot: Prot) -> u64 {
    let readable = if prot.contains(Prot::EXEC) { prot | Prot::READ } else { prot };
    readable.bits().into()
}

fn check_range(address: u64, bytes: u64) -> Result<(), MemoryError> {
    if layout::is_program_range(address, bytes) { Ok(()) } else { Err(MemoryError::Range { address, len: bytes }) }
}

#[cfg(test)]
mod tests {
    use mayfly_machine::layout::{CONTROL, DOORBELL, SHARED, USER_END, USER_MIN, VDSO};

    use super::*;

    #[test]
    fn no_order_reaches_the_host_pages() {
        for (address, bytes) in [
            (USER_END, PAGE_SIZE),
            (USER_END - PAGE_SIZE, 2 * PAGE_SIZE),
            (layout::CODE, PAGE_SIZE),
            (layout::CODE, 2 * PAGE_SIZE),
            (layout::RESUME, 3 * PAGE_SIZE),
            (layout::ORDERS, PAGE_SIZE),
            (layout::CONTEXT, PAGE_SIZE),
            (layout::FRAMES, PAGE_SIZE),
            (layout::SCRIPT, PAGE_SIZE),
            (CONTROL, layout::FRAMES - CONTROL + PAGE_SIZE),
            (SHARED - PAGE_SIZE, 2 * PAGE_SIZE),
            (DOORBELL, 2 * PAGE_SIZE),
            (0, PAGE_SIZE),
            (USER_MIN, 0),
            (USER_MIN + 1, PAGE_SIZE),
            (USER_MIN, PAGE_SIZE + 1),
            (USER_MIN, u64::MAX - PAGE_SIZE + 1),
            (u64::MAX - PAGE_SIZE + 1, PAGE_SIZE),
        ] {
            let refused = MemoryError::Range { address, len: bytes };
            assert_eq!(Order::map_zero(address, bytes, Prot::READ), Err(refused));
            assert_eq!(Order::map_file(0, 0, address, bytes, Prot::READ, true), Err(refused));
            assert_eq!(Order::unmap(address, bytes), Err(refused));
            assert_eq!(Order::protect(address, bytes, Prot::READ), Err(refused));
        }
        assert!(Order::unmap(USER_MIN, USER_END - USER_MIN).is_ok());
        for address in [DOORBELL, layout::RESUME, VDSO, CONTROL, SHARED] {
            assert!(Order::unmap(address, PAGE_SIZE).is_ok(), "{address:#x}");
        }
        assert!(Order::map_file(0, 1, USER_MIN, PAGE_SIZE, Prot::READ, true).is_err(), "offset");
        assert!(Order::map_file(3, 0, USER_MIN, PAGE_SIZE, Prot::READ, true).is_err(), "descriptor");
    }

    #[test]
    fn code_can_be_read() {
        assert_eq!(Order::protect(USER_MIN, PAGE_SIZE, Prot::EXEC).unwrap().arguments()[2], 5);
    }
}
