// SPDX-License-Identifier: MIT OR Apache-2.0
//! `poll(2)` and `ppoll(2)`.

use super::{check_signal_set_size, count, int, waits_for_ever};
use crate::errno::{CallResult, Errno};
use crate::signals::SignalSet;
use crate::table::Call;

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
        let found = match call.process.files.open_file(fd) {
            _ if fd < 0 => 0,
            Err(_) => libc::POLLNVAL,
            Ok(open) => events & open.object.readiness(),
        };
        let returned = entry.checked_add(6).ok_or(Errno::EFAULT)?;
        call.user().write(returned, &found.to_le_bytes())?;
        ready = ready.saturating_add(u64::from(found != 0));
    }
    Ok(ready)
}
