// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files over freezes and resets.

use mayfly_machine::PAGE_SIZE;
use proptest::prelude::*;

use super::{Puppet, WINDOW};
use crate::base::step::Step;
use crate::fs::mounts::{MountPoint, Mounts};

const AT_FDCWD: u64 = libc::AT_FDCWD as u64;
const PAGES: u64 = 8;
const MAP: u64 = WINDOW + 0x10_0000;

/// A puppet with `/data/file` of [`PAGES`] pages, whose words are all 5.
fn puppet() -> (tempfile::TempDir, Puppet) {
    let root = tempfile::tempdir().unwrap();
    let words = (0..PAGES * PAGE_SIZE / 8).flat_map(|_| 5_u64.to_le_bytes());
    std::fs::write(root.path().join("file"), words.collect::<Vec<_>>()).unwrap();
    let point = MountPoint {
        guest: "/data".into(),
        host: root.path().into(),
        access: crate::fs::mounts::MountAccess::ReadOnly,
    };
    let mut puppet = Puppet::boot_in(&Mounts::open(&[point]).unwrap());
    let args = [WINDOW, PAGE_SIZE, super::RW, super::PRIVATE_ANON_FIXED, u64::MAX, 0];
    assert_eq!(puppet.call(libc::SYS_mmap, args, 0), Ok(WINDOW as i64));
    (root, puppet)
}

impl Puppet {
    /// Writes text to where calls can point to it.
    pub(crate) fn text(&mut self, offset: u64, text: &str) -> u64 {
        let bytes = [text.as_bytes(), b"\0"].concat();
        self.process.copy_out(&mut self.machine, WINDOW + offset, &bytes).unwrap();
        WINDOW + offset
    }

    pub(crate) fn open(&mut self, path: &str, flags: i32) -> i64 {
        let path = self.text(0, path);
        self.call(libc::SYS_openat, [AT_FDCWD, path, flags as u64, 0o600, 0, 0], 0).unwrap()
    }

    /// Maps all of the file, writable, at [`MAP`].
    fn map(&mut self, fd: i64) {
        let flags = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u64;
        let args = [MAP, PAGES * PAGE_SIZE, super::RW, flags, fd as u64, 0];
        assert_eq!(self.call(libc::SYS_mmap, args, 0), Ok(MAP as i64));
    }

    /// Increments the first word of a page and returns its previous value.
    fn increment(&mut self, page: u64) -> u64 {
        let at = MAP + page * PAGE_SIZE;
        self.call(libc::SYS_getpid, [0; 6], at).unwrap();
        let mut word = [0; 8];
        self.machine.read(at, &mut word).unwrap();
        u64::from_le_bytes(word) - 1
    }
}

#[test]
fn a_reset_restores_the_files_pages() {
    let (_root, mut puppet) = puppet();
    let fd = puppet.open("/data/file", libc::O_RDONLY);
    puppet.map(fd);
    // One page is written while booting, one only read; requests touch the others first.
    assert_eq!(puppet.increment(3), 5);
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    for _ in 0..3 {
        for page in 0..PAGES {
            assert_eq!(worker.increment(page), if page == 3 { 6 } else { 5 }, "page {page}");
        }
        worker.reset(&frozen).unwrap();
    }
    // The request discards, unmaps, protects, and maps again.
    for round in 0..3 {
        let call = match round {
            0 => (libc::SYS_madvise, [MAP, PAGES * PAGE_SIZE, libc::MADV_DONTNEED as u64, 0, 0, 0]),
            1 => (libc::SYS_munmap, [MAP, PAGES * PAGE_SIZE, 0, 0, 0, 0]),
            _ => (libc::SYS_mprotect, [MAP, PAGES * PAGE_SIZE, 1, 0, 0, 0]),
        };
        assert_eq!(worker.call(call.0, call.1, 0), Ok(0));
        if round == 0 {
            assert_eq!(worker.increment(3), 5, "the file's content, not the snapshot's");
        } else {
            worker.map(fd);
            assert_eq!(worker.increment(3), 5);
        }
        worker.reset(&frozen).unwrap();
        assert_eq!(worker.increment(3), 6);
        worker.reset(&frozen).unwrap();
    }
}

#[test]
fn positions_descriptors_and_the_working_directory_are_reset() {
    let (_root, mut puppet) = puppet();
    let fd = puppet.open("/data/file", libc::O_RDONLY) as u64;
    assert_eq!(puppet.call(libc::SYS_lseek, [fd, 100, 0, 0, 0, 0], 0), Ok(100));
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    for _ in 0..2 {
        assert_eq!(worker.call(libc::SYS_read, [fd, WINDOW, 50, 0, 0, 0], 0), Ok(50));
        assert_eq!(worker.call(libc::SYS_lseek, [fd, 0, 1, 0, 0, 0], 0), Ok(150));
        let path = worker.text(0, "/data");
        assert_eq!(worker.call(libc::SYS_chdir, [path, 0, 0, 0, 0, 0], 0), Ok(0));
        assert_eq!(worker.open("file", libc::O_RDONLY), fd as i64 + 1);
        assert_eq!(worker.call(libc::SYS_close, [fd, 0, 0, 0, 0, 0], 0), Ok(0));
        worker.reset(&frozen).unwrap();
        assert_eq!(worker.open("file", libc::O_RDONLY), -i64::from(libc::ENOENT));
        worker.reset(&frozen).unwrap();
    }
}

#[test]
fn files_of_the_host_are_closed_when_they_are_unused() {
    let (root, mut puppet) = puppet();
    // More than may be open at a time (an eighth of the usual limit is 128), and more than the table keeps.
    for number in 0..1500 {
        std::fs::copy(root.path().join("file"), root.path().join(number.to_string())).unwrap();
        let fd = puppet.open(&format!("/data/{number}"), libc::O_RDONLY);
        assert!(fd > 0, "{number}");
        puppet.map(fd);
        assert_eq!(puppet.call(libc::SYS_close, [fd as u64, 0, 0, 0, 0, 0], 0), Ok(0));
    }
    assert_eq!(puppet.increment(0), 5);
}

#[test]
fn a_reset_discards_what_a_request_has_written() {
    let (_root, mut puppet) = puppet();
    let path = |puppet: &mut Puppet, path| puppet.text(0, path);
    // The boot creates a file and a directory.
    let fd = puppet.open("/tmp/kept", libc::O_RDWR | libc::O_CREAT);
    let text = puppet.text(512, "of the boot");
    assert_eq!(puppet.call(libc::SYS_write, [fd as u64, text, 11, 0, 0, 0], 0), Ok(11));
    let directory = path(&mut puppet, "/tmp/directory");
    assert_eq!(puppet.call(libc::SYS_mkdir, [directory, 0o700, 0, 0, 0, 0], 0), Ok(0));
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    let room = frozen.overlay.inodes().room();
    for _ in 0..3 {
        // Overwritten through an open file, created, removed while open, renamed.
        assert_eq!(worker.call(libc::SYS_pwrite64, [fd as u64, WINDOW, 100, 5, 0, 0], 0), Ok(100));
        let new = worker.open("/tmp/directory/new", libc::O_RDWR | libc::O_CREAT);
        assert_eq!(worker.call(libc::SYS_fallocate, [new as u64, 0, 0, 1 << 20, 0, 0], 0), Ok(0));
        let kept = path(&mut worker, "/tmp/kept");
        assert_eq!(worker.call(libc::SYS_unlink, [kept, 0, 0, 0, 0, 0], 0), Ok(0));
        let (old, renamed) = (worker.text(0, "/tmp/directory"), worker.text(512, "/tmp/other"));
        assert_eq!(worker.call(libc::SYS_rename, [old, renamed, 0, 0, 0, 0], 0), Ok(0));
        assert!(worker.process.overlay.inodes().room() < room);
        worker.reset(&frozen).unwrap();
        assert_eq!(worker.process.overlay.inodes().room(), room);

        let again = worker.open("/tmp/kept", libc::O_RDONLY);
        assert_eq!(worker.call(libc::SYS_read, [again as u64, WINDOW, 100, 0, 0, 0], 0), Ok(11));
        assert_eq!(worker.open("/tmp/other", libc::O_RDONLY), -i64::from(libc::ENOENT));
        assert!(worker.open("/tmp/directory", libc::O_RDONLY) > 0);
        worker.reset(&frozen).unwrap();
    }
}

#[test]
fn modes_and_times_of_the_temporary_directories_are_kept_and_reset() {
    let (_root, puppet) = puppet();
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    for directory in ["/tmp", "/dev/shm"] {
        let attributes = |worker: &mut Puppet| {
            let path = worker.text(0, directory);
            assert_eq!(worker.call(libc::SYS_stat, [path, WINDOW + 1024, 0, 0, 0, 0], 0), Ok(0));
            let mut stat = [0; 96];
            worker.machine.read(WINDOW + 1024, &mut stat).unwrap();
            let mode = u32::from_le_bytes(stat[24..28].try_into().unwrap());
            (mode & 0o7777, u64::from_le_bytes(stat[88..].try_into().unwrap()))
        };
        let new = format!("{directory}/new");
        for by_descriptor in [false, true] {
            assert_eq!(attributes(&mut worker), (0o1777, 0), "{directory}");
            let seconds: Vec<u8> = [5_u64, 0, 7, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
            worker.process.copy_out(&mut worker.machine, WINDOW + 2048, &seconds).unwrap();
            if by_descriptor {
                let fd = worker.open(directory, libc::O_RDONLY) as u64;
                assert_eq!(worker.call(libc::SYS_fchmod, [fd, 0o500, 0, 0, 0, 0], 0), Ok(0));
                assert_eq!(worker.call(libc::SYS_utimensat, [fd, 0, WINDOW + 2048, 0, 0, 0], 0), Ok(0));
            } else {
                let path = worker.text(0, directory);
                assert_eq!(worker.call(libc::SYS_chmod, [path, 0o500, 0, 0, 0, 0], 0), Ok(0));
                assert_eq!(worker.call(libc::SYS_utimensat, [AT_FDCWD, path, WINDOW + 2048, 0, 0, 0], 0), Ok(0));
            }
            assert_eq!(attributes(&mut worker), (0o500, 7), "{directory}");
            assert_eq!(worker.open(&new, libc::O_RDWR | libc::O_CREAT), -i64::from(libc::EACCES));
            worker.reset(&frozen).unwrap();
        }
        assert!(worker.open(&new, libc::O_RDWR | libc::O_CREAT) > 0);
        worker.reset(&frozen).unwrap();
    }
}

#[test]
fn a_file_without_a_name_exists_while_it_is_open() {
    let (_root, mut puppet) = puppet();
    let empty = puppet.process.overlay.inodes().room();
    let fd = puppet.open("/tmp/file", libc::O_RDWR | libc::O_CREAT) as u64;
    let copy = puppet.call(libc::SYS_dup, [fd, 0, 0, 0, 0, 0], 0).unwrap() as u64;
    let other = puppet.open("/tmp/file", libc::O_RDONLY) as u64;
    assert_eq!(puppet.call(libc::SYS_fallocate, [fd, 0, 0, 5000, 0, 0], 0), Ok(0));
    let path = puppet.text(0, "/tmp/file");
    assert_eq!(puppet.call(libc::SYS_unlink, [path, 0, 0, 0, 0, 0], 0), Ok(0));
    for (close, args) in [(libc::SYS_close, [fd, 0]), (libc::SYS_close_range, [copy, copy])] {
        assert_eq!(puppet.call(close, [args[0], args[1], 0, 0, 0, 0], 0), Ok(0));
        assert_eq!(puppet.process.overlay.inodes().room(), empty - 8192);
    }
    assert_eq!(puppet.call(libc::SYS_dup2, [0, other, 0, 0, 0, 0], 0), Ok(other as i64));
    assert_eq!(puppet.process.overlay.inodes().room(), empty);
}

/// Paths for random calls: in a read-only mount, in a writable one, synthetic ones, and missing ones.
pub(crate) const PATHS: [&str; 12] = [
    "/data/file",
    "/data",
    "/data/../tmp/a",
    "/tmp/a",
    "/tmp/a/b",
    "/tmp/link",
    "/tmp",
    "/proc/self/fd/3",
    "/proc/self/maps",
    "/dev/zero",
    "a",
    "/tmp/a/../../tmp/./link/x",
];
pub(crate) const SLOT: u64 = 64;

fn any_file_argument() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0..PATHS.len() as u64).prop_map(|index| WINDOW + index * SLOT),
        6 => 0..10_u64,
        2 => Just(AT_FDCWD),
        2 => prop_oneof![Just(libc::O_CREAT | libc::O_RDWR), Just(libc::O_RDWR), Just(libc::O_DIRECTORY)]
            .prop_map(|flags| flags as u64),
        2 => (0..PAGES).prop_map(|page| page * PAGE_SIZE),
        1 => Just(WINDOW + PAGE_SIZE - 8),
        1 => any::<u64>(),
        1 => (0..64_u32).prop_map(|bit| 1 << bit),
    ]
}

pub(crate) fn any_file_call() -> impl Strategy<Value = (libc::c_long, [u64; 6])> {
    let numbers = prop::sample::select(vec![
        libc::SYS_open,
        libc::SYS_openat,
        libc::SYS_creat,
        libc::SYS_read,
        libc::SYS_pread64,
        libc::SYS_write,
        libc::SYS_pwrite64,
        libc::SYS_lseek,
        libc::SYS_close,
        libc::SYS_dup2,
        libc::SYS_fstat,
        libc::SYS_stat,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_getdents64,
        libc::SYS_readlink,
        libc::SYS_symlink,
        libc::SYS_link,
        libc::SYS_unlink,
        libc::SYS_unlinkat,
        libc::SYS_rename,
        libc::SYS_renameat2,
        libc::SYS_mkdir,
        libc::SYS_rmdir,
        libc::SYS_truncate,
        libc::SYS_ftruncate,
        libc::SYS_fallocate,
        libc::SYS_chmod,
        libc::SYS_utimensat,
        libc::SYS_chdir,
        libc::SYS_fchdir,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_mprotect,
    ]);
    (numbers, prop::array::uniform6(any_file_argument()))
}

proptest! {
    #![proptest_config(super::cases(60))]

    /// Whatever a program does with files, nothing harms the host, the mount stays unchanged, and a reset undoes the
    /// rest.
    #[test]
    fn no_call_on_files_harms_the_host(calls in prop::collection::vec(any_file_call(), 1..80)) {
        let (root, mut puppet) = puppet();
        for (index, text) in (0_u64..).zip(PATHS) {
            puppet.text(index * SLOT, text);
        }
        let (image, frozen) = puppet.freeze();
        let mut worker = Puppet::fork(&image, &frozen);
        for (number, args) in calls {
            match worker.call(number, args, 0) {
                Ok(_) => continue,
                Err(Step::Exited { .. } | Step::Faulted(_) | Step::MemoryLimit) => {}
                Err(other) => prop_assert!(false, "{:?}", other),
            }
            worker = Puppet::fork(&image, &frozen);
        }
        let _ = worker.reset(&frozen);
        let left: Vec<_> = std::fs::read_dir(root.path()).unwrap().collect();
        prop_assert_eq!(left.len(), 1);
        prop_assert_eq!(std::fs::metadata(root.path().join("file")).unwrap().len(), PAGES * PAGE_SIZE);
    }
}

#[test]
fn links_to_links_of_many_names_are_bounded() {
    let (_root, mut puppet) = puppet();
    let map = [WINDOW, 4 * PAGE_SIZE, super::RW, super::PRIVATE_ANON_FIXED, u64::MAX, 0];
    assert_eq!(puppet.call(libc::SYS_mmap, map, 0), Ok(WINDOW as i64));
    for number in 0..30 {
        let target = format!("/data/{}/tmp/{}", "../data/".repeat(500), number + 1);
        let (target, link) = (puppet.text(4096, &target), puppet.text(0, &format!("/tmp/{number}")));
        assert_eq!(puppet.call(libc::SYS_symlink, [target, link, 0, 0, 0, 0], 0), Ok(0));
    }
    assert_eq!(puppet.open("/tmp/0", libc::O_RDONLY), -i64::from(libc::ELOOP));
}

/// Pages of a file, of which one fault at boot maps only a part.
const MANY: u64 = 600;

/// A puppet with [`MANY`] pages of `/data/many`, whose words are all 5, mapped writable at [`MAP`].
fn puppet_with_many() -> (tempfile::TempDir, Puppet) {
    let (root, mut puppet) = puppet();
    let words = (0..MANY * PAGE_SIZE / 8).flat_map(|_| 5_u64.to_le_bytes());
    std::fs::write(root.path().join("many"), words.collect::<Vec<_>>()).unwrap();
    let fd = puppet.open("/data/many", libc::O_RDONLY);
    let flags = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u64;
    let args = [MAP, MANY * PAGE_SIZE, super::RW, flags, fd as u64, 0];
    assert_eq!(puppet.call(libc::SYS_mmap, args, 0), Ok(MAP as i64));
    (root, puppet)
}

impl Puppet {
    /// The first word of a page of the mapping, as a system call reads it.
    fn word(&mut self, page: u64) -> u64 {
        let mut word = [0; 8];
        self.process.copy_in(&mut self.machine, MAP + page * PAGE_SIZE, &mut word, true).unwrap();
        u64::from_le_bytes(word)
    }
}

#[test]
fn pages_that_are_only_read_are_not_copied() {
    let (_root, mut puppet) = puppet_with_many();
    let before = puppet.machine.private_pages();
    assert_eq!(puppet.word(0), 5);
    assert_eq!(puppet.word(255), 5);
    let tables = 4;
    assert!(puppet.machine.private_pages() <= before + tables, "no page is copied");
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    worker.reset(&frozen).unwrap();
    let before = worker.machine.private_pages();
    // Pages in the part of the file that the boot has mapped, which the boot has not touched: they stay in the page
    // cache over resets. One page table is allocated; for a process, the kernel has one, too.
    for _ in 0..2 {
        assert_eq!(worker.word(300), 5);
        assert!(worker.machine.is_file_page(MAP + 300 * PAGE_SIZE));
        assert!((1..=2).contains(&(worker.machine.private_pages() - before)));
        worker.reset(&frozen).unwrap();
        assert!(worker.machine.is_file_page(MAP + 301 * PAGE_SIZE));
    }
    // In the rest of the file, a copy for this request.
    let end = MAP + (MANY - 1) * PAGE_SIZE;
    assert_eq!(worker.word(MANY - 1), 5);
    assert!(worker.machine.is_mapped(end) && !worker.machine.is_file_page(end));
    worker.reset(&frozen).unwrap();
    assert!(!worker.machine.is_mapped(end));
}

#[test]
fn a_page_that_a_request_writes_first_is_copied_and_sticky() {
    let (_root, mut puppet) = puppet_with_many();
    assert_eq!(puppet.word(0), 5);
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    for request in 0..3 {
        let before = worker.machine.private_pages();
        // Mapped by the boot, not touched before, and copied for the request only.
        for page in [1, 400, MANY - 1] {
            assert_eq!(worker.increment(page), 5, "request {request}, page {page}");
        }
        let new = worker.machine.private_pages() - before;
        assert!(if request == 0 { new >= 3 } else { new == 1 }, "request {request}: {new}");
        worker.reset(&frozen).unwrap();
    }
}

/// A change to some of the mapping's first pages.
#[derive(Clone, Copy, Debug)]
enum Change {
    Touch,
    Read,
    Unmap,
    Discard,
    Protect { prot: u64 },
    Move { to: u64 },
}

fn any_change() -> impl Strategy<Value = (Change, u64, u64)> {
    let change = prop_oneof![
        Just(Change::Touch),
        Just(Change::Touch),
        Just(Change::Read),
        Just(Change::Unmap),
        Just(Change::Discard),
        prop_oneof![Just(0_u64), Just(1), Just(super::RW)].prop_map(|prot| Change::Protect { prot }),
        (0..24_u64).prop_map(|to| Change::Move { to }),
    ];
    (change, 0..24_u64, 1..6_u64)
}

impl Puppet {
    /// Makes a change; skips accesses that the program may not make.
    fn change(&mut self, (change, page, pages): (Change, u64, u64)) {
        let (at, len) = (MAP + page * PAGE_SIZE, pages * PAGE_SIZE);
        let (number, args) = match change {
            Change::Touch if self.is_writable(at) => {
                self.call(libc::SYS_getpid, [0; 6], at).unwrap();
                return;
            }
            Change::Read | Change::Touch => {
                let _ = self.process.copy_in(&mut self.machine, at, &mut [0; 8], true);
                return;
            }
            Change::Unmap => (libc::SYS_munmap, [at, len, 0, 0, 0, 0]),
            Change::Discard => (libc::SYS_madvise, [at, len, libc::MADV_DONTNEED as u64, 0, 0, 0]),
            Change::Protect { prot } => (libc::SYS_mprotect, [at, len, prot, 0, 0, 0]),
            Change::Move { to } => {
                let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
                (libc::SYS_mremap, [at, len, len, flags, MAP + to * PAGE_SIZE, 0])
            }
        };
        self.call(number, args, 0).unwrap();
    }
}

proptest! {
    #![proptest_config(super::cases(40))]

    /// Whatever boot and requests do to a mapping, each request finds what the boot left, both through the guest's
    /// accesses and through system calls.
    #[test]
    fn any_changes_to_a_mapping_of_a_file_are_undone(
        boot in prop::collection::vec(any_change(), 0..12),
        requests in prop::collection::vec(prop::collection::vec(any_change(), 0..12), 1..4),
    ) {
        let (_root, mut puppet) = puppet_with_many();
        for change in boot {
            puppet.change(change);
        }
        let (image, frozen) = puppet.freeze();
        let word = |puppet: &mut Puppet, page: u64| {
            let mut word = [0; 8];
            let read = puppet.process.copy_in(&mut puppet.machine, MAP + page * PAGE_SIZE, &mut word, true);
            read.is_ok().then(|| u64::from_le_bytes(word))
        };
        let left: Vec<_> = (0..32).map(|page| word(&mut Puppet::fork(&image, &frozen), page)).collect();
        let mut worker = Puppet::fork(&image, &frozen);
        for request in requests {
            for change in request {
                worker.change(change);
            }
            worker.reset(&frozen).unwrap();
            for (page, left) in (0..).zip(&left) {
                if worker.is_writable(MAP + page * PAGE_SIZE) {
                    // The guest's access: it increments the word.
                    prop_assert_eq!(Some(worker.increment(page)), *left, "page {}", page);
                } else {
                    prop_assert_eq!(word(&mut worker, page), *left, "page {}", page);
                }
            }
            worker.reset(&frozen).unwrap();
        }
    }
}
