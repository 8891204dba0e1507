// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared memory in system calls: buffers may lie there, and no call can change its mapping.

use mayfly_machine::layout::SHARED;

use super::*;

const PAGES: u64 = 2;
const END: u64 = SHARED + PAGES * PAGE_SIZE;

fn errno(number: i32) -> Result<i64, Step> {
    Ok(-i64::from(number))
}

fn worker() -> (Puppet, Process) {
    let region = SharedMemory::anonymous(PAGES * PAGE_SIZE).unwrap();
    let (image, frozen) = Puppet::boot_with(Some(&region)).freeze();
    (Puppet::fork(&image, &frozen), frozen)
}

#[test]
fn system_calls_read_and_write_shared_memory() {
    let (mut worker, frozen) = worker();
    worker.machine.write(SHARED + PAGE_SIZE - 3, b"across").unwrap();
    assert_eq!(worker.call(libc::SYS_write, [1, SHARED + PAGE_SIZE - 3, 6, 0, 0, 0], 0), Ok(6));
    assert_eq!(worker.log.0, b"across");
    assert_eq!(worker.call(libc::SYS_clock_gettime, [0, SHARED, 0, 0, 0, 0], SHARED + 16), Ok(0));
    let mut words = [0; 24];
    worker.machine.read(SHARED, &mut words).unwrap();
    assert_ne!(words[..8], [0; 8], "the time");
    assert_eq!(words[16], 1, "the program's own word");
    worker.reset(&frozen).unwrap();
    worker.call(libc::SYS_getpid, [0; 6], SHARED + 16).unwrap();
    worker.machine.read(SHARED, &mut words).unwrap();
    assert_eq!(words[16], 2, "reset does not change it");
}

#[test]
fn a_buffer_that_exceeds_shared_memory_is_efault() {
    let (mut worker, _) = worker();
    for address in [SHARED - 8, END - 8, END] {
        assert_eq!(worker.call(libc::SYS_clock_gettime, [0, address, 0, 0, 0, 0], 0), errno(libc::EFAULT));
        assert_eq!(worker.call(libc::SYS_write, [1, address, 16, 0, 0, 0], 0), errno(libc::EFAULT));
        assert_eq!(worker.call(libc::SYS_writev, [1, address, 1, 0, 0, 0], 0), errno(libc::EFAULT));
    }
    assert_eq!(worker.call(libc::SYS_write, [1, END - 8, u64::MAX >> 1, 0, 0, 0], 0), errno(libc::EFAULT));
    assert_eq!(worker.log.0, b"");
}

#[test]
fn no_call_unmaps_or_protects_shared_memory() {
    let (mut worker, frozen) = worker();
    let len = PAGES * PAGE_SIZE;
    let (rx, fixed) = ((libc::PROT_READ | libc::PROT_EXEC) as u64, (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64);
    // munmap(2) of a range without mappings succeeds and does nothing, as on Linux.
    let calls = [
        (libc::SYS_munmap, [SHARED, len, 0, 0, 0, 0], 0),
        (libc::SYS_munmap, [layout::USER_END, 1 << 31, 0, 0, 0, 0], 0),
        (libc::SYS_mprotect, [SHARED, len, rx, 0, 0, 0], -libc::ENOMEM),
        (libc::SYS_mmap, [SHARED, len, RW, PRIVATE_ANON_FIXED, u64::MAX, 0], -libc::ENOMEM),
        (libc::SYS_mremap, [SHARED, len, len, fixed, WINDOW, 0], -libc::EFAULT),
        (libc::SYS_madvise, [SHARED, len, libc::MADV_DONTNEED as u64, 0, 0, 0], -libc::ENOMEM),
        (libc::SYS_madvise, [SHARED, len, libc::MADV_REMOVE as u64, 0, 0, 0], -libc::EINVAL),
    ];
    for (count, (number, args, expected)) in (1_u8..).zip(calls) {
        assert_eq!(worker.call(number, args, SHARED), Ok(expected.into()), "call {number}");
        let mut byte = [0];
        worker.machine.read(SHARED, &mut byte).unwrap();
        assert_eq!(byte, [count], "call {number}");
    }
    worker.reset(&frozen).unwrap();
}

#[test]
fn an_access_past_the_end_of_shared_memory_faults() {
    let (mut worker, _) = worker();
    let Err(Step::Faulted(fault)) = worker.call(libc::SYS_getpid, [0; 6], END) else { panic!("no fault") };
    assert_eq!((fault.signal, fault.address), (libc::SIGSEGV, Some(END)));
}
