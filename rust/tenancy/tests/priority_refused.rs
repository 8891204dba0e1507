// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the server may not raise a priority, no worker that it keeps has a low one afterwards.
//!
//! A test program of its own: it gives up a privilege, and looks at all processes below this one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

#[path = "support/stubs.rs"]
mod stubs;
mod support;

use std::sync::mpsc::{self, TryRecvError};
use std::time::Duration;

use mayfly_tenancy::Outcome;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, remove_capability_from_bounding_set, set_capabilities};
use serde_json::json;
use stubs::stubs;
use support::*;

#[test]
fn a_worker_that_is_kept_stays_as_it_was_and_another_one_is_replaced() {
    // The server's threads, and its stubs, are like this one.
    let mut sets = capabilities(None).unwrap();
    if sets.effective.contains(CapabilitySet::SETPCAP) {
        // Root's programs have what is left here.
        remove_capability_from_bounding_set(CapabilitySet::SYS_NICE).unwrap();
    }
    for set in [&mut sets.effective, &mut sets.permitted, &mut sets.inheritable] {
        set.remove(CapabilitySet::SYS_NICE);
    }
    set_capabilities(None, sets).unwrap();
    setrlimit(Resource::Nice, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();

    let limits = json!({"cpu_ms": 60_000, "wall_ms": 120_000});
    let of = |name, is_ephemeral: bool| {
        tenant(name, json!({"engine": "process", "ephemeral": is_ephemeral, "limits": limits}))
    };
    let server = start(&[of("a", true), of("kept", false)]);
    let mut pool = server.loop_pool();
    assert_eq!((get(&mut pool, "/a/ok").status, get(&mut pool, "/kept/ok").status), (200, 200));
    let normal = stubs()[0];
    let mut begin = |target| {
        let (sender, receiver) = mpsc::channel();
        let spin = request(target);
        assert_eq!(pool.call(&spin, &mut Response::default()), Outcome::Later);
        pool.call_later(&spin, Box::new(Later { response: Response::default(), sender }));
        receiver
    };
    for _ in 0..2 {
        let kept = begin("/kept/spin?300");
        let response = loop {
            assert!(stubs().iter().all(|nice| *nice == normal));
            match kept.try_recv() {
                Err(TryRecvError::Empty) => {}
                other => break other.unwrap(),
            }
        };
        assert_eq!(response.status, 200);
        assert!(stubs().iter().all(|nice| *nice == normal), "it has its state, and its priority");
    }
    let spins = begin("/a/spin?3000");
    wait_until("one has a low priority", || stubs().iter().any(|nice| *nice > normal));
    assert_eq!(spins.recv_timeout(Duration::from_secs(60)).unwrap().status, 200);
    wait_until("none has a low priority", || stubs().iter().all(|nice| *nice == normal));
    assert_eq!(get(&mut pool, "/a/ok").status, 200);
}
