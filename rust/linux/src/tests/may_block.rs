// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads that may not block take no step that may block; other threads take it.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use mayfly_machine::PAGE_SIZE;
use proptest::prelude::*;
use rustix::fs::{Advice, fadvise};

use super::any_calls::any_call;
use super::files::{PATHS, SLOT, any_file_call};
use super::{Puppet, RW, WINDOW};
use crate::base::clock;
use crate::base::context::Context;
use crate::base::step::Step;
use crate::fs::mounts::{MountPoint, Mounts};
use crate::host::files::Storage;
use crate::net::allow_list::Network;

const MAP: u64 = WINDOW + 0x100_0000;
const PAGES: u64 = 512;
const HALF: u64 = PAGES / 2 * PAGE_SIZE;
const RDONLY: i32 = libc::O_RDONLY;

/// A directory next to the tests: on a disk if the build is.
fn directory() -> tempfile::TempDir {
    let beside = std::env::current_exe().unwrap();
    let root = tempfile::tempdir_in(beside.parent().unwrap()).unwrap();
    let half: Vec<u8> = (0..HALF / 8).flat_map(|_| 5_u64.to_le_bytes()).collect();
    let mut file = File::create(root.path().join("file")).unwrap();
    for _ in 0..2 {
        // Written in two parts, since one write may be cached as a single large folio, and flushed, since dirty pages
        // cannot be dropped.
        file.write_all(&half).unwrap();
        file.sync_all().unwrap();
    }
    root
}

/// A puppet that has opened `/data/file`, frozen and forked, and the descriptor.
fn worker(root: &Path, storage: Option<Storage>, map: bool) -> (Puppet, u64) {
    let point =
        MountPoint { guest: "/data".into(), host: root.into(), access: crate::fs::mounts::MountAccess::Private };
    let mut mounts = Mounts::open(&[point]).unwrap();
    if let Some(storage) = storage {
        mounts.pretend(storage);
    }
    let mut puppet = Puppet::boot_in(&mounts);
    let args = [WINDOW, 0x80_0000, RW, super::PRIVATE_ANON_FIXED, u64::MAX, 0];
    assert_eq!(puppet.call(libc::SYS_mmap, args, 0), Ok(WINDOW as i64));
    let fd = puppet.open("/data/file", RDONLY) as u64;
    if map {
        let flags = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u64;
        let args = [MAP, PAGES * PAGE_SIZE, RW, flags, fd, 0];
        assert_eq!(puppet.call(libc::SYS_mmap, args, 0), Ok(MAP as i64));
    }
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    // Touches the worker's own window first, so that later calls need not.
    worker.text(0, "");
    worker.may_block = false;
    (worker, fd)
}

impl Puppet {
    /// Continues on a thread that may block, up to the next system call, and returns the result of the last one.
    fn continue_elsewhere(&mut self) -> i64 {
        let mut rng = |bytes: &mut [u8]| bytes.fill(7);
        let mut context = Context { output: &mut self.log, rng: &mut rng, may_block: true };
        assert_eq!(self.process.wake(&mut self.machine, &mut context), Step::Continue);
        self.may_block = true;
        self.run().unwrap();
        self.may_block = false;
        self.machine.regs().rax.cast_signed()
    }

    /// The result of a call that is left to another thread.
    fn left(&mut self, number: libc::c_long, args: [u64; 6]) -> i64 {
        let left = self.call(number, args, 0);
        assert!(matches!(left, Err(Step::Waits { until_ns: Some(_), .. })), "{left:?}");
        self.continue_elsewhere()
    }
}

#[test]
fn a_remote_file_system_is_accessed_only_on_threads_that_may_block() {
    let root = directory();
    std::os::unix::fs::symlink("file", root.path().join("link")).unwrap();
    let (mut worker, fd) = worker(root.path(), Some(Storage::Far), true);
    let path = worker.text(0, "/data/file");
    let link = worker.text(64, "/data/link");
    let missing = worker.text(128, "/data/missing");
    let here = libc::AT_FDCWD as u64;
    let buffer = WINDOW + 0x1000;
    let not_there = -i64::from(libc::ENOENT);
    for (number, args, result) in [
        (libc::SYS_openat, [here, path, RDONLY as u64, 0, 0, 0], fd as i64 + 1),
        (libc::SYS_openat, [here, missing, RDONLY as u64, 0, 0, 0], not_there),
        (libc::SYS_newfstatat, [here, path, buffer, 0, 0, 0], 0),
        (libc::SYS_fstat, [fd, buffer, 0, 0, 0, 0], 0),
        (libc::SYS_lseek, [fd, 0, libc::SEEK_END as u64, 0, 0, 0], (PAGES * PAGE_SIZE) as i64),
        (libc::SYS_readlink, [link, buffer, 64, 0, 0, 0], 4),
        (libc::SYS_pread64, [fd, buffer, 8, 0, 0, 0], 8),
        (libc::SYS_unlink, [missing, 0, 0, 0, 0, 0], not_there),
        // Puts a copy over it.
        (libc::SYS_openat, [here, path, libc::O_RDWR as u64, 0, 0, 0], fd as i64 + 2),
    ] {
        assert_eq!(worker.left(number, args), result, "call {number}");
    }
    // The pages that the program has written are in memory.
    assert_eq!(worker.call(libc::SYS_fstat, [fd + 2, buffer, 0, 0, 0, 0], 0), Ok(0));
    assert_eq!(worker.left(libc::SYS_pread64, [fd + 2, buffer, 8, 0, 0, 0]), 8);
    assert_eq!(worker.left(libc::SYS_pwrite64, [fd + 2, buffer, 8, 8, 0, 0]), 8);
    assert_eq!(worker.call(libc::SYS_pwrite64, [fd + 2, buffer, 8, 16, 0, 0], 0), Ok(8));
    assert_eq!(worker.call(libc::SYS_pread64, [fd + 2, buffer, 8, 0, 0, 0], 0), Ok(8));
    // A page of a mapping.
    assert!(matches!(worker.call(libc::SYS_getpid, [0; 6], MAP + PAGE_SIZE), Err(Step::Waits { .. })));
    worker.continue_elsewhere();
    let mut word = [0; 8];
    worker.machine.read(MAP + PAGE_SIZE, &mut word).unwrap();
    assert_eq!(u64::from_le_bytes(word), 6);
}

#[test]
fn a_reset_forgets_a_call_that_was_left_to_another_thread() {
    let root = directory();
    let (mut worker, fd) = worker(root.path(), Some(Storage::Far), false);
    let frozen = worker.process.clone();
    assert!(!frozen.is_dirty());
    let left = worker.call(libc::SYS_fstat, [fd, WINDOW + 0x1000, 0, 0, 0, 0], 0);
    assert!(matches!(left, Err(Step::Waits { .. })) && worker.process.threads.call_again, "{left:?}");
    worker.process.reset_from(&frozen);
    assert!(!worker.process.threads.call_again && !worker.process.is_dirty());
}

/// Drops a part of a file from memory, makes the call, and returns whether it was left to another thread. The kernel
/// may keep pages that it is working on, so this is tried a few times.
fn left_when_dropped(root: &Path, from: u64, mut call: impl FnMut() -> Result<i64, Step>) -> bool {
    let file = File::open(root.join("file")).unwrap();
    for _ in 0..100 {
        fadvise(&file, from, None, Advice::DontNeed).unwrap();
        match call() {
            Err(Step::Waits { until_ns: Some(_), .. }) => return true,
            other => assert!(other.is_ok(), "{other:?}"),
        }
    }
    false
}

#[test]
fn file_content_that_is_not_in_memory_is_read_elsewhere() {
    let root = directory();
    let storage = Storage::of(File::open(root.path()).unwrap()).unwrap();
    let (mut worker, fd) = worker(root.path(), None, false);
    let len = 0x8_0000;
    let read = [fd, WINDOW, len, HALF - len / 2, 0, 0];
    // Only the end of the range is missing: the whole read is left to another thread.
    let left = left_when_dropped(root.path(), HALF, || worker.call(libc::SYS_pread64, read, 0));
    assert_eq!(left, storage != Storage::Memory, "on {storage:?}");
    if left {
        assert_eq!(worker.continue_elsewhere(), len as i64);
    }
    let mut last = [0; 8];
    worker.machine.read(WINDOW + len - 8, &mut last).unwrap();
    assert_eq!(u64::from_le_bytes(last), 5);
}

#[test]
fn pages_that_are_not_in_memory_are_brought_in_elsewhere() {
    let root = directory();
    let storage = Storage::of(File::open(root.path()).unwrap()).unwrap();
    let (mut worker, _) = worker(root.path(), None, true);
    let mut page = 0;
    let left = left_when_dropped(root.path(), 0, || {
        page += 4;
        worker.call(libc::SYS_getpid, [0; 6], MAP + page * PAGE_SIZE)
    });
    assert_eq!(left, storage != Storage::Memory, "on {storage:?}");
    if left {
        worker.continue_elsewhere();
    }
    let mut word = [0; 8];
    worker.machine.read(MAP + page * PAGE_SIZE, &mut word).unwrap();
    assert_eq!(u64::from_le_bytes(word), 6);
}

#[test]
fn names_are_listed_elsewhere() {
    let root = directory();
    let (mut worker, _) = worker(root.path(), Some(Storage::Memory), false);
    let fd = worker.open("/data", RDONLY | libc::O_DIRECTORY) as u64;
    assert!(worker.left(libc::SYS_getdents64, [fd, WINDOW, 4096, 0, 0, 0]) > 0);
    assert_eq!(worker.call(libc::SYS_getdents64, [fd, WINDOW, 4096, 0, 0, 0], 0), Ok(0), "the end of the directory");
}

const MIB: u64 = 1 << 20;

/// A call, whether it may be left to another thread, and its result.
type Sized = (libc::c_long, [u64; 6], bool, i64);

#[test]
fn only_long_calls_are_made_elsewhere() {
    let mut puppet = Puppet::boot_large(64 << 20, None, &Mounts::default(), &Network::default());
    let anonymous = |address, len| [address, len, RW, super::PRIVATE_ANON_FIXED, u64::MAX, 0];
    let empty = WINDOW + 0x1000_0000;
    for (address, len) in [(WINDOW, 24 * MIB), (empty, 1 << 30)] {
        assert_eq!(puppet.call(libc::SYS_mmap, anonymous(address, len), 0), Ok(address as i64));
    }
    puppet.process.copy_out(&mut puppet.machine, WINDOW, &vec![1; 20 << 20]).unwrap();
    let fd = puppet.open("/tmp/large", libc::O_RDWR | libc::O_CREAT) as u64;
    assert_eq!(puppet.call(libc::SYS_fallocate, [fd, 0, 0, 8 * MIB, 0, 0], 0), Ok(0));
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    worker.may_block = false;
    let advice = libc::MADV_DONTNEED as u64;
    let fixed = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
    let to = WINDOW + 0x800_0000;
    let calls: &[Sized] = &[
        // Large but empty; populated but small.
        (libc::SYS_mprotect, [empty, 1 << 30, 1, 0, 0, 0], false, 0),
        (libc::SYS_mprotect, [WINDOW, 8 * MIB, 1, 0, 0, 0], false, 0),
        (libc::SYS_mprotect, [WINDOW, 20 * MIB, 1, 0, 0, 0], true, 0),
        (libc::SYS_mincore, [empty, 8 * MIB, WINDOW + 21 * MIB, 0, 0, 0], false, 0),
        (libc::SYS_mincore, [empty, 1 << 30, WINDOW + 21 * MIB, 0, 0, 0], true, 0),
        (libc::SYS_mremap, [WINDOW, 20 * MIB, 20 * MIB, fixed, to, 0], true, to as i64),
        (libc::SYS_madvise, [to, 20 * MIB, advice, 0, 0, 0], true, 0),
        (libc::SYS_madvise, [to, 20 * MIB, advice, 0, 0, 0], false, 0),
        (libc::SYS_munmap, [empty, 1 << 30, 0, 0, 0, 0], false, 0),
        // A write copies pages of a file that the snapshot shares, and not all of it.
        (libc::SYS_pwrite64, [fd, WINDOW + 21 * MIB, 8, 0, 0, 0], false, 8),
        (libc::SYS_pwrite64, [fd, WINDOW + 21 * MIB, 8, 10 * MIB, 0, 0], false, 8),
        (libc::SYS_fallocate, [fd, 0, 0, 10 * MIB, 0, 0], true, 0),
        (libc::SYS_ftruncate, [fd, 0, 0, 0, 0, 0], false, 0),
        (libc::SYS_ftruncate, [fd, MIB, 0, 0, 0, 0], false, 0),
    ];
    for &(number, args, leaves, result) in calls {
        let done = if leaves { worker.left(number, args) } else { worker.call(number, args, 0).unwrap() };
        assert_eq!(done, result, "call {number} of {args:x?}");
    }
    worker.may_block = true;
    worker.reset(&frozen).unwrap();
}

#[test]
fn a_long_count_of_resident_pages_is_made_elsewhere_and_not_often() {
    let mut puppet = Puppet::boot_large(64 << 20, None, &Mounts::default(), &Network::default());
    let map = [WINDOW, 24 * MIB, RW, super::PRIVATE_ANON_FIXED, u64::MAX, 0];
    assert_eq!(puppet.call(libc::SYS_mmap, map, 0), Ok(WINDOW as i64));
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    let buffer = WINDOW + 20 * MIB;
    let [usage, system] = [[libc::RUSAGE_SELF as u64, buffer, 0, 0, 0, 0], [buffer, 0, 0, 0, 0, 0]];
    // Pages of the request without content, all of which have to be read.
    worker.process.copy_out(&mut worker.machine, WINDOW, &vec![0; 4 << 20]).unwrap();
    worker.text(20 << 20, "here");
    worker.may_block = false;
    for (number, args) in [(libc::SYS_getrusage, usage), (libc::SYS_sysinfo, system)] {
        let began = clock::now_ns();
        assert_eq!(worker.left(number, args), 0);
        // The same count serves both for a while. That is short: here it does not end while another thread runs.
        let recent = &mut worker.process.figures.recent;
        assert!(recent.until_ns > began);
        recent.until_ns = u64::MAX;
        assert_eq!(worker.call(libc::SYS_getrusage, usage, 0), Ok(0));
        assert_eq!(worker.call(libc::SYS_sysinfo, system, 0), Ok(0));
        worker.process.figures.recent = Default::default();
    }
    assert_eq!(worker.left(libc::SYS_mincore, [WINDOW, 4 * MIB, buffer, 0, 0, 0]), 0);
    assert_eq!(worker.call(libc::SYS_mincore, [WINDOW, MIB / 4, buffer, 0, 0, 0], 0), Ok(0));
    worker.may_block = true;
    worker.reset(&frozen).unwrap();
}

#[test]
fn a_long_text_about_mappings_is_made_elsewhere() {
    let mut puppet = Puppet::boot();
    let map = |at: u64, prot: u64| [at, PAGE_SIZE, prot, super::PRIVATE_ANON_FIXED, u64::MAX, 0];
    assert_eq!(puppet.call(libc::SYS_mmap, map(WINDOW, RW), 0), Ok(WINDOW as i64));
    for mapping in 1..200 {
        let at = WINDOW + 2 * mapping * PAGE_SIZE;
        assert_eq!(puppet.call(libc::SYS_mmap, map(at, 1), 0), Ok(at as i64));
    }
    let path = puppet.text(64, "/proc/self/smaps");
    let few = puppet.text(0, "/proc/self/maps");
    puppet.may_block = false;
    assert!(puppet.call(libc::SYS_open, [few, 0, 0, 0, 0, 0], 0).unwrap() > 0);
    assert!(puppet.left(libc::SYS_open, [path, 0, 0, 0, 0, 0]) > 0);
    for mapping in 1..150 {
        let at = WINDOW + 2 * mapping * PAGE_SIZE;
        assert_eq!(puppet.call(libc::SYS_munmap, [at, PAGE_SIZE, 0, 0, 0, 0], 0), Ok(0));
    }
    assert!(puppet.call(libc::SYS_open, [path, 0, 0, 0, 0, 0], 0).unwrap() > 0);
}

#[test]
fn a_read_that_must_not_wait_does_not() {
    const NOWAIT: u64 = 8;
    let root = directory();
    let (mut worker, fd) = worker(root.path(), Some(Storage::Far), false);
    let vector: Vec<u8> = [WINDOW + 1024, 8].iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
    worker.process.copy_out(&mut worker.machine, WINDOW, &vector).unwrap();
    let read = |fd, offset, flags| [fd, WINDOW, 1, offset, 0, flags];
    let again = Ok(-i64::from(libc::EAGAIN));
    for may_block in [false, true] {
        worker.may_block = may_block;
        assert_eq!(worker.call(libc::SYS_preadv2, read(fd, 0, NOWAIT), 0), again);
        assert_eq!(worker.call(libc::SYS_preadv2, read(fd, u64::MAX, NOWAIT), 0), again);
    }
    assert_eq!(worker.call(libc::SYS_preadv2, read(fd, 0, 0), 0), Ok(8));
    assert_eq!(worker.call(libc::SYS_pipe, [WINDOW + 512, 0, 0, 0, 0, 0], 0), Ok(0));
    let (reader, writer) = (fd + 1, fd + 2);
    assert_eq!(worker.call(libc::SYS_preadv2, read(reader, u64::MAX, NOWAIT), 0), again);
    let written = (0..).find(|_| worker.call(libc::SYS_pwritev2, read(writer, u64::MAX, NOWAIT), 0) == again);
    assert_eq!(written, Some(8192), "the pipe's 64 KiB");
    assert_eq!(worker.call(libc::SYS_preadv2, read(reader, u64::MAX, NOWAIT), 0), Ok(8));
}

#[test]
fn a_large_file_is_opened_for_writing_at_once() {
    let root = directory();
    let (mut worker, fd) = worker(root.path(), Some(Storage::Memory), false);
    let path = worker.text(0, "/data/file");
    let open = [libc::AT_FDCWD as u64, path, libc::O_RDWR as u64, 0, 0, 0];
    assert_eq!(worker.call(libc::SYS_openat, open, 0), Ok(fd as i64 + 1), "nothing is copied");
    assert_eq!(worker.process.overlay.inodes().bytes(), "/data/file".len() as u64 + 1);
}

#[test]
fn arguments_that_are_not_in_memory_are_read_elsewhere_unless_the_call_has_begun() {
    let root = directory();
    let (mut worker, fd) = worker(root.path(), Some(Storage::Far), true);
    assert_eq!(fd, 3);
    let (here, cold) = (WINDOW, |page: u64| MAP + page * PAGE_SIZE);
    let (reader, writer) = (4, 5);
    assert_eq!(worker.call(libc::SYS_pipe, [here, 0, 0, 0, 0, 0], 0), Ok(0));
    // From a page of the file, and into another one.
    assert_eq!(worker.left(libc::SYS_write, [writer, cold(0), 16, 0, 0, 0]), 16);
    assert_eq!(worker.left(libc::SYS_read, [reader, cold(16), 16, 0, 0, 0]), 16);
    assert_eq!(worker.left(libc::SYS_clock_gettime, [0, cold(32), 0, 0, 0, 0]), 0);
    // When the call finds that the sender's address cannot be written yet, it has already taken the data, and must not
    // be repeated.
    assert_eq!(worker.call(libc::SYS_socketpair, [1, 1, 0, here, 0, 0], 0), Ok(0));
    let (one, other) = (writer + 1, writer + 2);
    assert_eq!(worker.call(libc::SYS_sendto, [one, here, 16, 0, 0, 0], 0), Ok(16));
    let receive = |name_len| [other, here, 8, libc::MSG_DONTWAIT as u64, here + 64, name_len];
    assert_eq!(worker.call_anywhere(libc::SYS_recvfrom, receive(cold(48))), Ok(8));
    assert_eq!(worker.call(libc::SYS_recvfrom, receive(here + 128), 0), Ok(8));
}

impl Puppet {
    /// The result of a call, on whichever thread it is made.
    fn call_anywhere(&mut self, number: libc::c_long, args: [u64; 6]) -> Result<i64, Step> {
        match self.call(number, args, 0) {
            Err(Step::Waits { .. }) => {}
            result => return result,
        }
        let mut rng = |bytes: &mut [u8]| bytes.fill(7);
        let mut context = Context { output: &mut self.log, rng: &mut rng, may_block: true };
        match self.process.wake(&mut self.machine, &mut context) {
            Step::Continue => {}
            end => return Err(end),
        }
        self.may_block = true;
        let next = self.run();
        self.may_block = false;
        next.map(|_| self.machine.regs().rax.cast_signed())
    }
}

proptest! {
    #![proptest_config(super::cases(60))]

    /// A call that begins on a thread that may not block and is made on another one has the same effect as on one
    /// thread, once.
    #[test]
    fn calls_that_are_made_elsewhere_have_the_same_effect(
        calls in prop::collection::vec((prop_oneof![any_file_call(), any_call()], 0..12_usize, 0..PAGES), 1..60),
    ) {
        let root = directory();
        let point = MountPoint { guest: "/data".into(), host: root.path().into(), access: crate::fs::mounts::MountAccess::Private };
        let mut mounts = Mounts::open(&[point]).unwrap();
        mounts.pretend(Storage::Far);
        let mut puppet = Puppet::boot_in(&mounts);
        let args = [WINDOW, super::WINDOW_PAGES * PAGE_SIZE, RW, super::PRIVATE_ANON_FIXED, u64::MAX, 0];
        prop_assert_eq!(puppet.call(libc::SYS_mmap, args, 0), Ok(WINDOW as i64));
        super::make_pollables(&mut puppet);
        let fd = puppet.open("/data/file", RDONLY) as u64;
        let flags = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u64;
        prop_assert_eq!(puppet.call(libc::SYS_mmap, [MAP, PAGES * PAGE_SIZE, RW, flags, fd, 0], 0), Ok(MAP as i64));
        for (index, text) in (0_u64..).zip(PATHS) {
            puppet.text(index * SLOT, text);
        }
        let (image, frozen) = puppet.freeze();
        let [mut here, mut anywhere] = [(); 2].map(|()| Puppet::fork(&image, &frozen));
        anywhere.may_block = false;
        for ((number, mut args), which, page) in calls {
            // Some arguments point to the file.
            if let Some(arg) = args.get_mut(which) {
                *arg = MAP + page * PAGE_SIZE;
            }
            // Two of these calls return different times.
            if [libc::SYS_time, libc::SYS_times].contains(&number) {
                continue;
            }
            match (here.call(number, args, 0), anywhere.call_anywhere(number, args)) {
                // The program has ended, or waits.
                (Err(_), Err(_)) => break,
                (here, anywhere) => prop_assert_eq!(anywhere, here, "call {} of {:x?}", number, args),
            }
        }
    }
}
