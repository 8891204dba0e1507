// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors: reading, writing, duplicating, closing and asking about the three files that there are.

use super::{check_signal_set_size, count, int, waits_for_ever};
use crate::errno::{CallResult, Errno, Halt};
use crate::files::File;
use crate::identity::{GID, UID};
use crate::pages::PAGE_BYTES;
use crate::process::Stream;
use crate::signals::SignalSet;
use crate::table::Call;

/// Most bytes that one call writes; a program gets a short count and goes on, as with a full pipe.
const WRITE_MAX: u64 = 1 << 20;
/// Most buffers in one `writev`: IOV_MAX.
const VECTORS_MAX: u64 = 1024;

/// `read(2)`: standard input is at its end.
pub(crate) fn read(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, ..] = call.args;
    readable(call, fd)?;
    Ok(0)
}

/// `readv(2)`.
pub(crate) fn readv(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, _, vectors, ..] = call.args;
    readable(call, fd)?;
    if vectors > VECTORS_MAX { Err(Errno::EINVAL.into()) } else { Ok(0) }
}

/// `pread64(2)`.
pub(crate) fn pread(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, _, _, offset, ..] = call.args;
    if offset.cast_signed() < 0 {
        return Err(Errno::EINVAL.into());
    }
    match call.process.files.get(int(fd))?.file {
        File::Null => Ok(0),
        File::Log(_) => Err(Errno::ESPIPE.into()),
    }
}

fn readable(call: &Call<'_, '_>, fd: u64) -> Result<(), Errno> {
    match call.process.files.get(int(fd))?.file {
        File::Null => Ok(()),
        File::Log(_) => Err(Errno::EBADF),
    }
}

/// `write(2)`: to the tenant's log.
pub(crate) fn write(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, buffer, len, ..] = call.args;
    let mut pipe = Pipe::new(writable(call, fd)?);
    let result = pipe.copy(call, buffer, len);
    pipe.finish(call, result)
}

/// `writev(2)`.
pub(crate) fn writev(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, vectors, vector_count, ..] = call.args;
    let mut pipe = Pipe::new(writable(call, fd)?);
    if vector_count > VECTORS_MAX {
        return Err(Errno::EINVAL.into());
    }
    let mut result = Ok(());
    for index in 0..vector_count {
        let entry = vectors.checked_add(index.saturating_mul(16)).ok_or(Errno::EFAULT)?;
        let [buffer, len] = call.user().read_words(entry)?;
        if len.cast_signed() < 0 {
            return Err(Errno::EINVAL.into());
        }
        result = pipe.copy(call, buffer, len);
        if result.is_err() || pipe.budget == 0 {
            break;
        }
    }
    pipe.finish(call, result)
}

/// `pwrite64(2)`: pipes have no position.
pub(crate) fn pwrite(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, _, _, offset, ..] = call.args;
    if offset.cast_signed() < 0 {
        return Err(Errno::EINVAL.into());
    }
    writable(call, fd)?;
    Err(Errno::ESPIPE.into())
}

fn writable(call: &Call<'_, '_>, fd: u64) -> Result<Stream, Errno> {
    match call.process.files.get(int(fd))?.file {
        File::Null => Err(Errno::EBADF),
        File::Log(stream) => Ok(stream),
    }
}

/// One call's way to the log. As in a pipe, a page is the unit: one that could not be filled because of a bad pointer is not written
/// at all, and what a C library gathers for a line arrives as one piece.
struct Pipe {
    stream: Stream,
    page: [u8; PAGE_BYTES],
    used: usize,
    /// Bytes that have gone to the log.
    written: usize,
    /// Bytes that this call may still take.
    budget: u64,
}

impl Pipe {
    fn new(stream: Stream) -> Self {
        Self { stream, page: [0; PAGE_BYTES], used: 0, written: 0, budget: WRITE_MAX }
    }

    /// Takes `len` bytes at `buffer`, as far as they are readable and the budget lasts.
    fn copy(&mut self, call: &mut Call<'_, '_>, buffer: u64, len: u64) -> Result<(), Halt> {
        let wanted = len.min(self.budget);
        let mut done = 0;
        while done < wanted {
            let at = buffer.checked_add(done).ok_or(Errno::EFAULT)?;
            let room = self.page.get_mut(self.used..).unwrap_or_default();
            let left = usize::try_from(wanted.saturating_sub(done)).unwrap_or(room.len());
            let part = room.get_mut(..left.min(PAGE_BYTES.saturating_sub(self.used))).unwrap_or_default();
            call.user().read(at, part)?;
            done = done.saturating_add(count(part.len()));
            self.budget = self.budget.saturating_sub(count(part.len()));
            self.used = self.used.saturating_add(part.len());
            if self.used == PAGE_BYTES {
                self.flush(call);
            }
        }
        Ok(())
    }

    fn flush(&mut self, call: &mut Call<'_, '_>) {
        let bytes = self.page.get(..self.used).unwrap_or_default();
        if !bytes.is_empty() {
            call.context.output.write(self.stream, bytes);
        }
        self.written = self.written.saturating_add(self.used);
        self.used = 0;
    }

    /// What the call returns: how much was written, or the error if that is nothing.
    fn finish(mut self, call: &mut Call<'_, '_>, result: Result<(), Halt>) -> CallResult {
        match result {
            Ok(()) => self.flush(call),
            Err(Halt::Errno(_)) if self.written > 0 => {}
            Err(halt) => return Err(halt),
        }
        Ok(count(self.written))
    }
}

/// `close(2)`.
pub(crate) fn close(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, ..] = call.args;
    call.process.files.edit().close(int(fd))?;
    Ok(0)
}

/// `close_range(2)`.
pub(crate) fn close_range(call: &mut Call<'_, '_>) -> CallResult {
    let [first, last, flags, ..] = call.args;
    let (first, last) = (int(first).cast_unsigned(), int(last).cast_unsigned());
    let flags = int(flags).cast_unsigned();
    if first > last || flags & !(libc::CLOSE_RANGE_UNSHARE | libc::CLOSE_RANGE_CLOEXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let files = call.process.files.edit();
    if flags & libc::CLOSE_RANGE_CLOEXEC != 0 {
        files.close_on_exec_range(first, last);
    } else {
        files.close_range(first, last);
    }
    Ok(0)
}

/// `dup(2)`.
pub(crate) fn dup(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, ..] = call.args;
    let new = call.process.files.edit().duplicate(int(fd), 0, false)?;
    Ok(new.unsigned_abs().into())
}

/// `dup2(2)`.
pub(crate) fn dup2(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, new, ..] = call.args;
    let (fd, new) = (int(fd), int(new));
    if fd == new {
        call.process.files.get(fd)?;
    } else {
        call.process.files.edit().duplicate_to(fd, new, false)?;
    }
    Ok(new.unsigned_abs().into())
}

/// `dup3(2)`.
pub(crate) fn dup3(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, new, flags, ..] = call.args;
    let (fd, new, flags) = (int(fd), int(new), int(flags));
    if fd == new || flags & !libc::O_CLOEXEC != 0 {
        return Err(Errno::EINVAL.into());
    }
    call.process.files.edit().duplicate_to(fd, new, flags & libc::O_CLOEXEC != 0)?;
    Ok(new.unsigned_abs().into())
}

/// `fcntl(2)`: duplicating, and descriptor and status flags.
pub(crate) fn fcntl(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, command, argument, ..] = call.args;
    let fd = int(fd);
    let descriptor = call.process.files.get(fd)?;
    let files = &mut call.process.files;
    let value = match int(command) {
        libc::F_DUPFD => files.edit().duplicate(fd, int(argument), false)?,
        libc::F_DUPFD_CLOEXEC => files.edit().duplicate(fd, int(argument), true)?,
        libc::F_GETFD => i32::from(descriptor.close_on_exec),
        libc::F_SETFD => {
            files.edit().set_close_on_exec(fd, int(argument) & libc::FD_CLOEXEC != 0)?;
            0
        }
        libc::F_GETFL => files.status_flags(descriptor.file),
        libc::F_SETFL => {
            files.edit().set_status_flags(descriptor.file, int(argument));
            0
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    Ok(value.unsigned_abs().into())
}

/// `ioctl(2)`: nothing here is a terminal.
pub(crate) fn ioctl(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, ..] = call.args;
    call.process.files.get(int(fd))?;
    Err(Errno::ENOTTY.into())
}

/// `lseek(2)`: `/dev/null` is at 0 whatever one does, a pipe has no position.
pub(crate) fn lseek(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, ..] = call.args;
    match call.process.files.get(int(fd))?.file {
        File::Null => Ok(0),
        File::Log(_) => Err(Errno::ESPIPE.into()),
    }
}

/// `fstat(2)`.
pub(crate) fn fstat(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, buffer, ..] = call.args;
    let file = call.process.files.get(int(fd))?.file;
    call.user().write(buffer, &stat_of(file))?;
    Ok(0)
}

/// What the program is told of a file: the numbers that `stat` and `statx` share.
pub(crate) struct Attributes {
    pub(crate) inode: u64,
    pub(crate) mode: u32,
    pub(crate) device_major: u32,
    pub(crate) device_minor: u32,
}

impl Attributes {
    pub(crate) const BLOCK_SIZE: u32 = 4096;

    pub(crate) fn of(file: File) -> Self {
        match file {
            File::Null => Self { inode: 1, mode: libc::S_IFCHR | 0o666, device_major: 1, device_minor: 3 },
            File::Log(Stream::Stdout) => {
                Self { inode: 2, mode: libc::S_IFIFO | 0o600, device_major: 0, device_minor: 0 }
            }
            File::Log(Stream::Stderr) => {
                Self { inode: 3, mode: libc::S_IFIFO | 0o600, device_major: 0, device_minor: 0 }
            }
        }
    }
}

/// `struct stat` of `<asm/stat.h>`: 144 bytes, with all times and sizes 0.
pub(crate) fn stat_of(file: File) -> [u8; 144] {
    let attributes = Attributes::of(file);
    let device = (u64::from(attributes.device_major) << 8) | u64::from(attributes.device_minor);
    let mode_uid = u64::from(attributes.mode) | u64::from(UID) << 32;
    // st_dev, st_ino, st_nlink, st_mode and st_uid, st_gid and padding, st_rdev, st_size, st_blksize
    let words = [0, attributes.inode, 1, mode_uid, GID.into(), device, 0, Attributes::BLOCK_SIZE.into()];
    let mut bytes = [0; 144];
    for (slot, word) in bytes.chunks_exact_mut(8).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// `poll(2)`.
pub(crate) fn poll(call: &mut Call<'_, '_>) -> CallResult {
    let [fds, fd_count, timeout, ..] = call.args;
    let ready = poll_all(call, fds, fd_count)?;
    if ready == 0 && int(timeout) < 0 {
        return Err(waits_for_ever("poll without a timeout"));
    }
    Ok(ready)
}

/// `ppoll(2)`. The mask cannot let a signal in that is not pending already, and a pending one is delivered first.
pub(crate) fn ppoll(call: &mut Call<'_, '_>) -> CallResult {
    let [fds, fd_count, timeout, mask, mask_size, _] = call.args;
    if timeout != 0 {
        super::time::read_duration(call, timeout)?;
    }
    if mask != 0 {
        check_signal_set_size(mask_size)?;
        let [mask] = call.user().read_words(mask)?;
        super::signals::with_mask(call, SignalSet::mask(mask))?;
    }
    let ready = poll_all(call, fds, fd_count)?;
    if ready == 0 && timeout == 0 {
        return Err(waits_for_ever("ppoll without a timeout"));
    }
    Ok(ready)
}

/// Fills in what each descriptor is ready for, now, and counts those that are ready for something. Waiting would change nothing.
fn poll_all(call: &mut Call<'_, '_>, fds: u64, fd_count: u64) -> CallResult {
    if fd_count > count(call.process.files.limit()) {
        return Err(Errno::EINVAL.into());
    }
    let mut ready: u64 = 0;
    for index in 0..fd_count {
        let entry = fds.checked_add(index.saturating_mul(8)).ok_or(Errno::EFAULT)?;
        let [a, b, c, d, e, f, _, _] = call.user().read_array(entry)?;
        let (fd, events) = (i32::from_le_bytes([a, b, c, d]), i16::from_le_bytes([e, f]));
        let found = match call.process.files.get(fd) {
            _ if fd < 0 => 0,
            Err(_) => libc::POLLNVAL,
            Ok(open) => events & readiness(open.file),
        };
        let returned = entry.checked_add(6).ok_or(Errno::EFAULT)?;
        call.user().write(returned, &found.to_le_bytes())?;
        ready = ready.saturating_add(u64::from(found != 0));
    }
    Ok(ready)
}

/// What a file is always ready for.
fn readiness(file: File) -> i16 {
    const OUT: i16 = libc::POLLOUT | libc::POLLWRNORM;
    match file {
        File::Null => libc::POLLIN | libc::POLLRDNORM | OUT,
        File::Log(_) => OUT,
    }
}
