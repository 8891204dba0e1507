// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bridge: the only crate of Mayfly that C++ sees.
//!
//! ```text
//!   Drogon plugin  ->  cpp/ (RAII types)  ->  this crate  ->  mayfly-tenancy
//!                      mayfly::RequestView    RequestView     Request
//!                      mayfly::Reply      <-  Reply       <-  ResponseSink
//!                      mayfly::Gate       ->  Gate        ->  inbound::Gate
//! ```
//!
//! It translates types; it has no policy.
//!
//! # Invariants
//!
//! - **Nothing unwinds across the bridge.** Each entry below catches panics ([`guard`]): if there is a request, the
//!   panic becomes a response with status 500, otherwise a typed error. C++ exceptions cannot cross in the other
//!   direction: every function in `cpp/src/ffi.hpp` is `noexcept`.
//! - **A request is borrowed, never kept.** Rust's views of a request are valid during the call; the tenancy copies
//!   what must outlive it (`call_later`).
//! - **One thread at a time fills a reply.** [`LoopPool::call`] fills it before it returns; [`LoopPool::call_later`]
//!   takes it over, and C++ does not touch it again.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make the files that they open"))]

mod error;
mod gate;
mod guard;
mod pool;
mod reply;
mod request;
mod server;
mod waker;

use gate::{Gate, announce_gate, new_gate};
use pool::LoopPool;
use server::{Server, has_room_for_connection, require_descriptors, start_server};

#[cxx::bridge(namespace = "mayfly::ffi")]
mod ffi {
    /// The result of a call.
    enum Outcome {
        /// The reply holds a complete response: the tenant's, or an error.
        Done,
        /// The request takes longer than this thread may wait, and the reply is untouched. Call `call_later` at once.
        Later,
    }

    /// The result of `claims`.
    struct RouteHit {
        /// 0: no tenant claims the request.
        epoch: u64,
        index: usize,
    }

    /// The result of passing bytes through a gate.
    struct GateResult {
        /// How many bytes the gate has consumed. The rest is to be passed again, with what follows it.
        consumed: usize,
        /// Whether the consumed bytes are passed on unchanged. Otherwise the gate's output is passed on.
        is_unchanged: bool,
        /// Whether the client waits for a `100 Continue`.
        says_continue: bool,
        /// Whether the connection must be closed at once, after a bug in Mayfly.
        is_broken: bool,
    }

    extern "Rust" {
        type Gate;

        fn announce_gate(framework: &str);
        fn new_gate() -> Box<Gate>;
        fn take(self: &mut Gate, input: &[u8]) -> GateResult;
        fn output(self: &Gate) -> &[u8];
    }

    extern "Rust" {
        type Server;
        type LoopPool;

        fn start_server(config_json: &str) -> Result<Box<Server>>;
        fn report_json(self: &Server) -> Result<String>;
        fn metrics(self: &Server) -> Result<String>;
        fn has_default(self: &Server) -> Result<bool>;
        fn apply(self: &Server, config_json: &str) -> Result<String>;
        fn reload(self: &Server, tenant: &str) -> Result<u64>;
        fn rollback(self: &Server, tenant: &str) -> Result<u64>;
        fn loop_pool(self: &Server) -> Result<Box<LoopPool>>;
        fn begin_end(self: &Server, at_most_ms: u64);
        fn in_work(self: &Server) -> u32;
        fn require_descriptors(later: u64) -> Result<()>;
        fn has_room_for_connection() -> bool;
        fn shutdown(self: &Server);

        fn claims(self: &mut LoopPool, host: &[u8], path: &[u8]) -> RouteHit;
        fn has_default(self: &mut LoopPool) -> bool;
        fn count_unrouted(self: &mut LoopPool);
        fn call(self: &mut LoopPool, hit: RouteHit, request: &RequestView, reply: Pin<&mut Reply>) -> Outcome;
        fn call_later(self: &mut LoopPool, request: &RequestView, reply: UniquePtr<Reply>);
        fn set_waker(self: &mut LoopPool, waker: UniquePtr<Waker>);
        fn tend(self: &mut LoopPool);
        fn defer_resets(self: &mut LoopPool);
        fn resets_are_due(self: &LoopPool) -> bool;
        fn reset_answered(self: &mut LoopPool);
    }

    unsafe extern "C++" {
        include!("ffi.hpp");

        #[namespace = "mayfly"]
        type RequestView = crate::request::RequestView;

        #[namespace = "mayfly"]
        type Reply;
        fn reply_body(reply: Pin<&mut Reply>, size: usize) -> &mut [u8];
        // `length` counts only if `has_length`.
        fn reply_no_body(reply: Pin<&mut Reply>, has_length: bool, length: u64);
        fn reply_status(reply: Pin<&mut Reply>, status: u16);
        fn reply_header(reply: Pin<&mut Reply>, name: &[u8], value: &[u8]);
        fn reply_send(reply: Pin<&mut Reply>);

        #[namespace = "mayfly"]
        type Waker;
        fn waker_wake(waker: &Waker);
    }
}
