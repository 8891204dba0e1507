// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ends of programs: by exit, by a signal, by a limit, or by waiting for ever.

mod support;

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use mayfly_linux::{Limits, Step};
use support::{Guest, Linking, MEMORY, compile, run, run_natively};

/// Runs in the machine and natively; both must be killed by the same signal or exit with the same status.
fn agrees(linking: Linking, how: &str) {
    let program = compile("end", linking);
    let native = run_natively(&program, &[how]).status;
    match run(&program, &[how]).end {
        Step::Exited { status } => assert_eq!(Some(status), native.code(), "{how} with {linking:?}"),
        Step::Faulted(fault) => assert_eq!(Some(fault.signal), native.signal(), "{how} with {linking:?}: {fault}"),
        end => panic!("{how} with {linking:?}: {end:?}"),
    }
}

#[test]
fn exit_statuses_are_returned() {
    for linking in [Linking::Glibc, Linking::Musl] {
        for how in ["status", "exit", "thread-exit", "no such way"] {
            agrees(linking, how);
        }
    }
}

#[test]
fn a_program_that_kills_itself_dies_of_the_same_signal() {
    for linking in [Linking::Glibc, Linking::Musl] {
        for how in ["abort", "assert", "raise", "kill", "unblock"] {
            agrees(linking, how);
        }
    }
}

#[test]
fn a_program_that_faults_dies_of_the_same_signal() {
    for how in [
        "read-null",
        "write-null",
        "call-null",
        "write-text",
        "write-constant",
        "run-data",
        "run-stack",
        "no-access",
        "kernel-address",
        "non-canonical",
        "stack-overflow",
        "divide",
        "float-trap",
        "illegal",
        "breakpoint",
        "privileged",
        "port",
        "alignment",
        "frame-nowhere",
        "frame-bad",
    ] {
        agrees(Linking::Glibc, how);
    }
}

#[test]
fn a_fault_says_where() {
    let program = compile("end", Linking::Glibc);
    let end = run(&program, &["write-null"]).end;
    let Step::Faulted(fault) = end else { panic!("{end:?}") };
    assert_eq!((fault.vector, fault.address), (Some(14), Some(0)));
    assert!((0x40_0000..0x50_0000).contains(&fault.rip), "{fault}");
    let Step::Faulted(fault) = run(&program, &["divide"]).end else { panic!() };
    assert_eq!((fault.vector, fault.address), (Some(0), None));
    assert!((0x40_0000..0x50_0000).contains(&fault.rip), "{fault}");
}

#[test]
fn a_handler_may_end_the_program() {
    let program = compile("end", Linking::Glibc);
    assert_eq!(run(&program, &["handled"]).end, Step::Exited { status: libc::SIGSEGV });
}

#[test]
fn a_program_that_would_wait_for_ever_is_stopped_at_once() {
    let program = compile("end", Linking::Glibc);
    for how in ["wait-futex", "wait-signal", "wait-poll"] {
        match run(&program, &[how]).end {
            Step::Waits { until_ns: None, .. } => {}
            end => panic!("{how}: {end:?}"),
        }
    }
}

#[test]
fn a_sleep_does_not_block_the_host() {
    let program = compile("end", Linking::Glibc);
    let start = Instant::now();
    let Step::Waits { until_ns: Some(until_ns), call } = run(&program, &["sleep"]).end else { panic!("no sleep") };
    assert_eq!(call, "sleep");
    assert!(until_ns > 1_000_000_000_000_000, "a million seconds");
    assert!(start.elapsed() < Duration::from_secs(20), "the host does not wait for it");
}

#[test]
fn memory_ends_at_the_machines_limit() {
    let program = compile("end", Linking::Glibc);
    for memory in [4 << 20, 16 << 20] {
        let end = Guest::load(&program, &["hoard"], &Limits::default(), memory).outcome().end;
        assert_eq!(end, Step::MemoryLimit);
    }
}

#[test]
fn address_space_ends_at_its_limits() {
    let program = compile("end", Linking::Glibc);
    let limits = Limits { mappings: 100, ..Limits::default() };
    for how in ["reserve", "fragment"] {
        assert_eq!(Guest::load(&program, &[how], &limits, MEMORY).outcome().end, Step::Exited { status: 4 }, "{how}");
    }
}

#[test]
fn unknown_calls_fail_and_are_logged_once() {
    let program = compile("end", Linking::Glibc);
    let outcome = run(&program, &["unknown"]);
    assert_eq!(outcome.end, Step::Exited { status: 0 });
    assert_eq!(outcome.stdout.matches("error 38").count(), 4, "{}", outcome.stdout);
    assert_eq!(outcome.stderr.lines().count(), 2, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("system call 425 (io_uring_setup)"), "{}", outcome.stderr);
}
