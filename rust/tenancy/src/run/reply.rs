// SPDX-License-Identifier: MIT OR Apache-2.0
//! Responses that are sent from a thread other than the one that took the request.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mayfly_sandbox::ResponseSink;

/// The reason of refusals while the server shuts down.
pub(crate) const SHUTTING_DOWN: &str = "the server is shutting down";
/// The reason given to clients after a panic in a thread of Mayfly; the panic hook has logged the details.
pub(crate) const INTERNAL_ERROR: &str = "internal error; see the server log";

/// A response that is sent later, from another thread.
pub trait DeferredReply: ResponseSink + Send {
    /// Sends the response. Called exactly once, after the body.
    fn send(self: Box<Self>);
}

/// Sends a reply, and catches a panic in it.
pub(crate) fn send(reply: Box<dyn DeferredReply>) {
    let _ = catch_unwind(AssertUnwindSafe(|| reply.send()));
}
