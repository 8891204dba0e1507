// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every handled system call is compared with native.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod support;

use mayfly_linux::handled_calls;
use support::PROGRAMS;
use support::compared::{COMPARED, NOT_COMPARED};

#[test]
fn every_handler_is_compared_with_native() {
    let listed: Vec<&str> = COMPARED.iter().flat_map(|(_, calls)| calls.split_whitespace()).collect();
    let not_compared = |name: &str| NOT_COMPARED.iter().any(|(call, _)| *call == name);
    let missing: Vec<_> =
        handled_calls().map(|(_, name)| name).filter(|name| !listed.contains(name) && !not_compared(name)).collect();
    assert!(missing.is_empty(), "handled, but not compared: {missing:?}");
    for name in listed.iter().chain(NOT_COMPARED.iter().map(|(call, _)| call)) {
        assert!(handled_calls().any(|(_, handled)| handled == *name), "{name} has no handler");
    }
    for (position, name) in listed.iter().enumerate() {
        assert!(!listed[..position].contains(name) && !not_compared(name), "{name} is listed twice");
    }
    for (program, _) in COMPARED {
        assert!(PROGRAMS.iter().any(|(known, _)| known == program), "there is no program {program}");
    }
}
