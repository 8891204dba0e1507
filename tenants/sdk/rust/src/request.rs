// SPDX-License-Identifier: MIT OR Apache-2.0

//! A request and its answer.

use core::ffi::c_void;
use core::fmt;
use core::mem::MaybeUninit;
use core::slice;

use crate::abi;
use crate::host::{Host, errno};

/// The request to answer.
///
/// Its parts are as the client sent them and need not be UTF-8: path and query are still percent-encoded. Access is
/// free: the host has written them in place.
pub struct Request {
    host: Host,
    raw: *const abi::Request,
}

/// The sender of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A client.
    Client,
    /// A program of the tenant, to this storage program: the path names the function, the body is its argument. Answer
    /// with 200 and the result, or with 404 for an unknown function; anything else is a failure.
    Call,
    /// The host, after [`Host::hand_over`]: the response's body is the state that the next version gets.
    Save,
    /// The host, after [`Host::hand_over`]: the body is the last version's state. 200 accepts it.
    Restore,
}

/// Why a response was not sent: the host's error number. The request has ended nevertheless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub i32);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the host refused the response: error {}", self.0)
    }
}

impl core::error::Error for Refused {}

/// Why a call of the storage program failed: an error number, as `mayfly_call()` in `mayfly.h` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallError(pub i32);

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the call of the storage program failed: error {}", self.0)
    }
}

impl core::error::Error for CallError {}

/// The host's limit on the headers of a response.
const HEADERS_MAX: usize = 64;

impl Request {
    /// # Safety
    ///
    /// `raw` is a request of the host's that has not been answered.
    pub(crate) unsafe fn new(host: Host, raw: *const abi::Request) -> Self {
        Self { host, raw }
    }

    fn raw(&self) -> &abi::Request {
        // SAFETY: see new(): the request stays valid and unwritten until it is answered. respond(), which answers it,
        // takes self, so no reference is left then.
        unsafe { &*self.raw }
    }

    /// # Safety
    ///
    /// `bytes` are a part of the request.
    unsafe fn slice(_lender: &Self, bytes: abi::Bytes) -> &[u8] {
        // SAFETY: for a part of the request the same holds as in raw(), and the result borrows from the request.
        unsafe { bytes.as_slice() }
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The sender.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self.method() {
            abi::METHOD_CALL => Origin::Call,
            abi::METHOD_SAVE => Origin::Save,
            abi::METHOD_RESTORE => Origin::Restore,
            _ => Origin::Client,
        }
    }

    /// Unique while the server runs; also in the server's log.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.raw().id
    }

    /// Wall clock at the arrival: ns since 1970, UTC.
    #[must_use]
    pub fn unix_ns(&self) -> u64 {
        self.raw().unix_ns
    }

    /// `CLOCK_MONOTONIC` at the same instant, ns.
    #[must_use]
    pub fn monotonic_ns(&self) -> u64 {
        self.raw().monotonic_ns
    }

    /// Fresh for each request, and secret: seed generators with it.
    #[must_use]
    pub fn entropy(&self) -> &[u8; 32] {
        &self.raw().entropy
    }

    /// As sent: `GET`.
    #[must_use]
    pub fn method(&self) -> &[u8] {
        // SAFETY: it is a part of the request.
        unsafe { Self::slice(self, self.raw().method) }
    }

    /// As sent, without the query.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        // SAFETY: it is a part of the request.
        unsafe { Self::slice(self, self.raw().path) }
    }

    /// The path as text, with U+FFFD for what is not UTF-8.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn path_lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.path())
    }

    /// What follows the first `?`, without it.
    #[must_use]
    pub fn query(&self) -> &[u8] {
        // SAFETY: it is a part of the request.
        unsafe { Self::slice(self, self.raw().query) }
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        // SAFETY: it is a part of the request.
        unsafe { Self::slice(self, self.raw().body) }
    }

    /// Names, in lower case, and values, in the order in which they came. Several may share a name.
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        let raw = self.raw();
        let count = raw.header_count as usize;
        // SAFETY: the host gives as many headers as it says, and for them the same holds as in raw().
        let headers = if count == 0 { &[] } else { unsafe { slice::from_raw_parts(raw.headers, count) } };
        Headers { request: self, headers: headers.iter() }
    }

    /// The value of the first header of that name, given in lower case.
    ///
    /// ```
    /// use mayfly_guest::{Request, Response, serve};
    ///
    /// fn greet(request: &Request) -> Response {
    ///     match request.header("accept-language") {
    ///         Some(languages) if languages.starts_with(b"fr") => Response::text("Bonjour"),
    ///         _ => Response::text("Hello"),
    ///     }
    /// }
    ///
    /// serve(greet)
    /// ```
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value)
    }

    /// Calls a function of the tenant's storage program; the result is the first bytes of `buffer`.
    ///
    /// ```
    /// use mayfly_guest::{Request, Response, serve};
    ///
    /// fn count(request: &Request) -> Response {
    ///     let mut buffer = [0; 8];
    ///     match request.call("add", b"1", &mut buffer) {
    ///         Ok(count) => Response::new("application/octet-stream", count.to_vec()),
    ///         Err(error) => Response::text(error.to_string()),
    ///     }
    /// }
    ///
    /// serve(count)
    /// ```
    ///
    /// # Errors
    ///
    /// As `mayfly_call()` in `mayfly.h` lists them: there is no such function (`ENOENT`) or no storage program
    /// (`ENOTCONN`), it took too long (`ETIMEDOUT`), …
    pub fn call<'a>(&self, name: &str, argument: &[u8], buffer: &'a mut [u8]) -> Result<&'a [u8], CallError> {
        let call = abi::PeerCall {
            name: abi::Bytes::of(name.as_bytes()),
            argument: abi::Bytes::of(argument),
            result: buffer.as_mut_ptr(),
            capacity: buffer.len(),
        };
        // SAFETY: the argument is a call; what it points to lives until the doorbell returns, and the buffer is ours.
        let answer = unsafe { self.host.ring(abi::OP_CALL, (&raw const call).cast::<c_void>()) };
        let size = usize::try_from(answer).map_err(|_| CallError(errno(answer)))?;
        buffer.get(..size).ok_or(CallError(errno(answer)))
    }

    /// Answers the request, and waits for the next one. Where the worker is reset this does not return: the program is
    /// next seen coming out of [`Host::wait`].
    ///
    /// What a response may hold is as of `struct mayfly_response` in `mayfly.h`: headers that frame the message or
    /// belong to the connection are the server's. More than 64 headers are refused with `E2BIG`.
    ///
    /// # Errors
    ///
    /// The second one says whether the response was sent. The first one is the host's refusal to wait, after which the
    /// program can only end.
    pub fn respond(
        self,
        status: u16,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(Self, Result<(), Refused>), i32> {
        const E2BIG: i32 = 7;
        // Not initialised: a page of the stack that is not written is one that need not be reset.
        let mut fields = [const { MaybeUninit::<abi::Header>::uninit() }; HEADERS_MAX];
        let many = headers.len() > HEADERS_MAX;
        let headers = if many { &[] } else { headers };
        for (field, (name, value)) in fields.iter_mut().zip(headers) {
            field.write(abi::Header { name: abi::Bytes::of(name.as_bytes()), value: abi::Bytes::of(value.as_bytes()) });
        }
        let response = abi::Response {
            status: if many { 500 } else { u32::from(status) },
            header_count: u32::try_from(headers.len()).unwrap_or(0),
            headers: fields.as_ptr().cast(),
            body: abi::Bytes::of(if many { &[] } else { body }),
        };
        let host = self.host;
        // SAFETY: the argument is a response; what it points to lives until the doorbell returns, and as many headers
        // as it says are initialised.
        let answer = unsafe { host.ring(abi::OP_RESPOND, (&raw const response).cast::<c_void>()) };
        if answer < 0 {
            return host.wait().map(|next| (next, Err(Refused(errno(answer)))));
        }
        // SAFETY: this is an answer to RESPOND.
        let next = unsafe { host.request(answer) }?;
        Ok((next, if many { Err(Refused(E2BIG)) } else { Ok(()) }))
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Iterator over a request's headers.
#[derive(Clone)]
pub struct Headers<'a> {
    request: &'a Request,
    headers: slice::Iter<'a, abi::Header>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.headers.next()?;
        // SAFETY: headers() took it from the request.
        Some(unsafe { (Request::slice(self.request, header.name), Request::slice(self.request, header.value)) })
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}
