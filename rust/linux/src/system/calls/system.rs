// SPDX-License-Identifier: MIT OR Apache-2.0
//! Information on the system, and random numbers.

use crate::base::arguments::int;
use crate::base::clock;
use crate::base::errno::Errno;
use crate::base::halt::CallResult;
use crate::base::identity;
use crate::kernel::call::Call;

/// Size of each string of `struct utsname`.
const NAME_BYTES: usize = 65;
/// Most bytes that one `getrandom` returns; it may return fewer than asked for, and C libraries ask again.
const RANDOM_MAX: u64 = 64 << 10;
/// Bytes generated at a time.
const RANDOM_CHUNK: usize = 256;

/// `uname(2)`.
pub(crate) fn uname(call: &mut Call<'_, '_>) -> CallResult {
    let [buffer, ..] = call.args;
    let mut bytes = [0; 6 * NAME_BYTES];
    let texts =
        [identity::SYSTEM, identity::NODE, identity::RELEASE, identity::VERSION, identity::MACHINE, identity::DOMAIN];
    for (slot, text) in bytes.chunks_exact_mut(NAME_BYTES).zip(texts) {
        for (to, from) in slot.iter_mut().zip(text.bytes()) {
            *to = from;
        }
    }
    call.user().write(buffer, &bytes)?;
    Ok(0)
}

/// `sysinfo(2)`: the tenant's memory limit and what is left of it, one process, the time since the system's start.
pub(crate) fn sysinfo(call: &mut Call<'_, '_>) -> CallResult {
    let [buffer, ..] = call.args;
    let memory = call.process.shared.limits.memory_bytes;
    let resident = call.resident_recently()?;
    let own = resident.anonymous.saturating_add(resident.shared).saturating_mul(mayfly_machine::PAGE_SIZE);
    let free = memory.saturating_sub(own);
    let uptime = clock::boottime_ns() / 1_000_000_000;
    // uptime, loads[3], totalram, freeram, sharedram, bufferram, totalswap, freeswap, procs, totalhigh, freehigh,
    // mem_unit
    let words = [uptime, 0, 0, 0, memory, free, 0, 0, 0, 0, 1, 0, 0, 1];
    call.user().write_words(buffer, &words)?;
    Ok(0)
}

/// `getrandom(2)`: never blocks; the bytes are always fresh.
pub(crate) fn getrandom(call: &mut Call<'_, '_>) -> CallResult {
    const INSECURE: u32 = libc::GRND_INSECURE;
    const RANDOM: u32 = libc::GRND_RANDOM;
    let [buffer, len, flags, ..] = call.args;
    let flags = int(flags).cast_unsigned();
    let both = INSECURE | RANDOM;
    if flags & !(libc::GRND_NONBLOCK | both) != 0 || flags & both == both {
        return Err(Errno::EINVAL.into());
    }
    let wanted = len.min(RANDOM_MAX);
    let mut done: u64 = 0;
    while done < wanted {
        let mut bytes = [0; RANDOM_CHUNK];
        let part = usize::try_from(wanted.saturating_sub(done)).unwrap_or(RANDOM_CHUNK).min(RANDOM_CHUNK);
        let chunk = bytes.get_mut(..part).unwrap_or_default();
        (call.context.rng)(chunk);
        let at = buffer.checked_add(done).ok_or(Errno::EFAULT)?;
        if let Err(halt) = call.user().write(at, chunk) {
            // Bytes already written are returned, unless the program ends anyway.
            let faulted = matches!(halt, crate::base::halt::Halt::Errno(_));
            return if faulted && done > 0 { Ok(done) } else { Err(halt) };
        }
        done = done.saturating_add(crate::base::arguments::count(chunk.len()));
    }
    Ok(done)
}

/// `umask(2)`.
pub(crate) fn umask(call: &mut Call<'_, '_>) -> CallResult {
    let [mask, ..] = call.args;
    let mask = int(mask).cast_unsigned() & 0o777;
    let before = call.process.resources.umask;
    if mask != before {
        call.process.resources.edit().umask = mask;
    }
    Ok(before.into())
}
