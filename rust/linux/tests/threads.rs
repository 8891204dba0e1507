// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads behave in a machine as they do natively.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod support;

use std::path::Path;

use mayfly_linux::{Limits, Step};
use support::{Guest, Linking, MEMORY, agrees_with_native_in, compile, has_whole_system, libraries};

fn limits(threads: u32) -> Limits {
    Limits { threads, ..Limits::default() }
}

#[test]
fn threads_agree_with_native() {
    agrees_with_native_in("threads", &[Linking::Glibc, Linking::Musl], &[], &[], &limits(32));
}

#[test]
fn threads_of_a_dynamic_program_agree_with_native() {
    if has_whole_system() {
        let mounts: Vec<&Path> = libraries();
        agrees_with_native_in("threads", &[Linking::GlibcDynamic], &[], &mounts, &limits(32));
    }
}

#[test]
fn locks_that_are_passed_on_agree_with_native() {
    agrees_with_native_in("locks", &[Linking::Glibc], &[], &[], &limits(8));
}

#[test]
fn cpu_time_and_its_timers_agree_with_native() {
    agrees_with_native_in("cpu", &[Linking::Glibc], &[], &[], &limits(8));
}

#[test]
fn the_limit_on_threads_holds_and_is_counted() {
    let program = compile("threads", Linking::Glibc);
    let mut guest = Guest::load(&program, &["many"], &limits(4), MEMORY);
    assert_eq!(guest.run(), Some(Step::Exited { status: 4 }));
    assert_eq!(guest.process.take_limit_hits().threads, 1);
}

/// A thread that spins does not starve the others: the embedder interrupts it, and gives another one its turn.
#[test]
fn a_thread_that_spins_is_interrupted() {
    let program = compile("threads", Linking::Glibc);
    let mut guest = Guest::load(&program, &["preemption"], &limits(4), MEMORY);
    assert_eq!(guest.run_interrupted(), Some(Step::Exited { status: 0 }));
    assert_eq!(String::from_utf8_lossy(&guest.log.stdout).lines().count(), 2);
}
