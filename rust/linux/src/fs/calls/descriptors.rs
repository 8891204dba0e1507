// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls on descriptors: duplicate, close, flags.

use crate::base::arguments::int;
use crate::base::errno::Errno;
use crate::base::halt::CallResult;
use crate::kernel::call::Call;
use crate::kernel::closing::forget;

/// `close(2)`.
pub(crate) fn close(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, ..] = call.args;
    let closed = call.process.files.edit().close(int(fd))?;
    forget(call, closed);
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
        let closed = files.close_range(first, last);
        forget(call, closed);
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
        let closed = call.process.files.edit().duplicate_to(fd, new, false)?;
        forget(call, closed);
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
    let closed = call.process.files.edit().duplicate_to(fd, new, flags & libc::O_CLOEXEC != 0)?;
    forget(call, closed);
    Ok(new.unsigned_abs().into())
}

/// `fcntl(2)`: duplication, descriptor flags and status flags.
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
        libc::F_GETFL => files.open_file(fd)?.flags,
        libc::F_SETFL => {
            files.edit().set_status_flags(fd, int(argument))?;
            0
        }
        libc::F_GET_SEALS => super::overlay_mappings::seals(call, fd, None)?,
        libc::F_ADD_SEALS => super::overlay_mappings::seals(call, fd, Some(argument))?,
        libc::F_GETPIPE_SZ => crate::event::calls::pipes::capacity(call, fd, None)?,
        libc::F_SETPIPE_SZ => crate::event::calls::pipes::capacity(call, fd, Some(argument))?,
        command @ (libc::F_GETLK
        | libc::F_OFD_GETLK
        | libc::F_SETLK
        | libc::F_SETLKW
        | libc::F_OFD_SETLK
        | libc::F_OFD_SETLKW) => return super::locks::fcntl(call, fd, command, argument),
        _ => return Err(Errno::EINVAL.into()),
    };
    Ok(value.unsigned_abs().into())
}
