// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that have left their loop compete for processors with a low priority, also as processes of their own.
//!
//! A test program of its own: it looks at all processes below this one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

#[path = "support/stubs.rs"]
mod stubs;
mod support;

use std::sync::mpsc;
use std::time::Duration;

use mayfly_tenancy::Outcome;
use serde_json::json;
use stubs::stubs;
use support::*;

#[test]
fn a_program_that_spins_has_a_low_priority_until_its_request_is_over() {
    let server = start(&[tenant("a", json!({"engine": "process", "limits": {"cpu_ms": 60_000, "wall_ms": 120_000}}))]);
    let mut pool = server.loop_pool();
    assert_eq!(get(&mut pool, "/a/ok").status, 200);
    let normal = stubs();
    assert!(!normal.is_empty() && normal.iter().all(|nice| *nice == normal[0]), "{normal:?}");
    let (sender, receiver) = mpsc::channel();
    let spin = request("/a/spin?3000");
    assert_eq!(pool.call(&spin, &mut Response::default()), Outcome::Later);
    pool.call_later(&spin, Box::new(Later { response: Response::default(), sender }));
    wait_until("one has a low priority", || stubs().iter().any(|nice| *nice > normal[0]));
    assert_eq!(receiver.recv_timeout(Duration::from_secs(60)).unwrap().status, 200);
    // Raised again, or replaced where that is not allowed.
    wait_until("none has a low priority", || stubs().iter().all(|nice| *nice == normal[0]));
    assert_eq!(get(&mut pool, "/a/ok").status, 200);
}
