// SPDX-License-Identifier: MIT OR Apache-2.0
//! A request of C++, read in place.
//!
//! These structures have the layout of those in `cpp/include/mayfly/request.hpp`, field by field: Rust reads all parts
//! of a request without a call to C++. `cpp/src/ffi.hpp` asserts the C++ half of that, the end of this file the other.

use std::net::{IpAddr, SocketAddr};
use std::slice;

use cxx::{ExternType, kind, type_id};
use mayfly_tenancy::{Client, Header, Request};
use smallvec::SmallVec;

/// Most requests have no more headers than this: their views then live on the stack.
const HEADERS_ON_STACK: usize = 32;

/// `mayfly::View`: elements that C++ owns.
///
/// # Invariant
///
/// Only C++ makes views. What one points to is valid and unchanged during the call that it is passed to, and so while
/// Rust has a reference to the view.
#[repr(C)]
pub struct View<T> {
    data: *const T,
    size: usize,
}

/// `mayfly::HeaderView`.
#[repr(C)]
pub struct HeaderView {
    name: View<u8>,
    value: View<u8>,
}

/// `mayfly::ClientView`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ClientView {
    /// The first 4 or all 16 bytes count.
    address: [u8; 16],
    port: u16,
    /// 4 or 6; 0: there is no client.
    version: u8,
    /// Not 0: the connection is encrypted. C++ has no guarantee of a `bool` for Rust.
    encrypted: u8,
}

/// `mayfly::RequestView`.
#[repr(C)]
pub struct RequestView {
    method: View<u8>,
    path: View<u8>,
    query: View<u8>,
    body: View<u8>,
    headers: View<HeaderView>,
    client: ClientView,
}

// SAFETY: the name is that of the C++ type, whose layout this one has; it is trivial there too, as `cpp/src/ffi.hpp`
// asserts.
unsafe impl ExternType for RequestView {
    type Id = type_id!("mayfly::RequestView");
    type Kind = kind::Trivial;
}

impl<T> View<T> {
    fn get(&self) -> &[T] {
        if self.size == 0 {
            return &[]; // The pointer may be null.
        }
        // SAFETY: by the invariant, `size` valid elements that stay unchanged as long as `self` is borrowed.
        unsafe { slice::from_raw_parts(self.data, self.size) }
    }
}

impl RequestView {
    /// Calls `work` with the request in the tenancy's type.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&Request<'_>) -> T) -> T {
        let headers: SmallVec<[Header<'_>; HEADERS_ON_STACK]> = self
            .headers
            .get()
            .iter()
            .map(|header| Header { name: header.name.get(), value: header.value.get() })
            .collect();
        work(&Request {
            method: self.method.get(),
            path: self.path.get(),
            query: self.query.get(),
            body: self.body.get(),
            headers: &headers,
            client: self.client.get(),
        })
    }
}

impl ClientView {
    fn get(&self) -> Option<Client> {
        let [a, b, c, d, ..] = self.address;
        let ip: IpAddr = match self.version {
            4 => [a, b, c, d].into(),
            6 => self.address.into(),
            _ => return None,
        };
        Some(Client { address: SocketAddr::new(ip, self.port), is_encrypted: self.encrypted != 0 })
    }
}

const WORD: usize = size_of::<usize>();
const _: () = assert!(size_of::<View<u8>>() == 2 * WORD && align_of::<View<u8>>() == WORD);
const _: () = assert!(size_of::<HeaderView>() == 4 * WORD && size_of::<RequestView>() == 13 * WORD);
const _: () = assert!(size_of::<ClientView>() == 20 && WORD == 8);

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    fn view<T>(elements: &[T]) -> View<T> {
        View { data: elements.as_ptr(), size: elements.len() }
    }

    const NONE: ClientView = ClientView { address: [0; 16], port: 0, version: 0, encrypted: 0 };

    #[test]
    fn clients_are_of_either_version_or_unknown() {
        let client = |version, encrypted| {
            let address = [32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
            ClientView { address, port: 443, version, encrypted }.get()
        };
        let expected = |address: &str, is_encrypted| Some(Client { address: address.parse().unwrap(), is_encrypted });
        assert_eq!(client(4, 0), expected("32.1.13.184:443", false));
        assert_eq!(client(6, 1), expected("[2001:db8::7]:443", true));
        assert_eq!((client(0, 0), client(5, 1), NONE.get()), (None, None, None));
    }

    #[test]
    fn all_parts_of_a_request_are_read() {
        let headers = [
            HeaderView { name: view(b"host"), value: view(b"a.example") },
            HeaderView { name: view(b"empty"), value: View { data: ptr::null(), size: 0 } },
        ];
        let request = RequestView {
            method: view(b"GET"),
            path: view(b"/a"),
            query: View { data: ptr::null(), size: 0 },
            body: view(b"body"),
            headers: view(&headers),
            client: ClientView { address: [127; 16], port: 7, version: 4, encrypted: 0 },
        };
        request.with(|request| {
            assert_eq!(request.client.unwrap().address, "127.127.127.127:7".parse().unwrap());
            assert_eq!((request.method, request.path, request.query), (&b"GET"[..], &b"/a"[..], &b""[..]));
            assert_eq!(request.body, b"body");
            let headers: Vec<_> = request.headers.iter().map(|header| (header.name, header.value)).collect();
            assert_eq!(headers, [(&b"host"[..], &b"a.example"[..]), (b"empty", b"")]);
        });
    }

    #[test]
    fn a_request_may_have_no_headers_and_more_than_fit_on_the_stack() {
        let many: Vec<HeaderView> =
            (0..2 * HEADERS_ON_STACK).map(|_| HeaderView { name: view(b"a"), value: view(b"b") }).collect();
        for headers in [&[][..], &many] {
            let empty = || view(b"");
            let (method, path, query, body) = (empty(), empty(), empty(), empty());
            let request = RequestView { method, path, query, body, headers: view(headers), client: NONE };
            assert_eq!(request.with(|request| request.headers.len()), headers.len());
        }
    }
}
