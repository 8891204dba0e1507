// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages with two addresses, in whole machines.

use super::*;

const OTHER: u64 = 0x70_0000;
const THIRD: u64 = 0x71_0000;

// Waits, then adds one to the word at 0x500000 and answers what lies at 0x700000 before and after.
guest!(
    two_views,
    "mov edi, 1",
    "mov rax, 0x7fff00001100",
    "call rax",
    "mov r8, [0x700000]",
    "add qword ptr [0x500000], 1",
    "mov rsi, [0x700000]",
    "mov edi, 2",
    "mov rax, 0x7fff00001100",
    "call rax",
    "ud2",
);

fn word(machine: &Machine, address: u64) -> u64 {
    let mut bytes = [0; 8];
    machine.read(address, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

/// An image whose page at DATA lies at OTHER, too.
fn image() -> Image {
    image_with(RX)
}

fn image_with(prot: Prot) -> Image {
    let mut machine = boot(two_views(), 1);
    machine.write(DATA, &7_u64.to_le_bytes()).unwrap();
    machine.map_alias(OTHER, prot, DATA).unwrap();
    freeze(machine)
}

fn audit(worker: &mut Machine) {
    worker.reset().unwrap();
    assert_eq!(worker.audit(), []);
    assert_eq!((word(worker, DATA), word(worker, OTHER)), (7, 7));
}

#[test]
fn both_addresses_of_a_page_show_what_the_program_writes_and_are_reset() {
    let mut worker = Machine::fork(&image(), 256, &[]).unwrap();
    for _ in 0..4 {
        let regs = run(&mut worker, &mut 0);
        assert_eq!((regs.r8, regs.rsi), (7, 8));
        audit(&mut worker);
    }
    worker.release_work_set().unwrap();
    assert_eq!(worker.audit(), []);
    let regs = run(&mut worker, &mut 0);
    assert_eq!((regs.r8, regs.rsi), (7, 8));
    audit(&mut worker);
    // A fork that has the page from the start.
    let learned: Vec<_> = worker.learned().collect();
    let mut next = Machine::fork(&image(), 256, &learned).unwrap();
    for _ in 0..2 {
        let regs = run(&mut next, &mut 0);
        assert_eq!((regs.r8, regs.rsi), (7, 8));
        audit(&mut next);
    }
}

#[test]
fn a_page_is_written_by_either_address_and_counts_once() {
    let mut worker = Machine::fork(&image(), 256, &[]).unwrap();
    for round in 0..3 {
        worker.protect(OTHER, PAGE_SIZE, RW).unwrap();
        worker.make_writable(OTHER, Origin::Request).unwrap();
        worker.write(OTHER, &9_u64.to_le_bytes()).unwrap();
        assert_eq!(word(&worker, DATA), 9, "{round}");
        worker.make_writable(DATA, Origin::Snapshot).unwrap();
        worker.write(DATA, &10_u64.to_le_bytes()).unwrap();
        assert_eq!(word(&worker, OTHER), 10);
        audit(&mut worker);
        assert!(worker.work_pages() <= 2, "the stack, and the page once");
        run(&mut worker, &mut 0);
        audit(&mut worker);
    }
}

#[test]
fn a_page_that_is_written_with_its_other_addresses_unmapped_is_reset_at_all_of_them() {
    for (gone, written) in [(DATA, OTHER), (OTHER, DATA)] {
        let mut worker = Machine::fork(&image_with(RW), 256, &[]).unwrap();
        for round in 0..4 {
            worker.unmap(gone, PAGE_SIZE).unwrap();
            if !worker.is_writable(written) {
                worker.make_writable(written, Origin::Snapshot).unwrap();
            }
            worker.write(written, &9_u64.to_le_bytes()).unwrap();
            audit(&mut worker);
            let regs = run(&mut worker, &mut 0);
            assert_eq!((regs.r8, regs.rsi), (7, 8), "{round}");
            audit(&mut worker);
            assert!(worker.work_pages() <= 2, "the stack, and the page once");
            if round % 2 == 1 {
                worker.release_work_set().unwrap();
                assert_eq!((word(&worker, DATA), word(&worker, OTHER)), (7, 7));
                assert_eq!(worker.audit(), []);
            }
        }
        // Given back with nothing but that in it.
        worker.release_work_set().unwrap();
        worker.unmap(gone, PAGE_SIZE).unwrap();
        worker.make_writable(written, Origin::Snapshot).unwrap();
        worker.write(written, &9_u64.to_le_bytes()).unwrap();
        worker.reset().unwrap();
        worker.release_work_set().unwrap();
        assert_eq!((word(&worker, DATA), word(&worker, OTHER)), (7, 7));
        assert!(!worker.is_writable(gone) && !worker.is_writable(written), "the next write is recorded");
        assert_eq!(worker.audit(), []);
    }
}

#[test]
fn a_page_lives_until_its_last_address_is_unmapped() {
    let mut worker = Machine::fork(&image(), 256, &[]).unwrap();
    let before = worker.private_pages();
    for first in [DATA, OTHER] {
        let second = if first == DATA { OTHER } else { DATA };
        worker.protect(OTHER, PAGE_SIZE, RW).unwrap();
        worker.make_writable(first, Origin::Request).unwrap();
        worker.write(first, &9_u64.to_le_bytes()).unwrap();
        worker.unmap(first, PAGE_SIZE).unwrap();
        assert_eq!(word(&worker, second), 9);
        worker.unmap(second, PAGE_SIZE).unwrap();
        audit(&mut worker);
        let regs = run(&mut worker, &mut 0);
        assert_eq!((regs.r8, regs.rsi), (7, 8), "what the program sees of both is the image's again");
        audit(&mut worker);
    }
    assert!(worker.private_pages() <= before + 4);
}

#[test]
fn pages_of_a_request_may_have_several_addresses() {
    let mut worker = Machine::fork(&image(), 256, &[]).unwrap();
    let absent = worker.map_alias(THIRD, RW, THIRD + PAGE_SIZE);
    assert_eq!(absent, Err(MemoryError::Absent { address: THIRD + PAGE_SIZE }));
    assert_eq!(worker.map_alias(OTHER, RW, DATA), Err(MemoryError::Exists { address: OTHER }));
    let at_first = worker.private_pages();
    for _ in 0..3 {
        worker.map_filled(0x72_0000, RW, &5_u64.to_le_bytes()).unwrap();
        worker.map_alias(THIRD, RW, 0x72_0000).unwrap();
        worker.move_pages(0x72_0000, 0x73_0000, PAGE_SIZE).unwrap();
        worker.write(THIRD, &6_u64.to_le_bytes()).unwrap();
        assert_eq!(word(&worker, 0x73_0000), 6);
        worker.unmap(THIRD, PAGE_SIZE).unwrap();
        assert_eq!(word(&worker, 0x73_0000), 6);
        // The image's page gets a third address.
        worker.map_alias(THIRD, RW, DATA).unwrap();
        assert!(worker.write(THIRD, b"faults first").is_err());
        worker.make_writable(THIRD, Origin::Request).unwrap();
        worker.write(THIRD, &8_u64.to_le_bytes()).unwrap();
        assert_eq!((word(&worker, DATA), word(&worker, OTHER)), (8, 8));
        audit(&mut worker);
    }
    assert!(worker.private_pages() <= at_first + 4, "all frames came back");
}

#[test]
fn a_saved_image_keeps_the_addresses_of_its_pages() {
    let file = tempfile::tempfile().unwrap();
    let saved = image().save(&file, 0).unwrap();
    let loaded = Image::load(&testing::host(), &saved, &file, 0, &[]).unwrap();
    let mut worker = Machine::fork(&loaded, 256, &[]).unwrap();
    for _ in 0..2 {
        let regs = run(&mut worker, &mut 0);
        assert_eq!((regs.r8, regs.rsi), (7, 8));
        audit(&mut worker);
    }
    worker.unmap(DATA, PAGE_SIZE).unwrap();
    assert_eq!(word(&worker, OTHER), 7);
    audit(&mut worker);
}
