// SPDX-License-Identifier: MIT OR Apache-2.0
//! `poll(2)` and `ppoll(2)`.

use super::{check_signal_set_size, count, int};
use crate::clock;
use crate::errno::{CallResult, Errno};
use crate::signals::SignalSet;
use crate::table::{Call, is_over};
use crate::threads::Wait;

/// `poll(2)`.
pub(crate) fn poll(call: &mut Call<'_, '_>) -> CallResult {
    let [fds, fd_count, timeout, ..] = call.args;
    let until = call.until(|_| {
        let milliseconds = u64::try_from(int(timeout)).ok();
        Ok(milliseconds.map(|time| clock::now_ns().saturating_add(time.saturating_mul(1_000_000))))
    })?;
    wait_for(call, "poll", fds, fd_count, until)
}

/// `ppoll(2)`. The mask cannot let a signal in that is not pending already, and a pending one is delivered first.
pub(crate) fn ppoll(call: &mut Call<'_, '_>) -> CallResult {
    let [fds, fd_count, timeout, mask, mask_size, _] = call.args;
    let until = call.until(|call| {
        let until = match timeout {
            0 => None,
            timeout => Some(clock::now_ns().saturating_add(super::time::read_duration(call, timeout)?)),
        };
        if mask != 0 {
            check_signal_set_size(mask_size)?;
            let [mask] = call.user().read_words(mask)?;
            super::signals::with_mask(call, SignalSet::mask(mask))?;
        }
        Ok(until)
    })?;
    wait_for(call, "ppoll", fds, fd_count, until)
}

fn wait_for(call: &mut Call<'_, '_>, name: &'static str, fds: u64, fd_count: u64, until: Option<u64>) -> CallResult {
    let ready = poll_all(call, fds, fd_count)?;
    if ready > 0 || is_over(until) {
        Ok(ready)
    } else {
        Err(Wait { call: name, until_ns: until, look_ns: None }.into())
    }
}

/// Fills in what each descriptor is ready for now, and counts those that are ready for something.
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
