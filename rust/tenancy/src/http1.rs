// SPDX-License-Identifier: MIT OR Apache-2.0
//! HTTP/1.1 as it is spoken with a program that serves connections itself (RFC 9110, RFC 9112).
//!
//! ```text
//!   Request ── encode ──> the program's connection ── decode: head, framing, chunks ──> status, headers, body
//! ```
//!
//! Both ways are framed here: what a client sends can never become two requests, and of what a program answers only
//! status, valid headers and the body go on. Headers that are about one connection go neither way (RFC 9110, 7.6.1).

mod chunks;
mod decode;
mod encode;
mod head;
#[cfg(test)]
mod tests;

use mayfly_sandbox::{Decoder, Protocol, Request};

/// HTTP/1.1, for programs that speak it as servers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http1;

impl Protocol for Http1 {
    fn encode(&self, request: &Request<'_>, out: &mut Vec<u8>) {
        encode::encode(request, out);
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(decode::ResponseDecoder::default())
    }
}

/// Options of `Connection` that are looked at: more make no sense, and looking at them all could take long.
const OPTIONS_MAX: usize = 32;

/// A byte of a method or of a header's name: RFC 9110, 5.6.2.
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

/// Whether a header can have this value: RFC 9110, 5.5, no control characters but the tab.
fn is_value(value: &[u8]) -> bool {
    value.iter().all(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f))
}

/// Without the white space at the ends.
pub(crate) fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether a header frames the message or is about one connection.
fn is_of_the_connection(name: &[u8]) -> bool {
    const NAMES: [&str; 7] =
        ["connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];
    const PROXY: &[u8] = b"proxy-";
    NAMES.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
        || name.get(..PROXY.len()).is_some_and(|start| start.eq_ignore_ascii_case(PROXY))
}

/// Whether the value of a `Connection` header has this option.
fn has_option(connection: &[u8], option: &[u8]) -> bool {
    connection.split(|byte| *byte == b',').take(OPTIONS_MAX).any(|other| trimmed(other).eq_ignore_ascii_case(option))
}
