// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages of files that machines map shared, in whole machines.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mayfly_machine::SharedFile;

use super::files::{KEY, PAGES, fives};
use super::*;

// Waits, then adds one to the word that the inbox names, as often as it says, and answers what it found.
guest!(
    adder,
    "mov edi, 1",
    "mov rax, 0x7fff00001100",
    "call rax",
    "mov r9, [rax]",
    "mov rcx, [rax + 8]",
    "2: lock add qword ptr [r9], 1",
    "dec rcx",
    "jnz 2b",
    "mov rsi, [r9]",
    "mov edi, 2",
    "mov rax, 0x7fff00001100",
    "call rax",
    "ud2",
);

const AT: u64 = 0x70_0000;

fn shared(file: &Arc<File>) -> SharedFile {
    SharedFile { file: Arc::clone(file) as _, key: KEY, writable: true }
}

/// Has the program add at an address, with the file's pages brought in as it touches them, if it has them.
fn add(worker: &mut Machine, file: &Arc<File>, address: u64, count: u64) -> Result<u64, u64> {
    assert!(worker.write_inbox(0, &[address, count].map(u64::to_le_bytes).concat()));
    loop {
        match worker.run().unwrap() {
            Exit::Doorbell => return Ok(worker.regs().rsi),
            Exit::PageFault { address, .. } if (AT..AT + PAGES * PAGE_SIZE).contains(&address) => {
                let page = address & !(PAGE_SIZE - 1);
                let (index, pages) = ((page - AT) / PAGE_SIZE, file.metadata().unwrap().len().div_ceil(PAGE_SIZE));
                if index >= pages {
                    return Err(page);
                }
                worker.map_shared_file(page, RW, &shared(file), (index, 1), pages).unwrap();
            }
            Exit::PageFault { address, .. } => {
                worker.make_writable(address & !(PAGE_SIZE - 1), Origin::Snapshot).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }
}

fn word(file: &File, page: u64) -> u64 {
    let mut word = [0; 8];
    file.read_exact_at(&mut word, page * PAGE_SIZE).unwrap();
    u64::from_le_bytes(word)
}

#[test]
fn writes_reach_the_file_and_no_page_stays() {
    let file = Arc::new(fives());
    let image = freeze(boot(adder(), 1));
    let mut workers = [(); 2].map(|()| Machine::fork(&image, 256, &[]).unwrap());
    for round in 0..3 {
        for (index, worker) in workers.iter_mut().enumerate() {
            let before = worker.private_pages();
            assert_eq!(add(worker, &file, AT + PAGE_SIZE, 10), Ok(5 + 10 * (2 * round + index as u64 + 1)));
            assert!(worker.is_shared_file_page(AT + PAGE_SIZE) && worker.has_shared_files());
            assert!(worker.private_pages() <= before + 4, "tables and the stack at most");
            worker.reset().unwrap();
            worker.enter_frozen(INBOX).unwrap();
            assert_eq!(worker.audit(), []);
            assert!(!worker.is_mapped(AT + PAGE_SIZE) && !worker.has_shared_files());
        }
    }
    assert_eq!((word(&file, 0), word(&file, 1)), (5, 65));
    // While it boots, too; the image has none.
    let mut machine = boot(adder(), 1);
    machine.map_shared_file(AT, RW, &shared(&file), (0, 2), PAGES).unwrap();
    machine.write(AT, &7_u64.to_le_bytes()).unwrap();
    machine.move_pages(AT, AT + 4 * PAGE_SIZE, PAGE_SIZE).unwrap();
    let image = freeze(machine);
    assert_eq!(word(&file, 0), 7);
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    assert!(!worker.is_mapped(AT + 4 * PAGE_SIZE) && !worker.is_mapped(AT + PAGE_SIZE));
    assert_eq!(add(&mut worker, &file, AT, 1), Ok(8));
    // What is given back is the file's, not a frame of the machine's.
    worker.discard(&[(AT, PAGE_SIZE)]).unwrap();
    worker.release_work_set().unwrap();
    assert_eq!(worker.audit(), []);
}

#[test]
fn pages_make_room_for_one_that_is_needed_and_for_no_other() {
    // Nothing else lies behind it.
    const AT: u64 = 0x4000_0000;
    const MANY: u64 = 16_384;
    const APART: u64 = 4 * PAGE_SIZE;
    const AWAY: u64 = AT + MANY * APART;
    let file = Arc::new(fives());
    file.set_len(4 * MANY * PAGE_SIZE).unwrap();
    let shared = shared(&file);
    let image = freeze(boot(adder(), 1));
    let mut worker = Machine::fork(&image, 1024, &[]).unwrap();
    assert_eq!(worker.map_shared_file(AT, RW, &shared, (0, MANY), 4 * MANY), Ok(MANY));
    worker.map_shared_file_ahead(AWAY, RW, &shared, (0, 1), 4 * MANY);
    assert_eq!([AT, AWAY].map(|at| worker.is_shared_file_page(at)), [true, false], "there is no room");
    assert_eq!(worker.map_shared_file(AWAY, RW, &shared, (0, 1), 4 * MANY), Ok(1));
    assert!(!worker.is_shared_file_page(AT) && worker.is_shared_file_page(AWAY));
    // Pages far from each other take more time to be removed, and so are fewer, and so are the tables that name them.
    for distance in [APART, 512 * PAGE_SIZE] {
        worker.unmap_shared_files().unwrap();
        let address = |index: u64| AT + index * distance;
        for index in 0..257 {
            assert_eq!(worker.map_shared_file(address(index), RW, &shared, (index, 1), 4 * MANY), Ok(1));
            if index == 255 {
                worker.map_shared_file_ahead(address(300), RW, &shared, (0, 1), 4 * MANY);
                let there = [0, 255, 300].map(|index| worker.is_shared_file_page(address(index)));
                assert_eq!(there, [true, true, false]);
                // A neighbour is in the same run.
                worker.map_shared_file_ahead(address(index) + PAGE_SIZE, RW, &shared, (0, 1), 4 * MANY);
                assert!(worker.is_shared_file_page(address(index) + PAGE_SIZE));
            }
        }
        let there = [0, 255, 256].map(|index| worker.is_shared_file_page(address(index)));
        assert_eq!(there, [false, false, true]);
    }
    worker.reset().unwrap();
    worker.enter_frozen(INBOX).unwrap();
    assert_eq!(worker.audit(), []);
    // Windows, too: 64 files at a time, and as many as it likes one after the other.
    let files: Vec<_> =
        (0..65_u64).map(|key| SharedFile { key: mayfly_machine::FileKey(key, 7), ..shared.clone() }).collect();
    for (page, file) in (0..).zip(&files) {
        assert_eq!(worker.map_shared_file(AT + page * PAGE_SIZE, RW, file, (page, 1), PAGES), Ok(1));
    }
    assert!(!worker.is_shared_file_page(AT) && worker.is_shared_file_page(AT + 64 * PAGE_SIZE));
    worker.reset().unwrap();
    worker.enter_frozen(INBOX).unwrap();
    assert_eq!(worker.audit(), []);
}

#[test]
fn read_only_files_are_not_written() {
    let file = Arc::new(fives());
    let image = freeze(boot(adder(), 1));
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    let read_only = SharedFile { writable: false, ..shared(&file) };
    worker.map_shared_file(AT, RW, &read_only, (0, 1), PAGES).unwrap();
    assert!(worker.write(AT, &[0; 8]).is_err());
    assert!(worker.write_inbox(0, &[AT, 1].map(u64::to_le_bytes).concat()));
    let exit = loop {
        match worker.run().unwrap() {
            Exit::PageFault { address, .. } if address >= AT + PAGE_SIZE => {
                worker.make_writable(address & !(PAGE_SIZE - 1), Origin::Snapshot).unwrap();
            }
            exit => break exit,
        }
    };
    assert!(matches!(exit, Exit::PageFault { address: AT, code, .. } if code.write()), "{exit:?}");
    assert_eq!(word(&file, 0), 5);
}

#[test]
fn a_file_that_is_cut_off_under_a_running_machine_is_a_fault_of_the_program() {
    let file = Arc::new(fives());
    let image = freeze(boot(adder(), 1));
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    assert_eq!(add(&mut worker, &file, AT + 2 * PAGE_SIZE, 1), Ok(6));
    worker.reset().unwrap();
    worker.enter_frozen(INBOX).unwrap();
    // Before it runs on.
    worker.map_shared_file(AT, RW, &shared(&file), (0, 3), PAGES).unwrap();
    file.set_len(PAGE_SIZE).unwrap();
    assert!(
        worker.read(AT + 2 * PAGE_SIZE, &mut [0; 8]).is_err() && worker.write(AT + 2 * PAGE_SIZE, &[0; 8]).is_err()
    );
    assert_eq!(add(&mut worker, &file, AT + 2 * PAGE_SIZE, 1), Err(AT + 2 * PAGE_SIZE));
    worker.abandon().unwrap();
    worker.reset().unwrap();
    worker.enter_frozen(INBOX).unwrap();
    // While it runs.
    for _ in 0..3 {
        file.set_len(PAGES * PAGE_SIZE).unwrap();
        let done = AtomicBool::new(false);
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                while word(&file, 2) == 0 && !done.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                file.set_len(PAGE_SIZE).unwrap();
            });
            let result = add(&mut worker, &file, AT + 2 * PAGE_SIZE, u64::MAX);
            done.store(true, Ordering::Relaxed);
            result
        });
        assert_eq!(result, Err(AT + 2 * PAGE_SIZE));
        worker.abandon().unwrap();
        worker.reset().unwrap();
        worker.enter_frozen(INBOX).unwrap();
        assert_eq!(worker.audit(), []);
    }
    assert_eq!(add(&mut worker, &file, AT, 1), Ok(6), "the worker is as good as before");
}
