// SPDX-License-Identifier: MIT OR Apache-2.0
//! `epoll(7)`.

use super::pipes;
use crate::base::arguments::{check_signal_set_size, count, int};
use crate::base::clock::{self, is_over};
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt, Wait};
use crate::base::ids::PollableId;
use crate::event::epoll_set::{Epoll, WatchTarget};
use crate::event::poll_bits::bits;
use crate::fs::object::Object;
use crate::kernel::call::Call;
use crate::pollables::table::PollableKind;
use crate::signal::signals::SignalSet;
use crate::time::calls::clocks;

/// Size of `struct epoll_event` on x86-64, where it is packed.
const EVENT_BYTES: usize = 12;
/// Most events that one call reports, whatever the program asks for.
const REPORTS_MAX: usize = 1024;
/// Linux's EP_MAX_EVENTS.
const EVENTS_MAX: i32 = i32::MAX / 12;
/// The flags permitted together with EPOLLEXCLUSIVE.
const EXCLUSIVE_WITH: u32 = bits::IN | bits::OUT | bits::ERR | bits::HUP | bits::WAKEUP | bits::ET | bits::EXCLUSIVE;

/// `epoll_create(2)`: the size is ignored, but must be positive.
pub(crate) fn epoll_create(call: &mut Call<'_, '_>) -> CallResult {
    let [size, ..] = call.args;
    if int(size) <= 0 {
        return Err(Errno::EINVAL.into());
    }
    create(call, 0)
}

/// `epoll_create1(2)`.
pub(crate) fn epoll_create1(call: &mut Call<'_, '_>) -> CallResult {
    let [flags, ..] = call.args;
    create(call, int(flags))
}

fn create(call: &mut Call<'_, '_>, flags: i32) -> CallResult {
    if flags & !libc::EPOLL_CLOEXEC != 0 {
        return Err(Errno::EINVAL.into());
    }
    call.process.files.check_room()?;
    pipes::make(call, PollableKind::Epoll(Epoll::default()), 0, flags & libc::EPOLL_CLOEXEC != 0)
}

/// What watching a descriptor watches. Files that are always ready cannot be watched.
fn target(call: &Call<'_, '_>, fd: i32) -> Result<WatchTarget, Errno> {
    match call.process.files.open_file(fd)?.object {
        Object::Pollable(id) => Ok(WatchTarget::Pollable(id)),
        Object::Log(stream) => Ok(WatchTarget::Log(stream)),
        _ => Err(Errno::EPERM),
    }
}

/// The epoll that a descriptor refers to.
pub(crate) fn epoll(call: &Call<'_, '_>, fd: i32) -> Result<PollableId, Errno> {
    let Object::Pollable(id) = call.process.files.open_file(fd)?.object else { return Err(Errno::EINVAL) };
    call.process.pollables.epoll(id)?;
    Ok(id)
}

/// `epoll_ctl(2)`.
pub(crate) fn epoll_ctl(call: &mut Call<'_, '_>) -> CallResult {
    let [epoll_fd, operation, fd, event, ..] = call.args;
    let (operation, fd) = (int(operation), int(fd));
    let (interest, data) = if operation == libc::EPOLL_CTL_DEL {
        (0, 0)
    } else {
        let [a, b, c, d, data @ ..] = call.user().read_array::<EVENT_BYTES>(event)?;
        (u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(data))
    };
    call.process.files.get(int(epoll_fd))?;
    let target = target(call, fd)?;
    let id = epoll(call, int(epoll_fd))?;
    if target == WatchTarget::Pollable(id) {
        return Err(Errno::EINVAL.into());
    }
    if interest & bits::EXCLUSIVE != 0 && operation == libc::EPOLL_CTL_ADD && interest & !EXCLUSIVE_WITH != 0 {
        return Err(Errno::EINVAL.into());
    }
    let pollables = call.process.pollables.edit();
    match operation {
        libc::EPOLL_CTL_ADD => pollables.watch(id, fd, target, interest, data)?,
        libc::EPOLL_CTL_MOD => pollables.rewatch(id, fd, target, interest, data)?,
        libc::EPOLL_CTL_DEL => pollables.forget(id, fd, target)?,
        _ => return Err(Errno::EINVAL.into()),
    }
    if operation != libc::EPOLL_CTL_DEL {
        call.note_change();
    }
    Ok(0)
}

/// `epoll_wait(2)`.
pub(crate) fn epoll_wait(call: &mut Call<'_, '_>) -> CallResult {
    let until = call.until(|call| Ok(milliseconds(call)))?;
    wait(call, until)
}

/// `epoll_pwait(2)`.
pub(crate) fn epoll_pwait(call: &mut Call<'_, '_>) -> CallResult {
    let until = call.until(|call| {
        mask(call)?;
        Ok(milliseconds(call))
    })?;
    wait(call, until)
}

/// `epoll_pwait2(2)`.
pub(crate) fn epoll_pwait2(call: &mut Call<'_, '_>) -> CallResult {
    let [_, _, _, timeout, ..] = call.args;
    let until = call.until(|call| {
        let until = match timeout {
            0 => None,
            timeout => Some(clock::now_ns().saturating_add(clocks::read_duration(call, timeout)?)),
        };
        mask(call)?;
        Ok(until)
    })?;
    wait(call, until)
}

/// The deadline of a call whose fourth argument is in milliseconds.
fn milliseconds(call: &Call<'_, '_>) -> Option<u64> {
    let [_, _, _, timeout, ..] = call.args;
    match u64::try_from(int(timeout)) {
        // Passed already; needs no look at the clock.
        Ok(0) => Some(0),
        Ok(time) => Some(clock::now_ns().saturating_add(time.saturating_mul(1_000_000))),
        Err(_) => None,
    }
}

/// As for `ppoll`: a pending signal that the mask unblocks is delivered first.
fn mask(call: &mut Call<'_, '_>) -> Result<(), Halt> {
    let [_, _, _, _, mask, size] = call.args;
    if mask != 0 {
        check_signal_set_size(size)?;
        let [mask] = call.user().read_words(mask)?;
        crate::signal::calls::signals::with_mask(call, SignalSet::mask(mask))?;
    }
    Ok(())
}

fn wait(call: &mut Call<'_, '_>, until_ns: Option<u64>) -> CallResult {
    let [fd, events, most, ..] = call.args;
    let most = int(most);
    if most <= 0 || most > EVENTS_MAX {
        return Err(Errno::EINVAL.into());
    }
    let id = epoll(call, int(fd))?;
    let most = usize::try_from(most).unwrap_or(1).min(REPORTS_MAX);
    call.process.poll_remotes();
    let mut look = call.process.look();
    let reports = call.process.pollables.reports(id, most, &mut look)?;
    if reports.is_empty() {
        if until_ns == Some(0) || is_over(until_ns) {
            return Ok(0);
        }
        let look_ns = call.process.pollables.next_expiry_ns(id, &mut look);
        return Err(Wait { call: "epoll_wait", until_ns, look_ns }.into());
    }
    let mut bytes = Vec::with_capacity(reports.len().saturating_mul(EVENT_BYTES));
    for report in &reports {
        bytes.extend(report.ready.to_le_bytes());
        bytes.extend(report.data.to_le_bytes());
    }
    call.user().write(events, &bytes)?;
    if !call.process.pollables.leaves_no_trace(id, &reports, most) {
        call.process.pollables.edit().mark_reported(id, &reports, most, &mut look);
    }
    Ok(count(reports.len()))
}
