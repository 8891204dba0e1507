// SPDX-License-Identifier: MIT OR Apache-2.0
//! HTTP/1.1 towards a program that serves connections itself (RFC 9110, RFC 9112).
//!
//! ```text
//!   Request ── encode ──> the program's connection ── decode: head, framing, chunks ──> status, headers, body
//! ```
//!
//! Framing is done here in both directions. What a client sends can never become two requests, and of a program's
//! answer only the status, valid headers and the body are passed on. Hop-by-hop headers are passed in neither direction
//! (RFC 9110, 7.6.1).

mod chunks;
mod decode;
mod encode;
pub(crate) mod forwarding;
mod head;
#[cfg(test)]
mod tests;

pub(crate) use mayfly_sandbox::fields::is_token_byte;
use mayfly_sandbox::fields::{is_token, is_value, reserved};
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

/// Options of a `Connection` header that are examined. More make no sense, and examining them all could take long.
const OPTIONS_MAX: usize = 32;

/// Strips white space at both ends.
pub(crate) fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether a header frames the message or is hop-by-hop.
fn is_of_the_connection(name: &[u8]) -> bool {
    reserved(name).is_some()
}

/// Whether the value of a `Connection` header has this option.
fn has_option(connection: &[u8], option: &[u8]) -> bool {
    connection.split(|byte| *byte == b',').take(OPTIONS_MAX).any(|other| trimmed(other).eq_ignore_ascii_case(option))
}
