// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signal handlers behave in a machine as they do natively.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod support;

use mayfly_linux::{Limits, Step};
use support::{Guest, Linking, MEMORY, agrees_with_native_in, compile, has_whole_system, libraries};

fn limits() -> Limits {
    Limits { threads: 8, ..Limits::default() }
}

/// What handlers receive, and the effect of signals on calls, timers and threads.
const PROGRAMS: [&str; 2] = ["signals", "interruptions"];

#[test]
fn signals_agree_with_native() {
    for program in PROGRAMS {
        agrees_with_native_in(program, &[Linking::Glibc], &[], &[], &limits());
    }
}

#[test]
fn signals_of_musl_agree_with_native() {
    for program in PROGRAMS {
        agrees_with_native_in(program, &[Linking::Musl], &[], &[], &limits());
    }
}

#[test]
fn signals_of_a_dynamic_program_agree_with_native() {
    if has_whole_system() {
        for program in PROGRAMS {
            agrees_with_native_in(program, &[Linking::GlibcDynamic], &[], &libraries(), &limits());
        }
    }
}

/// Whatever frame a program returns from, it continues at CPL 3 with state that it may have, or gets SIGSEGV, and the
/// machine stays usable.
#[test]
fn frames_of_random_words_do_no_harm() {
    let program = compile("signals", Linking::Glibc);
    for seed in ["1", "2", "3"] {
        let mut guest = Guest::load(&program, &["garbage", seed], &limits(), MEMORY);
        assert_eq!(guest.run(), Some(Step::Exited { status: 0 }), "{seed}");
    }
}

/// A thread that spins without a call gets its signals when it is interrupted: from another thread, and from a timer.
#[test]
fn signals_reach_threads_that_spin() {
    let program = compile("interruptions", Linking::Glibc);
    let mut guest = Guest::load(&program, &["spinning"], &limits(), MEMORY);
    assert_eq!(guest.run_interrupted(), Some(Step::Exited { status: 0 }));
    let out = String::from_utf8_lossy(&guest.log.stdout);
    assert_eq!(out.matches(": 1\n").count(), 3, "{out}");
}
