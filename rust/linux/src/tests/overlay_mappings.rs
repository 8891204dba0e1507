// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mappings of overlay files, descriptors in flight, and CPU time, over freezes and resets.

use mayfly_machine::PAGE_SIZE;
use proptest::prelude::*;

use super::{Puppet, RW, WINDOW, at};
use crate::fs::calls::tree::WHOLE_MAX;
use crate::fs::mounts::{MountPoint, Mounts};

const MAP: u64 = WINDOW + 0x10_0000;
const PAGES: u64 = 12;
const _: () =
    assert!(PAGES / 2 * PAGE_SIZE > WHOLE_MAX, "a copy of the host's file reads its pages when it needs them");
const SHARED_FIXED: u64 = (libc::MAP_SHARED | libc::MAP_FIXED) as u64;

/// A puppet with a window, and an empty file in memory.
fn puppet() -> (Puppet, u64) {
    let mut puppet = Puppet::boot();
    let args = [WINDOW, 16 * PAGE_SIZE, RW, super::PRIVATE_ANON_FIXED, u64::MAX, 0];
    assert_eq!(puppet.call(libc::SYS_mmap, args, 0), Ok(WINDOW as i64));
    let fd = puppet.call(libc::SYS_memfd_create, [WINDOW, 0, 0, 0, 0, 0], 0).unwrap();
    (puppet, fd as u64)
}

impl Puppet {
    /// The first word of a page of a file; `None` past its end.
    fn pread_word(&mut self, fd: u64, page: u64) -> Option<u64> {
        let got = self.call(libc::SYS_pread64, [fd, WINDOW, 8, page * PAGE_SIZE, 0, 0], 0).unwrap();
        let mut word = [0; 8];
        self.process.copy_in(&mut self.machine, WINDOW, &mut word, true).unwrap();
        (got == 8).then(|| u64::from_le_bytes(word))
    }

    fn pwrite_word(&mut self, fd: u64, page: u64, word: u64) {
        self.process.copy_out(&mut self.machine, WINDOW, &word.to_le_bytes()).unwrap();
        assert_eq!(self.call(libc::SYS_pwrite64, [fd, WINDOW, 8, page * PAGE_SIZE, 0, 0], 0), Ok(8));
    }
}

/// Where the file is mapped a second time.
const OTHER: u64 = WINDOW + 0x20_0000;
/// Where the file is mapped privately.
const PRIVATE: u64 = WINDOW + 0x30_0000;
const PRIVATE_FIXED: u64 = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u64;

/// A puppet that has `/data/file` of the host open, `PAGES / 2` pages whose first words are 100 and up. What it writes
/// goes to a copy.
fn puppet_with_host_file() -> (tempfile::TempDir, Puppet, u64) {
    let root = tempfile::tempdir().unwrap();
    let word = |page: u64| [(100 + page).to_le_bytes().to_vec(), vec![9; PAGE_SIZE as usize - 8]].concat();
    std::fs::write(root.path().join("file"), (0..PAGES / 2).flat_map(word).collect::<Vec<u8>>()).unwrap();
    let point =
        MountPoint { guest: "/data".into(), host: root.path().into(), access: crate::fs::mounts::MountAccess::Private };
    let mut puppet = Puppet::boot_in(&Mounts::open(&[point]).unwrap());
    let args = [WINDOW, 16 * PAGE_SIZE, RW, super::PRIVATE_ANON_FIXED, u64::MAX, 0];
    assert_eq!(puppet.call(libc::SYS_mmap, args, 0), Ok(WINDOW as i64));
    let fd = puppet.open("/data/file", libc::O_RDWR);
    (root, puppet, fd as u64)
}

/// A change to a file, of which parts are mapped at [`MAP`] and at [`OTHER`].
#[derive(Clone, Copy, Debug)]
enum Change {
    Map { at: u64, page: u64, pages: u64, prot: u64 },
    Unmap { at: u64, page: u64, pages: u64 },
    Replace { at: u64, page: u64, pages: u64 },
    Protect { at: u64, page: u64, pages: u64, prot: u64 },
    Touch { at: u64, page: u64 },
    Write { page: u64, word: u64 },
    Truncate { pages: u64 },
    Punch { page: u64, pages: u64 },
    Reserve { page: u64, pages: u64 },
}

fn any_change() -> impl Strategy<Value = Change> {
    let at = || prop_oneof![Just(MAP), Just(OTHER)];
    let page = || 0..PAGES;
    let pages = || 1..4_u64;
    let prot = || prop_oneof![Just(0_u64), Just(1), Just(5), Just(RW), Just(RW), Just(RW)];
    prop_oneof![
        6 => (at(), page(), pages(), prot()).prop_map(|(at, page, pages, prot)| Change::Map { at, page, pages, prot }),
        1 => (at(), page(), pages()).prop_map(|(at, page, pages)| Change::Unmap { at, page, pages }),
        1 => (at(), page(), pages()).prop_map(|(at, page, pages)| Change::Replace { at, page, pages }),
        2 => (at(), page(), pages(), prot()).prop_map(|(at, page, pages, prot)| Change::Protect { at, page, pages, prot }),
        8 => (at(), page()).prop_map(|(at, page)| Change::Touch { at, page }),
        3 => (page(), 1..1000_u64).prop_map(|(page, word)| Change::Write { page, word }),
        1 => (0..PAGES + 2).prop_map(|pages| Change::Truncate { pages }),
        1 => (page(), pages()).prop_map(|(page, pages)| Change::Punch { page, pages }),
        1 => (page(), pages()).prop_map(|(page, pages)| Change::Reserve { page, pages }),
    ]
}

/// First words of the file's pages.
type Model = Vec<u64>;

fn is_file(puppet: &Puppet, address: u64) -> bool {
    let vma = puppet.process.memory.find(address);
    vma.is_some_and(|vma| matches!(vma.kind, crate::mm::vma::VmaKind::Overlay { .. }))
}

fn apply(puppet: &mut Puppet, fd: u64, model: &mut Model, change: Change) {
    let place = |at, page| at + page * PAGE_SIZE;
    let mut call = |number, args: [u64; 6]| puppet.call(number, args, 0).unwrap();
    match change {
        Change::Map { at, page, pages, prot } => {
            let args = [place(at, page), pages * PAGE_SIZE, prot, SHARED_FIXED, fd, page * PAGE_SIZE];
            assert_eq!(call(libc::SYS_mmap, args), place(at, page) as i64);
        }
        Change::Unmap { at, page, pages } => {
            assert_eq!(call(libc::SYS_munmap, [place(at, page), pages * PAGE_SIZE, 0, 0, 0, 0]), 0);
        }
        Change::Replace { at, page, pages } => {
            let args = [place(at, page), pages * PAGE_SIZE, 0, super::PRIVATE_ANON_FIXED, u64::MAX, 0];
            assert_eq!(call(libc::SYS_mmap, args), place(at, page) as i64);
        }
        Change::Protect { at, page, pages, prot } => {
            // Fails at a gap; the pages there stay unwritable.
            call(libc::SYS_mprotect, [place(at, page), pages * PAGE_SIZE, prot, 0, 0, 0]);
        }
        Change::Touch { at, page } => {
            let at = place(at, page);
            if is_file(puppet, at) && puppet.is_writable(at) && page < model.len() as u64 {
                puppet.call(libc::SYS_getpid, [0; 6], at).unwrap();
                model[page as usize] += 1;
            }
        }
        Change::Write { page, word } => {
            if page < model.len() as u64 {
                puppet.pwrite_word(fd, page, word);
                model[page as usize] = word;
            }
        }
        Change::Truncate { pages } => {
            assert_eq!(call(libc::SYS_ftruncate, [fd, pages * PAGE_SIZE, 0, 0, 0, 0]), 0);
            model.resize(pages as usize, 0);
        }
        Change::Punch { page, pages } => {
            let args = [fd, 3, page * PAGE_SIZE, pages * PAGE_SIZE, 0, 0];
            assert_eq!(call(libc::SYS_fallocate, args), 0);
            model.iter_mut().skip(page as usize).take(pages as usize).for_each(|word| *word = 0);
        }
        Change::Reserve { page, pages } => {
            assert_eq!(call(libc::SYS_fallocate, [fd, 0, page * PAGE_SIZE, pages * PAGE_SIZE, 0, 0]), 0);
            model.resize(model.len().max((page + pages) as usize), 0);
        }
    }
}

fn compare(puppet: &mut Puppet, fd: u64, model: &Model) {
    for page in 0..PAGES + 3 {
        assert_eq!(puppet.pread_word(fd, page), model.get(page as usize).copied(), "page {page}");
        // Each mapping shows the same content.
        for at in [MAP, OTHER].map(|at| at + page * PAGE_SIZE) {
            let is_accessible = puppet.process.memory.find(at).is_some_and(|vma| vma.is_accessible());
            if is_file(puppet, at) && is_accessible {
                let mut word = [0; 8];
                let read = puppet.process.copy_in(&mut puppet.machine, at, &mut word, true);
                let word = read.ok().map(|()| u64::from_le_bytes(word));
                assert_eq!(word, model.get(page as usize).copied(), "page {page} at {at:#x}");
            }
        }
    }
}

fn agree_and_are_reset(mut puppet: Puppet, fd: u64, mut left: Model, boot: Vec<Change>, requests: Vec<Vec<Change>>) {
    for change in boot {
        apply(&mut puppet, fd, &mut left, change);
    }
    compare(&mut puppet, fd, &left);
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    for request in requests {
        let mut model = left.clone();
        for change in request {
            apply(&mut worker, fd, &mut model, change);
        }
        compare(&mut worker, fd, &model);
        worker.reset(&frozen).unwrap();
        compare(&mut worker, fd, &left);
        worker.reset(&frozen).unwrap();
    }
}

proptest! {
    #![proptest_config(super::cases(40))]

    /// Whatever is done to a file through two mappings and by calls, all show the same content, and a reset restores
    /// what the boot left.
    #[test]
    fn a_file_and_its_shared_mappings_agree_and_are_reset(
        boot in prop::collection::vec(any_change(), 0..20),
        requests in prop::collection::vec(prop::collection::vec(any_change(), 0..30), 1..4),
    ) {
        let (mut puppet, fd) = puppet();
        let mut left = Model::new();
        apply(&mut puppet, fd, &mut left, Change::Truncate { pages: PAGES });
        agree_and_are_reset(puppet, fd, left, boot, requests);
    }

    /// As above, with a file of the host's below.
    #[test]
    fn a_copy_of_a_host_file_and_its_shared_mappings_agree_and_are_reset(
        boot in prop::collection::vec(any_change(), 0..20),
        requests in prop::collection::vec(prop::collection::vec(any_change(), 0..30), 1..4),
    ) {
        let (root, puppet, fd) = puppet_with_host_file();
        let before = std::fs::read(root.path().join("file")).unwrap();
        agree_and_are_reset(puppet, fd, (100..100 + PAGES / 2).collect(), boot, requests);
        prop_assert!(std::fs::read(root.path().join("file")).unwrap() == before, "the host's file never changes");
    }
}

/// What a mapping shows as the first word of a page.
fn word_at(puppet: &mut Puppet, address: u64) -> u64 {
    let mut word = [0; 8];
    puppet.process.copy_in(&mut puppet.machine, address, &mut word, true).unwrap();
    u64::from_le_bytes(word)
}

#[test]
fn what_was_opened_or_mapped_before_the_first_write_sees_it() {
    let root = tempfile::tempdir().unwrap();
    let words = (0..PAGES * PAGE_SIZE / 8).flat_map(|_| 5_u64.to_le_bytes());
    std::fs::write(root.path().join("file"), words.collect::<Vec<_>>()).unwrap();
    let point =
        MountPoint { guest: "/data".into(), host: root.path().into(), access: crate::fs::mounts::MountAccess::Private };
    let mut puppet = Puppet::boot_in(&Mounts::open(&[point]).unwrap());
    let args = [WINDOW, 16 * PAGE_SIZE, RW, super::PRIVATE_ANON_FIXED, u64::MAX, 0];
    assert_eq!(puppet.call(libc::SYS_mmap, args, 0), Ok(WINDOW as i64));
    let early = puppet.open("/data/file", libc::O_RDONLY) as u64;
    for (at, prot, flags) in [(MAP, 1, SHARED_FIXED), (OTHER, 5, SHARED_FIXED), (PRIVATE, RW, PRIVATE_FIXED)] {
        assert_eq!(puppet.call(libc::SYS_mmap, [at, PAGES * PAGE_SIZE, prot, flags, early, 0], 0), Ok(at as i64));
    }
    for page in [0, 1] {
        assert_eq!([MAP, OTHER, PRIVATE].map(|at| word_at(&mut puppet, at + page * PAGE_SIZE)), [5; 3]);
    }
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    for _ in 0..3 {
        // A private page of its own, and one that only the request touches.
        worker.call(libc::SYS_getpid, [0; 6], PRIVATE + PAGE_SIZE).unwrap();
        assert_eq!([MAP, OTHER].map(|at| word_at(&mut worker, at + 2 * PAGE_SIZE)), [5; 2]);
        let late = worker.open("/data/file", libc::O_RDWR) as u64;
        for page in 0..4 {
            worker.pwrite_word(late, page, 70 + page);
            assert_eq!(worker.pread_word(early, page), Some(70 + page), "the earlier descriptor");
            assert_eq!([MAP, OTHER].map(|at| word_at(&mut worker, at + page * PAGE_SIZE)), [70 + page; 2]);
        }
        assert_eq!(word_at(&mut worker, PRIVATE), 70);
        assert_eq!(word_at(&mut worker, PRIVATE + PAGE_SIZE), 6, "its own");
        assert_eq!(word_at(&mut worker, MAP + 5 * PAGE_SIZE), 5, "not written");
        assert_eq!(worker.process.overlay.inodes().bytes() / PAGE_SIZE, 4, "a write copies the pages that it changes");
        assert_eq!(worker.call(libc::SYS_ftruncate, [late, PAGE_SIZE, 0, 0, 0, 0], 0), Ok(0));
        assert_eq!(worker.pread_word(early, 1), None);
        let mut byte = [0];
        let behind = worker.process.copy_in(&mut worker.machine, MAP + PAGE_SIZE, &mut byte, true);
        assert!(behind.is_err(), "it lies behind the end");
        worker.reset(&frozen).unwrap();
    }
}

#[test]
fn a_mapping_that_moves_over_another_of_the_same_page_leaves_its_content() {
    let (mut puppet, fd) = puppet();
    assert_eq!(puppet.call(libc::SYS_ftruncate, [fd, 2 * PAGE_SIZE, 0, 0, 0, 0], 0), Ok(0));
    // The end that is cut off and what is replaced are the only mappings of the second page.
    for (at, page, pages) in [(MAP, 0, 2), (OTHER, 1, 1)] {
        let args = [at, pages * PAGE_SIZE, RW, SHARED_FIXED, fd, page * PAGE_SIZE];
        assert_eq!(puppet.call(libc::SYS_mmap, args, 0), Ok(at as i64));
    }
    puppet.call(libc::SYS_getpid, [0; 6], MAP + PAGE_SIZE).unwrap();
    assert_eq!(word_at(&mut puppet, OTHER), 1);
    let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
    let moved = puppet.call(libc::SYS_mremap, [MAP, 2 * PAGE_SIZE, PAGE_SIZE, flags, OTHER, 0], 0);
    assert_eq!(moved, Ok(OTHER as i64));
    assert_eq!(puppet.pread_word(fd, 1), Some(1));
}

#[test]
fn requests_write_by_either_mapping_what_the_boot_read_of_a_host_file() {
    let (_root, mut puppet, fd) = puppet_with_host_file();
    // The file is written at boot, so that it is a copy whose pages are the host file's.
    puppet.pwrite_word(fd, PAGES / 2 - 1, 1);
    let views = [MAP, OTHER];
    for at in views {
        let args = [at, PAGES / 2 * PAGE_SIZE, RW, SHARED_FIXED, fd, 0];
        assert_eq!(puppet.call(libc::SYS_mmap, args, 0), Ok(at as i64));
    }
    assert_eq!(views.map(|at| word_at(&mut puppet, at)), [100; 2]);
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    for round in 0..6 {
        worker.call(libc::SYS_getpid, [0; 6], views[round % 2]).unwrap();
        assert_eq!(views.map(|at| word_at(&mut worker, at)), [101; 2], "{round}");
        assert_eq!(worker.pread_word(fd, 0), Some(101));
        worker.call(libc::SYS_getpid, [0; 6], views[(round + 1) % 2]).unwrap();
        assert_eq!(views.map(|at| word_at(&mut worker, at)), [102; 2], "{round}");
        worker.reset(&frozen).unwrap();
        assert_eq!(views.map(|at| word_at(&mut worker, at)), [100; 2], "{round}");
        assert_eq!(worker.pread_word(fd, 0), Some(100));
        worker.reset(&frozen).unwrap();
    }
}

#[test]
fn a_private_mapping_of_a_written_file_finds_its_content_again() {
    let (mut puppet, fd) = puppet();
    assert_eq!(puppet.call(libc::SYS_ftruncate, [fd, 2 * PAGE_SIZE, 0, 0, 0, 0], 0), Ok(0));
    puppet.pwrite_word(fd, 1, 7);
    let args = [PRIVATE, 4 * PAGE_SIZE, RW, PRIVATE_FIXED, fd, 0];
    assert_eq!(puppet.call(libc::SYS_mmap, args, 0), Ok(PRIVATE as i64));
    puppet.call(libc::SYS_getpid, [0; 6], PRIVATE + PAGE_SIZE).unwrap();
    assert_eq!((word_at(&mut puppet, PRIVATE + PAGE_SIZE), puppet.pread_word(fd, 1)), (8, Some(7)));
    let discard = [PRIVATE, 4 * PAGE_SIZE, libc::MADV_DONTNEED as u64, 0, 0, 0];
    assert_eq!(puppet.call(libc::SYS_madvise, discard, 0), Ok(0));
    assert_eq!(word_at(&mut puppet, PRIVATE + PAGE_SIZE), 7);
    // It grows with the file.
    assert!(puppet.process.copy_in(&mut puppet.machine, PRIVATE + 2 * PAGE_SIZE, &mut [0], true).is_err());
    assert_eq!(puppet.call(libc::SYS_ftruncate, [fd, 3 * PAGE_SIZE, 0, 0, 0, 0], 0), Ok(0));
    puppet.pwrite_word(fd, 2, 9);
    assert_eq!(word_at(&mut puppet, PRIVATE + 2 * PAGE_SIZE), 9);
}

#[test]
fn a_large_file_of_holes_costs_what_is_written() {
    let (mut puppet, fd) = puppet();
    let size = 1_u64 << 40;
    assert_eq!(puppet.call(libc::SYS_ftruncate, [fd, size, 0, 0, 0, 0], 0), Ok(0));
    // This thread's own time: on a busy machine it may wait for a processor.
    let used = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_sec;
    let before = used();
    for at in [MAP, 0x1000_0000_0000] {
        assert_eq!(puppet.call(libc::SYS_mmap, [at, size, RW, SHARED_FIXED, fd, 0], 0), Ok(at as i64));
    }
    puppet.call(libc::SYS_getpid, [0; 6], 0x1000_0000_0000 + (size - PAGE_SIZE)).unwrap();
    assert_eq!(puppet.pread_word(fd, size / PAGE_SIZE - 1), Some(1));
    let seek =
        |puppet: &mut Puppet, whence: i32| puppet.call(libc::SYS_lseek, [fd, 0, whence as u64, 0, 0, 0], 0).unwrap();
    assert_eq!(seek(&mut puppet, libc::SEEK_DATA), (size - PAGE_SIZE) as i64);
    assert_eq!(seek(&mut puppet, libc::SEEK_HOLE), 0);
    for at in [MAP, 0x1000_0000_0000] {
        assert_eq!(puppet.call(libc::SYS_munmap, [at, size, 0, 0, 0, 0], 0), Ok(0));
    }
    assert_eq!(puppet.pread_word(fd, size / PAGE_SIZE - 1), Some(1), "stored when the last mapping went");
    assert_eq!(puppet.process.overlay.inodes().bytes(), PAGE_SIZE);
    assert!(used() - before < 2, "no loop over the whole file");
}

#[test]
fn a_mapping_finds_no_page_where_a_write_finds_no_space() {
    let (mut puppet, fd) = puppet();
    let max = puppet.process.overlay.inodes().room();
    assert_eq!(puppet.call(libc::SYS_ftruncate, [fd, 4 * max, 0, 0, 0, 0], 0), Ok(0));
    let reserve = [fd, 0, 0, max, 0, 0];
    assert_eq!(puppet.call(libc::SYS_fallocate, reserve, 0), Ok(0));
    let refused = puppet.call(libc::SYS_fallocate, [fd, 0, max, 1, 0, 0], 0);
    assert_eq!(refused, Ok(-i64::from(libc::ENOSPC)));
    let beyond = [MAP, PAGE_SIZE, RW, SHARED_FIXED, fd, 2 * max];
    assert_eq!(puppet.call(libc::SYS_mmap, beyond, 0), Ok(MAP as i64));
    assert!(puppet.process.copy_out(&mut puppet.machine, MAP, b"x").is_err());
    // Reading a hole needs no space, and neither does writing what is reserved.
    assert_eq!(puppet.pread_word(fd, 2 * max / PAGE_SIZE), Some(0));
    puppet.pwrite_word(fd, 0, 3);
    assert_eq!(puppet.call(libc::SYS_fallocate, [fd, 3, 0, PAGE_SIZE, 0, 0], 0), Ok(0));
    puppet.process.copy_out(&mut puppet.machine, MAP, b"x").unwrap();
}

#[test]
fn descriptors_in_flight_are_reset() {
    let (mut puppet, file) = puppet();
    assert_eq!(puppet.call(libc::SYS_socketpair, [1, 1, 0, at(0), 0, 0], 0), Ok(0));
    let (one, other) = (file + 1, file + 2);
    // A message with a byte and the file, followed by space to receive.
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let mut put = |address, bytes: &[u8]| puppet.process.copy_out(&mut puppet.machine, address, bytes).unwrap();
    let header = words(&[0, 0, at(2), 1, at(3), 24, 0]);
    put(at(1), &header);
    put(at(2), &words(&[at(4), 1]));
    put(at(3), &words(&[20, 1 | 1 << 32, file]));
    assert_eq!(puppet.call(libc::SYS_sendmsg, [one, at(1), 0, 0, 0, 0], 0), Ok(1));
    assert_eq!(puppet.call(libc::SYS_close, [file, 0, 0, 0, 0, 0], 0), Ok(0));
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    for request in 0..3 {
        assert_eq!(worker.call(libc::SYS_recvmsg, [other, at(1), 0, 0, 0, 0], 0), Ok(1));
        // The file exists, with its previous content.
        assert_eq!(worker.pread_word(file, 0), None, "{request}");
        worker.pwrite_word(file, 0, 7);
        assert_eq!(worker.pread_word(file, 0), Some(7));
        worker.reset(&frozen).unwrap();
        // It is not received: it is closed with the socket.
        assert_eq!(worker.call(libc::SYS_close, [other, 0, 0, 0, 0, 0], 0), Ok(0));
        assert_eq!(worker.process.files.objects().count(), frozen.files.objects().count() - 2);
        worker.reset(&frozen).unwrap();
    }
}

#[test]
fn sockets_in_flight_over_themselves_are_bounded() {
    let (mut puppet, file) = puppet();
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let mut refused = false;
    for _ in 0..1000 {
        assert_eq!(puppet.call(libc::SYS_socketpair, [1, 1, 0, at(0), 0, 0], 0), Ok(0));
        let (one, other) = (file + 1, file + 2);
        let mut put = |address, bytes: &[u8]| puppet.process.copy_out(&mut puppet.machine, address, bytes).unwrap();
        put(at(1), &words(&[0, 0, at(2), 1, at(3), 24, 0]));
        put(at(2), &words(&[at(4), 1]));
        put(at(3), &words(&[24, 1 | 1 << 32, one | other << 32]));
        let sent = puppet.call(libc::SYS_sendmsg, [one, at(1), 0, 0, 0, 0], 0).unwrap();
        refused |= sent == -i64::from(libc::ETOOMANYREFS);
        for fd in [one, other] {
            assert_eq!(puppet.call(libc::SYS_close, [fd, 0, 0, 0, 0, 0], 0), Ok(0));
        }
    }
    assert!(refused);
    assert!(puppet.process.files.objects().count() < 600);
}

#[test]
fn cpu_time_is_reset_to_the_snapshots() {
    let (puppet, _) = puppet();
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    let used = frozen.cpu_ns();
    assert!(used > 0);
    assert_eq!(frozen.cpu_ns(), used, "a frozen program uses none");
    for _ in 0..3 {
        assert_eq!(worker.process.cpu_ns(), used);
        worker.process.run_from(crate::base::clock::now_ns());
        for _ in 0..100 {
            worker.call(libc::SYS_getpid, [0; 6], 0).unwrap();
        }
        assert!(worker.process.cpu_ns() > used);
        worker.process.rest();
        let rested = worker.process.cpu_ns();
        assert!(rested > used);
        assert_eq!(worker.process.cpu_ns(), rested);
        worker.reset(&frozen).unwrap();
    }
}

#[test]
fn state_that_calls_have_made_survives_a_file() {
    let (mut puppet, file) = puppet();
    assert_eq!(puppet.call(libc::SYS_ftruncate, [file, 2 * PAGE_SIZE, 0, 0, 0, 0], 0), Ok(0));
    assert_eq!(puppet.call(libc::SYS_mmap, [MAP, PAGE_SIZE, RW, SHARED_FIXED, file, 0], 0), Ok(MAP as i64));
    puppet.pwrite_word(file, 0, 42);
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let mut put = |address, bytes: &[u8]| puppet.process.copy_out(&mut puppet.machine, address, bytes).unwrap();
    put(at(1), &words(&[0, 0, at(2), 1, at(3), 24, 0]));
    put(at(2), &words(&[at(4), 1]));
    put(at(3), &words(&[20, 1 | 1 << 32, file]));
    put(at(5), &words(&[7, 0, 1000, 0]));
    put(at(6), b"/\0");
    for (number, args) in [
        (libc::SYS_socketpair, [1, 1, 0, at(0), 0, 0]),
        (libc::SYS_sendmsg, [file + 1, at(1), 0, 0, 0, 0]),
        (libc::SYS_signalfd4, [u64::MAX, at(4), 8, 0, 0, 0]),
        (libc::SYS_inotify_init1, [0; 6]),
        (libc::SYS_inotify_add_watch, [file + 4, at(6), 2, 0, 0, 0]),
        (libc::SYS_pidfd_open, [2, 0, 0, 0, 0, 0]),
        (libc::SYS_setitimer, [libc::ITIMER_PROF as u64, at(5), 0, 0, 0, 0]),
        (libc::SYS_timer_create, [libc::CLOCK_THREAD_CPUTIME_ID as u64, 0, at(7), 0, 0, 0]),
    ] {
        assert!(puppet.call(number, args, 0).unwrap() >= 0, "call {number}");
    }
    let (_image, frozen) = puppet.freeze();
    let bytes = frozen.save().unwrap();
    let elf = super::puppet_elf();
    let (mounts, network) = (crate::fs::mounts::Mounts::default(), crate::net::allow_list::Network::default());
    let program = crate::exec::program::Program {
        elf: (&elf).into(),
        name: "puppet",
        args: &[],
        env: &[],
        mounts: &mounts,
        network: &network,
    };
    let limits = crate::base::limits::Limits { stack_bytes: 64 << 10, ..crate::base::limits::Limits::default() };
    let (loaded, _) = crate::kernel::process::Process::load(&bytes, &program, &limits).unwrap();
    let parts = |process: &crate::kernel::process::Process| {
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?}",
            process.memory, process.files, process.overlay, process.pollables, process.timers, process.threads
        )
    };
    assert_eq!(parts(&loaded), parts(&frozen));
    assert_eq!(loaded.cpu_ns(), frozen.cpu_ns());
    loaded.files.check(&loaded.pollables.attached_files());
}
