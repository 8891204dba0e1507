// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared mappings of files of durable mounts: one file for all workers, which others may truncate.

use super::*;

const SHARED: i32 = libc::MAP_SHARED;
const PAGE: usize = PAGE_SIZE as usize;

impl Puppet {
    /// Maps a file at [`MAP`], `pages` pages of it.
    fn share(&mut self, fd: i64, prot: i32, pages: u64, offset: u64) -> i64 {
        let flags = (SHARED | libc::MAP_FIXED) as u64;
        self.call(libc::SYS_mmap, [MAP, pages * PAGE_SIZE, prot as u64, flags, fd as u64, offset], 0).unwrap()
    }

    /// Adds one to the word at an address, as the program itself does.
    fn touch(&mut self, address: u64) -> Result<i64, Step> {
        self.call(libc::SYS_getpid, [0; 6], address)
    }

    fn word_at(&mut self, address: u64) -> u64 {
        let mut word = [0; 8];
        self.process.copy_in(&mut self.machine, address, &mut word, true).unwrap();
        u64::from_le_bytes(word)
    }
}

fn is_signal(end: &Result<i64, Step>, signal: i32) -> bool {
    matches!(end, Err(Step::Faulted(fault)) if fault.signal == signal)
}

const RDWR: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Two workers that have a file of `pages` pages, of fives, open.
fn two(root: &Path, pages: usize) -> (Puppet, Puppet, Process, i64) {
    fs::write(root.join("file"), vec![0; pages * PAGE]).unwrap();
    let mut puppet = booted(root, 100, 100);
    let fd = puppet.open("/data/file", libc::O_RDWR);
    let (image, frozen) = puppet.freeze();
    (Puppet::fork(&image, &frozen), Puppet::fork(&image, &frozen), frozen, fd)
}

#[test]
fn workers_and_the_host_see_each_others_writes_and_a_reset_keeps_them() {
    let root = tempfile::tempdir().unwrap();
    let (mut one, mut other, frozen, fd) = two(root.path(), 3);
    let content = |at: usize| fs::read(root.path().join("file")).unwrap()[at];
    for round in 0..3_u8 {
        for worker in [&mut one, &mut other] {
            assert_eq!(worker.share(fd, RDWR, 3, 0), MAP as i64);
        }
        one.touch(MAP).unwrap();
        one.touch(MAP + 2 * PAGE_SIZE).unwrap();
        other.touch(MAP).unwrap();
        assert_eq!([content(0), content(2 * PAGE)], [2 * round + 2, round + 1]);
        assert_eq!(
            (one.word_at(MAP), other.word_at(MAP + 2 * PAGE_SIZE)),
            (2 * u64::from(round) + 2, u64::from(round) + 1)
        );
        // Calls and mappings see the same bytes.
        assert_eq!(one.store(fd, PAGE_SIZE + 8, "text"), 4);
        assert_eq!(other.word_at(MAP + PAGE_SIZE + 8) as u32, u32::from_le_bytes(*b"text"));
        other.process.copy_out(&mut other.machine, MAP + PAGE_SIZE + 9, b"E").unwrap();
        assert_eq!(one.on(libc::SYS_pread64, fd, [BUFFER, 4, PAGE_SIZE + 8]), 4);
        assert_eq!(one.word_at(BUFFER) as u32, u32::from_le_bytes(*b"tExt"));
        // A buffer in the mapping.
        assert_eq!(one.on(libc::SYS_pread64, fd, [MAP + PAGE_SIZE + 100, 4, PAGE_SIZE + 8]), 4);
        assert_eq!(content(PAGE + 101), b'E');
        assert_eq!(one.on(libc::SYS_pwrite64, fd, [MAP + PAGE_SIZE + 8, 4, 200]), 4);
        assert_eq!(content(203), b't');
        assert!(one.machine.has_shared_files() && one.machine.is_shared_file_page(MAP));
        for flags in [libc::MS_SYNC, libc::MS_ASYNC, libc::MS_SYNC | libc::MS_INVALIDATE] {
            assert_eq!(one.call(libc::SYS_msync, [MAP, 3 * PAGE_SIZE, flags as u64, 0, 0, 0], 0), Ok(0));
        }
        for (address, flags) in [(MAP + 1, libc::MS_SYNC), (MAP, libc::MS_SYNC | libc::MS_ASYNC), (MAP, 64)] {
            let wrong = one.call(libc::SYS_msync, [address, 1, flags as u64, 0, 0, 0], 0);
            assert_eq!(wrong, Ok(error(libc::EINVAL)));
        }
        one.reset(&frozen).unwrap();
        other.reset(&frozen).unwrap();
        assert!(!one.machine.has_shared_files());
        assert!(is_signal(&one.touch(MAP), libc::SIGSEGV), "the mapping is gone");
        one.machine.abandon().unwrap();
        one.machine.reset().unwrap();
        one.process.reset_from(&frozen);
        assert_eq!(one.run(), Ok(mayfly_machine::Exit::Syscall));
    }
}

#[test]
fn a_mapping_of_the_boot_is_there_in_every_request() {
    let root = tempfile::tempdir().unwrap();
    let mut puppet = booted(root.path(), 100, 10);
    let fd = puppet.open("/data/file", CREATE);
    assert_eq!(puppet.on(libc::SYS_ftruncate, fd, [2 * PAGE_SIZE, 0, 0]), 0);
    assert_eq!(puppet.share(fd, RDWR, 2, 0), MAP as i64);
    puppet.touch(MAP + PAGE_SIZE).unwrap();
    assert_eq!(puppet.on(libc::SYS_close, fd, [0; 3]), 0);
    let (image, frozen) = puppet.freeze();
    let mut workers = [Puppet::fork(&image, &frozen), Puppet::fork(&image, &frozen)];
    for round in 1..4 {
        for (index, worker) in workers.iter_mut().enumerate() {
            assert_eq!(worker.machine.audit(), []);
            worker.touch(MAP + PAGE_SIZE).unwrap();
            assert_eq!(worker.word_at(MAP + PAGE_SIZE), 2 * round + index as u64);
            worker.reset(&frozen).unwrap();
        }
    }
    let maps = workers[0].open("/proc/self/maps", libc::O_RDONLY);
    let got = workers[0].on(libc::SYS_read, maps, [BUFFER, 4000, 0]);
    let mut text = vec![0; usize::try_from(got).unwrap()];
    workers[0].machine.read(BUFFER, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.lines().any(|line| line.contains("rw-s") && line.ends_with(" /data/file")), "{text}");
}

#[test]
fn a_page_that_the_file_loses_is_a_signal_and_the_server_stays() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    let fresh = || {
        let (mut one, other, _, fd) = two(root.path(), 3);
        assert_eq!(one.share(fd, RDWR, 5, 0), MAP as i64);
        assert!((0..3).all(|page| one.touch(MAP + page * PAGE_SIZE).is_ok()));
        (one, other, fd)
    };
    let (mut one, mut other, fd) = fresh();
    assert!(is_signal(&one.touch(MAP + 3 * PAGE_SIZE), libc::SIGBUS), "past the end");
    let (mut one_more, _, _) = fresh();
    // Another worker, or the host.
    assert_eq!(other.on(libc::SYS_ftruncate, fd, [PAGE_SIZE + 1, 0, 0]), 0);
    one_more.touch(MAP + PAGE_SIZE).unwrap();
    assert!(is_signal(&one_more.touch(MAP + 2 * PAGE_SIZE), libc::SIGBUS));
    let (mut one, _, fd) = fresh();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(PAGE_SIZE).unwrap();
    // The server's own access fails as one of the program's, and the file stays as it is.
    for (number, args) in [
        (libc::SYS_clock_gettime, [0, MAP + 2 * PAGE_SIZE, 0, 0, 0, 0]),
        (libc::SYS_pwrite64, [fd as u64, MAP + 2 * PAGE_SIZE, 8, 0, 0, 0]),
        (libc::SYS_pread64, [fd as u64, MAP + 2 * PAGE_SIZE, 8, 0, 0, 0]),
        (libc::SYS_clock_gettime, [0, MAP + PAGE_SIZE - 8, 0, 0, 0, 0]),
        (libc::SYS_futex, [MAP + 2 * PAGE_SIZE, 0, 0, 0, 0, 0]),
    ] {
        assert_eq!(one.call(number, args, 0), Ok(error(libc::EFAULT)), "{number}");
    }
    assert_eq!(fs::metadata(&path).unwrap().len(), PAGE_SIZE);
    // It is there again when the file is.
    assert_eq!(one.on(libc::SYS_ftruncate, fd, [5 * PAGE_SIZE, 0, 0]), 0);
    one.touch(MAP + 2 * PAGE_SIZE).unwrap();
    assert_eq!(one.word_at(MAP + 2 * PAGE_SIZE), 1);
    one.touch(MAP + 4 * PAGE_SIZE).unwrap();
    // Again and again.
    for _ in 0..5 {
        assert_eq!(one.on(libc::SYS_ftruncate, fd, [PAGE_SIZE, 0, 0]), 0);
        assert_eq!(one.on(libc::SYS_ftruncate, fd, [3 * PAGE_SIZE, 0, 0]), 0);
        one.touch(MAP + 2 * PAGE_SIZE).unwrap();
        assert_eq!(one.word_at(MAP + 2 * PAGE_SIZE), 1);
    }
}

#[test]
fn a_mapping_allows_what_its_descriptor_does() {
    let root = tempfile::tempdir().unwrap();
    let (mut one, _, frozen, _) = two(root.path(), 1);
    let exec = libc::PROT_READ | libc::PROT_EXEC;
    let protect = |worker: &mut Puppet, prot: i32| {
        worker.call(libc::SYS_mprotect, [MAP, PAGE_SIZE, prot as u64, 0, 0, 0], 0).unwrap()
    };
    for flags in [libc::O_RDONLY, libc::O_RDONLY | libc::O_TRUNC, libc::O_RDWR, libc::O_WRONLY] {
        let fd = one.open("/data/file", flags);
        fs::write(root.path().join("file"), [0; PAGE]).unwrap();
        let (reads, writes) = (flags != libc::O_WRONLY, flags == libc::O_RDWR);
        assert_eq!(one.share(fd, RDWR, 1, 0), if writes { MAP as i64 } else { error(libc::EACCES) });
        assert_eq!(one.share(fd, libc::PROT_READ, 1, 0), if reads { MAP as i64 } else { error(libc::EACCES) });
        if reads {
            assert_eq!(one.share(fd, exec, 1, 0), error(libc::EPERM));
            assert_eq!(one.word_at(MAP), 0);
            assert_eq!(protect(&mut one, exec), error(libc::EACCES));
            assert_eq!(protect(&mut one, RDWR), if writes { 0 } else { error(libc::EACCES) });
            let touched = one.touch(MAP);
            assert!(if writes { touched.is_ok() } else { is_signal(&touched, libc::SIGSEGV) }, "{touched:?}");
            if writes {
                assert_eq!(protect(&mut one, libc::PROT_NONE), 0);
                assert_eq!(protect(&mut one, libc::PROT_READ), 0);
                assert_eq!(one.word_at(MAP), 1);
                assert!(is_signal(&one.touch(MAP), libc::SIGSEGV));
            }
            one.machine.abandon().unwrap();
        }
        one.machine.reset().unwrap();
        one.machine.enter_frozen(0).unwrap();
        one.process.reset_from(&frozen);
        assert_eq!(one.run(), Ok(mayfly_machine::Exit::Syscall));
    }
}

#[test]
fn mapping_takes_no_more_than_the_quota_and_files_share_windows() {
    let root = tempfile::tempdir().unwrap();
    let mut puppet = booted(root.path(), 70, 100);
    let fd = puppet.open("/data/file", CREATE);
    // Room is taken by the size: what is mapped behind the end cannot be written, and holes are paid for.
    assert_eq!(puppet.on(libc::SYS_ftruncate, fd, [71 * PAGE_SIZE, 0, 0]), error(libc::ENOSPC));
    assert_eq!(puppet.on(libc::SYS_ftruncate, fd, [4 * PAGE_SIZE, 0, 0]), 0);
    assert_eq!(puppet.share(fd, RDWR, 64, 0), MAP as i64);
    puppet.touch(MAP + 3 * PAGE_SIZE).unwrap();
    assert_eq!(puppet.on(libc::SYS_ftruncate, fd, [70 * PAGE_SIZE, 0, 0]), 0);
    puppet.touch(MAP + 63 * PAGE_SIZE).unwrap();
    assert_eq!(puppet.on(libc::SYS_ftruncate, fd, [PAGE_SIZE, 0, 0]), 0);
    // There are fewer windows than that: those of other files go for a file that is touched.
    let mapped = |puppet: &mut Puppet, index: u64| {
        let fd = puppet.open(&format!("/data/{index}"), CREATE);
        assert_eq!(puppet.on(libc::SYS_ftruncate, fd, [1, 0, 0]), 0);
        let at = MAP + 0x10_0000 * (index + 1);
        let flags = (SHARED | libc::MAP_FIXED) as u64;
        let result = puppet.call(libc::SYS_mmap, [at, PAGE_SIZE, RDWR as u64, flags, fd as u64, 0], 0).unwrap();
        assert_eq!(puppet.on(libc::SYS_close, fd, [0; 3]), 0);
        result
    };
    let results: Vec<i64> = (0..68).map(|index| mapped(&mut puppet, index)).collect();
    assert!(results.iter().all(|result| *result > 0), "{results:?}");
    for _ in 0..2 {
        (1..68).for_each(|index| assert!(puppet.touch(MAP + 0x10_0000 * (index + 1)).is_ok()));
    }
    assert_eq!(puppet.word_at(MAP + 0x10_0000 * 68), 2);
    puppet.touch(MAP + 0x10_0000).unwrap();
    assert_eq!(puppet.call(libc::SYS_munmap, [MAP, 64 * PAGE_SIZE, 0, 0, 0, 0], 0), Ok(0));
    assert!(mapped(&mut puppet, 68) > 0);
    // A mapping moves, is dropped and comes again.
    let (from, to) = (MAP + 0x10_0000, MAP + 0x1000_0000);
    let fixed = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
    assert_eq!(puppet.call(libc::SYS_mremap, [from, PAGE_SIZE, PAGE_SIZE, fixed, to, 0], to), Ok(to as i64));
    let advice = libc::MADV_DONTNEED as u64;
    assert_eq!(puppet.call(libc::SYS_madvise, [to, PAGE_SIZE, advice, 0, 0, 0], to), Ok(0));
    assert_eq!(puppet.word_at(to), 3);
    assert_eq!(puppet.word_at(MAP + 0x20_0000), 2);
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    worker.touch(to).unwrap();
    assert_eq!(worker.word_at(to), 4);
    worker.reset(&frozen).unwrap();
}

#[test]
fn the_room_of_a_removed_file_comes_back_when_it_is_unmapped() {
    let root = tempfile::tempdir().unwrap();
    let (image, frozen) = booted(root.path(), 8, 10).freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    let full = error(libc::ENOSPC);
    for way in 0..2 {
        let fd = worker.open("/data/file", CREATE);
        assert_eq!(worker.on(libc::SYS_ftruncate, fd, [8 * PAGE_SIZE, 0, 0]), 0);
        assert_eq!(worker.share(fd, RDWR, 8, 0), MAP as i64);
        worker.touch(MAP).unwrap();
        assert_eq!(worker.on(libc::SYS_close, fd, [0; 3]), 0);
        assert_eq!(worker.paths(libc::SYS_unlink, &["/data/file"], &[]), 0);
        let other = worker.open("/data/other", CREATE);
        assert_eq!(worker.on(libc::SYS_ftruncate, other, [PAGE_SIZE, 0, 0]), full);
        worker.touch(MAP + PAGE_SIZE).unwrap();
        let mut other = other;
        if way == 0 {
            assert_eq!(worker.call(libc::SYS_munmap, [MAP, 8 * PAGE_SIZE, 0, 0, 0, 0], 0), Ok(0));
        } else {
            worker.reset(&frozen).unwrap();
            other = worker.open("/data/other", CREATE);
        }
        let closed = Instant::now() + Duration::from_secs(30);
        while worker.on(libc::SYS_ftruncate, other, [PAGE_SIZE, 0, 0]) != 0 {
            assert!(Instant::now() < closed, "the room comes back");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(worker.on(libc::SYS_ftruncate, other, [0, 0, 0]), 0);
        worker.reset(&frozen).unwrap();
    }
}

#[test]
fn a_thread_that_may_not_block_has_no_such_page() {
    let root = tempfile::tempdir().unwrap();
    let (mut one, _, _, fd) = two(root.path(), 2);
    one.text(0, "");
    assert_eq!(one.share(fd, RDWR, 2, 0), MAP as i64);
    one.touch(MAP).unwrap();
    // As at the beginning of a leg.
    one.machine.unmap_shared_files().unwrap();
    one.may_block = false;
    assert!(matches!(one.touch(MAP), Err(Step::Waits { until_ns: Some(_), .. })));
    one.go_on();
    assert_eq!(one.word_at(MAP), 2);
    one.machine.unmap_shared_files().unwrap();
    let args = [fd as u64, MAP + PAGE_SIZE, 8, 0, 0, 0];
    assert!(matches!(one.call(libc::SYS_pwrite64, args, 0), Err(Step::Waits { until_ns: Some(_), .. })));
    assert_eq!(one.go_on(), 8);
    // A call that would have changed something by then leaves before it begins.
    one.machine.unmap_shared_files().unwrap();
    one.process.copy_out(&mut one.machine, BUFFER, &1_u64.to_le_bytes()).unwrap();
    let mask = [libc::SIG_BLOCK as u64, BUFFER, MAP + PAGE_SIZE, 8, 0, 0];
    let left = one.call(libc::SYS_rt_sigprocmask, mask, 0);
    assert!(matches!(left, Err(Step::Waits { until_ns: Some(_), .. })), "{left:?}");
    assert!(!one.machine.has_shared_files());
    assert_eq!(one.go_on(), 0);
    assert_eq!(one.word_at(MAP + PAGE_SIZE), 0, "nothing was blocked before");
    let unmap = one.call(libc::SYS_munmap, [MAP, 2 * PAGE_SIZE, 0, 0, 0, 0], 0);
    assert!(matches!(unmap, Err(Step::Waits { until_ns: Some(_), .. })), "it may be the last close");
    assert_eq!(one.go_on(), 0);
}

#[test]
fn a_futex_in_a_file_is_seen_by_other_workers() {
    let root = tempfile::tempdir().unwrap();
    let (mut one, mut other, frozen, fd) = two(root.path(), 1);
    for worker in [&mut one, &mut other] {
        assert_eq!(worker.share(fd, RDWR, 1, 0), MAP as i64);
    }
    let wait = libc::FUTEX_WAIT as u64;
    let first = one.call(libc::SYS_futex, [MAP, wait, 0, 0, 0, 0], 0);
    assert!(matches!(first, Err(Step::Waits { until_ns: Some(_), call: "a futex" })), "{first:?}");
    other.touch(MAP).unwrap();
    assert_eq!(other.call(libc::SYS_futex, [MAP, libc::FUTEX_WAKE as u64, 1, 0, 0, 0], 0), Ok(0));
    one.wake_in_time(true);
    one.run().unwrap();
    assert_eq!(one.machine.regs().rax, 0);
    assert_eq!(one.call(libc::SYS_futex, [MAP, wait, 0, 0, 0, 0], 0), Ok(error(libc::EAGAIN)), "the word is 1");
    // A deadline stays the same, however often the thread looks.
    let times = [0, 20_000_000_u64].map(u64::to_le_bytes).concat();
    one.process.copy_out(&mut one.machine, BUFFER, &times).unwrap();
    let first = one.call(libc::SYS_futex, [MAP, wait, 1, BUFFER, 0, 0], 0);
    assert!(matches!(first, Err(Step::Waits { until_ns: Some(_), .. })), "{first:?}");
    one.wake_in_time(true);
    one.run().unwrap();
    assert_eq!(one.machine.regs().rax.cast_signed(), error(libc::ETIMEDOUT));
    one.reset(&frozen).unwrap();
    // What is left in a register that the command does not have says nothing: no other worker changes this word.
    let word = other.word_at(BUFFER) & u64::from(u32::MAX);
    let idle = other.call(libc::SYS_futex, [BUFFER, wait, word, 0, MAP, 0], 0);
    assert!(matches!(idle, Err(Step::Waits { until_ns: None, call: "a futex" })), "{idle:?}");
}
