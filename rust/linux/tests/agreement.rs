// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same program runs natively and in a machine, with the same results, errors, and contents of memory.

mod support;

use mayfly_linux::{Limits, Step};
use mayfly_machine::ClockLine;
use support::{
    Guest, Linking, MEMORY, WITH_LIBRARY, agrees_with_native, agrees_with_native_on, compile, has_whole_system,
    libraries,
};

#[test]
fn address_spaces_agree() {
    agrees_with_native("memory", &[Linking::Glibc]);
}

#[test]
fn scattered_pages_agree() {
    agrees_with_native_on("scatter", &[Linking::Glibc], &["300"], &[]);
}

#[test]
fn descriptors_and_paths_agree() {
    agrees_with_native("files", &[Linking::Glibc]);
}

#[test]
fn other_calls_agree() {
    agrees_with_native("calls", &[Linking::Glibc]);
}

#[test]
fn odd_calls_agree() {
    agrees_with_native("odds", &[Linking::Glibc]);
}

#[test]
fn files_in_memory_and_shared_mappings_agree() {
    agrees_with_native("memfd", &[Linking::Glibc]);
}

#[test]
fn families_of_sockets_agree() {
    // In the hardware lane the interface is not up.
    if has_whole_system() {
        agrees_with_native("families", &[Linking::Glibc]);
    }
}

#[test]
fn the_loopback_interface_agrees() {
    // In the hardware lane the interface is not up.
    if has_whole_system() {
        agrees_with_native("interfaces", &[Linking::Glibc]);
    }
}

#[test]
fn clocks_agree() {
    agrees_with_native("clocks", &WITH_LIBRARY);
    if has_whole_system() {
        agrees_with_native_on("clocks", &[Linking::GlibcDynamic, Linking::MuslDynamic], &[], &libraries());
    }
}

#[test]
fn c_libraries_read_clocks_in_the_vdso() {
    // The vDSO reads these clocks from a fixed line, which no kernel updates.
    let line = ClockLine {
        tsc: u64::MAX,
        realtime_ns: 1_000_000_001,
        monotonic_ns: 2_000_000_002,
        boottime_ns: 3_000_000_003,
        raw_ns: 4_000_000_004,
        rate: 1,
        raw_rate: 1,
    };
    let expected = "0: 1.000000001\n1: 2.000000002\n4: 4.000000004\n5: 1.000000001\n6: 2.000000002\n7: 3.000000003\nday: 1.000000\ntime: 1\ncpu: 0\n";
    let dynamic: &[_] = if has_whole_system() { &[Linking::GlibcDynamic, Linking::MuslDynamic] } else { &[] };
    for linking in WITH_LIBRARY.iter().chain(dynamic) {
        let program = compile("clocks", *linking);
        let mut guest = Guest::load_with(&program, &["tell"], &Limits::default(), MEMORY, &libraries());
        if !guest.machine.host().shares_tsc() {
            return;
        }
        guest.machine.set_clock(&line);
        let outcome = guest.outcome();
        assert_eq!((outcome.stdout.as_str(), outcome.end), (expected, Step::Exited { status: 0 }), "{linking:?}");
    }
}
