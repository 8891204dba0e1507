// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages of files in whole machines.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use mayfly_machine::{FileKey, FilePages};

use super::*;
use mayfly_memory::memory::RUNS_MAX;

pub(super) const KEY: FileKey = FileKey(0, 1);
pub(super) const PAGES: u64 = 8;

// Increments the first word of the page at DATA at boot, having read it; then as the counter.
summing_guest!(
    early,
    before ["mov r9, 0x500000", "mov r8, [r9]", "add qword ptr [r9], r8", "mov r8, [r9]"],
    each ["add qword ptr [r9], 1"]
);

// Waits, then sums up the first words of as many pages at DATA as the inbox says.
guest!(
    reader,
    "mov edi, 1",
    "mov rax, 0x7fff00001100",
    "call rax",
    "mov rcx, [rax]",
    "xor esi, esi",
    "mov r9, 0x500000",
    "2: add rsi, [r9]",
    "add r9, 4096",
    "dec rcx",
    "jnz 2b",
    "mov edi, 2",
    "mov rax, 0x7fff00001100",
    "call rax",
    "ud2",
);

/// A file without a name, of pages of which each word is 5.
pub(super) fn fives() -> File {
    let thread = std::thread::current();
    let path = std::env::temp_dir().join(format!("mayfly-pages-{}-{:?}", std::process::id(), thread.id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    for at in 0..PAGES * PAGE_SIZE / 8 {
        file.write_all_at(&5u64.to_le_bytes(), at * 8).unwrap();
    }
    file
}

fn pages(file: &File, first: u64, count: u64) -> FilePages<'_> {
    FilePages { file: file.as_fd(), key: KEY, first, count }
}

/// A machine with the first `mapped` pages of the file at DATA.
pub(super) fn boot_with(code: &[u8], file: &File, mapped: u64) -> Machine {
    let mut machine = boot(code, 0);
    assert_eq!(machine.map_file(DATA, RW, Origin::Snapshot, &pages(file, 0, mapped)), Ok(mapped));
    machine
}

pub(super) fn count(worker: &mut Machine, pages: u64) -> (u64, u64) {
    assert!(worker.write_inbox(0, &pages.to_le_bytes()));
    let mut faults = 0;
    let regs = run(worker, &mut faults);
    assert_eq!(regs.rdi, 2);
    (regs.rsi, faults)
}

fn word(file: &File, page: u64) -> u64 {
    let mut word = [0; 8];
    file.read_exact_at(&mut word, page * PAGE_SIZE).unwrap();
    u64::from_le_bytes(word)
}

#[test]
fn a_worker_writes_to_a_copy_that_is_the_files_again_at_every_request() {
    let file = fives();
    let image = freeze(boot_with(counter(), &file, PAGES));
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    for request in 0..4 {
        let (sum, faults) = count(&mut worker, PAGES);
        // Each page is read before it is written: the processor's translation to the file's frame must be gone.
        assert_eq!((sum, faults), (5 * PAGES, if request == 0 { PAGES + 1 } else { 0 }), "request {request}");
        let mut seen = [0; 8];
        worker.read(DATA + PAGE_SIZE, &mut seen).unwrap();
        assert_eq!(u64::from_le_bytes(seen), 6);
        worker.reset().unwrap();
        assert_eq!(worker.audit(), []);
        assert_eq!(worker.private_pages(), PAGES + 1);
    }
    assert_eq!((0..PAGES).map(|page| word(&file, page)).sum::<u64>(), 5 * PAGES, "the file is as it was");
    let learned: Vec<_> = worker.learned().collect();
    let mut next = Machine::fork(&image, 256, &learned).unwrap();
    assert_eq!(count(&mut next, PAGES), (5 * PAGES, 0), "prepared");
    next.reset().unwrap();
    assert_eq!(next.audit(), []);
    // Given back, and faulted in again.
    worker.release_work_set().unwrap();
    assert_eq!(worker.audit(), []);
    assert_eq!(worker.private_pages(), 0);
    assert_eq!(count(&mut worker, PAGES), (5 * PAGES, PAGES + 1));
}

#[test]
fn what_a_boot_writes_is_the_snapshots() {
    let file = fives();
    let without = freeze(boot(reader(), 0)).bytes();
    let mut machine = boot_with(early(), &file, PAGES);
    let regs = run(&mut machine, &mut 0);
    assert_eq!((regs.rdi, regs.r8), (1, 10), "the guest sees its own write, although it had read the file's page");
    let image = Image::freeze(machine, INBOX).unwrap();
    // One copy, and two tables for DATA.
    assert!(image.bytes() <= without + 4 * PAGE_SIZE, "{} and {without}", image.bytes());
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    for _ in 0..3 {
        assert_eq!(count(&mut worker, PAGES).0, 10 + 5 * (PAGES - 1));
        worker.reset().unwrap();
        assert_eq!(worker.audit(), []);
    }
    assert_eq!(word(&file, 0), 5);
}

#[test]
fn all_machines_see_the_page_cache() {
    let file = fives();
    let code = reader();
    let images = [(); 2].map(|()| freeze(boot_with(code, &file, PAGES)));
    let mut workers: Vec<_> =
        images.iter().flat_map(|image| [(); 2].map(|()| Machine::fork(image, 256, &[]).unwrap())).collect();
    // The file must not be changed in place while it is used; the test does it to show that there is no copy.
    for value in [5, 7, 9] {
        file.write_all_at(&u64::to_le_bytes(value), 3 * PAGE_SIZE).unwrap();
        for worker in &mut workers {
            assert_eq!(
                count(worker, PAGES),
                (5 * (PAGES - 1) + value, u64::from(value == 5)),
                "the stack alone faults"
            );
            let mut seen = [0; 8];
            worker.read(DATA + 3 * PAGE_SIZE, &mut seen).unwrap();
            assert_eq!(u64::from_le_bytes(seen), value, "for the host, too");
            worker.reset().unwrap();
            assert_eq!((worker.private_pages(), worker.audit()), (1, vec![]));
        }
    }
}

#[test]
fn what_a_request_does_to_pages_of_files_is_undone() {
    let file = fives();
    let image = freeze(boot_with(counter(), &file, PAGES));
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    let mut word = [0; 8];
    for round in 0..4 {
        // In the last rounds, few pages of a file count as scattered.
        worker.memory.runs_max = if round < 2 { RUNS_MAX } else { 1 };
        for change in 0..5 {
            // In every second round the guest has cached translations to the pages.
            if round % 2 == 1 {
                count(&mut worker, PAGES);
                worker.reset().unwrap();
            }
            match change {
                0 => worker.make_writable(DATA, Origin::Request).unwrap(),
                1 => worker.unmap(DATA, 3 * PAGE_SIZE).unwrap(),
                2 => worker.protect(DATA, PAGES * PAGE_SIZE, Prot::NONE).unwrap(),
                3 => worker.move_pages(DATA, DATA + 64 * PAGE_SIZE, 2 * PAGE_SIZE).unwrap(),
                _ => {
                    worker.unmap(DATA, PAGE_SIZE).unwrap();
                    // Another page of the file where the snapshot has the first.
                    assert_eq!(worker.map_file(DATA, RW, Origin::Request, &pages(&file, 4, 1)), Ok(1));
                    worker.make_writable(DATA, Origin::Request).unwrap();
                }
            }
            let _ = worker.write(DATA, &9u64.to_le_bytes());
            worker.reset().unwrap();
            assert_eq!(worker.audit(), [], "change {change} of round {round}");
            worker.read(DATA, &mut word).unwrap();
            assert_eq!(u64::from_le_bytes(word), 5);
        }
        assert_eq!(count(&mut worker, PAGES).0, 5 * PAGES);
        worker.reset().unwrap();
    }
}

#[test]
fn a_file_page_cannot_be_made_writable_by_a_protection() {
    let file = fives();
    let mut machine = boot_with(counter(), &file, 1);
    machine.protect(DATA, PAGE_SIZE, Prot::NONE).unwrap();
    machine.protect(DATA, PAGE_SIZE, RW).unwrap();
    assert!(machine.is_file_page(DATA));
    assert!(machine.write(DATA, &[1]).is_err() && machine.load(DATA, &[1]).is_err());
    machine.make_writable(DATA, Origin::Snapshot).unwrap();
    assert!(!machine.is_file_page(DATA));
    machine.write(DATA, &[1]).unwrap();
    assert_eq!(word(&file, 0), 5);
    // All of it can go and come back.
    machine.unmap(DATA, PAGE_SIZE).unwrap();
    assert_eq!(machine.map_file(DATA, RW, Origin::Snapshot, &pages(&file, 0, 1)), Ok(1));
    let mut word = [0; 8];
    machine.read(DATA, &mut word).unwrap();
    assert_eq!(u64::from_le_bytes(word), 5);
}

#[test]
fn a_worker_keeps_pages_of_the_snapshots_files_that_it_found() {
    let file = fives();
    let image = freeze(boot_with(reader(), &file, 2));
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    assert_eq!(worker.map_file(DATA + 2 * PAGE_SIZE, RW, Origin::Snapshot, &pages(&file, 2, 9)), Ok(PAGES - 2));
    let end = DATA + 16 * PAGE_SIZE;
    assert_eq!(worker.map_file(end, RW, Origin::Request, &pages(&file, 0, 1)), Ok(1));
    assert_eq!(count(&mut worker, PAGES), (5 * PAGES, 1));
    worker.reset().unwrap();
    assert_eq!(worker.audit(), []);
    assert!(worker.is_file_page(DATA + 2 * PAGE_SIZE) && !worker.is_mapped(end));
    assert_eq!(count(&mut worker, PAGES), (5 * PAGES, 0));
    // A file that the boot has not mapped is not there.
    let other = FilePages { key: FileKey(0, 2), ..pages(&file, 0, 1) };
    assert_eq!(worker.map_file(end, RW, Origin::Request, &other), Ok(0));
}

#[test]
fn a_truncated_file_costs_a_worker_and_not_the_process() {
    let file = fives();
    let image = freeze(boot_with(counter(), &file, PAGES));
    let mut written = Machine::fork(&image, 256, &[]).unwrap();
    count(&mut written, PAGES);
    let mut fresh = Machine::fork(&image, 256, &[]).unwrap();
    file.set_len(PAGE_SIZE).unwrap();
    written.reset().unwrap();
    assert_eq!(count(&mut written, PAGES), (5 * PAGES, 0), "copies are copies");
    let advice: Vec<_> = written.learned().collect();
    let mut learned = Machine::fork(&image, 256, &advice).unwrap();
    assert_eq!(count(&mut learned, PAGES), (5 * PAGES, 0));
    assert!(fresh.read(DATA + PAGE_SIZE, &mut [0; 8]).is_err());
    fresh.write_inbox(0, &PAGES.to_le_bytes());
    // The first page is still there; reading the second is a KVM error.
    let end = loop {
        match fresh.run() {
            Ok(Exit::PageFault { address, .. }) => fresh.make_writable(address & !0xfff, Origin::Snapshot).unwrap(),
            other => break other,
        }
    };
    assert!(end.is_err(), "{end:?}");
    // Where no worker has written yet, there is nothing to copy.
    let file = fives();
    let image = freeze(boot_with(counter(), &file, PAGES));
    file.set_len(0).unwrap();
    let mut early = Machine::fork(&image, 256, &[]).unwrap();
    assert!(matches!(early.make_writable(DATA, Origin::Snapshot), Err(MemoryError::Host { .. })));
}

#[test]
fn a_guest_that_has_read_a_page_sees_what_the_host_writes_there() {
    let file = fives();
    for origin in [Origin::Snapshot, Origin::Request] {
        let image = freeze(boot_with(reader(), &file, PAGES));
        let mut worker = Machine::fork(&image, 256, &[]).unwrap();
        for _ in 0..3 {
            assert_eq!(count(&mut worker, PAGES).0, 5 * PAGES);
            worker.reset().unwrap();
            // As for a system call that writes: no fault of the guest makes the processor walk the tables again.
            worker.make_writable(DATA, origin).unwrap();
            worker.write(DATA, &9u64.to_le_bytes()).unwrap();
            assert_eq!(count(&mut worker, PAGES).0, 5 * PAGES + 4);
            worker.reset().unwrap();
            assert_eq!(worker.audit(), []);
        }
    }
}

#[test]
fn other_workers_run_on_while_one_copies() {
    let file = fives();
    let image = freeze(boot_with(reader(), &file, PAGES));
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut worker = Machine::fork(&image, 256, &[]).unwrap();
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                // Each time all guests forget their cached translations to the pages.
                worker.protect(DATA, PAGES * PAGE_SIZE, Prot::NONE).unwrap();
                worker.protect(DATA, PAGES * PAGE_SIZE, RW).unwrap();
                worker.make_writable(DATA, Origin::Request).unwrap();
                worker.reset().unwrap();
            }
        });
        let mut worker = Machine::fork(&image, 256, &[]).unwrap();
        let sums: Vec<u64> = (0..500)
            .map(|_| {
                let sum = count(&mut worker, PAGES).0;
                worker.reset().unwrap();
                sum
            })
            .collect();
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(sums.iter().all(|sum| *sum == 5 * PAGES), "{sums:?}");
    });
}
