// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scheduling: one processor, one policy.

use crate::base::arguments::int;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt};
use crate::base::identity::{PARENT_PID, UID, is_self};
use crate::kernel::call::Call;

/// Size of Linux's processor mask in bytes: one word.
const MASK_BYTES: u64 = 8;
/// SCHED_ATTR_SIZE_VER0.
const ATTRIBUTES_BYTES: u64 = 48;
/// SCHED_ATTR_SIZE_VER1: the largest that Linux knows.
const ATTRIBUTES_KNOWN_BYTES: u32 = 56;
/// SCHED_FLAG_ALL.
const ATTRIBUTE_FLAGS: u64 = 0x7f;
/// The lowest priority.
const NICE_MOST: i32 = 19;
/// The slice that `sched_rr_get_interval(2)` tells: about that of a Linux with few processors.
const SLICE_NS: u64 = 4_000_000;

/// `sched_yield(2)`.
pub(crate) fn sched_yield(call: &mut Call<'_, '_>) -> CallResult {
    if call.process.threads.others_are_ready() {
        let current = call.process.threads.current;
        call.process.end_call(call.machine, current, 0).map_err(Halt::End)?;
        return Err(Halt::Switch);
    }
    Ok(0)
}

/// `sched_getaffinity(2)`: processor 0. Returns the size of the mask, as the system call does, unlike the C library's
/// function.
pub(crate) fn sched_getaffinity(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, size, mask, ..] = call.args;
    check_thread(call, pid)?;
    let size = u64::from(int(size).cast_unsigned());
    if size < MASK_BYTES || !size.is_multiple_of(MASK_BYTES) {
        return Err(Errno::EINVAL.into());
    }
    call.user().write_words(mask, &[1])?;
    Ok(MASK_BYTES)
}

/// `sched_setaffinity(2)`: any set with processor 0 is accepted.
pub(crate) fn sched_setaffinity(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, size, mask, ..] = call.args;
    check_thread(call, pid)?;
    if size == 0 {
        return Err(Errno::EINVAL.into());
    }
    let [first] = call.user().read_array(mask)?;
    if first & 1 == 0 { Err(Errno::EINVAL.into()) } else { Ok(0) }
}

/// `sched_getscheduler(2)`: SCHED_OTHER.
pub(crate) fn sched_getscheduler(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, ..] = call.args;
    check_known(call, pid)?;
    Ok(libc::SCHED_OTHER.unsigned_abs().into())
}

/// `sched_getparam(2)`: priority 0, the only one of SCHED_OTHER.
pub(crate) fn sched_getparam(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, parameters, ..] = call.args;
    if parameters == 0 {
        return Err(Errno::EINVAL.into());
    }
    check_known(call, pid)?;
    call.user().write(parameters, &[0; 4])?;
    Ok(0)
}

/// `sched_rr_get_interval(2)`: what Linux tells of SCHED_OTHER is a matter of its load.
pub(crate) fn sched_rr_get_interval(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, interval, ..] = call.args;
    check_known(call, pid)?;
    call.user().write_words(interval, &[0, SLICE_NS])?;
    Ok(0)
}

/// `sched_get_priority_max(2)`.
pub(crate) fn sched_get_priority_max(call: &mut Call<'_, '_>) -> CallResult {
    let [policy, ..] = call.args;
    range_of(int(policy)).map(|(_, most)| most)
}

/// `sched_get_priority_min(2)`.
pub(crate) fn sched_get_priority_min(call: &mut Call<'_, '_>) -> CallResult {
    let [policy, ..] = call.args;
    range_of(int(policy)).map(|(least, _)| least)
}

/// The range of a policy's priorities.
fn range_of(policy: i32) -> Result<(u64, u64), Halt> {
    match policy {
        libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE | libc::SCHED_DEADLINE => Ok((0, 0)),
        libc::SCHED_FIFO | libc::SCHED_RR => Ok((1, 99)),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `getpriority(2)`: 20 less the nice value.
pub(crate) fn getpriority(call: &mut Call<'_, '_>) -> CallResult {
    let [which, who, ..] = call.args;
    check_whom(call, which, who)?;
    Ok(NICE_MOST.saturating_add(1).saturating_sub(call.process.resources.nice).unsigned_abs().into())
}

/// `getcpu(2)`: processor 0 of node 0.
pub(crate) fn getcpu(call: &mut Call<'_, '_>) -> CallResult {
    let [processor, node, ..] = call.args;
    for address in [processor, node] {
        if address != 0 {
            call.user().write(address, &[0; 4])?;
        }
    }
    Ok(0)
}

/// `sched_setscheduler(2)`: accepts the policies and the one priority that need no privilege. All behave alike.
pub(crate) fn sched_setscheduler(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, policy, parameters, ..] = call.args;
    set_policy(call, pid, int(policy), parameters)
}

/// `sched_setparam(2)`.
pub(crate) fn sched_setparam(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, parameters, ..] = call.args;
    set_policy(call, pid, libc::SCHED_OTHER, parameters)
}

fn set_policy(call: &mut Call<'_, '_>, pid: u64, policy: i32, parameters: u64) -> CallResult {
    let policy = policy & !libc::SCHED_RESET_ON_FORK;
    if int(pid) < 0 || policy < 0 || parameters == 0 {
        return Err(Errno::EINVAL.into());
    }
    let priority = call.user().read_u32(parameters)?;
    check_thread(call, pid)?;
    match (policy, priority) {
        (libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE, 0) => Ok(0),
        (libc::SCHED_FIFO | libc::SCHED_RR, 1..=99) => Err(Errno::EPERM.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `sched_getattr(2)`: SCHED_OTHER at the nice value.
pub(crate) fn sched_getattr(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, buffer, size, flags, ..] = call.args;
    let size = u64::from(int(size).cast_unsigned());
    if size < ATTRIBUTES_BYTES || int(flags) != 0 {
        return Err(Errno::EINVAL.into());
    }
    check_known(call, pid)?;
    // size, policy; flags; nice, priority; runtime, deadline, period.
    let nice = call.process.resources.nice.unsigned_abs().into();
    call.user().write_words(buffer, &[ATTRIBUTES_BYTES, 0, nice, 0, 0, 0])?;
    Ok(0)
}

/// `sched_setattr(2)`: as `sched_setscheduler`.
pub(crate) fn sched_setattr(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, buffer, flags, ..] = call.args;
    if buffer == 0 || int(pid) < 0 || int(flags) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let size = match call.user().read_u32(buffer)? {
        0 => ATTRIBUTES_BYTES,
        size => size.into(),
    };
    if size < ATTRIBUTES_BYTES || size > u64::from(ATTRIBUTES_KNOWN_BYTES) {
        // Linux's answer to a structure of unknown size.
        call.user().write(buffer, &ATTRIBUTES_KNOWN_BYTES.to_le_bytes())?;
        return Err(Errno::E2BIG.into());
    }
    // size, policy; flags; nice, priority.
    let [head, wanted, nice] = call.user().read_words(buffer)?;
    let (policy, priority) = (int(head >> 32), int(nice >> 32));
    if policy < 0 {
        return Err(Errno::EINVAL.into());
    }
    check_thread(call, pid)?;
    match (policy, priority) {
        _ if wanted & !ATTRIBUTE_FLAGS != 0 => Err(Errno::EINVAL.into()),
        (libc::SCHED_OTHER | libc::SCHED_BATCH, 0) if !set_nice(call, int(nice)) => Err(Errno::EPERM.into()),
        (libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE, 0) => Ok(0),
        (libc::SCHED_FIFO | libc::SCHED_RR, 1..=99) | (libc::SCHED_DEADLINE, 0) => Err(Errno::EPERM.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `setpriority(2)`: a lower priority is stored and has no effect; a higher one is refused.
pub(crate) fn setpriority(call: &mut Call<'_, '_>) -> CallResult {
    let [which, who, nice, ..] = call.args;
    check_whom(call, which, who)?;
    if set_nice(call, int(nice)) { Ok(0) } else { Err(Errno::EACCES.into()) }
}

/// Whether the program itself is meant, by a thread, its process group or its user.
fn check_whom(call: &Call<'_, '_>, which: u64, who: u64) -> Result<(), Errno> {
    match int(which).cast_unsigned() {
        libc::PRIO_PROCESS => check_thread(call, who),
        libc::PRIO_PGRP if is_self(int(who)) => Ok(()),
        libc::PRIO_USER if int(who) == 0 || int(who).cast_unsigned() == UID => Ok(()),
        libc::PRIO_PGRP | libc::PRIO_USER => Err(Errno::ESRCH),
        _ => Err(Errno::EINVAL),
    }
}

/// Stores a nice value, in Linux's range; false if it is below the present one.
fn set_nice(call: &mut Call<'_, '_>, nice: i32) -> bool {
    let nice = nice.min(NICE_MOST);
    let before = call.process.resources.nice;
    if nice > before {
        call.process.resources.edit().nice = nice;
    }
    nice >= before
}

/// `ioprio_get(2)`, `ioprio_set(2)`: there is no I/O queue.
pub(crate) fn ioprio(call: &mut Call<'_, '_>) -> CallResult {
    let [which, ..] = call.args;
    if (1..=3).contains(&int(which)) { Ok(0) } else { Err(Errno::EINVAL.into()) }
}

/// Whether `pid` can be asked about: one of the program's threads, or its parent.
fn check_known(call: &Call<'_, '_>, pid: u64) -> Result<(), Errno> {
    match int(pid) {
        number if number < 0 => Err(Errno::EINVAL),
        number if number.cast_unsigned() == PARENT_PID => Ok(()),
        _ => check_thread(call, pid),
    }
}

/// Whether `pid` is one of the program's threads; 0 is the caller.
pub(crate) fn check_thread(call: &Call<'_, '_>, pid: u64) -> Result<(), Errno> {
    let pid = int(pid);
    if is_self(pid) || call.process.threads.by_tid(pid.cast_unsigned()).is_some() { Ok(()) } else { Err(Errno::ESRCH) }
}
