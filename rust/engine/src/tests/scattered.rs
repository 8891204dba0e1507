// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mappings whose pages lie scattered in memory: what a call on one of them costs the host, and what happens to the
//! pages.

use super::*;
use mayfly_memory::memory::RUNS_MAX;
use mayfly_memory::take_back::testing::TAKEN;

const ONE: u64 = 0x1_0000_0000;
const OTHER: u64 = 0x2_0000_0000;
const FRESH: u64 = 0x3_0000_0000;
const PAGES: u64 = 256;
const LEN: u64 = PAGES * PAGE_SIZE;

/// What counts as scattered: the production value, and one by which few pages do.
const BOUNDS: [usize; 2] = [RUNS_MAX, 3];

/// A worker of an image with two mappings that were filled in turns. Frames in more than `runs_max` runs are scattered.
fn worker(runs_max: usize) -> Machine {
    let mut machine = boot(waiter(), 1);
    for page in 0..PAGES {
        for (start, mark) in [(ONE, 1), (OTHER, 2)] {
            let address = start + page * PAGE_SIZE;
            machine.map_zero(address, RW, Origin::Snapshot).unwrap();
            machine.write(address, &[mark]).unwrap();
        }
    }
    let mut worker = Machine::fork(&freeze_at_call(machine), 4 * PAGES, &[]).unwrap();
    worker.memory.runs_max = runs_max;
    worker
}

/// How many ranges the host takes back for `act`.
fn taken<T>(act: impl FnOnce() -> T) -> (T, u64) {
    let before = TAKEN.get();
    let result = act();
    (result, TAKEN.get() - before)
}

fn first_bytes(machine: &Machine, start: u64) -> Vec<u8> {
    let read = |page| {
        let mut byte = [9];
        machine.read(start + page * PAGE_SIZE, &mut byte).unwrap();
        byte[0]
    };
    (0..PAGES).map(read).collect()
}

#[test]
fn a_call_on_scattered_pages_costs_the_host_few_calls() {
    for runs_max in BOUNDS {
        let most = 2 * runs_max as u64;
        let mut worker = worker(runs_max);
        for prot in [Prot::NONE, Prot::READ | Prot::EXEC, Prot::READ, RW] {
            let (result, count) = taken(|| worker.protect(ONE, LEN, prot));
            result.unwrap();
            assert!(count <= most, "{prot:?}: {count}");
        }
        let (result, count) = taken(|| worker.move_pages(ONE, FRESH, LEN));
        result.unwrap();
        assert!(count <= most, "moved: {count}");
        let (result, count) = taken(|| worker.unmap(OTHER, LEN));
        result.unwrap();
        assert!(count <= most, "unmapped: {count}");
        let (result, count) = taken(|| worker.reset());
        result.unwrap();
        assert!(count <= 2 * most, "reset: {count}");
        assert_eq!(worker.audit(), []);
        worker.protect(ONE, LEN, Prot::READ | Prot::EXEC).unwrap();
        let (result, count) = taken(|| worker.reset());
        result.unwrap();
        assert!(count <= 2 * most, "reset of what was executable: {count}");
        assert_eq!(worker.audit(), []);
        assert_eq!(first_bytes(&worker, ONE), [1; PAGES as usize]);
    }
}

#[test]
fn many_ranges_are_discarded_at_once() {
    for runs_max in BOUNDS {
        let most = 2 * runs_max as u64;
        let mut worker = worker(runs_max);
        for page in 0..PAGES {
            worker.make_writable(OTHER + page * PAGE_SIZE, Origin::Snapshot).unwrap();
            worker.map_zero(FRESH + page * PAGE_SIZE, RW, Origin::Request).unwrap();
        }
        let ranges: Vec<_> =
            (0..PAGES).flat_map(|page| [OTHER, FRESH].map(|at| (at + page * PAGE_SIZE, PAGE_SIZE))).collect();
        let (result, count) = taken(|| worker.discard(&ranges));
        result.unwrap();
        assert!(count <= most, "{count}");
        assert!(!worker.is_mapped(OTHER) && !worker.is_mapped(FRESH + LEN - PAGE_SIZE));
        worker.reset().unwrap();
        assert_eq!(worker.audit(), []);
        assert_eq!(first_bytes(&worker, OTHER), [2; PAGES as usize]);
    }
}

#[test]
fn the_content_of_scattered_pages_is_never_seen_again() {
    for runs_max in BOUNDS {
        let mut worker = worker(runs_max);
        for request in 0..3 {
            // Pages of all kinds in turns: the snapshot's, written as such or as the request's own, and new ones.
            for page in 0..PAGES {
                let at = page * PAGE_SIZE;
                worker.map_zero(FRESH + at, RW, Origin::Request).unwrap();
                worker.write(FRESH + at, &[3]).unwrap();
                let origin = if page % 2 == 0 { Origin::Snapshot } else { Origin::Request };
                worker.make_writable(OTHER + at, origin).unwrap();
                worker.write(OTHER + at, &[4]).unwrap();
                if page % 3 == 0 {
                    worker.unmap(FRESH + at, PAGE_SIZE).unwrap();
                }
            }
            let in_use = worker.private_pages();
            worker.unmap(FRESH, LEN).unwrap();
            assert!(worker.private_pages() < in_use, "they are free");
            worker.unmap(OTHER, LEN).unwrap();
            for page in 0..PAGES {
                worker.map_zero(FRESH + page * PAGE_SIZE, RW, Origin::Request).unwrap();
                worker.map_zero(OTHER + page * PAGE_SIZE, RW, Origin::Request).unwrap();
            }
            assert_eq!(first_bytes(&worker, FRESH), [0; PAGES as usize], "request {request}");
            assert_eq!(first_bytes(&worker, OTHER), [0; PAGES as usize], "request {request}");
            worker.unmap(FRESH, LEN).unwrap();
            worker.reset().unwrap();
            assert_eq!(worker.audit(), [], "request {request}");
            assert_eq!(first_bytes(&worker, OTHER), [2; PAGES as usize], "request {request}");
        }
    }
}
