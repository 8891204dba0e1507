// SPDX-License-Identifier: MIT OR Apache-2.0
//! A copy of a request that outlives the connection's buffers.

use std::ops::Range;

use mayfly_sandbox::{Client, Header, Request};

/// A copy of a request, in one allocation for all its text.
#[derive(Debug)]
pub(crate) struct OwnedRequest {
    text: Vec<u8>,
    method: Range<usize>,
    path: Range<usize>,
    query: Range<usize>,
    body: Range<usize>,
    headers: Vec<(Range<usize>, Range<usize>)>,
    client: Option<Client>,
}

impl OwnedRequest {
    pub(crate) fn copy(request: &Request<'_>) -> Self {
        let mut text = Vec::with_capacity(size(request) as usize);
        let mut add = |bytes: &[u8]| {
            let start = text.len();
            text.extend_from_slice(bytes);
            start..text.len()
        };
        Self {
            method: add(request.method),
            path: add(request.path),
            query: add(request.query),
            body: add(request.body),
            headers: request.headers.iter().map(|header| (add(header.name), add(header.value))).collect(),
            client: request.client,
            text,
        }
    }

    /// Passes the copy to `use_it` as a [`Request`].
    pub(crate) fn view<T>(&self, use_it: impl FnOnce(&Request<'_>) -> T) -> T {
        let part = |range: &Range<usize>| &self.text[range.clone()];
        let headers: Vec<Header<'_>> =
            self.headers.iter().map(|(name, value)| Header { name: part(name), value: part(value) }).collect();
        use_it(&Request {
            method: part(&self.method),
            path: part(&self.path),
            query: part(&self.query),
            body: part(&self.body),
            headers: &headers,
            client: self.client,
        })
    }
}

/// The value of the request's `host` header, or nothing.
pub(crate) fn host<'a>(request: &Request<'a>) -> &'a [u8] {
    request.headers.iter().find(|header| header.name == b"host").map_or(&[], |header| header.value)
}

/// The size of all parts together, in bytes.
pub(crate) fn size(request: &Request<'_>) -> u64 {
    let headers: usize = request.headers.iter().map(|header| header.name.len() + header.value.len()).sum();
    (request.method.len() + request.path.len() + request.query.len() + request.body.len() + headers) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_all_parts() {
        let client = Some(Client { address: "[::1]:80".parse().unwrap(), is_encrypted: true });
        let headers = [Header { name: b"a", value: b"" }, Header { name: b"bc", value: b"de" }];
        let request = Request { method: b"POST", path: b"/x", query: b"", body: b"\0body", headers: &headers, client };
        OwnedRequest::copy(&request).view(|copy| {
            assert_eq!(
                (copy.method, copy.path, copy.query, copy.body),
                (&b"POST"[..], &b"/x"[..], &b""[..], &b"\0body"[..])
            );
            let parts: Vec<_> = copy.headers.iter().map(|header| (header.name, header.value)).collect();
            assert_eq!(parts, [(&b"a"[..], &b""[..]), (b"bc", b"de")]);
            assert_eq!((size(copy), copy.client), (size(&request), request.client));
        });
    }
}
