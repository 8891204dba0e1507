// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors. There are three files: an empty standard input and the two output streams. Descriptors to them can be
//! duplicated and closed; nothing else can be opened yet.

use crate::errno::Errno;
use crate::process::Stream;

/// Most descriptors that a limit may allow.
const DESCRIPTORS_MAX: usize = 1024;

/// A file that a descriptor can stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum File {
    /// Standard input: to the program it is `/dev/null`, opened for reading.
    Null,
    /// An output stream: to the program it is the writing end of a pipe.
    Log(Stream),
}

/// An entry of the descriptor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) file: File,
    /// FD_CLOEXEC. Remembered for F_GETFD; nothing is ever executed.
    pub(crate) close_on_exec: bool,
}

/// The status flags of the three open files that programs may change (`O_APPEND`, `O_NONBLOCK`); duplicates share them.
#[derive(Clone, Copy, Debug, Default)]
struct StatusFlags {
    null: i32,
    stdout: i32,
    stderr: i32,
}

/// A program's descriptors.
///
/// # Invariants
///
/// The table never holds more than `limit` entries and does not end with an empty one.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    table: Vec<Option<Descriptor>>,
    flags: StatusFlags,
    /// Most descriptors at a time: RLIMIT_NOFILE.
    limit: usize,
}

/// Flags that `F_SETFL` may change on these files.
const CHANGEABLE: i32 = libc::O_APPEND | libc::O_NONBLOCK;

impl Files {
    /// Descriptors 0, 1 and 2, and at most `limit` together.
    pub(crate) fn standard(limit: usize) -> Self {
        let open = |file| Some(Descriptor { file, close_on_exec: false });
        Self {
            table: vec![open(File::Null), open(File::Log(Stream::Stdout)), open(File::Log(Stream::Stderr))],
            flags: StatusFlags::default(),
            limit: limit.clamp(3, DESCRIPTORS_MAX),
        }
    }

    /// Most descriptors at a time.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// What descriptor `fd` stands for.
    pub(crate) fn get(&self, fd: i32) -> Result<Descriptor, Errno> {
        usize::try_from(fd).ok().and_then(|index| *self.table.get(index)?).ok_or(Errno::EBADF)
    }

    pub(crate) fn close(&mut self, fd: i32) -> Result<(), Errno> {
        self.get(fd)?;
        if let Some(slot) = usize::try_from(fd).ok().and_then(|index| self.table.get_mut(index)) {
            *slot = None;
        }
        self.trim();
        Ok(())
    }

    /// Closes descriptors `first..=last`, as far as there are any.
    pub(crate) fn close_range(&mut self, first: u32, last: u32) {
        for (fd, slot) in (0_u32..).zip(&mut self.table) {
            if (first..=last).contains(&fd) {
                *slot = None;
            }
        }
        self.trim();
    }

    /// Sets FD_CLOEXEC on descriptors `first..=last`, as far as there are any.
    pub(crate) fn close_on_exec_range(&mut self, first: u32, last: u32) {
        for (fd, slot) in (0_u32..).zip(&mut self.table) {
            if let Some(descriptor) = slot
                && (first..=last).contains(&fd)
            {
                descriptor.close_on_exec = true;
            }
        }
    }

    pub(crate) fn set_close_on_exec(&mut self, fd: i32, close_on_exec: bool) -> Result<(), Errno> {
        let descriptor = self.get(fd)?;
        self.put(fd, Descriptor { close_on_exec, ..descriptor })
    }

    /// Duplicates `fd` to the lowest free number from `lowest` on.
    pub(crate) fn duplicate(&mut self, fd: i32, lowest: i32, close_on_exec: bool) -> Result<i32, Errno> {
        let descriptor = self.get(fd)?;
        let lowest = usize::try_from(lowest).ok().filter(|&lowest| lowest < self.limit).ok_or(Errno::EINVAL)?;
        let free = (lowest..self.limit).find(|&index| self.table.get(index).copied().flatten().is_none());
        let new = free.and_then(|index| i32::try_from(index).ok()).ok_or(Errno::EMFILE)?;
        self.put(new, Descriptor { close_on_exec, ..descriptor })?;
        Ok(new)
    }

    /// Duplicates `fd` to `new`, closing what was there.
    pub(crate) fn duplicate_to(&mut self, fd: i32, new: i32, close_on_exec: bool) -> Result<(), Errno> {
        let descriptor = self.get(fd)?;
        self.put(new, Descriptor { close_on_exec, ..descriptor })
    }

    /// What `F_GETFL` tells of a file.
    pub(crate) fn status_flags(&self, file: File) -> i32 {
        match file {
            File::Null => libc::O_RDONLY | self.flags.null,
            File::Log(Stream::Stdout) => libc::O_WRONLY | self.flags.stdout,
            File::Log(Stream::Stderr) => libc::O_WRONLY | self.flags.stderr,
        }
    }

    /// Changes what `F_SETFL` may change; other bits of `flags` do nothing, as on Linux.
    pub(crate) fn set_status_flags(&mut self, file: File, flags: i32) {
        let slot = match file {
            File::Null => &mut self.flags.null,
            File::Log(Stream::Stdout) => &mut self.flags.stdout,
            File::Log(Stream::Stderr) => &mut self.flags.stderr,
        };
        *slot = flags & CHANGEABLE;
    }

    fn put(&mut self, fd: i32, descriptor: Descriptor) -> Result<(), Errno> {
        let index = usize::try_from(fd).ok().filter(|&index| index < self.limit).ok_or(Errno::EBADF)?;
        if self.table.len() <= index {
            self.table.resize(index.saturating_add(1), None);
        }
        if let Some(slot) = self.table.get_mut(index) {
            *slot = Some(descriptor);
        }
        Ok(())
    }

    fn trim(&mut self) {
        while self.table.last().is_some_and(Option::is_none) {
            self.table.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_is_taken() {
        let mut files = Files::standard(DESCRIPTORS_MAX);
        assert_eq!(files.duplicate(1, 0, false), Ok(3));
        files.close(0).unwrap();
        assert_eq!(files.duplicate(2, 0, true), Ok(0));
        assert_eq!(files.get(0), Ok(Descriptor { file: File::Log(Stream::Stderr), close_on_exec: true }));
        assert_eq!(files.duplicate(1, 10, false), Ok(10));
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let mut files = Files::standard(DESCRIPTORS_MAX);
        for fd in [-1, 3, 1024, i32::MAX, i32::MIN] {
            assert_eq!(files.get(fd), Err(Errno::EBADF));
            assert_eq!(files.close(fd), Err(Errno::EBADF));
            assert_eq!(files.duplicate(fd, 0, false), Err(Errno::EBADF));
        }
        assert_eq!(files.duplicate_to(1, 1024, false), Err(Errno::EBADF));
        assert_eq!(files.duplicate_to(1, -1, false), Err(Errno::EBADF));
        assert_eq!(files.duplicate(1, 1024, false), Err(Errno::EINVAL));
        assert_eq!(files.duplicate(1, -1, false), Err(Errno::EINVAL));
    }

    #[test]
    fn the_table_is_bounded_and_shrinks() {
        let mut files = Files::standard(DESCRIPTORS_MAX);
        while files.duplicate(1, 0, false).is_ok() {}
        assert_eq!(files.table.len(), DESCRIPTORS_MAX);
        assert_eq!(files.duplicate(1, 0, false), Err(Errno::EMFILE));
        files.close_range(3, u32::MAX);
        assert_eq!(files.table.len(), 3);

        let mut files = Files::standard(5);
        while files.duplicate(1, 0, false).is_ok() {}
        assert_eq!(files.table.len(), 5);
        assert_eq!(files.duplicate_to(1, 5, false), Err(Errno::EBADF));
        assert_eq!((Files::standard(0).limit(), Files::standard(1 << 30).limit()), (3, DESCRIPTORS_MAX));
    }

    #[test]
    fn duplicates_share_status_flags_and_keep_their_own_close_on_exec() {
        let mut files = Files::standard(DESCRIPTORS_MAX);
        let copy = files.duplicate(1, 0, true).unwrap();
        let file = files.get(copy).unwrap().file;
        files.set_status_flags(file, libc::O_NONBLOCK | libc::O_RDWR);
        assert_eq!(files.status_flags(files.get(1).unwrap().file), libc::O_WRONLY | libc::O_NONBLOCK);
        assert!(!files.get(1).unwrap().close_on_exec);
    }
}
