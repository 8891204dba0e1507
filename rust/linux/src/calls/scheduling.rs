// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scheduling: one processor, one policy.

use super::int;
use super::process::is_self;
use crate::errno::{CallResult, Errno, Halt};
use crate::table::Call;

/// Size of the processor mask that Linux keeps, in bytes: one word.
const MASK_BYTES: u64 = 8;

/// `sched_yield(2)`.
pub(crate) fn sched_yield(call: &mut Call<'_, '_>) -> CallResult {
    if call.process.threads.others_are_ready() {
        let current = call.process.threads.current;
        call.process.end_call(call.machine, current, 0).map_err(Halt::End)?;
        return Err(Halt::Switch);
    }
    Ok(0)
}

/// `sched_getaffinity(2)`: processor 0. Returns the size of the mask, as the system call does and the C library's function does not.
pub(crate) fn sched_getaffinity(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, size, mask, ..] = call.args;
    check_self(pid)?;
    let size = u64::from(int(size).cast_unsigned());
    if size < MASK_BYTES || !size.is_multiple_of(MASK_BYTES) {
        return Err(Errno::EINVAL.into());
    }
    call.user().write_words(mask, &[1])?;
    Ok(MASK_BYTES)
}

/// `sched_setaffinity(2)`: any set that leaves processor 0 is fine.
pub(crate) fn sched_setaffinity(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, size, mask, ..] = call.args;
    check_self(pid)?;
    if size == 0 {
        return Err(Errno::EINVAL.into());
    }
    let [first] = call.user().read_array(mask)?;
    if first & 1 == 0 { Err(Errno::EINVAL.into()) } else { Ok(0) }
}

/// `sched_getscheduler(2)`: SCHED_OTHER.
pub(crate) fn sched_getscheduler(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, ..] = call.args;
    check_self(pid)?;
    Ok(libc::SCHED_OTHER.unsigned_abs().into())
}

/// `sched_getparam(2)`: priority 0, the only one of SCHED_OTHER.
pub(crate) fn sched_getparam(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, parameters, ..] = call.args;
    check_self(pid)?;
    call.user().write(parameters, &[0; 4])?;
    Ok(0)
}

/// `sched_get_priority_max(2)`, `sched_get_priority_min(2)`.
pub(crate) fn sched_get_priority(call: &mut Call<'_, '_>) -> CallResult {
    let [policy, ..] = call.args;
    match int(policy) {
        libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `getpriority(2)`: nice value 0, which the system call returns as 20.
pub(crate) fn getpriority(call: &mut Call<'_, '_>) -> CallResult {
    let [which, ..] = call.args;
    if int(which).cast_unsigned() == libc::PRIO_PROCESS { Ok(20) } else { Err(Errno::EINVAL.into()) }
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

fn check_self(pid: u64) -> Result<(), Errno> {
    if is_self(int(pid)) { Ok(()) } else { Err(Errno::ESRCH) }
}
