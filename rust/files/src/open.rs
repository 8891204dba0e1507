// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opens the file at a path if it is of the expected kind.
#![allow(clippy::disallowed_methods, reason = "this is the place")]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::errand::waiting_for;
use crate::problem::{FileKind, Problem};

/// A file that others must not read.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);
/// An open that meets a lease asks its holder to release it. The holder gets this long (`/proc/sys/fs/lease-break-time`
/// would be 45 s),
const LEASE: Duration = Duration::from_millis(500);
/// and the open is retried this often.
const LEASE_TICK: Duration = Duration::from_millis(5);
/// How often a name may appear and disappear while a file is made.
const ATTEMPTS: u32 = 8;

/// Opens a regular file for reading. Symbolic links are followed.
///
/// # Errors
///
/// [`Problem`].
pub fn open(path: &Path) -> Result<File, Problem> {
    regular(path, OFlags::empty(), OFlags::RDONLY)
}

/// As [`open`], but refuses a symbolic link at the end of the path.
///
/// # Errors
///
/// [`Problem`].
pub fn open_itself(path: &Path) -> Result<File, Problem> {
    regular(path, OFlags::NOFOLLOW, OFlags::RDONLY)
}

/// Opens a regular file for reading and writing, or makes one that only its owner may use. A symbolic link at the end
/// of the path is refused.
///
/// # Errors
///
/// [`Problem`].
pub fn open_or_create(path: &Path) -> Result<File, Problem> {
    for _ in 0..ATTEMPTS {
        match regular(path, OFlags::NOFOLLOW, OFlags::RDWR) {
            Err(problem) if problem.is_missing() => {}
            other => return other,
        }
        match create_new(path) {
            Err(Problem::Io(error)) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
    }
    Err(Problem::Replaced)
}

/// Makes a file that only its owner may use, open for reading and writing. Nothing may be at the path.
///
/// # Errors
///
/// [`Problem`].
pub fn create_new(path: &Path) -> Result<File, Problem> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(waiting_for(path, || retry(|| rustix::fs::open(path, flags, PRIVATE)))?.into())
}

/// As [`create_new`], but first removes what an earlier attempt has left there, without opening it.
///
/// # Errors
///
/// [`Problem`].
pub fn create_anew(path: &Path) -> Result<File, Problem> {
    match waiting_for(path, || std::fs::remove_file(path)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    create_new(path)
}

/// Opens a character device for reading and writing.
///
/// # Errors
///
/// [`Problem`].
pub fn open_device(path: &Path) -> Result<File, Problem> {
    let seen = Seen::at(path, OFlags::empty())?;
    seen.expect(FileKind::CharacterDevice)?;
    seen.open(OFlags::RDWR)
}

/// Makes renames in a directory survive a crash.
///
/// # Errors
///
/// [`Problem`].
pub fn sync_directory(path: &Path) -> Result<(), Problem> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    waiting_for(path, || {
        let directory = retry(|| rustix::fs::open(path, flags, Mode::empty()))?;
        rustix::fs::fsync(directory)
    })?;
    Ok(())
}

fn regular(path: &Path, look: OFlags, access: OFlags) -> Result<File, Problem> {
    let seen = Seen::at(path, look)?;
    seen.expect(FileKind::Regular)?;
    if let Some(system) = waiting_for(path, || system_of_kernel(&seen.fd))? {
        return Err(Problem::OfKernel { system });
    }
    seen.open(access)
}

/// The file at a path: held, so that nothing can take its place, and not opened.
struct Seen {
    fd: OwnedFd,
    stat: Stat,
    path: PathBuf,
}

impl Seen {
    fn at(path: &Path, flags: OFlags) -> Result<Self, Problem> {
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        let (fd, stat) = waiting_for(path, || {
            let fd = retry(|| rustix::fs::open(path, flags, Mode::empty()))?;
            let stat = rustix::fs::fstat(&fd)?;
            Ok::<_, Errno>((fd, stat))
        })?;
        Ok(Self { fd, stat, path: path.to_owned() })
    }

    fn expect(&self, expected: FileKind) -> Result<(), Problem> {
        let found = FileKind::from(FileType::from_raw_mode(self.stat.st_mode));
        if found == expected { Ok(()) } else { Err(Problem::Kind { found, expected }) }
    }

    /// Opens what was seen.
    fn open(&self, access: OFlags) -> Result<File, Problem> {
        // Regular files ignore O_NONBLOCK, except for leases; and no file may become this process's terminal.
        let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let start = Instant::now();
        loop {
            match waiting_for(&self.path, || self.reopen(flags)) {
                Err(Errno::INTR) => {}
                // EWOULDBLOCK, by open(2): a lease.
                Err(Errno::AGAIN) if start.elapsed() < LEASE => thread::sleep(LEASE_TICK),
                Err(Errno::AGAIN) => return Err(Problem::Leased { waited: LEASE }),
                Err(Errno::NOENT) => return self.open_by_name(flags),
                other => return Ok(other?.into()),
            }
        }
    }

    fn reopen(&self, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        rustix::fs::open(format!("/proc/self/fd/{}", self.fd.as_raw_fd()), flags, Mode::empty())
    }

    /// Where `/proc` is not mounted: opens the name again, and checks that the file is still the same.
    fn open_by_name(&self, flags: OFlags) -> Result<File, Problem> {
        let (fd, stat) = waiting_for(&self.path, || {
            let fd = retry(|| rustix::fs::open(&self.path, flags, Mode::empty()))?;
            let stat = rustix::fs::fstat(&fd)?;
            Ok::<_, Errno>((fd, stat))
        })?;
        if (stat.st_dev, stat.st_ino) == (self.stat.st_dev, self.stat.st_ino) {
            Ok(fd.into())
        } else {
            Err(Problem::Replaced)
        }
    }
}

/// The name of the file system, if it has only the kernel's own files: as in `statfs(2)` and
/// `include/uapi/linux/magic.h`.
fn system_of_kernel(fd: impl AsFd) -> rustix::io::Result<Option<&'static str>> {
    // The type of the field differs from one architecture to another, and so does its sign.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the numbers have 32 bits")]
    let kind = rustix::fs::fstatfs(fd)?.f_type as u32;
    Ok(Some(match kind {
        0x9fa0 => "procfs",
        0x6265_6572 => "sysfs",
        0x6462_6720 => "debugfs",
        0x7472_6163 => "tracefs",
        0x7363_6673 => "securityfs",
        0x0027_e0eb | 0x6367_7270 => "cgroup",
        0x6265_6570 => "configfs",
        0x6165_676c => "pstore",
        0xcafe_4a11 => "bpf",
        0xf97c_ff8c => "selinuxfs",
        0xde5e_81e4 => "efivarfs",
        0x4249_4e4d => "binfmt_misc",
        0x1980_0202 => "mqueue",
        0x6e73_6673 => "nsfs",
        _ => return Ok(None),
    }))
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    rustix::io::retry_on_intr(&mut call)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn fifo(path: &Path) {
        rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, PRIVATE, 0).unwrap();
    }

    /// The message for a path, from every function that opens a regular file.
    fn said(path: &Path) -> String {
        let told = [open(path), open_itself(path), open_or_create(path)].map(|opened| opened.unwrap_err().to_string());
        assert!(told.iter().all(|other| *other == told[0]), "{told:?}");
        told[0].clone()
    }

    #[test]
    fn a_file_that_is_not_regular_is_named_and_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fifo(&at("fifo"));
        let _socket = UnixListener::bind(at("socket")).unwrap();
        assert_eq!(said(&at("fifo")), "it is a FIFO: expected a regular file");
        assert_eq!(said(&at("socket")), "it is a socket: expected a regular file");
        assert_eq!(said(folder.path()), "it is a directory: expected a regular file");
        assert_eq!(said(Path::new("/dev/zero")), "it is a character device: expected a regular file");
        assert!(said(Path::new("/proc/version")).contains("belongs to the kernel (procfs)"));
        // A writer that waits for a reader still waits: the other end was not opened.
        let writer = std::fs::OpenOptions::new().write(true).custom_flags(0o4000).open(at("fifo"));
        assert_eq!(writer.unwrap_err().raw_os_error(), Some(6), "ENXIO: no reader");
    }

    #[test]
    fn links_are_followed_to_their_end_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "x").unwrap();
        fifo(&at("fifo"));
        for (link, target) in [("good", "file"), ("dangling", "nothing"), ("loop", "loop"), ("pipe", "fifo")] {
            symlink(target, at(link)).unwrap();
        }
        assert!(open(&at("good")).is_ok());
        assert_eq!(open_itself(&at("good")).unwrap_err().to_string(), "it is a symbolic link: expected a regular file");
        assert!(open_or_create(&at("dangling")).is_err(), "a link is not written through");
        assert!(open(&at("dangling")).unwrap_err().is_missing());
        assert!(open(&at("loop")).unwrap_err().to_string().contains("symbolic links"));
        assert!(matches!(open(&at("pipe")), Err(Problem::Kind { found: FileKind::Fifo, .. })));
    }

    #[test]
    fn files_are_made_for_their_owner_and_replace_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        open_or_create(&path).unwrap().write_all(b"kept").unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        open_or_create(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"kept");
        assert!(matches!(create_new(&path), Err(Problem::Io(_))));
        create_anew(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        let pipe = folder.path().join("pipe");
        fifo(&pipe);
        create_anew(&pipe).unwrap();
        assert!(pipe.metadata().unwrap().is_file(), "what lay there was removed, and not written to");
        assert!(create_anew(folder.path()).is_err());
        sync_directory(folder.path()).unwrap();
        assert!(sync_directory(&path).is_err());
    }

    #[test]
    fn only_a_device_is_opened_as_a_device() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        fifo(&pipe);
        assert!(open_device(Path::new("/dev/null")).is_ok());
        assert_eq!(open_device(&pipe).unwrap_err().to_string(), "it is a FIFO: expected a character device");
        assert!(open_device(&folder.path().join("none")).unwrap_err().is_missing());
    }
}
