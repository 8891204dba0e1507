// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared mappings of overlay files, descriptors in flight, and CPU time, over freezes and resets.

use mayfly_machine::PAGE_SIZE;
use proptest::prelude::*;

use super::{Puppet, RW, WINDOW, at};

const MAP: u64 = WINDOW + 0x10_0000;
const PAGES: u64 = 8;
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

/// A change to a file, of which parts are mapped at [`MAP`].
#[derive(Clone, Copy, Debug)]
enum Change {
    Map { page: u64, pages: u64, prot: u64 },
    Unmap { page: u64, pages: u64 },
    Replace { page: u64, pages: u64 },
    Protect { page: u64, pages: u64, prot: u64 },
    Touch { page: u64 },
    Write { page: u64, word: u64 },
    Truncate { pages: u64 },
}

fn any_change() -> impl Strategy<Value = Change> {
    let page = || 0..PAGES;
    let pages = || 1..4_u64;
    let prot = || prop_oneof![Just(0_u64), Just(1), Just(RW), Just(RW), Just(RW)];
    prop_oneof![
        3 => (page(), pages(), prot()).prop_map(|(page, pages, prot)| Change::Map { page, pages, prot }),
        1 => (page(), pages()).prop_map(|(page, pages)| Change::Unmap { page, pages }),
        1 => (page(), pages()).prop_map(|(page, pages)| Change::Replace { page, pages }),
        1 => (page(), pages(), prot()).prop_map(|(page, pages, prot)| Change::Protect { page, pages, prot }),
        5 => page().prop_map(|page| Change::Touch { page }),
        3 => (page(), 1..1000_u64).prop_map(|(page, word)| Change::Write { page, word }),
        1 => (0..PAGES + 2).prop_map(|pages| Change::Truncate { pages }),
    ]
}

/// First words of the file's pages.
type Model = Vec<u64>;

fn apply(puppet: &mut Puppet, fd: u64, model: &mut Model, change: Change) {
    let place = |page| MAP + page * PAGE_SIZE;
    match change {
        Change::Map { page, pages, prot } => {
            let args = [place(page), pages * PAGE_SIZE, prot, SHARED_FIXED, fd, page * PAGE_SIZE];
            assert_eq!(puppet.call(libc::SYS_mmap, args, 0), Ok(place(page) as i64));
        }
        Change::Unmap { page, pages } => {
            assert_eq!(puppet.call(libc::SYS_munmap, [place(page), pages * PAGE_SIZE, 0, 0, 0, 0], 0), Ok(0));
        }
        Change::Replace { page, pages } => {
            let args = [place(page), pages * PAGE_SIZE, 0, super::PRIVATE_ANON_FIXED, u64::MAX, 0];
            assert_eq!(puppet.call(libc::SYS_mmap, args, 0), Ok(place(page) as i64));
        }
        Change::Protect { page, pages, prot } => {
            // Fails at a gap; the pages there stay unwritable.
            puppet.call(libc::SYS_mprotect, [place(page), pages * PAGE_SIZE, prot, 0, 0, 0], 0).unwrap();
        }
        Change::Touch { page } => {
            let is_file = puppet
                .process
                .memory
                .find(place(page))
                .is_some_and(|vma| matches!(vma.kind, crate::mm::vma::VmaKind::Overlay { .. }));
            if is_file && puppet.is_writable(place(page)) && page < model.len() as u64 {
                puppet.call(libc::SYS_getpid, [0; 6], place(page)).unwrap();
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
            assert_eq!(puppet.call(libc::SYS_ftruncate, [fd, pages * PAGE_SIZE, 0, 0, 0, 0], 0), Ok(0));
            model.resize(pages as usize, 0);
        }
    }
}

fn compare(puppet: &mut Puppet, fd: u64, model: &Model) {
    for page in 0..PAGES + 2 {
        assert_eq!(puppet.pread_word(fd, page), model.get(page as usize).copied(), "page {page}");
        // A mapping shows the same content.
        let at = MAP + page * PAGE_SIZE;
        let vma = puppet.process.memory.find(at).copied();
        if vma.is_some_and(|vma| matches!(vma.kind, crate::mm::vma::VmaKind::Overlay { .. }) && vma.is_accessible()) {
            let mut word = [0; 8];
            let read = puppet.process.copy_in(&mut puppet.machine, at, &mut word, true);
            assert_eq!(read.ok().map(|()| u64::from_le_bytes(word)), model.get(page as usize).copied(), "page {page}");
        }
    }
}

proptest! {
    #![proptest_config(super::cases(40))]

    /// Whatever is done to a file through its mapping and by calls, both show the same content, and a reset restores
    /// what the boot left.
    #[test]
    fn a_file_and_its_shared_mapping_agree_and_are_reset(
        boot in prop::collection::vec(any_change(), 0..20),
        requests in prop::collection::vec(prop::collection::vec(any_change(), 0..30), 1..4),
    ) {
        let (mut puppet, fd) = puppet();
        let mut left = Model::new();
        apply(&mut puppet, fd, &mut left, Change::Truncate { pages: PAGES });
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
}

#[test]
fn each_part_of_a_file_is_mapped_shared_at_most_once() {
    let (mut puppet, fd) = puppet();
    assert_eq!(puppet.call(libc::SYS_ftruncate, [fd, 4 * PAGE_SIZE, 0, 0, 0, 0], 0), Ok(0));
    let map = |at, offset| [at, 2 * PAGE_SIZE, RW, SHARED_FIXED, fd, offset];
    assert_eq!(puppet.call(libc::SYS_mmap, map(MAP, 0), 0), Ok(MAP as i64));
    let refused = Ok(-i64::from(libc::ENODEV));
    assert_eq!(puppet.call(libc::SYS_mmap, map(MAP + 16 * PAGE_SIZE, 0), 0), refused);
    assert_eq!(puppet.call(libc::SYS_mmap, map(MAP + 16 * PAGE_SIZE, PAGE_SIZE), 0), refused);
    let beside = MAP + 16 * PAGE_SIZE;
    assert_eq!(puppet.call(libc::SYS_mmap, map(beside, 2 * PAGE_SIZE), 0), Ok(beside as i64));
    assert_eq!(puppet.call(libc::SYS_munmap, [MAP, 2 * PAGE_SIZE, 0, 0, 0, 0], 0), Ok(0));
    assert_eq!(puppet.call(libc::SYS_mmap, map(MAP, 0), 0), Ok(MAP as i64));
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
