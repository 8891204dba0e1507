// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replies of C++ as sinks of the tenancy.

use std::pin::Pin;

use cxx::UniquePtr;
use mayfly_tenancy::{DeferredReply, ResponseSink};

use crate::ffi;

/// A reply on the caller's stack.
pub(crate) struct Sink<'a>(pub(crate) Pin<&'a mut ffi::Reply>);

impl ResponseSink for Sink<'_> {
    fn body(&mut self, len: usize) -> &mut [u8] {
        ffi::reply_body(self.0.as_mut(), len)
    }

    fn no_body(&mut self, length: Option<u64>) {
        ffi::reply_no_body(self.0.as_mut(), length.is_some(), length.unwrap_or_default());
    }

    fn status(&mut self, status: u16) {
        ffi::reply_status(self.0.as_mut(), status);
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        ffi::reply_header(self.0.as_mut(), name, value);
    }
}

/// A reply that Rust owns, to be sent from another thread.
///
/// # Invariants
///
/// It is not null. If it is dropped unsent, its C++ destructor answers instead, so that no client waits for ever.
pub(crate) struct Deferred(UniquePtr<ffi::Reply>);

impl Deferred {
    /// Takes a reply over; `None` if it is null.
    pub(crate) fn new(reply: UniquePtr<ffi::Reply>) -> Option<Self> {
        (!reply.is_null()).then_some(Self(reply))
    }
}

// SAFETY: every `mayfly::Reply` passed to `call_later` may be used and destroyed on any thread, by one at a time
// (cpp/include/mayfly/reply.hpp); owning it by value here ensures "one at a time".
unsafe impl Send for Deferred {}

impl ResponseSink for Deferred {
    fn body(&mut self, len: usize) -> &mut [u8] {
        ffi::reply_body(self.0.pin_mut(), len)
    }

    fn no_body(&mut self, length: Option<u64>) {
        ffi::reply_no_body(self.0.pin_mut(), length.is_some(), length.unwrap_or_default());
    }

    fn status(&mut self, status: u16) {
        ffi::reply_status(self.0.pin_mut(), status);
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        ffi::reply_header(self.0.pin_mut(), name, value);
    }
}

impl DeferredReply for Deferred {
    fn send(mut self: Box<Self>) {
        ffi::reply_send(self.0.pin_mut());
    }
}
