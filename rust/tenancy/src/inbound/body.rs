// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lines between the chunks of a body (RFC 9112, 7.1).

use mayfly_sandbox::fields::is_value_byte;

use super::Refusal;
use super::refusal::Stop;

/// The longest line with a chunk's size and its extensions, in bytes. Extensions have no meaning here.
const LINE_BYTES: usize = 4 << 10;
/// The largest size of a chunk: far above any limit on bodies, far below any overflow.
const CHUNK_BYTES: u64 = 1 << 48;

const NO_SIZE: Refusal = Refusal::bad("a chunk's size is not a hexadecimal number (RFC 9112, 7.1)");
const LINE: Refusal = Refusal::bad("the line of a chunk's size is malformed (RFC 9112, 7.1)");
const TOO_LONG: Refusal = Refusal::bad("the line of a chunk's size is too long");

/// Parses the line with a chunk's size; returns the size and the length of the line.
pub(super) fn chunk_size(input: &[u8]) -> Result<(u64, usize), Stop> {
    let input_or_bound = &input[..input.len().min(LINE_BYTES)];
    let incomplete = || if input.len() < LINE_BYTES { Stop::Incomplete } else { Stop::Refused(TOO_LONG) };
    let mut size = 0_u64;
    let mut at = 0;
    while let Some(digit) = input_or_bound.get(at).and_then(|byte| char::from(*byte).to_digit(16)) {
        size = size << 4 | u64::from(digit);
        if size > CHUNK_BYTES {
            return Err(Stop::Refused(Refusal::BODY_TOO_LARGE));
        }
        at += 1;
    }
    let digits = at;
    while let Some(b' ' | b'\t') = input_or_bound.get(at) {
        at += 1;
    }
    match input_or_bound.get(at) {
        None => return Err(incomplete()),
        Some(_) if digits == 0 => return Err(Stop::Refused(NO_SIZE)),
        Some(b';') => at += input_or_bound[at..].iter().take_while(|byte| is_value_byte(**byte)).count(),
        // White space is allowed only before an extension.
        Some(b'\r') if at == digits => {}
        Some(_) => return Err(Stop::Refused(NO_SIZE)),
    }
    match &input_or_bound[at..] {
        [b'\r', b'\n', ..] => Ok((size, at + 2)),
        [] | [b'\r'] => Err(incomplete()),
        _ => Err(Stop::Refused(LINE)),
    }
}
