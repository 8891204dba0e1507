// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs start, print and end as they do natively.

mod support;

use mayfly_linux::Step;
use support::{Linking, PROGRAMS, WITH_LIBRARY, agrees_with_native, compile, run, run_natively};

/// Compiles what the hardware lane needs (scripts/test runs this before it packs the tests).
#[test]
fn every_program_compiles() {
    for (name, linkings) in PROGRAMS {
        for linking in linkings {
            assert!(compile(name, *linking).is_file());
        }
    }
}

#[test]
fn a_program_starts_in_the_same_state_as_natively() {
    agrees_with_native("start", &WITH_LIBRARY);
}

#[test]
fn arguments_are_passed() {
    let program = compile("start", Linking::Musl);
    let args = ["one", "", "two words"];
    let inside = run(&program, &args);
    assert_eq!(inside.end, Step::Exited { status: 0 });
    assert_eq!(inside.stdout.as_bytes(), run_natively(&program, &args).stdout);
}
