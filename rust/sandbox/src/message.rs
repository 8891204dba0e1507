// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests and responses as this floor sees them: bytes, without HTTP's framing.

use std::net::SocketAddr;

/// A header of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Name, in lower case.
    pub name: &'a [u8],
    /// Value.
    pub value: &'a [u8],
}

/// A request for a program.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Method, as sent.
    pub method: &'a [u8],
    /// Path, as sent, without the query.
    pub path: &'a [u8],
    /// Query, without the question mark.
    pub query: &'a [u8],
    /// Headers, in order.
    pub headers: &'a [Header<'a>],
    /// Body.
    pub body: &'a [u8],
    /// Who sent it. `None` for requests of the host's own, and for those whose program is not to know.
    pub client: Option<Client>,
}

/// The other end of the connection on which a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Its address and port. A program that serves connections finds them as those of its connection's peer.
    pub address: SocketAddr,
    /// Whether the connection is encrypted.
    pub is_encrypted: bool,
}

/// Takes a program's response.
///
/// The body comes first, then status and headers, which are complete and valid by then. If reading the body fails
/// midway, the call returns an error, and the sink's owner drops or overwrites the part of the body that was taken.
pub trait ResponseSink {
    /// Makes room for a body of `len` bytes and returns exactly that.
    fn body(&mut self, len: usize) -> &mut [u8];
    /// Called in place of `body` if the request or the status rules a body out (`HEAD`, 304). `length` is the length of
    /// the body that a `GET` would have got, if the program has announced it.
    fn no_body(&mut self, length: Option<u64>) {
        let _ = length;
        self.body(0);
    }
    /// Takes the status, 200 to 599.
    fn status(&mut self, status: u16);
    /// Takes one header: a valid field name in the program's case, and a valid value.
    fn header(&mut self, name: &[u8], value: &[u8]);
}

/// A response in memory, for tests and tools.
///
/// ```
/// use mayfly_sandbox::{BufferedResponse, ResponseSink};
///
/// let mut response = BufferedResponse::default();
/// response.body(5).copy_from_slice(b"hello");
/// response.status(200);
/// response.header(b"content-type", b"text/plain");
/// assert_eq!((response.status, response.headers.len()), (200, 1));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BufferedResponse {
    /// Status.
    pub status: u16,
    /// Headers, in order.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Body.
    pub body: Vec<u8>,
    /// The length that a response without a body has announced.
    pub announced: Option<u64>,
}

impl BufferedResponse {
    /// The beginning of the body, on one line, for messages: empty, or after a colon and a blank.
    ///
    /// ```
    /// use mayfly_sandbox::BufferedResponse;
    ///
    /// let response = BufferedResponse { body: b"no\ndatabase\n".into(), ..BufferedResponse::default() };
    /// assert_eq!(response.excerpt(), ": no\\ndatabase");
    /// ```
    #[must_use]
    pub fn excerpt(&self) -> String {
        const MOST: usize = 200;
        let text = String::from_utf8_lossy(self.body.get(..MOST).unwrap_or(&self.body));
        let text = text.trim();
        if text.is_empty() { String::new() } else { format!(": {}", text.escape_debug()) }
    }
}

impl ResponseSink for BufferedResponse {
    fn no_body(&mut self, length: Option<u64>) {
        self.body(0);
        self.announced = length;
    }

    fn body(&mut self, len: usize) -> &mut [u8] {
        self.announced = None;
        self.body.clear();
        self.body.resize(len, 0);
        &mut self.body
    }

    fn status(&mut self, status: u16) {
        self.status = status;
        self.headers.clear();
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        self.headers.push((name.to_vec(), value.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_cut_and_escaped() {
        let excerpt = |body: &[u8]| BufferedResponse { body: body.to_vec(), ..BufferedResponse::default() }.excerpt();
        assert_eq!(excerpt(b" \n"), "");
        assert_eq!(excerpt(b"no\ndatabase\n"), ": no\\ndatabase");
        assert_eq!(excerpt(&[b'x'; 1000]).len(), 202);
        assert!(excerpt(b"\xff\x1b").starts_with(": "));
    }
}
