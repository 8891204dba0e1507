// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared memory in whole machines.

use mayfly_machine::SharedMemory;
use mayfly_machine::layout::SHARED;

use super::*;

// Leaves a mark at boot; in a request adds one, as often as the inbox says, and answers the mark and the sum.
guest!(
    adder,
    "mov r9, 0x7fff40000000",
    "lock add qword ptr [r9 + 8], 1",
    "mov edi, 1",
    "mov rax, 0x7fff00001100",
    "call rax",
    "mov r9, 0x7fff40000000",
    "mov rcx, [rax]",
    "2: lock add qword ptr [r9], 1",
    "dec rcx",
    "jnz 2b",
    "mov r8, [r9 + 8]",
    "mov rsi, [r9]",
    "mov edi, 2",
    "mov rax, 0x7fff00001100",
    "call rax",
    "ud2",
);

// Waits, then jumps to where the inbox says.
guest!(jumper, "mov edi, 1", "mov rax, 0x7fff00001100", "call rax", "mov rax, [rax]", "jmp rax");

// Waits, then reads where the inbox says.
guest!(peeker, "mov edi, 1", "mov rax, 0x7fff00001100", "call rax", "mov rax, [rax]", "mov rax, [rax]", "ud2");

fn image_with(code: &[u8], region: &SharedMemory) -> Image {
    let mut machine = boot(code, 1);
    machine.share(region).unwrap();
    freeze(machine)
}

fn add(worker: &mut Machine, count: u64) -> Regs {
    assert!(worker.write_inbox(0, &count.to_le_bytes()));
    run(worker, &mut 0)
}

#[test]
fn all_machines_see_the_same_bytes_and_reset_leaves_them_alone() {
    let region = SharedMemory::anonymous(3 * PAGE_SIZE).unwrap();
    let image = image_with(adder(), &region);
    let mut one = Machine::fork(&image, 256, &[]).unwrap();
    let mut other = Machine::fork(&image, 256, &[]).unwrap();
    let mut sum = 0;
    for count in [1, 5, 10] {
        for worker in [&mut one, &mut other] {
            sum += count;
            let regs = add(worker, count);
            assert_eq!((regs.rsi, regs.r8), (sum, 1), "the sum so far, and the boot's mark");
            worker.reset().unwrap();
            assert_eq!(worker.audit(), []);
            assert!(worker.private_pages() <= 2, "the stack, and no shared page");
        }
    }
    one.release_work_set().unwrap();
    assert_eq!(add(&mut one, 1).rsi, sum + 1);
    // Another boot of the program, as after a hot reload.
    let next = image_with(adder(), &region);
    let regs = add(&mut Machine::fork(&next, 256, &[]).unwrap(), 1);
    assert_eq!((regs.rsi, regs.r8), (sum + 2, 2));
    drop((image, one, other));
    let mut word = [0; 8];
    assert!(region.read(0, &mut word));
    assert_eq!(u64::from_le_bytes(word), sum + 2);
}

#[test]
fn atomics_of_two_vcpus_at_once_add_up() {
    const ROUNDS: u64 = 50;
    const COUNT: u64 = 20_000;
    let region = SharedMemory::anonymous(PAGE_SIZE).unwrap();
    let image = image_with(adder(), &region);
    let start = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut worker = Machine::fork(&image, 256, &[]).unwrap();
                start.wait();
                for _ in 0..ROUNDS {
                    add(&mut worker, COUNT);
                    worker.reset().unwrap();
                }
            });
        }
    });
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    assert_eq!(add(&mut worker, 1).rsi, 2 * ROUNDS * COUNT + 1);
}

#[test]
fn the_host_reads_and_writes_it_within_its_bounds() {
    let path = std::env::temp_dir().join(format!("mayfly-shared-{}-machine", std::process::id()));
    let regions = [SharedMemory::anonymous(2 * PAGE_SIZE).unwrap(), SharedMemory::file(&path, 2 * PAGE_SIZE).unwrap()];
    std::fs::remove_file(&path).unwrap();
    for region in regions {
        let image = image_with(adder(), &region);
        let mut worker = Machine::fork(&image, 256, &[]).unwrap();
        let end = SHARED + 2 * PAGE_SIZE;
        worker.write(SHARED + PAGE_SIZE - 3, b"across").unwrap();
        let mut seen = [0; 6];
        worker.read(SHARED + PAGE_SIZE - 3, &mut seen).unwrap();
        assert_eq!(&seen, b"across");
        worker.write(end - 8, &[1; 8]).unwrap();
        for (address, bad) in [(end - 4, end), (end, end), (SHARED - 4, SHARED - 4)] {
            assert_eq!(worker.read(address, &mut [0; 8]).unwrap_err().address, bad);
            assert_eq!(worker.write(address, &[0; 8]).unwrap_err().address, bad);
        }
        worker.write(SHARED, &41u64.to_le_bytes()).unwrap();
        assert_eq!(add(&mut worker, 1).rsi, 42, "the guest sees what the host wrote");
        worker.read(SHARED, &mut seen).unwrap();
        assert_eq!(seen[0], 42, "and the host what the guest wrote");
    }
}

#[test]
fn a_program_can_neither_run_nor_remap_it() {
    let region = SharedMemory::anonymous(PAGE_SIZE).unwrap();
    let image = image_with(jumper(), &region);
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    worker.write_inbox(0, &SHARED.to_le_bytes());
    let Exit::PageFault { address, code, .. } = worker.run().unwrap() else { panic!("it ran") };
    assert_eq!(address, SHARED);
    assert!(code.fetch() && code.user());

    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    for address in [SHARED - PAGE_SIZE, SHARED, SHARED + PAGE_SIZE] {
        assert!(worker.unmap(address, PAGE_SIZE).is_err());
        assert!(worker.protect(address, PAGE_SIZE, RX).is_err());
        assert!(worker.map_zero(address, RW, Origin::Request).is_err());
        assert!(worker.make_writable(address, Origin::Request).is_err());
        assert!(worker.move_pages(address, DATA + 64 * PAGE_SIZE, PAGE_SIZE).is_err());
    }
    assert_eq!(worker.audit(), []);
}

#[test]
fn there_is_nothing_around_it_and_nothing_where_there_is_none() {
    let region = SharedMemory::anonymous(PAGE_SIZE).unwrap();
    let image = image_with(peeker(), &region);
    let without = freeze(boot(peeker(), 1));
    for (image, address) in [(&image, SHARED - 8), (&image, SHARED + PAGE_SIZE), (&without, SHARED)] {
        let mut worker = Machine::fork(image, 256, &[]).unwrap();
        worker.write_inbox(0, &address.to_le_bytes());
        let exit = worker.run().unwrap();
        assert!(matches!(exit, Exit::PageFault { address: at, .. } if at == address), "{exit:?}");
    }
    let mut worker = Machine::fork(&without, 256, &[]).unwrap();
    assert!(worker.read(SHARED, &mut [0; 8]).is_err() && worker.write(SHARED, &[0; 8]).is_err());
}

#[test]
fn a_region_is_given_once_at_boot_and_must_fit() {
    let region = SharedMemory::anonymous(PAGE_SIZE).unwrap();
    let mut machine = boot(adder(), 1);
    machine.share(&region).unwrap();
    assert!(machine.share(&region).is_err(), "there is one already");
    let mut worker = Machine::fork(&freeze(machine), 256, &[]).unwrap();
    assert!(worker.share(&region).is_err(), "it is a worker");
    // Its page tables take 512 pages; this machine has 100.
    let large = SharedMemory::anonymous(mayfly_machine::layout::SHARED_MAX).unwrap();
    let mut small = testing::boot_machine(100 * PAGE_SIZE);
    assert!(small.share(&large).is_err());
}

#[test]
fn a_guest_that_touches_a_part_that_its_file_has_lost_ends_its_own_run() {
    let path = std::env::temp_dir().join(format!("mayfly-shared-{}-lost", std::process::id()));
    let region = SharedMemory::file(&path, 2 * PAGE_SIZE).unwrap();
    let image = image_with(peeker(), &region);
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(PAGE_SIZE).unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    worker.write_inbox(0, &(SHARED + PAGE_SIZE).to_le_bytes());
    // A KVM error, not a SIGBUS: the worker is lost, the process is not.
    assert!(worker.run().is_err());
    assert!(worker.read(SHARED + PAGE_SIZE, &mut [0; 8]).is_err());
    assert!(worker.read(SHARED, &mut [0; 8]).is_ok());
}
