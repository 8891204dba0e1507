// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same program runs natively and in a machine, and sees the same: results, errors, contents of memory.

mod support;

use support::{Linking, agrees_with_native};

#[test]
fn address_spaces_agree() {
    agrees_with_native("memory", &[Linking::Glibc]);
}

#[test]
fn descriptors_and_paths_agree() {
    agrees_with_native("files", &[Linking::Glibc]);
}

#[test]
fn other_calls_agree() {
    agrees_with_native("calls", &[Linking::Glibc]);
}
