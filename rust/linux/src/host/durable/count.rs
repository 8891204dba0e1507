// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts what the files of a durable directory take.

use std::collections::HashSet;
use std::io;

use mayfly_machine::PAGE_SIZE;
use rustix::fs::{AtFlags, Dir, FileType, OFlags};

use crate::base::errno::Errno;
use crate::host::files::{self, Root};

/// Most names that are counted.
const NAMES_MAX: u64 = 1_000_000;

/// Bytes and names of all that lies below a directory. Other file systems below it do not belong to it.
///
/// # Errors
///
/// There are too many names, or a directory cannot be read.
pub(crate) fn count(root: &Root) -> io::Result<(u64, u64)> {
    let (mut bytes, mut names) = (0_u64, 0_u64);
    let mut linked = HashSet::new();
    let mut pending: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(directory) = pending.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = match files::open(root, &directory, flags, true) {
            Ok(fd) => fd,
            // Removed meanwhile.
            Err(Errno::ENOENT | Errno::ENOTDIR) if !directory.is_empty() => continue,
            Err(error) => {
                let path = String::from_utf8_lossy(&directory).into_owned();
                let source = io::Error::from_raw_os_error(error.number());
                return Err(io::Error::new(source.kind(), format!("{path:?} in it cannot be read: {source}")));
            }
        };
        for entry in files::wait(root, &directory, || Dir::read_from(&fd))? {
            let entry = files::wait(root, &directory, || entry)?;
            let name = entry.file_name();
            if name.to_bytes() == b"." || name.to_bytes() == b".." {
                continue;
            }
            names = names.saturating_add(1);
            if names > NAMES_MAX {
                return Err(io::Error::other(format!("it has more than {NAMES_MAX} files")));
            }
            let look = || rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW);
            let Ok(stat) = files::wait(root, &directory, look) else { continue };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind.is_file() && (stat.st_nlink < 2 || linked.insert(stat.st_ino)) {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                bytes = bytes.saturating_add(size.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX));
            }
            if kind.is_dir() && stat.st_dev == root_device(root)? {
                let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
                pending.push([&directory, slash, name.to_bytes()].concat());
            }
        }
    }
    Ok((bytes, names))
}

fn root_device(root: &Root) -> io::Result<u64> {
    Ok(root.key()?.0)
}
