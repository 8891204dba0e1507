// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tenants' responses as hyper's.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use mayfly_tenancy::{DeferredReply, ResponseSink};
use tokio::sync::oneshot;

/// The answer to a request that the gate has refused, described as "STATUS BODY". It closes the connection: the
/// beginning of the next request is not known.
pub(crate) fn refused(refusal: &[u8]) -> Response<Full<Bytes>> {
    let (status, body) = refusal.split_at(refusal.len().min(3));
    let mut response = Response::new(Full::from(Bytes::copy_from_slice(body.trim_ascii_start())));
    *response.status_mut() = StatusCode::from_bytes(status).unwrap_or(StatusCode::BAD_REQUEST);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

pub(crate) fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// A response under construction.
#[derive(Default)]
pub(crate) struct Reply {
    response: Response<()>,
    body: Vec<u8>,
    /// The length of a body that is left out. Hyper then names none of its own.
    announced: Option<u64>,
}

impl Reply {
    pub(crate) fn into_response(mut self) -> Response<Full<Bytes>> {
        if let Some(length) = self.announced {
            self.response.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        self.response.map(|()| Full::new(Bytes::from(self.body)))
    }
}

impl ResponseSink for Reply {
    fn no_body(&mut self, length: Option<u64>) {
        self.body.clear();
        self.announced = length;
    }

    fn status(&mut self, status: u16) {
        // The sandbox has checked the range; anything else would be a gateway error.
        *self.response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        self.response.headers_mut().clear();
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        // The sandbox has checked both; if it missed something, hyper's check prevents a split response.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            self.response.headers_mut().append(name, value);
        }
    }

    fn body(&mut self, len: usize) -> &mut [u8] {
        self.announced = None;
        self.body.clear();
        self.body.resize(len, 0);
        &mut self.body
    }
}

/// A reply that a background thread sends to the connection's task.
pub(crate) struct Later {
    pub(crate) reply: Reply,
    pub(crate) sender: oneshot::Sender<Reply>,
}

impl ResponseSink for Later {
    fn no_body(&mut self, length: Option<u64>) {
        self.reply.no_body(length);
    }

    fn status(&mut self, status: u16) {
        self.reply.status(status);
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        self.reply.header(name, value);
    }

    fn body(&mut self, len: usize) -> &mut [u8] {
        self.reply.body(len)
    }
}

impl DeferredReply for Later {
    fn send(self: Box<Self>) {
        // It fails if the connection has closed.
        let _ = self.sender.send(self.reply);
    }
}
