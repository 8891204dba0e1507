// SPDX-License-Identifier: MIT OR Apache-2.0
//! The count of resident pages that a request reads does not depend on earlier requests.

use super::*;
use crate::machine::residency::{RESIDENCY_AT_ONCE, Residency};

const SPAN: u64 = 64 * PAGE_SIZE;

fn own(machine: &Machine) -> u64 {
    let mut left = RESIDENCY_AT_ONCE;
    machine.residency(DATA, SPAN, &mut left).unwrap().own
}

#[test]
fn pages_count_from_their_first_content_on_and_a_reset_takes_them_back() {
    let mut booted = boot(counter(), 0);
    booted.map_zero(DATA, RW, Origin::Snapshot).unwrap();
    booted.write(DATA, b"frozen").unwrap();
    assert_eq!(own(&booted), 1);
    let image = freeze(booted);
    let mut worker = Machine::fork(&image, 1024, &[]).unwrap();
    for _ in 0..3 {
        assert_eq!(own(&worker), 1);
        // Of the snapshot's layout, and the request's; zeroes that are read, and pages that are ahead of accesses.
        for page in 1..4 {
            let address = DATA + page * PAGE_SIZE;
            if !worker.is_mapped(address) {
                worker.map_zero(address, RW, Origin::Snapshot).unwrap();
            }
        }
        worker.map_zero(DATA + 4 * PAGE_SIZE, RW, Origin::Request).unwrap();
        worker.map_zeroes(DATA + 5 * PAGE_SIZE, 3, RW, Origin::Request).unwrap();
        assert_eq!(own(&worker), 1);
        worker.write(DATA + PAGE_SIZE, b"a").unwrap();
        worker.write(DATA + 5 * PAGE_SIZE - 8, b"b").unwrap();
        assert_eq!(own(&worker), 3);
        assert!(worker.is_resident(DATA + PAGE_SIZE) && !worker.is_resident(DATA + 2 * PAGE_SIZE));
        worker.unmap(DATA, PAGE_SIZE).unwrap();
        assert_eq!(own(&worker), 2);
        worker.reset().unwrap();
    }
    assert_eq!(own(&worker), 1);
    let mut left = RESIDENCY_AT_ONCE;
    assert_eq!(worker.residency(DATA + SPAN, SPAN, &mut left), Some(Residency::default()));
    // A table costs as much as it has entries.
    assert_eq!(worker.residency(DATA, SPAN, &mut 511), None);
}
