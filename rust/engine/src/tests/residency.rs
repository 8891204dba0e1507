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
        let page = |page| worker.residency(DATA + page * PAGE_SIZE, PAGE_SIZE, &mut { RESIDENCY_AT_ONCE }).unwrap().own;
        assert_eq!((page(1), page(2)), (1, 0));
        worker.unmap(DATA, PAGE_SIZE).unwrap();
        assert_eq!(own(&worker), 2);
        worker.reset().unwrap();
    }
    assert_eq!(own(&worker), 1);
    let mut left = RESIDENCY_AT_ONCE;
    assert_eq!(worker.residency(DATA + SPAN, SPAN, &mut left), Some(Residency::default()));
}

/// What counting the resident pages of the span costs.
fn cost(machine: &Machine) -> u64 {
    let mut left = RESIDENCY_AT_ONCE;
    machine.residency(DATA, SPAN, &mut left).unwrap();
    let cost = RESIDENCY_AT_ONCE - left;
    assert_eq!(machine.residency(DATA, SPAN, &mut { cost - 1 }), None);
    assert!(machine.residency(DATA, SPAN, &mut { cost }).is_some());
    cost
}

#[test]
fn a_count_costs_what_it_looks_at() {
    let mut booted = boot(counter(), 0);
    booted.map_zero(DATA + SPAN, RW, Origin::Snapshot).unwrap();
    let image = freeze(booted);
    let mut worker = Machine::fork(&image, 1024, &[]).unwrap();
    let entries = SPAN / PAGE_SIZE;
    let empty = cost(&worker);
    assert!((entries..2 * entries).contains(&empty), "{empty}");
    worker.map_zero(DATA, RW, Origin::Request).unwrap();
    let zeroes = cost(&worker);
    assert!(zeroes > empty + PAGE_SIZE / 8, "{zeroes}");
    worker.write(DATA, b"a").unwrap();
    let content = cost(&worker);
    assert!((empty + 1..zeroes).contains(&content), "{content}");
}
