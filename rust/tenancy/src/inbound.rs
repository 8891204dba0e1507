// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests of HTTP/1.1 as clients send them, before a framework reads them (RFC 9110, RFC 9112).
//!
//! ```text
//!   client ── bytes ──> Gate ── bytes ──> the framework's parser ── request ──> routes, tenants
//!                        │ head: parsed strictly, refused or passed; body: followed to its end
//! ```
//!
//! A framework that reads a malformed message in some way or other reads it in another way than the proxy in front of
//! it, and one connection becomes two clients' ([smuggling](https://www.rfc-editor.org/rfc/rfc9112#section-11.2)). So
//! the bytes go through a [`Gate`] first. What it passes can be read in one way only; most of it is passed as it came.
//! It also writes anew what the RFCs allow and the framework's parser loses: repeated fields become one, a list of
//! connection options becomes the one that counts, trailers are dropped, and the target's authority becomes the `Host`.

mod body;
mod gate;
mod head;
mod host;
mod refusal;
#[cfg(test)]
mod tests;

pub use gate::{Gate, Taken};
pub use refusal::{REFUSED_FIELD, REFUSED_TARGET, Refusal};

/// What the framework behind a gate can do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Framework {
    /// It takes any method, and not just those of RFC 9110 and WebDAV's.
    pub knows_all_methods: bool,
    /// It sends `100 Continue` to clients that wait to send chunks, not only to those that name a length.
    pub continues_chunks: bool,
}

/// What has the verbatim `Cookie` field, for a framework that keeps cookies in a table. Clients cannot send it.
pub const COOKIE_FIELD: &str = "mayfly-cookie";

/// Bound for a request's head, and for a trailer section.
const HEAD_BYTES: usize = 64 << 10;
/// Bound for the fields of a head, and of a trailer section.
const FIELDS: usize = 100;
