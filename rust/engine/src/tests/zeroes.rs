// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages that are only read and that share one frame of zeroes.

use super::*;

/// Pages that the guest reads: more than a table names.
const PAGES: u64 = 700;

summing_guest!(reader, before [], each []);

/// Runs until the doorbell; of what the guest reads it maps `window` pages at once.
fn run_sharing(machine: &mut Machine, window: u64, origin: Origin) -> (Regs, u64) {
    let mut faults = 0;
    loop {
        match machine.run().unwrap() {
            Exit::Doorbell => return (machine.regs(), faults),
            Exit::PageFault { address, code, .. } => {
                faults += 1;
                let page = address & !(PAGE_SIZE - 1);
                let origin = if page == STACK { Origin::Snapshot } else { origin };
                if machine.is_mapped(page) {
                    assert!(code.write());
                    machine.make_writable(page, origin).unwrap();
                } else if code.write() {
                    machine.map_zero(page, RW, origin).unwrap();
                } else {
                    assert!(machine.map_zeroes(page, window, RW, origin).unwrap() > 0);
                }
            }
            other => panic!("{other:?} {:x?}", machine.regs()),
        }
    }
}

fn worker(code: &[u8], private_pages: u64) -> Machine {
    let mut machine = boot(code, 0);
    // The stack is written at the boot; its page is the image's.
    machine.write(STACK, b"stack").unwrap();
    Machine::fork(&freeze(machine), private_pages, &[]).unwrap()
}

#[test]
fn reading_takes_one_frame_however_much_is_read() {
    for origin in [Origin::Snapshot, Origin::Request] {
        let mut worker = worker(reader(), 64);
        let before = worker.private_pages();
        for request in 0..4 {
            worker.write_inbox(0, &PAGES.to_le_bytes());
            let (regs, faults) = run_sharing(&mut worker, 100, origin);
            assert_eq!((regs.rdi, regs.rsi), (2, 0));
            // Those of the snapshot's layout stay, and the stack does.
            let expected = if request == 0 { 8 } else { 7 * u64::from(origin == Origin::Request) };
            assert_eq!(faults, expected, "{origin:?}, request {request}");
            // The stack, the frame of zeroes, and tables.
            assert!(worker.private_pages() <= before + 2 + 4, "{before} then {}", worker.private_pages());
            let report = worker.reset().unwrap();
            assert_eq!(report.pages, 1, "the stack");
            assert_eq!(report.entries, PAGES * u64::from(origin == Origin::Request));
            assert_eq!(worker.audit(), []);
        }
    }
}

#[test]
fn the_first_write_gives_a_page_a_frame_of_its_own() {
    for origin in [Origin::Snapshot, Origin::Request] {
        let mut worker = worker(counter(), 256);
        for _ in 0..4 {
            worker.write_inbox(0, &20u64.to_le_bytes());
            let (regs, _) = run_sharing(&mut worker, 64, origin);
            assert_eq!((regs.rdi, regs.rsi), (2, 0), "every page read as zero");
            // What it has written, and what it has not.
            let mut word = [9; 8];
            worker.read(DATA + 19 * PAGE_SIZE, &mut word).unwrap();
            assert_eq!(u64::from_le_bytes(word), 1);
            worker.read(DATA + 20 * PAGE_SIZE, &mut word).unwrap();
            assert_eq!(u64::from_le_bytes(word), 0);
            assert!(worker.write(DATA + 20 * PAGE_SIZE, b"refused").is_err());
            worker.reset().unwrap();
            assert_eq!(worker.audit(), []);
        }
        // Given back, the pages are faulted in again.
        worker.release_work_set().unwrap();
        worker.write_inbox(0, &20u64.to_le_bytes());
        assert_eq!(run_sharing(&mut worker, 64, origin).0.rsi, 0);
        worker.reset().unwrap();
        assert_eq!(worker.audit(), []);
    }
}

#[test]
fn no_protection_makes_the_shared_frame_writable() {
    let mut worker = worker(counter(), 256);
    worker.map_zeroes(DATA, 8, RW, Origin::Snapshot).unwrap();
    for prot in [Prot::READ, Prot::NONE, RW, Prot::READ | Prot::WRITE | Prot::EXEC] {
        worker.protect(DATA, 8 * PAGE_SIZE, prot).unwrap();
        assert!(!worker.is_writable(DATA), "{prot:?}");
        assert!(worker.write(DATA, b"refused").is_err(), "{prot:?}");
    }
    worker.move_pages(DATA, DATA + 64 * PAGE_SIZE, 4 * PAGE_SIZE).unwrap();
    assert!(worker.write(DATA + 64 * PAGE_SIZE, b"refused").is_err());
    worker.make_writable(DATA + 64 * PAGE_SIZE, Origin::Request).unwrap();
    worker.write(DATA + 64 * PAGE_SIZE, b"allowed").unwrap();
    let mut bytes = [9; 7];
    worker.read(DATA + 65 * PAGE_SIZE, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 7]);
    worker.unmap(DATA + 4 * PAGE_SIZE, 2 * PAGE_SIZE).unwrap();
    assert!(!worker.is_mapped(DATA + 4 * PAGE_SIZE));
    worker.reset().unwrap();
    assert_eq!(worker.audit(), []);
    worker.write_inbox(0, &8u64.to_le_bytes());
    assert_eq!(run_sharing(&mut worker, 4, Origin::Snapshot).0.rsi, 0);
}

#[test]
fn a_window_ends_at_a_page_that_is_there_and_at_the_limit() {
    let mut worker = worker(reader(), 12);
    worker.map_zero(DATA + 5 * PAGE_SIZE, RW, Origin::Request).unwrap();
    assert_eq!(worker.map_zeroes(DATA, 8, RW, Origin::Request), Ok(5));
    let exists = MemoryError::Exists { address: DATA };
    assert_eq!(worker.map_zeroes(DATA, 8, RW, Origin::Request), Err(exists));
    // A table for each page: the limit is reached, and what fits stays.
    let far = |number: u64| 0x1_0000_0000 + number * (512 * PAGE_SIZE);
    let mapped = (0..32).take_while(|number| worker.map_zeroes(far(*number), 1, RW, Origin::Request).is_ok()).count();
    assert!((1..12).contains(&mapped), "{mapped}");
    worker.reset().unwrap();
    assert_eq!(worker.audit(), []);
    let mut booting = boot(reader(), 0);
    assert_eq!(booting.map_zeroes(DATA, 2, RW, Origin::Snapshot), Ok(1));
    booting.write(DATA, b"it has a frame of its own").unwrap();
}
