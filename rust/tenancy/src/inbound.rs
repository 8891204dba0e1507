// SPDX-License-Identifier: MIT OR Apache-2.0
//! HTTP/1.1 requests as clients send them, before a framework parses them (RFC 9110, RFC 9112).
//!
//! ```text
//!   client ── bytes ──> Gate ── bytes ──> the framework's parser ── request ──> routes, tenants
//!                        │ head: parsed strictly, refused or passed; body: followed to its end
//! ```
//!
//! A framework may parse a malformed message differently from the proxy in front of it. Then one client's bytes are
//! taken for another client's request ([smuggling](https://www.rfc-editor.org/rfc/rfc9112#section-11.2)). So the bytes
//! pass through a [`Gate`] first. What it passes has exactly one interpretation; most of it is passed unchanged. The
//! gate also rewrites what the RFCs allow but the framework's parser loses: repeated fields are joined, a list of
//! connection options becomes the one that applies, trailers are dropped, and the target's authority becomes the
//! `Host`.

mod body;
mod gate;
mod head;
mod host;
mod refusal;
#[cfg(test)]
mod tests;

pub use gate::{Gate, GateResult};
pub use refusal::{REFUSED_FIELD, REFUSED_TARGET, Refusal};

/// The capabilities of the framework behind a gate.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Framework {
    /// It accepts any method, not only those of RFC 9110 and WebDAV.
    pub knows_all_methods: bool,
    /// It sends `100 Continue` also to clients that wait to send chunks, not only to those that declare a length.
    pub continues_chunks: bool,
}

/// The field with the verbatim `Cookie` value, for a framework that keeps cookies in a table. Clients cannot send it.
pub const COOKIE_FIELD: &str = "mayfly-cookie";

/// Largest head of a request, and largest trailer section, in bytes.
const HEAD_BYTES: usize = 64 << 10;
/// Most fields of a head, and of a trailer section.
const FIELDS: usize = 100;
