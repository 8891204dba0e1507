// SPDX-License-Identifier: MIT OR Apache-2.0
//! Buffers in a program's memory that a call reads or writes.

use crate::base::arguments::count;
use crate::base::errno::Errno;
use crate::base::halt::Halt;
use crate::kernel::call::Call;

/// Most bytes that one call transfers. The program gets a short count and continues, as with a full pipe.
pub(crate) const TRANSFER_MAX: u64 = 1 << 20;

/// Most buffers in one `readv` or `writev`: IOV_MAX.
pub(crate) const VECTORS_MAX: u64 = 1024;

/// A buffer in the program's memory.
#[derive(Clone, Copy)]
pub(crate) struct Buffer {
    pub(crate) address: u64,
    pub(crate) len: u64,
}

/// The buffers of a vectored call.
pub(crate) fn read_vectors(call: &mut Call<'_, '_>, vectors: u64, vector_count: u64) -> Result<Vec<Buffer>, Halt> {
    if vector_count > VECTORS_MAX {
        return Err(Errno::EINVAL.into());
    }
    let mut buffers = Vec::new();
    for index in 0..vector_count {
        let entry = vectors.checked_add(index.saturating_mul(16)).ok_or(Errno::EFAULT)?;
        let [address, len] = call.user().read_words(entry)?;
        if len.cast_signed() < 0 {
            return Err(Errno::EINVAL.into());
        }
        buffers.push(Buffer { address, len });
    }
    Ok(buffers)
}

pub(crate) fn total(buffers: &[Buffer]) -> u64 {
    buffers.iter().fold(0_u64, |sum, buffer| sum.saturating_add(buffer.len))
}

/// The buffers after their first `skip` bytes.
pub(crate) fn behind(buffers: &[Buffer], mut skip: usize) -> impl Iterator<Item = (u64, usize)> + '_ {
    buffers.iter().filter_map(move |buffer| {
        let len = usize::try_from(buffer.len).unwrap_or(usize::MAX);
        let skipped = skip.min(len);
        skip = skip.saturating_sub(skipped);
        let left = len.saturating_sub(skipped);
        // The copy refuses an address that overflows.
        (left > 0).then(|| (buffer.address.saturating_add(count(skipped)), left))
    })
}
