// SPDX-License-Identifier: MIT OR Apache-2.0
//! Durable mounts: what a program writes is the host's, and nothing outside of the mount is reached.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use mayfly_engine::Image;
use mayfly_machine::PAGE_SIZE;

use super::{Puppet, RW, WINDOW};
use crate::base::step::Step;
use crate::fs::mounts::{MountAccess, MountError, MountPoint, Mounts};
use crate::host::quota::DurableLimits;
use crate::kernel::process::Process;

mod maps;

const HERE: u64 = libc::AT_FDCWD as u64;
const BUFFER: u64 = WINDOW + 0x2000;
const MAP: u64 = WINDOW + 0x10_0000;
const CREATE: i32 = libc::O_CREAT | libc::O_RDWR;

fn mounts(root: &Path, pages: u64, files: u64) -> Mounts {
    let limits = DurableLimits { bytes: pages * PAGE_SIZE, files };
    let point = MountPoint { guest: "/data".into(), host: root.into(), access: MountAccess::Durable(limits) };
    Mounts::open(&[point]).unwrap()
}

fn booted(root: &Path, pages: u64, files: u64) -> Puppet {
    let mut puppet = Puppet::boot_in(&mounts(root, pages, files));
    let args = [WINDOW, 0x8_0000, RW, super::PRIVATE_ANON_FIXED, u64::MAX, 0];
    assert_eq!(puppet.call(libc::SYS_mmap, args, 0), Ok(WINDOW as i64));
    puppet
}

fn frozen(root: &Path) -> (Image, Process) {
    booted(root, 1 << 20, 100).freeze()
}

fn error(number: i32) -> i64 {
    -i64::from(number)
}

impl Puppet {
    fn paths(&mut self, number: libc::c_long, paths: &[&str], more: &[u64]) -> i64 {
        let mut args = [0; 6];
        let texts = paths.iter().enumerate().map(|(index, path)| self.text(0x400 * (index as u64 + 1), path));
        let texts: Vec<u64> = texts.collect();
        args.iter_mut().zip(texts.iter().chain(more)).for_each(|(slot, value)| *slot = *value);
        self.call(number, args, 0).unwrap()
    }

    fn store(&mut self, fd: i64, at: u64, text: &str) -> i64 {
        let from = self.text(0x1000, text);
        self.call(libc::SYS_pwrite64, [fd as u64, from, text.len() as u64, at, 0, 0], 0).unwrap()
    }

    fn on(&mut self, number: libc::c_long, fd: i64, more: [u64; 3]) -> i64 {
        let [a, b, c] = more;
        self.call(number, [fd as u64, a, b, c, 0, 0], 0).unwrap()
    }

    /// Has the thread look again at what it waits for, until it can go on.
    fn wake_in_time(&mut self, may_block: bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let mut rng = |bytes: &mut [u8]| bytes.fill(7);
            let mut context = crate::base::context::Context { output: &mut self.log, rng: &mut rng, may_block };
            match self.process.wake(&mut self.machine, &mut context) {
                Step::Continue => break,
                Step::Waits { .. } => assert!(Instant::now() < deadline),
                end => panic!("{end:?}"),
            }
        }
    }

    /// fcntl(2) with a lock on bytes `start..start + len`.
    fn lock(&mut self, fd: i64, command: i32, kind: i16, start: u64, len: u64) -> Result<i64, Step> {
        let words = [kind.cast_unsigned().into(), start, len, 0].map(u64::to_le_bytes);
        self.process.copy_out(&mut self.machine, BUFFER, &words.concat()).unwrap();
        self.call(libc::SYS_fcntl, [fd as u64, command as u64, BUFFER, 0, 0, 0], 0)
    }
}

const READ: i16 = 0;
const WRITE: i16 = 1;
const UNLOCK: i16 = 2;

#[test]
fn what_is_written_stays_and_the_program_is_reset() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let mut puppet = booted(root.path(), 1 << 20, 100);
    let early = puppet.open("/data/early", CREATE);
    assert_eq!(puppet.store(early, 0, "boot"), 4);
    let (image, frozen) = puppet.freeze();
    assert_eq!(fs::read(at("early")).unwrap(), b"boot", "a boot's writes are durable, too");
    let (mut one, mut other) = (Puppet::fork(&image, &frozen), Puppet::fork(&image, &frozen));
    for round in 0..3_u64 {
        let fd = one.open("/data/file", CREATE);
        assert_eq!(fd, early + 1);
        assert_eq!(one.store(fd, round, "ab"), 2);
        assert_eq!(one.on(libc::SYS_fsync, fd, [0; 3]), 0);
        assert_eq!(one.on(libc::SYS_fdatasync, fd, [0; 3]), 0);
        // Other workers see it, by a descriptor of the snapshot too.
        assert_eq!(one.store(early, 4 + round, "+"), 1);
        let size = 4 + round as i64 + 1;
        assert_eq!(other.on(libc::SYS_lseek, early, [0, libc::SEEK_END as u64, 0]), size);
        let seen = other.open("/data/file", libc::O_RDONLY);
        assert_eq!(other.on(libc::SYS_read, seen, [BUFFER, 100, 0]), round as i64 + 2);
        other.reset(&frozen).unwrap();
        one.reset(&frozen).unwrap();
    }
    assert_eq!(fs::read(at("file")).unwrap(), b"aaab");
    assert_eq!(fs::read(at("early")).unwrap(), b"boot+++");
    let directory = one.open("/data", libc::O_RDONLY | libc::O_DIRECTORY);
    assert_eq!(one.on(libc::SYS_fsync, directory, [0; 3]), 0);
    assert_eq!(one.call(libc::SYS_sync, [0; 6], 0), Ok(0));
    assert!(frozen.save().unwrap_err().to_string().contains("durable"), "a loaded snapshot would be out of date");
}

#[test]
fn names_change_as_on_linux() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let (image, frozen) = frozen(root.path());
    let mut puppet = Puppet::fork(&image, &frozen);
    assert_eq!(puppet.paths(libc::SYS_mkdir, &["/data/dir"], &[0o700]), 0);
    assert_eq!(puppet.paths(libc::SYS_mkdir, &["/data/dir"], &[0o700]), error(libc::EEXIST));
    let fd = puppet.open("/data/dir/new", CREATE | libc::O_EXCL);
    assert_eq!(puppet.store(fd, 0, "new"), 3);
    assert_eq!(puppet.open("/data/dir/new", CREATE | libc::O_EXCL), error(libc::EEXIST));
    fs::write(at("file"), "old").unwrap();
    let old = puppet.open("/data/file", libc::O_RDONLY);
    let rename = |puppet: &mut Puppet, from: &str, to: &str, flags: u32| {
        let (from, to) = (puppet.text(0x400, from), puppet.text(0x800, to));
        puppet.call(libc::SYS_renameat2, [HERE, from, HERE, to, flags.into(), 0], 0).unwrap()
    };
    assert_eq!(rename(&mut puppet, "/data/dir/new", "/data/file", libc::RENAME_NOREPLACE), error(libc::EEXIST));
    assert_eq!(rename(&mut puppet, "/data/dir/new", "/data/file", 0), 0);
    assert_eq!(fs::read(at("file")).unwrap(), b"new");
    assert_eq!(puppet.on(libc::SYS_pread64, old, [BUFFER, 9, 0]), 3, "the replaced file is still open");
    assert_eq!(rename(&mut puppet, "/data/dir", "/data/dir/in", 0), error(libc::EINVAL));
    assert_eq!(rename(&mut puppet, "/data/file", "/data/dir", 0), error(libc::EISDIR));
    assert_eq!(rename(&mut puppet, "/data/file", "/tmp/file", 0), error(libc::EXDEV));
    assert_eq!(rename(&mut puppet, "/data", "/data/x", 0), error(libc::EBUSY));
    assert_eq!(puppet.paths(libc::SYS_link, &["/data/file", "/data/dir/again"], &[]), 0);
    assert_eq!(fs::metadata(at("file")).unwrap().nlink(), 2);
    assert_eq!(puppet.paths(libc::SYS_rmdir, &["/data/dir"], &[]), error(libc::ENOTEMPTY));
    assert_eq!(puppet.paths(libc::SYS_unlink, &["/data/dir"], &[]), error(libc::EISDIR));
    assert_eq!(puppet.paths(libc::SYS_unlink, &["/data/dir/again"], &[]), 0);
    assert_eq!(puppet.paths(libc::SYS_rmdir, &["/data/dir"], &[]), 0);
    assert_eq!(puppet.paths(libc::SYS_chmod, &["/data/file"], &[0o4755]), 0);
    assert_eq!(fs::metadata(at("file")).unwrap().permissions().mode() & 0o7777, 0o755, "never set-user-ID");
    let times = [0, 0, 1_000_000_000, 5_u64].map(u64::to_le_bytes).concat();
    puppet.process.copy_out(&mut puppet.machine, BUFFER, &times).unwrap();
    let path = puppet.text(0x400, "/data/file");
    assert_eq!(puppet.call(libc::SYS_utimensat, [HERE, path, BUFFER, 0, 0, 0], 0), Ok(0));
    assert_eq!(fs::metadata(at("file")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(puppet.paths(libc::SYS_truncate, &["/data/file"], &[1]), 0);
    assert_eq!(fs::read(at("file")).unwrap(), b"n");
    assert_eq!(puppet.open("/data/file", libc::O_WRONLY | libc::O_TRUNC), old + 1);
    assert_eq!(fs::read(at("file")).unwrap(), b"");
    assert_eq!(puppet.paths(libc::SYS_chmod, &["/data/file"], &[0o400]), 0);
    assert_eq!(puppet.open("/data/file", libc::O_RDWR), error(libc::EACCES), "the owner's bits count");
}

#[test]
fn appends_of_workers_do_not_overwrite_each_other() {
    let root = tempfile::tempdir().unwrap();
    let mut puppet = booted(root.path(), 100, 10);
    let early = puppet.open("/data/log", CREATE | libc::O_APPEND);
    let (image, frozen) = puppet.freeze();
    let mut workers = [Puppet::fork(&image, &frozen), Puppet::fork(&image, &frozen)];
    for round in 0..6 {
        let worker = &mut workers[round % 2];
        let text = worker.text(0x1000, "line\n");
        assert_eq!(worker.on(libc::SYS_write, early, [text, 5, 0]), 5);
        assert_eq!(worker.on(libc::SYS_lseek, early, [0, libc::SEEK_CUR as u64, 0]), 5 * (round as i64 + 1));
        assert_eq!(worker.store(early, 0, ""), 0);
    }
    assert_eq!(fs::read_to_string(root.path().join("log")).unwrap(), "line\n".repeat(6));
    workers[0].reset(&frozen).unwrap();
}

#[test]
fn nothing_leads_out_of_the_mount() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let root = tempfile::tempdir().unwrap();
    for (name, target) in [("link", secret.as_path()), ("up", outside.path()), ("loop", Path::new("loop"))] {
        symlink(target, root.path().join(name)).unwrap();
    }
    fs::create_dir(root.path().join("dir")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.path().join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let (image, frozen) = frozen(root.path());
    let mut puppet = Puppet::fork(&image, &frozen);
    for path in ["/data/link", "/data/up/secret", "/data/../secret", "/data/dir/../../secret", "/data/loop"] {
        for flags in [libc::O_RDONLY, libc::O_RDWR, libc::O_WRONLY | libc::O_TRUNC, CREATE] {
            let result = puppet.open(path, flags);
            assert!(result < 0, "{path} {flags:x}: {result}");
        }
        assert!(puppet.paths(libc::SYS_truncate, &[path], &[0]) < 0);
        assert!(puppet.paths(libc::SYS_chmod, &[path], &[0]) < 0);
        assert!(puppet.paths(libc::SYS_rename, &["/data/dir", path], &[]) < 0, "{path}");
    }
    for flags in [libc::O_RDONLY, libc::O_RDWR] {
        assert_eq!(puppet.open("/data/fifo", flags), error(libc::EACCES));
    }
    assert_eq!(puppet.paths(libc::SYS_symlink, &["/etc/passwd", "/data/mine"], &[]), error(libc::EPERM));
    assert_eq!(puppet.paths(libc::SYS_mknod, &["/data/pipe"], &[u64::from(libc::S_IFIFO), 0]), error(libc::EPERM));
    assert!(puppet.paths(libc::SYS_link, &["/data/link", "/data/hard"], &[]) < 0);
    assert!(puppet.paths(libc::SYS_link, &["/proc/self/exe", "/data/hard"], &[]) < 0);
    // A descriptor's name leads nowhere else either.
    let fd = puppet.open("/data/new", CREATE);
    let itself = format!("/proc/self/fd/{fd}");
    assert!(puppet.open(&itself, libc::O_RDWR) > fd);
    assert_eq!(puppet.paths(libc::SYS_unlink, &["/data/new"], &[]), 0);
    assert_eq!(puppet.open(&itself, libc::O_RDWR), error(libc::ENOENT));
    assert_eq!(puppet.paths(libc::SYS_unlink, &["/data/link"], &[]), 0, "the link itself");
    assert_eq!(puppet.paths(libc::SYS_rename, &["/data/up", "/data/dir/up"], &[]), 0, "the link itself");
    assert!(puppet.paths(libc::SYS_mkdir, &["/data/dir/up/made"], &[0o700]) < 0);
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn sizes_and_names_are_limited_and_given_back() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("there"), [1; 5000]).unwrap();
    let mut puppet = booted(root.path(), 6, 3);
    let full = error(libc::ENOSPC);
    // Two pages are taken by the file that was there.
    let fd = puppet.open("/data/a", CREATE);
    assert_eq!(puppet.on(libc::SYS_ftruncate, fd, [5 * PAGE_SIZE, 0, 0]), full);
    assert_eq!(puppet.on(libc::SYS_ftruncate, fd, [3 * PAGE_SIZE, 0, 0]), 0);
    assert_eq!(puppet.on(libc::SYS_pwrite64, fd, [WINDOW, 3 * PAGE_SIZE, 2 * PAGE_SIZE]), 2 * PAGE_SIZE as i64);
    assert_eq!(puppet.on(libc::SYS_pwrite64, fd, [WINDOW, 1, 4 * PAGE_SIZE]), full);
    assert_eq!(puppet.on(libc::SYS_pwrite64, fd, [WINDOW, 1, 1 << 50]), full);
    assert_eq!(puppet.on(libc::SYS_fallocate, fd, [0, 0, 5 * PAGE_SIZE]), full);
    assert_eq!(puppet.on(libc::SYS_fallocate, fd, [libc::FALLOC_FL_KEEP_SIZE as u64, 0, 1]), error(libc::EOPNOTSUPP));
    let other = puppet.open("/data/b", CREATE);
    assert_eq!(puppet.store(other, 0, "x"), full);
    assert_eq!(puppet.open("/data/c", CREATE), full, "three names");
    assert_eq!(puppet.paths(libc::SYS_mkdir, &["/data/c"], &[0o700]), full);
    assert_eq!(puppet.paths(libc::SYS_link, &["/data/a", "/data/c"], &[]), full);
    // A file without a name takes its room until it is closed.
    assert_eq!(puppet.paths(libc::SYS_unlink, &["/data/a"], &[]), 0);
    assert_eq!(puppet.store(other, 0, "x"), full);
    assert_eq!(puppet.on(libc::SYS_close, fd, [0; 3]), 0);
    let closed = Instant::now() + Duration::from_secs(10);
    while puppet.store(other, 0, "x") != 1 {
        assert!(Instant::now() < closed, "the room of a closed file comes back");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(puppet.on(libc::SYS_ftruncate, other, [4 * PAGE_SIZE, 0, 0]), 0);
    assert_eq!(puppet.paths(libc::SYS_rename, &["/data/b", "/data/there"], &[]), 0);
    assert_eq!(puppet.on(libc::SYS_ftruncate, other, [6 * PAGE_SIZE, 0, 0]), 0, "the replaced file's room");
}

#[test]
fn locks_exclude_other_workers_until_they_are_released() {
    let root = tempfile::tempdir().unwrap();
    let mut puppet = booted(root.path(), 100, 10);
    let fd = puppet.open("/data/file", CREATE);
    let (image, frozen) = puppet.freeze();
    let (mut one, mut other) = (Puppet::fork(&image, &frozen), Puppet::fork(&image, &frozen));
    let (set, set_own) = (libc::F_SETLK, libc::F_OFD_SETLK);
    let again = error(libc::EAGAIN);
    for (mine, theirs) in [(set, set), (set, set_own), (set_own, set), (set_own, set_own)] {
        assert_eq!(one.lock(fd, mine, WRITE, 10, 10), Ok(0));
        assert_eq!(one.lock(fd, mine, WRITE, 10, 10), Ok(0), "its own");
        assert_eq!(other.lock(fd, theirs, READ, 19, 1), Ok(again));
        assert_eq!(other.lock(fd, theirs, WRITE, 20, 5), Ok(0));
        assert_eq!(one.lock(fd, mine, READ, 0, 0), Ok(again));
        assert_eq!(one.lock(fd, mine, UNLOCK, 19, 1), Ok(0));
        assert_eq!(other.lock(fd, theirs, READ, 19, 1), Ok(0));
        let get = if theirs == set { libc::F_GETLK } else { libc::F_OFD_GETLK };
        assert_eq!(other.lock(fd, get, WRITE, 0, 0), Ok(0));
        let mut found = [0; 24];
        other.machine.read(BUFFER, &mut found).unwrap();
        let word = |index: usize| u64::from_le_bytes(found[8 * index..][..8].try_into().unwrap());
        assert_eq!((word(0) as i16, word(1), word(2)), (WRITE, 10, 9));
        // A reset, as of a request that is given up, releases them.
        one.reset(&frozen).unwrap();
        assert_eq!(other.lock(fd, theirs, WRITE, 0, 0), Ok(0));
        other.reset(&frozen).unwrap();
    }
    // Record locks end with any close of the file, others with the last one of theirs.
    for (command, is_free) in [(set, true), (set_own, false)] {
        assert_eq!(one.lock(fd, command, WRITE, 0, 0), Ok(0));
        let second = one.open("/data/file", libc::O_RDONLY);
        assert_eq!(one.on(libc::SYS_close, second, [0; 3]), 0);
        assert_eq!(other.lock(fd, set, WRITE, 0, 0), Ok(if is_free { 0 } else { again }));
        other.reset(&frozen).unwrap();
        assert_eq!(one.on(libc::SYS_close, fd, [0; 3]), 0);
        assert_eq!(other.lock(fd, set, WRITE, 0, 0), Ok(0));
        other.reset(&frozen).unwrap();
        one.reset(&frozen).unwrap();
    }
    let flock = |puppet: &mut Puppet, operation: i32| puppet.on(libc::SYS_flock, fd, [operation as u64, 0, 0]);
    assert_eq!(flock(&mut one, libc::LOCK_SH | libc::LOCK_NB), 0);
    assert_eq!(flock(&mut other, libc::LOCK_SH | libc::LOCK_NB), 0);
    assert_eq!(flock(&mut one, libc::LOCK_EX | libc::LOCK_NB), again);
    assert_eq!(flock(&mut other, libc::LOCK_EX | libc::LOCK_NB), 0, "a conversion that fails loses the lock");
    // One that waits tries again later, and no thread of the host waits.
    let asked = one.call(libc::SYS_flock, [fd as u64, libc::LOCK_EX as u64, 0, 0, 0, 0], 0);
    assert!(matches!(asked, Err(Step::Waits { until_ns: Some(_), call: "flock" })), "{asked:?}");
    other.process.close_files();
    one.wake_in_time(false);
    one.run().unwrap();
    assert_eq!(one.machine.regs().rax, 0);
    let ranges = (0..1100).map(|range| one.lock(fd, set, WRITE, 2 * range, 1).unwrap());
    assert!(ranges.collect::<Vec<_>>().contains(&error(libc::ENOLCK)), "their number is bounded");
}

#[test]
fn a_program_that_holds_a_lock_is_named() {
    let root = tempfile::tempdir().unwrap();
    let mut puppet = booted(root.path(), 100, 10);
    let fd = puppet.open("/data/file", CREATE);
    assert_eq!(puppet.process.locked_file(), None);
    for command in [libc::F_SETLK, libc::F_OFD_SETLK] {
        assert_eq!(puppet.lock(fd, command, WRITE, 0, 0), Ok(0));
        assert_eq!(puppet.process.locked_file().as_deref(), Some("/data/file"));
        assert_eq!(puppet.lock(fd, command, UNLOCK, 0, 0), Ok(0));
        assert_eq!(puppet.process.locked_file(), None);
    }
    assert_eq!(puppet.lock(fd, libc::F_OFD_SETLK, READ, 0, 0), Ok(0));
    assert!(puppet.process.locked_file().is_some());
}

#[test]
fn shared_locks_of_a_process_stay_with_its_snapshot() {
    let root = tempfile::tempdir().unwrap();
    let mut puppet = booted(root.path(), 100, 10);
    let fd = puppet.open("/data/file", CREATE);
    let set = libc::F_SETLK;
    assert_eq!(puppet.lock(fd, set, READ, 0, 10), Ok(0));
    assert_eq!(puppet.process.locked_file(), None);
    let (image, frozen) = puppet.freeze();
    let host = fs::File::options().read(true).write(true).open(root.path().join("file")).unwrap();
    let whole = |kind| mayfly_files::set_lock(&host, mayfly_files::LockRange::ALL, kind).is_ok();
    let (mut one, mut other) = (Puppet::fork(&image, &frozen), Puppet::fork(&image, &frozen));
    for _ in 0..2 {
        assert!(!whole(Some(mayfly_files::FileLock::Exclusive)) && whole(Some(mayfly_files::FileLock::Shared)));
        assert!(whole(None));
        // Locks of the workers' own exclude each other.
        assert_eq!(one.lock(fd, set, WRITE, 20, 10), Ok(0));
        assert_eq!(other.lock(fd, set, READ, 25, 1), Ok(error(libc::EAGAIN)));
        assert_eq!(other.lock(fd, set, READ, 5, 1), Ok(0));
        assert_eq!(one.lock(fd, set, WRITE, 5, 1), Ok(error(libc::EAGAIN)), "it is the others', too");
        for worker in [&mut one, &mut other] {
            assert_eq!(worker.lock(fd, set, UNLOCK, 0, 10), Ok(0));
        }
        assert!(!whole(Some(mayfly_files::FileLock::Exclusive)), "the snapshot has it still");
        one.reset(&frozen).unwrap();
        other.reset(&frozen).unwrap();
    }
    drop((one, other));
    assert!(!whole(Some(mayfly_files::FileLock::Exclusive)));
    drop(frozen);
    assert!(whole(Some(mayfly_files::FileLock::Exclusive)));
}

#[test]
fn what_may_wait_for_the_disk_is_left_to_another_thread() {
    let root = tempfile::tempdir().unwrap();
    let mut puppet = booted(root.path(), 100, 10);
    let fd = puppet.open("/data/file", CREATE);
    assert_eq!(puppet.store(fd, 0, "text"), 4);
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    worker.text(0, "");
    worker.text(0x2000, "");
    let path = worker.text(0x400, "/data/file");
    let new = worker.text(0x800, "/data/new");
    worker.may_block = false;
    let fd = fd as u64;
    for (number, args, result) in [
        (libc::SYS_openat, [HERE, path, libc::O_RDWR as u64, 0, 0, 0], fd as i64 + 1),
        (libc::SYS_openat, [HERE, new, CREATE as u64, 0o600, 0, 0], fd as i64 + 2),
        (libc::SYS_pwrite64, [fd, WINDOW, 8, 0, 0, 0], 8),
        (libc::SYS_ftruncate, [fd, 100, 0, 0, 0, 0], 0),
        (libc::SYS_fsync, [fd, 0, 0, 0, 0, 0], 0),
        (libc::SYS_chmod, [path, 0o600, 0, 0, 0, 0], 0),
        (libc::SYS_link, [path, new, 0, 0, 0, 0], error(libc::EEXIST)),
        (libc::SYS_rename, [path, new, 0, 0, 0, 0], 0),
        (libc::SYS_unlink, [new, 0, 0, 0, 0, 0], 0),
        (libc::SYS_mkdir, [new, 0o700, 0, 0, 0, 0], 0),
        (libc::SYS_rmdir, [new, 0, 0, 0, 0, 0], 0),
    ] {
        // Some are refused at once.
        match worker.call(number, args, 0) {
            Err(Step::Waits { until_ns: Some(_), .. }) => assert_eq!(worker.go_on(), result, "call {number}"),
            other => assert_eq!(other, Ok(result), "call {number}"),
        }
    }
}

impl Puppet {
    /// Goes on on a thread that may block.
    fn go_on(&mut self) -> i64 {
        let mut rng = |bytes: &mut [u8]| bytes.fill(7);
        let mut context = crate::base::context::Context { output: &mut self.log, rng: &mut rng, may_block: true };
        assert_eq!(self.process.wake(&mut self.machine, &mut context), Step::Continue);
        self.may_block = true;
        self.run().unwrap();
        self.may_block = false;
        self.machine.regs().rax.cast_signed()
    }
}

#[test]
fn a_private_mapping_is_a_copy_and_a_file_that_was_cut_off_is_a_signal() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), [5; 3 * PAGE_SIZE as usize]).unwrap();
    let (image, frozen) = frozen(root.path());
    let mut worker = Puppet::fork(&image, &frozen);
    let fd = worker.open("/data/file", libc::O_RDWR) as u64;
    let map = |worker: &mut Puppet, flags: i32| {
        let flags = (flags | libc::MAP_FIXED) as u64;
        worker.call(libc::SYS_mmap, [MAP, 3 * PAGE_SIZE, RW, flags, fd, 0], 0).unwrap()
    };
    assert_eq!(map(&mut worker, libc::MAP_PRIVATE), MAP as i64);
    worker.call(libc::SYS_getpid, [0; 6], MAP).unwrap();
    assert_eq!(fs::read(root.path().join("file")).unwrap()[0], 5, "a private mapping");
    assert_eq!(worker.call(libc::SYS_ftruncate, [fd, PAGE_SIZE, 0, 0, 0, 0], 0), Ok(0));
    worker.call(libc::SYS_getpid, [0; 6], MAP).unwrap();
    let end = worker.call(libc::SYS_getpid, [0; 6], MAP + 2 * PAGE_SIZE);
    assert!(matches!(&end, Err(Step::Faulted(fault)) if fault.signal == libc::SIGBUS), "{end:?}");
}

#[test]
fn a_directory_that_cannot_be_durable_is_refused() {
    let access = MountAccess::Durable(DurableLimits { bytes: 1 << 20, files: 10 });
    let open = |host: &str| Mounts::open(&[MountPoint { guest: "/data".into(), host: host.into(), access }]);
    let error = open("/proc/self").unwrap_err();
    assert!(matches!(&error, MountError::Durable { .. }) && error.to_string().contains("not known to be"), "{error}");
    assert!(matches!(open("/nowhere").unwrap_err(), MountError::Open { .. }));
}
