// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files over freezes and resets.

use mayfly_kvm::PAGE_SIZE;

use super::{Puppet, WINDOW};
use crate::{MountPoint, Mounts};

const AT_FDCWD: u64 = libc::AT_FDCWD as u64;
const PAGES: u64 = 8;
const MAP: u64 = WINDOW + 0x10_0000;

/// A puppet with `/data/file` of [`PAGES`] pages, whose words are all 5.
fn puppet() -> (tempfile::TempDir, Puppet) {
    let root = tempfile::tempdir().unwrap();
    let words = (0..PAGES * PAGE_SIZE / 8).flat_map(|_| 5_u64.to_le_bytes());
    std::fs::write(root.path().join("file"), words.collect::<Vec<_>>()).unwrap();
    let point = MountPoint { guest: "/data".into(), host: root.path().into(), writable: false };
    let mut puppet = Puppet::boot_in(&Mounts::open(&[point]).unwrap());
    let args = [WINDOW, PAGE_SIZE, super::RW, super::PRIVATE_ANON_FIXED, u64::MAX, 0];
    assert_eq!(puppet.call(libc::SYS_mmap, args, 0), Ok(WINDOW as i64));
    (root, puppet)
}

impl Puppet {
    /// Puts text where calls can point to it.
    fn text(&mut self, offset: u64, text: &str) -> u64 {
        let bytes = [text.as_bytes(), b"\0"].concat();
        self.process.copy_out(&mut self.machine, WINDOW + offset, &bytes).unwrap();
        WINDOW + offset
    }

    fn open(&mut self, path: &str, flags: i32) -> i64 {
        let path = self.text(0, path);
        self.call(libc::SYS_openat, [AT_FDCWD, path, flags as u64, 0o600, 0, 0], 0).unwrap()
    }

    /// Maps all of the file, writable, at [`MAP`].
    fn map(&mut self, fd: i64) {
        let flags = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u64;
        let args = [MAP, PAGES * PAGE_SIZE, super::RW, flags, fd as u64, 0];
        assert_eq!(self.call(libc::SYS_mmap, args, 0), Ok(MAP as i64));
    }

    /// Increments the first word of a page and returns what it was.
    fn increment(&mut self, page: u64) -> u64 {
        let at = MAP + page * PAGE_SIZE;
        self.call(libc::SYS_getpid, [0; 6], at).unwrap();
        let mut word = [0; 8];
        self.machine.read(at, &mut word).unwrap();
        u64::from_le_bytes(word) - 1
    }
}

#[test]
fn pages_of_files_are_the_files_again_after_a_reset() {
    let (_root, mut puppet) = puppet();
    let fd = puppet.open("/data/file", libc::O_RDONLY);
    puppet.map(fd);
    // One page is written while booting, one only read; the others come with their first touch by a request.
    assert_eq!(puppet.increment(3), 5);
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    for _ in 0..3 {
        for page in 0..PAGES {
            assert_eq!(worker.increment(page), if page == 3 { 6 } else { 5 }, "page {page}");
        }
        worker.reset(&frozen).unwrap();
    }
    // Given up, unmapped, protected, and mapped again by the request.
    for round in 0..3 {
        let call = match round {
            0 => (libc::SYS_madvise, [MAP, PAGES * PAGE_SIZE, libc::MADV_DONTNEED as u64, 0, 0, 0]),
            1 => (libc::SYS_munmap, [MAP, PAGES * PAGE_SIZE, 0, 0, 0, 0]),
            _ => (libc::SYS_mprotect, [MAP, PAGES * PAGE_SIZE, 1, 0, 0, 0]),
        };
        assert_eq!(worker.call(call.0, call.1, 0), Ok(0));
        if round == 0 {
            assert_eq!(worker.increment(3), 5, "the file's again, not the snapshot's");
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
fn files_of_the_host_are_not_held_longer_than_needed() {
    let (root, mut puppet) = puppet();
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
fn what_a_request_writes_is_gone_after_its_reset() {
    let (_root, mut puppet) = puppet();
    let path = |puppet: &mut Puppet, path| puppet.text(0, path);
    // The boot leaves a file and a directory behind.
    let fd = puppet.open("/tmp/kept", libc::O_RDWR | libc::O_CREAT);
    let text = puppet.text(512, "of the boot");
    assert_eq!(puppet.call(libc::SYS_write, [fd as u64, text, 11, 0, 0, 0], 0), Ok(11));
    let directory = path(&mut puppet, "/tmp/directory");
    assert_eq!(puppet.call(libc::SYS_mkdir, [directory, 0o700, 0, 0, 0, 0], 0), Ok(0));
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    let room = frozen.overlay.room();
    for _ in 0..3 {
        // Written over by an open file, made new, removed with its file still open, renamed.
        assert_eq!(worker.call(libc::SYS_pwrite64, [fd as u64, WINDOW, 100, 5, 0, 0], 0), Ok(100));
        let new = worker.open("/tmp/directory/new", libc::O_RDWR | libc::O_CREAT);
        assert_eq!(worker.call(libc::SYS_ftruncate, [new as u64, 1 << 20, 0, 0, 0, 0], 0), Ok(0));
        let kept = path(&mut worker, "/tmp/kept");
        assert_eq!(worker.call(libc::SYS_unlink, [kept, 0, 0, 0, 0, 0], 0), Ok(0));
        let (old, renamed) = (worker.text(0, "/tmp/directory"), worker.text(512, "/tmp/other"));
        assert_eq!(worker.call(libc::SYS_rename, [old, renamed, 0, 0, 0, 0], 0), Ok(0));
        assert!(worker.process.overlay.room() < room);
        worker.reset(&frozen).unwrap();
        assert_eq!(worker.process.overlay.room(), room);

        let again = worker.open("/tmp/kept", libc::O_RDONLY);
        assert_eq!(worker.call(libc::SYS_read, [again as u64, WINDOW, 100, 0, 0, 0], 0), Ok(11));
        assert_eq!(worker.open("/tmp/other", libc::O_RDONLY), -i64::from(libc::ENOENT));
        assert!(worker.open("/tmp/directory", libc::O_RDONLY) > 0);
        worker.reset(&frozen).unwrap();
    }
}

#[test]
fn a_file_without_a_name_is_kept_while_it_is_open_and_no_longer() {
    let (_root, mut puppet) = puppet();
    let empty = puppet.process.overlay.room();
    let fd = puppet.open("/tmp/file", libc::O_RDWR | libc::O_CREAT) as u64;
    let copy = puppet.call(libc::SYS_dup, [fd, 0, 0, 0, 0, 0], 0).unwrap() as u64;
    let other = puppet.open("/tmp/file", libc::O_RDONLY) as u64;
    assert_eq!(puppet.call(libc::SYS_ftruncate, [fd, 5000, 0, 0, 0, 0], 0), Ok(0));
    let path = puppet.text(0, "/tmp/file");
    assert_eq!(puppet.call(libc::SYS_unlink, [path, 0, 0, 0, 0, 0], 0), Ok(0));
    for (close, args) in [(libc::SYS_close, [fd, 0]), (libc::SYS_close_range, [copy, copy])] {
        assert_eq!(puppet.call(close, [args[0], args[1], 0, 0, 0, 0], 0), Ok(0));
        assert_eq!(puppet.process.overlay.room(), empty - 5000);
    }
    assert_eq!(puppet.call(libc::SYS_dup2, [0, other, 0, 0, 0, 0], 0), Ok(other as i64));
    assert_eq!(puppet.process.overlay.room(), empty);
}
