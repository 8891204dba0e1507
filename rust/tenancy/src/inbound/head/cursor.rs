// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads the elements of a head from its bytes.

use mayfly_sandbox::fields::is_value_byte;

use super::fields::{Field, FieldKind, Fields};
use crate::http1;
use crate::inbound::refusal::Stop;
use crate::inbound::{FIELDS, Refusal};

/// A table, because every byte of every name is looked up.
const TOKEN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = http1::is_token_byte(byte as u8);
        byte += 1;
    }
    table
};

/// Number of bytes of a value that are examined at once.
const STRIDE: usize = 16;

pub(super) const LINE: Refusal = Refusal::bad("the request line is malformed (RFC 9112, 3)");
const LINE_END: Refusal = Refusal::bad("a line does not end with CR and LF (RFC 9112, 2.2)");
const FOLDED: Refusal = Refusal::bad("a line of the head begins with white space (RFC 9112, 2.2 and 5.2)");
const NO_COLON: Refusal = Refusal::bad("a line of the head has no colon (RFC 9112, 5)");
const BLANK: Refusal = Refusal::bad("a field's name is followed by white space (RFC 9112, 5.1)");
const NAME: Refusal = Refusal::bad("a field's name is not a token (RFC 9110, 5.1)");
const VALUE: Refusal = Refusal::bad("a field's value has a control character (RFC 9110, 5.5)");

/// Reads bytes from the beginning of its input.
pub(super) struct Cursor<'a> {
    pub(super) input: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    #[inline]
    pub(super) fn token(&mut self) -> &'a [u8] {
        let rest = &self.input[self.at..];
        let len = rest.iter().position(|byte| !TOKEN_BYTES[usize::from(*byte)]).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// The next bytes for which `is` holds; usually many.
    #[inline]
    pub(super) fn span(&mut self, is: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = &self.input[self.at..];
        // Without a branch per byte, the compiler turns a stride into one vector comparison.
        let strides =
            rest.chunks_exact(STRIDE).take_while(|stride| stride.iter().fold(true, |all, byte| all & is(*byte)));
        let whole = strides.count() * STRIDE;
        let len = whole + rest[whole..].iter().position(|byte| !is(*byte)).unwrap_or(rest.len() - whole);
        self.at += len;
        &rest[..len]
    }

    #[inline]
    pub(super) fn expect(&mut self, byte: u8, refusal: Refusal) -> Result<(), Stop> {
        match self.peek() {
            None => Err(Stop::Incomplete),
            Some(next) if next == byte => {
                self.at += 1;
                Ok(())
            }
            Some(_) => Err(refusal.into()),
        }
    }

    /// Reads the end of a line; a byte other than CR and LF is refused with `otherwise`.
    #[inline]
    pub(super) fn line_end(&mut self, otherwise: Refusal) -> Result<(), Stop> {
        if self.peek() == Some(b'\n') {
            return Err(LINE_END.into());
        }
        self.expect(b'\r', otherwise)?;
        self.expect(b'\n', LINE_END)
    }

    /// Reads the version and returns the digit of the minor version (RFC 9112, 2.3).
    pub(super) fn version(&mut self) -> Result<u8, Stop> {
        for byte in *b"HTTP/" {
            self.expect(byte, LINE)?;
        }
        let major = self.digit()?;
        self.expect(b'.', LINE)?;
        let minor = self.digit()?;
        if major == b'1' { Ok(minor) } else { Err(Refusal::VERSION.into()) }
    }

    fn digit(&mut self) -> Result<u8, Stop> {
        let digit = self.peek().ok_or(Stop::Incomplete)?;
        if !digit.is_ascii_digit() {
            return Err(LINE.into());
        }
        self.at += 1;
        Ok(digit)
    }

    /// Reads field lines and the empty line that ends them.
    pub(super) fn fields(&mut self, fields: &mut Fields<'a>) -> Result<(), Stop> {
        // One bit for each combination of a name's length, first and last byte: names with different bits are
        // different.
        let mut seen = 0_u64;
        loop {
            match self.peek() {
                None => return Err(Stop::Incomplete),
                Some(b'\r' | b'\n') => return self.line_end(LINE_END),
                Some(b' ' | b'\t') => return Err(FOLDED.into()),
                Some(_) => {}
            }
            let name = self.token();
            let (Some(first), Some(last)) = (name.first(), name.last()) else { return Err(NAME.into()) };
            match self.peek() {
                None => return Err(Stop::Incomplete),
                Some(b':') => self.at += 1,
                Some(b' ' | b'\t') => return Err(BLANK.into()),
                Some(b'\r' | b'\n') => return Err(NO_COLON.into()),
                Some(_) => return Err(NAME.into()),
            }
            let value = http1::trimmed(self.span(is_value_byte));
            self.line_end(VALUE)?;
            if fields.list.len() == FIELDS {
                return Err(Refusal::HEAD_TOO_LARGE.into());
            }
            let ends = usize::from(first.to_ascii_lowercase()) * 7 + usize::from(last.to_ascii_lowercase());
            let bit = 1 << ((name.len() * 31 + ends) % 64);
            fields.has_repeats |=
                seen & bit != 0 && fields.list.iter().any(|field| field.name.eq_ignore_ascii_case(name));
            seen |= bit;
            let kind = FieldKind::of(name);
            fields.kinds |= kind.bit();
            fields.list.push(Field { kind, name, value });
        }
    }
}
