// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes requests into a worker's inbox.
//!
//! # Invariant
//!
//! Bytes of the inbox behind the request's end are zero: what an earlier request left there is cleared before the next one is
//! seen.

use mayfly_kvm::{Machine, layout};

use crate::abi::{HEADER_BYTES, HEADERS_OFFSET, PADDING_BYTES, RANDOM_OFFSET, REQUEST_BYTES};
use crate::error::CallError;
use crate::message::Request;

/// What the host adds to a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) id: u64,
    pub(crate) unix_ns: u64,
    pub(crate) monotonic_ns: u64,
    /// 32 bytes for the request's field, 16 behind `AT_RANDOM`.
    pub(crate) entropy: [u8; 48],
}

/// The host's side of one worker's inbox.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// Header part of the request, built here and copied once; kept for its allocation.
    staging: Vec<u8>,
    /// End of what the last request wrote.
    high_water: u64,
}

impl Inbox {
    /// Writes `request`; nothing is written if it does not fit.
    #[inline]
    pub(crate) fn write(
        &mut self,
        machine: &mut Machine,
        request: &Request<'_>,
        stamp: &Stamp,
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

        let bytes = &mut self.staging;
        bytes.clear();
        bytes.resize(HEADERS_OFFSET + request.headers.len() * HEADER_BYTES, 0);
        put_u32(bytes, 0, crate::abi::ABI_MAX);
        put_u32(bytes, 4, request.headers.len() as u32);
        put_u64(bytes, 8, stamp.id);
        put_u64(bytes, 16, stamp.unix_ns);
        put_u64(bytes, 24, stamp.monotonic_ns);
        bytes[32..64].copy_from_slice(&stamp.entropy[..32]);
        for (at, text) in [(64, request.method), (80, request.path), (96, request.query)] {
            append(bytes, at, text);
        }
        put_u64(bytes, 112, layout::INBOX + head as u64);
        put_u64(bytes, 120, request.body.len() as u64);
        put_u64(bytes, 128, layout::INBOX + HEADERS_OFFSET as u64);
        const _: () = assert!(REQUEST_BYTES == 136);
        let random = RANDOM_OFFSET as usize;
        bytes[random..random + 16].copy_from_slice(&stamp.entropy[32..]);
        for (index, header) in request.headers.iter().enumerate() {
            let at = HEADERS_OFFSET + index * HEADER_BYTES;
            append(bytes, at, header.name);
            append(bytes, at + 16, header.value);
        }

        let mut fits = machine.write_inbox(0, bytes);
        if !request.body.is_empty() {
            fits &= machine.write_inbox(head as u64, request.body);
        }
        debug_assert!(fits && bytes.len() == head, "the size was computed above");
        let end = (head + request.body.len()) as u64;
        if self.high_water > end {
            machine.zero_inbox(end, self.high_water - end);
        }
        self.high_water = end;
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

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Appends `text` and a NUL, and puts its address and size at `at`.
fn append(bytes: &mut Vec<u8>, at: usize, text: &[u8]) {
    let address = layout::INBOX + bytes.len() as u64;
    put_u64(bytes, at, address);
    put_u64(bytes, at + 8, text.len() as u64);
    bytes.extend_from_slice(text);
    bytes.push(0);
}
