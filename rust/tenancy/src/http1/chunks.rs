// SPDX-License-Identifier: MIT OR Apache-2.0
//! Incremental decoder of the chunked transfer coding (RFC 9112, 7.1).
//!
//! Extensions and trailers are dropped; a response may have a few KiB of them.

use mayfly_sandbox::ResponseError;

/// Most bytes of extensions and trailers in a response.
const EXTRAS_MAX: u32 = 16 << 10;
/// Most hexadecimal digits of a chunk's size: 60 bits, more than any response may have.
const DIGITS_MAX: u8 = 15;

/// The position in the coding of the next byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size { size: u64, digits: u8 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    EndLf,
}

/// A chunked body being read.
#[derive(Debug)]
pub(super) struct Chunks {
    at: At,
    extras: u32,
}

impl Default for Chunks {
    fn default() -> Self {
        Self { at: At::Size { size: 0, digits: 0 }, extras: 0 }
    }
}

impl Chunks {
    /// Consumes the bytes that belong to the body, and appends the decoded data to `body`. Returns the bytes behind the
    /// body when that is complete.
    pub(super) fn take<'a>(
        &mut self,
        mut bytes: &'a [u8],
        body: &mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, ResponseError> {
        while let Some((&byte, rest)) = bytes.split_first() {
            if let At::Data { left } = self.at {
                let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                let (data, rest) = bytes.split_at(here);
                body.extend_from_slice(data);
                self.at = match left - here as u64 {
                    0 => At::DataCr,
                    left => At::Data { left },
                };
                bytes = rest;
                continue;
            }
            bytes = rest;
            self.at = match (self.at, byte) {
                (At::Size { size, digits }, _) => self.size(size, digits, byte)?,
                (At::Extension { size }, b'\r') => At::SizeEnd { size },
                (At::Extension { .. }, b'\n') => {
                    return Err(ResponseError::Malformed("a chunk's size ends without CR"));
                }
                (At::Extension { size }, _) => self.extra(At::Extension { size })?,
                (At::SizeEnd { size: 0 }, b'\n') => At::TrailerStart,
                (At::SizeEnd { size }, b'\n') => At::Data { left: size },
                (At::SizeEnd { .. }, _) => return Err(ResponseError::Malformed("a chunk's size ends without LF")),
                (At::DataCr, b'\r') => At::DataLf,
                (At::DataLf, b'\n') => At::Size { size: 0, digits: 0 },
                (At::DataCr | At::DataLf, _) => {
                    return Err(ResponseError::Malformed("a chunk is longer than its size"));
                }
                (At::TrailerStart, b'\r') => At::EndLf,
                (At::TrailerStart, b'\n') => return Err(ResponseError::Malformed("the last line ends without CR")),
                (At::Trailer, b'\n') => self.extra(At::TrailerStart)?,
                (At::TrailerStart | At::Trailer, _) => self.extra(At::Trailer)?,
                (At::EndLf, b'\n') => return Ok(Some(bytes)),
                (At::EndLf, _) => return Err(ResponseError::Malformed("the last line ends without LF")),
                // Handled above.
                (At::Data { left }, _) => At::Data { left },
            };
        }
        Ok(None)
    }

    fn size(&mut self, size: u64, digits: u8, byte: u8) -> Result<At, ResponseError> {
        let digit = char::from(byte).to_digit(16).map(u64::from);
        match (digit, byte) {
            (Some(digit), _) if digits < DIGITS_MAX => Ok(At::Size { size: size << 4 | digit, digits: digits + 1 }),
            (None, b'\r') if digits > 0 => Ok(At::SizeEnd { size }),
            (None, b';' | b' ' | b'\t') if digits > 0 => self.extra(At::Extension { size }),
            _ => Err(ResponseError::Malformed("a chunk's size is invalid")),
        }
    }

    /// Counts a byte that is dropped.
    fn extra(&mut self, next: At) -> Result<At, ResponseError> {
        self.extras += 1;
        if self.extras > EXTRAS_MAX {
            return Err(ResponseError::TooLarge { bytes: self.extras.into(), limit: EXTRAS_MAX.into() });
        }
        Ok(next)
    }
}
