// SPDX-License-Identifier: MIT OR Apache-2.0
//! In steady state, a request allocates nothing between the HTTP server and the program.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use mayfly_tenancy::{Client, Config, Header, Outcome, Request, ResponseSink, Server};
use serde_json::json;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, with a count of each thread's allocations.
struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator. The counter is a plain thread-local cell that
// neither allocates nor has a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller upholds the contract of `GlobalAlloc::alloc`, which is also that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `System` through `alloc`, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Sink {
    status: u16,
    body: Vec<u8>,
}

impl ResponseSink for Sink {
    fn body(&mut self, len: usize) -> &mut [u8] {
        &mut self.body[..len]
    }

    fn status(&mut self, status: u16) {
        self.status = status;
    }

    fn header(&mut self, _: &[u8], _: &[u8]) {}
}

#[test]
fn a_request_allocates_nothing() {
    let hello = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tenants/hello/hello");
    assert!(hello.exists(), "{} is missing: run `make tenants`", hello.display());
    let config = json!({"tenants": [{"name": "a", "path": "/a/b", "program": hello, "limits": {"inline_budget_us": 1_000_000},
        "client": {"headers": "forwarded"}}]});
    let server = Server::start(Config::from_value(&config).unwrap()).unwrap();
    let end = Instant::now() + Duration::from_secs(120);
    while server.readiness().booting > 0 {
        assert!(Instant::now() < end, "it does not boot");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut pool = server.loop_pool();
    // As many headers as a request has on the stack, one of which is replaced, and the longest name of a host.
    let host = "a.".repeat(126) + "a";
    let mut headers = vec![Header { name: b"accept", value: b"*/*" }; 31];
    headers.insert(0, Header { name: b"host", value: host.as_bytes() });
    headers[1] = Header { name: b"x-forwarded-for", value: b"y" };
    let address = "[2001:db8:1:2:3:4:5:6]:45678".parse().unwrap();
    let client = Some(Client { address, is_encrypted: true });
    let request = Request { method: b"GET", path: b"/a/b/c", query: b"d", headers: &headers, body: b"", client };
    let mut sink = Sink { status: 0, body: vec![0; 1 << 20] };
    for _ in 0..2000 {
        if pool.call(&request, &mut sink) == Outcome::Later {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let before = ALLOCATIONS.get();
    for _ in 0..1000 {
        assert_eq!(pool.call(&request, &mut sink), Outcome::Done);
        assert_eq!(sink.status, 200);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
}
