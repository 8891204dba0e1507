// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes requests into a worker's inbox.
//!
//! # Invariant
//!
//! Bytes of the inbox behind the request's end are zero: what an earlier request left there is cleared before the
//! program sees the next one.

use mayfly_engine::Machine;
use mayfly_machine::layout;

use crate::abi::{HEADER_BYTES, HEADERS_OFFSET, PADDING_BYTES, RANDOM_OFFSET, REQUEST_BYTES};
use crate::error::CallError;
use crate::message::Request;

/// The fields that the host adds to a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostFields {
    pub(crate) id: u64,
    pub(crate) unix_ns: u64,
    pub(crate) monotonic_ns: u64,
    /// 32 bytes for the request's field, 16 for `AT_RANDOM`.
    pub(crate) entropy: [u8; 48],
}

/// The host's side of one worker's inbox.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// The head of a request that is too large for the stack; kept for its allocation.
    large: Vec<u8>,
    /// End of what the last request wrote.
    high_water: u64,
}

impl Inbox {
    /// Writes `request`, or nothing if it does not fit.
    #[inline]
    pub(crate) fn write(
        &mut self,
        machine: &mut Machine,
        request: &Request<'_>,
        added: &HostFields,
        limit: u64,
    ) -> Result<(), CallError> {
        let limit = machine.inbox_bytes().min(limit);
        let strings: usize = request.headers.iter().map(|header| header.name.len() + header.value.len() + 2).sum();
        let head = HEADERS_OFFSET
            + request.headers.len() * HEADER_BYTES
            + strings
            + request.method.len()
            + request.path.len()
            + request.query.len()
            + 3;
        let total = (head + request.body.len() + PADDING_BYTES) as u64;
        if total > limit {
            return Err(CallError::RequestTooLarge { bytes: total, limit });
        }

        // A small request lies in pages that the worker has from the start.
        if total > mayfly_machine::PAGE_SIZE && !machine.cover_inbox(total) {
            return Err(CallError::ServerMemory);
        }

        // After a world switch the stack is warm and the heap is cold.
        let mut small = [0; SMALL_BYTES];
        let bytes = if head <= SMALL_BYTES {
            &mut small[..head]
        } else {
            self.large.clear();
            self.large.resize(head, 0);
            &mut self.large[..]
        };
        build_head(bytes, request, added);

        let mut fits = machine.write_inbox(0, bytes);
        if !request.body.is_empty() {
            fits &= machine.write_inbox(head as u64, request.body);
        }
        debug_assert!(fits, "the size was computed above");
        let end = (head + request.body.len()) as u64;
        if self.high_water > end {
            machine.zero_inbox(end, self.high_water - end);
        }
        self.high_water = end;
        if self.large.capacity() > KEPT_BYTES {
            self.large = Vec::new();
        }
        Ok(())
    }

    /// End of what the last request wrote, in bytes.
    pub(crate) fn high_water(&self) -> u64 {
        self.high_water
    }

    /// Forgets what was written, after the inbox's pages have been given back to the system.
    pub(crate) fn forget(&mut self) {
        self.high_water = 0;
    }
}

/// A larger buffer is given back after the request.
const KEPT_BYTES: usize = 64 << 10;
/// Heads up to this size are built on the stack.
const SMALL_BYTES: usize = 1024;

/// Fills `bytes`, which are zero and as long as the head.
fn build_head(bytes: &mut [u8], request: &Request<'_>, added: &HostFields) {
    put_u32(bytes, 0, crate::abi::ABI_MAX);
    put_u32(bytes, 4, request.headers.len() as u32);
    put_u64(bytes, 8, added.id);
    put_u64(bytes, 16, added.unix_ns);
    put_u64(bytes, 24, added.monotonic_ns);
    bytes[32..64].copy_from_slice(&added.entropy[..32]);
    let mut end = HEADERS_OFFSET + request.headers.len() * HEADER_BYTES;
    for (at, text) in [(64, request.method), (80, request.path), (96, request.query)] {
        end = append(bytes, at, end, text);
    }
    put_u64(bytes, 128, layout::INBOX + HEADERS_OFFSET as u64);
    const _: () = assert!(REQUEST_BYTES == 136);
    let random = RANDOM_OFFSET as usize;
    bytes[random..random + 16].copy_from_slice(&added.entropy[32..]);
    for (index, header) in request.headers.iter().enumerate() {
        let at = HEADERS_OFFSET + index * HEADER_BYTES;
        end = append(bytes, at, end, header.name);
        end = append(bytes, at + 16, end, header.value);
    }
    // The body follows the head.
    put_u64(bytes, 112, layout::INBOX + end as u64);
    put_u64(bytes, 120, request.body.len() as u64);
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Puts `text` and a NUL at `end`, its address and size at `at`, and returns the new end.
fn append(bytes: &mut [u8], at: usize, end: usize, text: &[u8]) -> usize {
    put_u64(bytes, at, layout::INBOX + end as u64);
    put_u64(bytes, at + 8, text.len() as u64);
    bytes[end..end + text.len()].copy_from_slice(text);
    end + text.len() + 1
}
