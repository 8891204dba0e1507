// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resource limits: those that a program reads, and those that it sets. The tenant's limits are enforced; what a
//! program sets is stored and returned, and has no effect.

use crate::base::arguments::int;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt};
use crate::base::resource_limits::ResourceLimit;
use crate::kernel::call::Call;

/// `getrlimit(2)`.
pub(crate) fn getrlimit(call: &mut Call<'_, '_>) -> CallResult {
    let [resource, old, ..] = call.args;
    get(call, resource, old)
}

/// `setrlimit(2)`.
pub(crate) fn setrlimit(call: &mut Call<'_, '_>) -> CallResult {
    let [resource, new, ..] = call.args;
    let new = read_limit(call, new)?;
    set(call, resource, new)
}

/// `prlimit64(2)`.
pub(crate) fn prlimit64(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, resource, new, old, ..] = call.args;
    crate::sched::calls::scheduling::check_thread(call, pid)?;
    // Both structures are read before either is written, since they may be the same.
    let new = if new == 0 { None } else { Some(read_limit(call, new)?) };
    let before = limit(call, resource)?;
    if let Some(new) = new {
        set(call, resource, new)?;
    }
    if old != 0 {
        call.user().write_words(old, &[before.soft, before.hard])?;
    }
    Ok(0)
}

/// `getrusage(2)`: CPU time is reported as user time, and the largest number of resident pages that the program was
/// told as the maximum; the rest is 0.
pub(crate) fn getrusage(call: &mut Call<'_, '_>) -> CallResult {
    /// Size of `struct rusage` in words.
    const WORDS: usize = 18;
    let [who, buffer, ..] = call.args;
    let kilobytes = match int(who) {
        libc::RUSAGE_SELF | libc::RUSAGE_THREAD => {
            call.resident_recently()?;
            call.process.figures.peak_pages.saturating_mul(mayfly_machine::PAGE_SIZE / 1024)
        }
        _ => 0,
    };
    let (used_ns, size) = match int(who) {
        libc::RUSAGE_SELF => (call.process.cpu_ns(), kilobytes),
        libc::RUSAGE_THREAD => (call.process.thread_cpu_ns(call.process.threads.current).unwrap_or(0), kilobytes),
        libc::RUSAGE_CHILDREN => (0, 0),
        _ => return Err(Errno::EINVAL.into()),
    };
    let mut words = [0; WORDS];
    // User time, system time, maximum resident set.
    let [seconds, microseconds, _, _, largest, ..] = &mut words;
    [*seconds, *microseconds] = [used_ns / 1_000_000_000, used_ns % 1_000_000_000 / 1000];
    *largest = size;
    call.user().write_words(buffer, &words)?;
    Ok(0)
}

fn limit(call: &Call<'_, '_>, resource: u64) -> Result<ResourceLimit, Errno> {
    let index = usize::try_from(int(resource)).map_err(|_| Errno::EINVAL)?;
    call.process.resources.all.get(index).copied().ok_or(Errno::EINVAL)
}

fn get(call: &mut Call<'_, '_>, resource: u64, buffer: u64) -> CallResult {
    let limit = limit(call, resource)?;
    call.user().write_words(buffer, &[limit.soft, limit.hard])?;
    Ok(0)
}

fn set(call: &mut Call<'_, '_>, resource: u64, new: ResourceLimit) -> CallResult {
    let before = limit(call, resource)?;
    if new.soft > new.hard {
        return Err(Errno::EINVAL.into());
    }
    if new.hard > before.hard {
        return Err(Errno::EPERM.into());
    }
    let index = usize::try_from(int(resource)).map_err(|_| Errno::EINVAL)?;
    if let Some(slot) = call.process.resources.edit().all.get_mut(index) {
        *slot = new;
    }
    Ok(0)
}

fn read_limit(call: &mut Call<'_, '_>, address: u64) -> Result<ResourceLimit, Halt> {
    let [soft, hard] = call.user().read_words(address)?;
    Ok(ResourceLimit { soft, hard })
}
