// SPDX-License-Identifier: MIT OR Apache-2.0
//! Responses that are sent from another thread than the one that took the request.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mayfly_sandbox::ResponseSink;

/// The reason of refusals while the server ends.
pub(crate) const SHUTTING_DOWN: &str = "the server is shutting down";
/// The reason given to clients where a thread of Mayfly's panicked; the panic hook has told the log more.
pub(crate) const INTERNAL_ERROR: &str = "internal error; see the server log";

/// A response that is sent later, from another thread.
pub trait DeferredReply: ResponseSink + Send {
    /// Sends what has been written. Called exactly once, after the body.
    fn send(self: Box<Self>);
}

/// Sends a reply; a panic in it ends here.
pub(crate) fn send(reply: Box<dyn DeferredReply>) {
    let _ = catch_unwind(AssertUnwindSafe(|| reply.send()));
}
