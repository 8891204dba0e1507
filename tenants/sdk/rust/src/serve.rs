// SPDX-License-Identifier: MIT OR Apache-2.0

//! The loop of a program that answers requests with a function.

use std::borrow::Cow;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;

use crate::host::{Host, OpenError};
use crate::request::Request;

/// A response.
///
/// ```
/// use mayfly_guest::Response;
///
/// let response = Response::text("Hello").header("cache-control", "no-store");
/// assert_eq!((response.status, response.headers.len()), (200, 2));
/// assert_eq!(Response::status(404).body.len(), 0);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 200 to 599.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// The body. What is constant is best borrowed: the host copies it straight from there.
    pub body: Cow<'static, [u8]>,
}

impl Response {
    /// 200 with a body of some type.
    pub fn new(content_type: impl Into<Cow<'static, str>>, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Self { status: 200, headers: vec![("content-type".into(), content_type.into())], body: body.into() }
    }

    /// 200 with text.
    pub fn text(body: impl Into<Cow<'static, str>>) -> Self {
        let body = match body.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self::new("text/plain", body)
    }

    /// A status alone.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Cow::Borrowed(&[]) }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// Answers requests with `handler`, for ever. A handler that panics answers 500; the panic's message goes to the log.
///
/// Outside Mayfly it says so on stderr and ends the process with status 0; with 1 when the host cannot be spoken to.
///
/// ```
/// use mayfly_guest::{Response, serve};
///
/// // Tables, caches: this runs once.
/// let squares: Vec<u64> = (0..100).map(|number| number * number).collect();
/// serve(move |request| match request.path_lossy()[1..].parse::<usize>().ok().and_then(|number| squares.get(number)) {
///     Some(square) => Response::text(square.to_string()),
///     None => Response::status(404),
/// })
/// ```
pub fn serve(mut handler: impl FnMut(&Request) -> Response) -> ! {
    let host = Host::open().unwrap_or_else(|error| {
        eprintln!("mayfly: {error}");
        exit(i32::from(error != OpenError::Outside));
    });
    // What the boot printed is not to be frozen in a buffer.
    drop(std::io::stdout().flush());
    let mut request = host.wait().unwrap_or_else(refused);
    loop {
        let response = catch_unwind(AssertUnwindSafe(|| handler(&request))).unwrap_or_else(|_| Response::status(500));
        let headers: Vec<_> = response.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let (next, sent) = request.respond(response.status, &headers, &response.body).unwrap_or_else(refused);
        if let Err(error) = sent {
            eprintln!("mayfly: {error}");
        }
        request = next;
    }
}

fn refused<T>(error: i32) -> T {
    eprintln!("mayfly: the host refused to wait for a request: error {error}");
    exit(1);
}
