// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads a program's response. Every byte of it is hostile: it is bounded, copied once, and then checked.

use mayfly_engine::Machine;
use mayfly_linux::{CopyError, Process, Step};
use mayfly_machine::BadAddress;

use crate::abi::{HEADER_BYTES, RESPONSE_BYTES, RESPONSE_HEADERS_MAX, u64_at};
use crate::fields;
use crate::message::ResponseSink;

/// A larger buffer for headers is not kept for the next response.
const KEPT_BYTES: usize = 64 << 10;

/// Why a response was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The response, or a part of it, does not lie in the program's memory.
    #[error("the response's {part} is not in the program's memory: {source}")]
    Address {
        /// Which part.
        part: &'static str,
        /// Where.
        source: BadAddress,
    },
    /// The status is not one that a program may send.
    #[error("status {status} is not between 200 and 599")]
    Status {
        /// The status.
        status: u32,
    },
    /// Too many headers.
    #[error("{count} headers; the limit is {limit}")]
    HeaderCount {
        /// How many.
        count: u32,
        /// How many there may be.
        limit: u32,
    },
    /// A header's name is not an RFC 9110 token.
    #[error("header {index} has an invalid name")]
    HeaderName {
        /// Position in the response.
        index: u32,
    },
    /// A header's value has a control character, or begins or ends with white space.
    #[error("header {index} has an invalid value")]
    HeaderValue {
        /// Position in the response.
        index: u32,
    },
    /// The header frames the message or is about the connection: the server sets it.
    #[error("header {index} ({name}) may be set by the server only")]
    HeaderReserved {
        /// Position in the response.
        index: u32,
        /// Its name.
        name: &'static str,
    },
    /// What the program wrote on its connection is not a response.
    #[error("what the program wrote is not a response: {0}")]
    Malformed(&'static str),
    /// Headers and body are larger than allowed.
    #[error("the response has {bytes} bytes or more; the limit is {limit}")]
    TooLarge {
        /// The size up to the point where this was noticed.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

/// Why a response is not there.
#[derive(Debug)]
pub(crate) enum Unread {
    Refused(ResponseError),
    Ends(Step),
    /// Must be read again on a thread that may block.
    NotHere,
}

impl From<ResponseError> for Unread {
    fn from(error: ResponseError) -> Self {
        Self::Refused(error)
    }
}

/// The memory that a response lies in.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) machine: &'a mut Machine,
    pub(crate) process: &'a Process,
    /// Whether the leg's thread may block.
    pub(crate) may_block: bool,
}

impl Source<'_> {
    #[inline]
    fn read(&mut self, address: u64, out: &mut [u8], part: &'static str) -> Result<(), Unread> {
        if self.machine.read(address, out).is_ok() { Ok(()) } else { self.bring_in(address, out, part) }
    }

    /// Reads what is not in the tables, as pages of files are not that a program has mapped shared.
    #[cold]
    fn bring_in(&mut self, address: u64, out: &mut [u8], part: &'static str) -> Result<(), Unread> {
        let Err(error) = self.process.copy_in(self.machine, address, out, self.may_block) else { return Ok(()) };
        match (error, self.machine.read(address, out)) {
            (CopyError::BadAddress, Err(source)) => Err(at(part)(source).into()),
            (CopyError::BadAddress, Ok(())) => Ok(()),
            (CopyError::Ends(step), _) => Err(Unread::Ends(step)),
            (CopyError::NotHere, _) => Err(Unread::NotHere),
        }
    }
}

/// Buffers for reading responses; kept for their allocations.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    text: Vec<u8>,
    /// Ends of name and value in `text`.
    ends: Vec<(usize, usize)>,
}

impl Reader {
    /// Reads the response at `address` into `sink`.
    #[inline]
    pub(crate) fn read<S: ResponseSink>(
        &mut self,
        mut source: Source<'_>,
        address: u64,
        limit: u64,
        sink: &mut S,
    ) -> Result<(), Unread> {
        let mut raw = [0; RESPONSE_BYTES];
        source.read(address, &mut raw, "frame")?;
        let status = u32_at(&raw, 0);
        let count = u32_at(&raw, 4);
        let (headers, body, size) = (u64_at(&raw, 8), u64_at(&raw, 16), u64_at(&raw, 24));
        let status = match u16::try_from(status) {
            Ok(code @ 200..=599) => code,
            _ => return Err(ResponseError::Status { status }.into()),
        };
        if count > RESPONSE_HEADERS_MAX {
            return Err(ResponseError::HeaderCount { count, limit: RESPONSE_HEADERS_MAX }.into());
        }
        if self.text.capacity() > KEPT_BYTES {
            self.text = Vec::new();
        }
        self.text.clear();
        self.ends.clear();
        if count > 0 {
            let mut table = [0; RESPONSE_HEADERS_MAX as usize * HEADER_BYTES];
            let table = &mut table[..count as usize * HEADER_BYTES];
            source.read(headers, table, "header table")?;
            for (index, header) in (0..).zip(table.chunks_exact(HEADER_BYTES)) {
                self.read_header(&mut source, index, header, limit)?;
            }
        }
        let head = self.text.len() as u64;
        let total = head.saturating_add(size);
        if total > limit {
            return Err(ResponseError::TooLarge { bytes: total, limit }.into());
        }
        // `size` is within `limit` now, so it fits.
        source.read(body, sink.body(size as usize), "body")?;
        sink.status(status);
        let mut start = 0;
        for &(name, value) in &self.ends {
            sink.header(&self.text[start..name], &self.text[name..value]);
            start = value;
        }
        Ok(())
    }

    fn read_header(&mut self, source: &mut Source<'_>, index: u32, header: &[u8], limit: u64) -> Result<(), Unread> {
        let start = self.text.len();
        let name = self.append(source, u64_at(header, 0), u64_at(header, 8), limit, "header name")?;
        check_name(&self.text[start..name], index)?;
        let value = self.append(source, u64_at(header, 16), u64_at(header, 24), limit, "header value")?;
        if !fields::is_value(&self.text[name..value]) {
            return Err(ResponseError::HeaderValue { index }.into());
        }
        self.ends.push((name, value));
        Ok(())
    }

    /// Copies a string behind the text so far and returns the new end.
    fn append(
        &mut self,
        source: &mut Source<'_>,
        address: u64,
        size: u64,
        limit: u64,
        part: &'static str,
    ) -> Result<usize, Unread> {
        let start = self.text.len();
        let bytes = (start as u64).saturating_add(size);
        if bytes > limit {
            return Err(ResponseError::TooLarge { bytes, limit }.into());
        }
        let end = bytes as usize;
        self.text.resize(end, 0);
        source.read(address, &mut self.text[start..end], part)?;
        Ok(end)
    }
}

fn at(part: &'static str) -> impl Fn(BadAddress) -> ResponseError {
    move |source| ResponseError::Address { part, source }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn check_name(name: &[u8], index: u32) -> Result<(), ResponseError> {
    if !fields::is_token(name) {
        return Err(ResponseError::HeaderName { index });
    }
    match fields::reserved(name) {
        Some(name) => Err(ResponseError::HeaderReserved { index, name }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_frame_the_message_are_refused() {
        for name in
            ["Content-Length", "transfer-encoding", "CONNECTION", "Proxy-Authenticate", "te", "Trailer", "upgrade"]
        {
            assert!(matches!(check_name(name.as_bytes(), 0), Err(ResponseError::HeaderReserved { .. })), "{name}");
        }
        for name in ["", "a b", "a:", "a\r\n"] {
            assert_eq!(check_name(name.as_bytes(), 7), Err(ResponseError::HeaderName { index: 7 }), "{name:?}");
        }
        assert_eq!(check_name(b"content-type", 0), Ok(()));
    }
}
