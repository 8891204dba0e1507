// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads and writes event counters and timers: `eventfd(2)`, `timerfd_create(2)`.

use crate::base::clock;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Wait};
use crate::base::ids::PollableId;
use crate::event::events::{Counter, Event};
use crate::kernel::buffers::{self, Buffer};
use crate::kernel::call::Call;
use crate::pollables::table::PollableKind;

/// The address of the first buffer that is at least 8 bytes long.
fn word(buffers: &[Buffer]) -> Result<u64, Errno> {
    if buffers::total(buffers) < 8 {
        return Err(Errno::EINVAL);
    }
    buffers.iter().find(|buffer| buffer.len >= 8).map(|buffer| buffer.address).ok_or(Errno::EINVAL)
}

fn counter(call: &Call<'_, '_>, id: PollableId) -> Result<Counter, Errno> {
    match call.process.pollables.kind(id) {
        Some(PollableKind::Counter(counter)) => Ok(*counter),
        _ => Err(Errno::EBADF),
    }
}

pub(crate) fn read_counter(
    call: &mut Call<'_, '_>,
    id: PollableId,
    buffers: &[Buffer],
    nonblocking: bool,
) -> CallResult {
    let address = word(buffers)?;
    let counter = counter(call, id)?;
    if counter.value == 0 {
        return wait_unless(nonblocking, "read", None);
    }
    let taken = if counter.semaphore { 1 } else { counter.value };
    // As on Linux, the value is taken even if it cannot be written to the program's buffer.
    set_counter(call, id, counter.value.saturating_sub(taken), Event::Output);
    call.user().write(address, &taken.to_le_bytes())?;
    Ok(8)
}

pub(crate) fn write_counter(
    call: &mut Call<'_, '_>,
    id: PollableId,
    buffers: &[Buffer],
    nonblocking: bool,
) -> CallResult {
    let address = word(buffers)?;
    let [added] = call.user().read_words(address)?;
    let counter = counter(call, id)?;
    if added == u64::MAX {
        return Err(Errno::EINVAL.into());
    }
    match counter.value.checked_add(added).filter(|&sum| sum < u64::MAX) {
        Some(sum) => set_counter(call, id, sum, Event::Input),
        None => return wait_unless(nonblocking, "write", None),
    }
    Ok(8)
}

fn set_counter(call: &mut Call<'_, '_>, id: PollableId, value: u64, event: Event) {
    let pollables = call.process.pollables.edit();
    if let Some(PollableKind::Counter(counter)) = pollables.get_mut(id).map(|pollable| &mut pollable.kind) {
        counter.value = value;
    }
    pollables.record_event(id, event);
    call.note_change();
}

pub(crate) fn read_timer(call: &mut Call<'_, '_>, id: PollableId, buffers: &[Buffer], nonblocking: bool) -> CallResult {
    let address = word(buffers)?;
    let Some(PollableKind::Timer(timer)) = call.process.pollables.kind(id).cloned() else {
        return Err(Errno::EBADF.into());
    };
    let now = clock::now_ns();
    let expired = timer.expired(now);
    if expired == 0 {
        return wait_unless(nonblocking, "read", timer.next_ns);
    }
    call.user().write(address, &expired.to_le_bytes())?;
    let pollables = call.process.pollables.edit();
    if let Some(pollable) = pollables.get_mut(id)
        && let PollableKind::Timer(timer) = &mut pollable.kind
    {
        timer.take(now);
        // An unread expiration was an input event, and remains one.
        pollable.events.input = pollable.events.input.wrapping_add(1);
    }
    Ok(8)
}

fn wait_unless(nonblocking: bool, call: &'static str, look_ns: Option<u64>) -> CallResult {
    if nonblocking { Err(Errno::EAGAIN.into()) } else { Err(Wait { call, until_ns: None, look_ns }.into()) }
}
