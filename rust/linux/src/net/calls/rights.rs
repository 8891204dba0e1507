// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors and credentials sent over Unix sockets: `SCM_RIGHTS` and `SCM_CREDENTIALS` of unix(7).
//!
//! The queue holds references to open files in flight: a file stays open until the receiver has closed it too. One that
//! cannot be received, since it is in flight over itself, stays until the reset; there are at most [`IN_FLIGHT_MAX`].

use super::transfer;
use crate::base::arguments::{count, int};
use crate::base::errno::Errno;
use crate::base::halt::Halt;
use crate::base::identity::{GID, PID, UID};
use crate::base::ids::{OpenId, QueueId};
use crate::fs::open_files::IN_FLIGHT_MAX;
use crate::kernel::call::Call;
use crate::kernel::closing;

/// SCM_MAX_FD.
const DESCRIPTORS_MAX: usize = 253;
/// Size of `struct cmsghdr`.
const HEAD_BYTES: u64 = 16;
/// Most bytes of control messages: `net.core.optmem_max`.
const CONTROL_MAX: u64 = 20_480;
const SCM_CREDENTIALS: i32 = 2;
/// Size of `struct ucred`.
const CREDENTIALS_BYTES: u64 = 12;

/// The open files that control messages name; without references to them yet.
pub(crate) fn read(call: &mut Call<'_, '_>, control: u64, len: u64) -> Result<Vec<OpenId>, Halt> {
    let mut open = Vec::new();
    if control == 0 {
        return Ok(open);
    }
    if len > CONTROL_MAX {
        return Err(Errno::ENOBUFS.into());
    }
    let mut at: u64 = 0;
    while len.saturating_sub(at) >= HEAD_BYTES {
        let head = control.checked_add(at).ok_or(Errno::EFAULT)?;
        let [size, what] = call.user().read_words(head)?;
        if size < HEAD_BYTES || size > len.saturating_sub(at) {
            return Err(Errno::EINVAL.into());
        }
        match (int(what), int(what >> 32)) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                for index in 0..size.saturating_sub(HEAD_BYTES) / 4 {
                    let slot = head.checked_add(HEAD_BYTES.saturating_add(index.saturating_mul(4)));
                    let fd = call.user().read_u32(slot.ok_or(Errno::EFAULT)?)?;
                    if open.len() >= DESCRIPTORS_MAX {
                        return Err(Errno::EINVAL.into());
                    }
                    open.push(call.process.files.get(fd.cast_signed())?.open);
                }
            }
            (libc::SOL_SOCKET, SCM_CREDENTIALS) => {
                if size != HEAD_BYTES.saturating_add(CREDENTIALS_BYTES) {
                    return Err(Errno::EINVAL.into());
                }
                let at = head.checked_add(HEAD_BYTES).ok_or(Errno::EFAULT)?;
                let [pid, user, group] = read_credentials(call, at)?;
                // Only the sender's own credentials are permitted; the receiver gets those.
                if [pid, user, group] != [PID, UID, GID] {
                    return Err(Errno::EPERM.into());
                }
            }
            (libc::SOL_SOCKET, _) => return Err(Errno::EINVAL.into()),
            _ => {}
        }
        at = at.saturating_add(size.next_multiple_of(8));
    }
    Ok(open)
}

fn read_credentials(call: &mut Call<'_, '_>, at: u64) -> Result<[u32; 3], Halt> {
    let [pid, user, group] = [0, 4, 8].map(|offset| at.checked_add(offset));
    Ok([
        call.user().read_u32(pid.ok_or(Errno::EFAULT)?)?,
        call.user().read_u32(user.ok_or(Errno::EFAULT)?)?,
        call.user().read_u32(group.ok_or(Errno::EFAULT)?)?,
    ])
}

/// Writes a control message with the sender's credentials, for a socket with SO_PASSCRED. Returns the size of its part
/// of `room`, and whether it fits.
pub(crate) fn write_credentials(call: &mut Call<'_, '_>, control: u64, room: u64) -> Result<(u64, bool), Halt> {
    let size = HEAD_BYTES.saturating_add(CREDENTIALS_BYTES);
    if room < size {
        return Ok((0, false));
    }
    let what = u64::from(libc::SOL_SOCKET.cast_unsigned()) | u64::from(SCM_CREDENTIALS.cast_unsigned()) << 32;
    call.user().write_words(control, &[size, what])?;
    let bytes: Vec<u8> = [PID, UID, GID].iter().flat_map(|number| number.to_le_bytes()).collect();
    call.user().write(control.checked_add(HEAD_BYTES).ok_or(Errno::EFAULT)?, &bytes)?;
    Ok((size.next_multiple_of(8).min(room), true))
}

/// Refuses to exceed the limit on open files in flight.
pub(crate) fn check(call: &Call<'_, '_>, open: &[OpenId]) -> Result<(), Errno> {
    let all = call.process.pollables.in_flight().saturating_add(open.len());
    if all > IN_FLIGHT_MAX { Err(Errno::ETOOMANYREFS) } else { Ok(()) }
}

/// Attaches open files to the last `count` bytes of a queue, or to its last message.
pub(crate) fn attach(call: &mut Call<'_, '_>, queue: QueueId, count: usize, open: Vec<OpenId>) {
    for &open in &open {
        call.process.files.edit().hold(open);
    }
    if let Some(queue) = call.process.pollables.edit().queue_mut(queue) {
        queue.attach(count, open);
    }
}

/// Installs descriptors for received open files, and writes a control message of at most `room` bytes. Returns its
/// size, and whether it lists all. Open files without space in it are closed. So are all, as on Linux, if it cannot be
/// written: the program would not know their numbers.
pub(crate) fn write(
    call: &mut Call<'_, '_>,
    control: u64,
    room: u64,
    open: Vec<OpenId>,
    close_on_exec: bool,
) -> Result<(u64, bool), Halt> {
    if open.is_empty() {
        return Ok((0, true));
    }
    let fitting = usize::try_from(room.saturating_sub(HEAD_BYTES) / 4).unwrap_or(0);
    let mut numbers = Vec::new();
    let mut rest = open.into_iter();
    let mut left = Vec::new();
    while numbers.len() < fitting
        && let Some(open) = rest.next()
    {
        match call.process.files.edit().install_held(open, close_on_exec) {
            Ok(fd) => numbers.push(fd),
            Err(_) => {
                left.push(open);
                break;
            }
        }
    }
    left.extend(rest);
    let whole = left.is_empty();
    transfer::close_unclaimed(call, left);
    if numbers.is_empty() {
        return Ok((0, whole));
    }
    let size = HEAD_BYTES.saturating_add(count(numbers.len()).saturating_mul(4));
    if let Err(halt) = write_rights(call, control, size, &numbers) {
        for fd in numbers {
            let gone = call.process.files.edit().close(fd)?;
            closing::forget(call, gone);
        }
        return if matches!(halt, Halt::Errno(Errno::EFAULT)) { Ok((0, false)) } else { Err(halt) };
    }
    Ok((size.next_multiple_of(8).min(room), whole))
}

/// Writes a control message of `size` bytes that lists descriptors.
fn write_rights(call: &mut Call<'_, '_>, control: u64, size: u64, numbers: &[i32]) -> Result<(), Halt> {
    let what = u64::from(libc::SOL_SOCKET.cast_unsigned()) | u64::from(libc::SCM_RIGHTS.cast_unsigned()) << 32;
    call.user().write_words(control, &[size, what])?;
    let bytes: Vec<u8> = numbers.iter().flat_map(|fd| fd.to_le_bytes()).collect();
    call.user().write(control.checked_add(HEAD_BYTES).ok_or(Errno::EFAULT)?, &bytes)
}
