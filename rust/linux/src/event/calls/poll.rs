// SPDX-License-Identifier: MIT OR Apache-2.0
//! `poll(2)`, `select(2)` and the like.

use crate::base::arguments::{check_signal_set_size, count, int};
use crate::base::clock::{self, is_over};
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt, Wait};
use crate::event::interest::{ENTRY_BYTES, SET_BYTES, entry};
use crate::event::look::earlier;
use crate::event::poll_bits::bits;
use crate::fs::object::Object;
use crate::kernel::call::Call;
use crate::signal::signals::SignalSet;
use crate::time::calls::clocks;

/// `poll(2)`.
pub(crate) fn poll(call: &mut Call<'_, '_>) -> CallResult {
    let [fds, fd_count, timeout, ..] = call.args;
    let until = call.until(|_| {
        let milliseconds = u64::try_from(int(timeout)).ok();
        Ok(milliseconds.map(|time| clock::now_ns().saturating_add(time.saturating_mul(1_000_000))))
    })?;
    poll_until(call, "poll", fds, fd_count, until)
}

/// `ppoll(2)`. The mask can only unblock signals that are already pending, and these are delivered first.
pub(crate) fn ppoll(call: &mut Call<'_, '_>) -> CallResult {
    let [fds, fd_count, timeout, mask, mask_size, _] = call.args;
    let until = call.until(|call| {
        let until = match timeout {
            0 => None,
            timeout => Some(clock::now_ns().saturating_add(clocks::read_duration(call, timeout)?)),
        };
        if mask != 0 {
            check_signal_set_size(mask_size)?;
            let [mask] = call.user().read_words(mask)?;
            crate::signal::calls::signals::with_mask(call, SignalSet::mask(mask))?;
        }
        Ok(until)
    })?;
    poll_until(call, "ppoll", fds, fd_count, until)
}

/// The entries of a `poll`: descriptors and their events.
fn read_entries(call: &mut Call<'_, '_>, fds: u64, fd_count: u64) -> Result<Vec<u8>, Halt> {
    if fd_count > count(call.process.files.limit()) {
        return Err(Errno::EINVAL.into());
    }
    let mut entries = vec![0; usize::try_from(fd_count).unwrap_or(0).saturating_mul(ENTRY_BYTES)];
    call.user().read(fds, &mut entries)?;
    Ok(entries)
}

/// Writes each descriptor's present readiness. Waits if there is none.
fn poll_until(
    call: &mut Call<'_, '_>,
    name: &'static str,
    fds: u64,
    fd_count: u64,
    until_ns: Option<u64>,
) -> CallResult {
    let mut entries = read_entries(call, fds, fd_count)?;
    call.process.poll_remotes();
    let mut look = call.process.look();
    let mut ready: u64 = 0;
    let mut look_ns = None;
    for bytes in entries.as_chunks_mut::<ENTRY_BYTES>().0 {
        let (fd, interest) = entry(bytes);
        let found = match call.process.files.open_file(fd) {
            _ if fd < 0 => 0,
            Err(_) => bits::NVAL,
            Ok(open) => {
                if let Object::Pollable(id) = open.object {
                    look_ns = earlier(look_ns, call.process.pollables.next_expiry_ns(id, &mut look));
                }
                open.object.readiness(call.process, &mut look) & interest
            }
        };
        let [_, _, _, _, _, _, low, high] = bytes;
        [*low, *high] = u16::try_from(found).unwrap_or(0).to_le_bytes();
        ready = ready.saturating_add(u64::from(found != 0));
    }
    if ready == 0 && !is_over(until_ns) {
        return Err(Wait { call: name, until_ns, look_ns }.into());
    }
    call.user().write(fds, &entries)?;
    Ok(ready)
}

/// The events of each of `select`'s three sets: Linux's POLLIN_SET, POLLOUT_SET and POLLEX_SET.
const SETS: [u32; 3] =
    [bits::READ | bits::RDBAND | bits::HUP | bits::ERR, bits::WRITE | bits::WRBAND | bits::ERR, bits::PRI];

/// `select(2)`. Writes back the remaining time, as Linux does.
pub(crate) fn select(call: &mut Call<'_, '_>) -> CallResult {
    let [.., timeout, _] = call.args;
    let until = call.until(|call| {
        if timeout == 0 {
            return Ok(None);
        }
        let [seconds, microseconds] = call.user().read_words(timeout)?;
        if seconds.cast_signed() < 0 || microseconds.cast_signed() < 0 {
            return Err(Errno::EINVAL.into());
        }
        let duration = clock::total_ns(seconds, microseconds.saturating_mul(1000));
        Ok(Some(clock::now_ns().saturating_add(duration)))
    })?;
    let result = select_until(call, "select", until)?;
    write_remaining(call, timeout, until, 1000)?;
    Ok(result)
}

/// `pselect6(2)`.
pub(crate) fn pselect6(call: &mut Call<'_, '_>) -> CallResult {
    let [.., timeout, mask] = call.args;
    let until = call.until(|call| {
        let until = match timeout {
            0 => None,
            timeout => Some(clock::now_ns().saturating_add(clocks::read_duration(call, timeout)?)),
        };
        if mask != 0 {
            let [mask, size] = call.user().read_words(mask)?;
            if mask != 0 {
                check_signal_set_size(size)?;
                let [mask] = call.user().read_words(mask)?;
                crate::signal::calls::signals::with_mask(call, SignalSet::mask(mask))?;
            }
        }
        Ok(until)
    })?;
    let result = select_until(call, "pselect", until)?;
    write_remaining(call, timeout, until, 1)?;
    Ok(result)
}

fn write_remaining(call: &mut Call<'_, '_>, timeout: u64, until: Option<u64>, unit_ns: u64) -> Result<(), Halt> {
    let Some(until) = until else { return Ok(()) };
    let left = until.saturating_sub(clock::now_ns());
    let words = [left / 1_000_000_000, (left % 1_000_000_000).checked_div(unit_ns).unwrap_or(0)];
    call.commit();
    match call.user().write_words(timeout, &words) {
        // The time-out may lie in read-only memory.
        Err(Halt::Errno(_)) => Ok(()),
        other => other,
    }
}

/// The three sets of a `select`, and the size of each in bytes.
fn read_sets(call: &mut Call<'_, '_>) -> Result<([[u8; SET_BYTES]; 3], usize), Halt> {
    let [fd_count, first, second, third, ..] = call.args;
    let fd_count = usize::try_from(int(fd_count)).map_err(|_| Errno::EINVAL)?.min(call.process.files.limit());
    // Rounded up to whole words, as on Linux.
    let bytes = fd_count.div_ceil(64).saturating_mul(8).min(SET_BYTES);
    let mut sets = [[0; SET_BYTES]; 3];
    for (set, address) in sets.iter_mut().zip([first, second, third]) {
        if address != 0 {
            call.user().read(address, set.get_mut(..bytes).unwrap_or_default())?;
        }
    }
    Ok((sets, fd_count))
}

fn select_until(call: &mut Call<'_, '_>, name: &'static str, until_ns: Option<u64>) -> CallResult {
    let (asked, fd_count) = read_sets(call)?;
    call.process.poll_remotes();
    let mut found = [[0; SET_BYTES]; 3];
    let mut look = call.process.look();
    let (mut ready, mut look_ns) = (0_u64, None);
    for fd in 0..fd_count {
        let (byte, bit) = (fd / 8, 1_u8.wrapping_shl(u32::try_from(fd % 8).unwrap_or(0)));
        let is_in = |set: &[u8; SET_BYTES]| set.get(byte).is_some_and(|byte| byte & bit != 0);
        if !asked.iter().any(is_in) {
            continue;
        }
        let open = call.process.files.open_file(i32::try_from(fd).unwrap_or(-1))?;
        if let Object::Pollable(id) = open.object {
            look_ns = earlier(look_ns, call.process.pollables.next_expiry_ns(id, &mut look));
        }
        let readiness = open.object.readiness(call.process, &mut look);
        for ((asked, found), wanted) in asked.iter().zip(&mut found).zip(SETS) {
            if is_in(asked)
                && readiness & wanted != 0
                && let Some(byte) = found.get_mut(byte)
            {
                *byte |= bit;
                ready = ready.saturating_add(1);
            }
        }
    }
    if ready == 0 && !is_over(until_ns) {
        return Err(Wait { call: name, until_ns, look_ns }.into());
    }
    let [_, first, second, third, ..] = call.args;
    let bytes = fd_count.div_ceil(64).saturating_mul(8).min(SET_BYTES);
    for (set, address) in found.iter().zip([first, second, third]) {
        if address != 0 {
            call.user().write(address, set.get(..bytes).unwrap_or_default())?;
        }
    }
    Ok(ready)
}
