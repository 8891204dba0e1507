// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pollables behave in a machine as they do natively.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod support;

use mayfly_linux::Limits;
use support::{Linking, agrees_with_native_in, has_whole_system};

fn limits() -> Limits {
    Limits { threads: 8, ..Limits::default() }
}

#[test]
fn pipes_counters_timers_and_epolls_agree_with_native() {
    agrees_with_native_in("pollables", &[Linking::Glibc], &[], &[], &limits());
}

#[test]
fn splices_descriptors_in_messages_and_notices_agree_with_native() {
    agrees_with_native_in("splices", &[Linking::Glibc], &[], &[], &limits());
}

#[test]
fn sockets_agree_with_native() {
    agrees_with_native_in("sockets", &[Linking::Glibc], &[], &[], &limits());
}

#[test]
fn datagrams_agree_with_native() {
    // In the hardware lane the interface is not up.
    if has_whole_system() {
        agrees_with_native_in("datagrams", &[Linking::Glibc], &[], &[], &limits());
    }
}

#[test]
fn fifos_agree_with_native() {
    agrees_with_native_in("fifos", &[Linking::Glibc], &[], &[], &limits());
}
