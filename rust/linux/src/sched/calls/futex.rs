// SPDX-License-Identifier: MIT OR Apache-2.0
//! `futex(2)`: waits until a word of the program's memory changes, and wakes waiting threads.
//!
//! Threads switch only at exits, so checking a word and going to sleep is atomic. Futexes in the memory that a tenant's
//! machines share by its configuration wake only threads of the same machine. In a file of a durable mount that is
//! mapped shared, a thread that waits looks at the word again and again: nothing tells that another machine has changed
//! it. To wake without changing the word wakes only threads of the same machine there, and locks with an owner in the
//! word (`FUTEX_LOCK_PI`) exclude only these.

use crate::base::arguments::int;
use crate::base::clock;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt, Wait};
use crate::kernel::call::Call;
use crate::sched::threads::{ThreadState, Waiting};
use crate::time::calls::clocks;

const OP_ARGUMENT_SHIFT: u32 = 8;
/// How long a thread waits before it looks at a word of a file again, and how often that doubles: up to 8 ms.
const FIRST_LOOK_NS: u64 = 250_000;
const DOUBLINGS: usize = 5;
/// Bits of a futex word that is a lock (`futex(2)`, robust_list in `<linux/futex.h>`).
pub(crate) const FUTEX_WAITERS: u32 = 0x8000_0000;
pub(crate) const FUTEX_OWNER_DIED: u32 = 0x4000_0000;
pub(crate) const FUTEX_TID_MASK: u32 = 0x3fff_ffff;

/// `futex(2)`.
pub(crate) fn futex(call: &mut Call<'_, '_>) -> CallResult {
    let [address, operation, value, timeout, second, third] = call.args;
    let operation = int(operation);
    let command = operation & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
    if !address.is_multiple_of(4) {
        return Err(Errno::EINVAL.into());
    }
    let (value, third) = (int(value), int(third));
    let has_second = matches!(command, libc::FUTEX_REQUEUE | libc::FUTEX_CMP_REQUEUE | libc::FUTEX_WAKE_OP);
    let memory = &call.process.memory;
    let is_file = operation & libc::FUTEX_PRIVATE_FLAG == 0
        && (memory.is_durable(address) || (has_second && memory.is_durable(second)));
    if is_file && !matches!(command, libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET) {
        // Those that wait look again.
        call.note_change();
    }
    match command {
        libc::FUTEX_WAIT => {
            let until = call.until(|call| wait_until(call, timeout, false, false))?;
            wait(call, address, value.cast_unsigned(), u32::MAX, until, is_file)
        }
        libc::FUTEX_WAIT_BITSET if third != 0 => {
            let realtime = operation & libc::FUTEX_CLOCK_REALTIME != 0;
            let until = call.until(|call| wait_until(call, timeout, true, realtime))?;
            wait(call, address, value.cast_unsigned(), third.cast_unsigned(), until, is_file)
        }
        libc::FUTEX_WAKE => wake(call, address, u32::MAX, most(value)),
        libc::FUTEX_WAKE_BITSET if third != 0 => wake(call, address, third.cast_unsigned(), most(value)),
        libc::FUTEX_WAIT_BITSET | libc::FUTEX_WAKE_BITSET => Err(Errno::EINVAL.into()),
        // The fourth argument is a count here.
        libc::FUTEX_REQUEUE => requeue(call, address, second, value, int(timeout)),
        libc::FUTEX_CMP_REQUEUE => {
            if call.user().read_u32(address)? == third.cast_unsigned() {
                let woken = requeue(call, address, second, value, int(timeout))?;
                Ok(woken)
            } else {
                Err(Errno::EAGAIN.into())
            }
        }
        libc::FUTEX_WAKE_OP => {
            let holds = change(call, second, third.cast_unsigned())?;
            let mut woken = wake(call, address, u32::MAX, most(value))?;
            if holds {
                woken = woken.saturating_add(wake(call, second, u32::MAX, most(int(timeout)))?);
            }
            Ok(woken)
        }
        libc::FUTEX_LOCK_PI => {
            let until = wait_until(call, timeout, true, true)?;
            lock(call, address, until)
        }
        libc::FUTEX_LOCK_PI2 => {
            let realtime = operation & libc::FUTEX_CLOCK_REALTIME != 0;
            let until = wait_until(call, timeout, true, realtime)?;
            lock(call, address, until)
        }
        libc::FUTEX_TRYLOCK_PI => {
            if take(call, address)? {
                Ok(0)
            } else {
                Err(Errno::EAGAIN.into())
            }
        }
        libc::FUTEX_UNLOCK_PI => unlock(call, address),
        // Among them those that requeue to locks.
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// Most threads to wake: Linux wakes one for 0 or a negative number.
fn most(count: i32) -> usize {
    usize::try_from(count).unwrap_or(0).max(1)
}

/// The deadline of a wait; the `timespec` is a duration, or a time of one of the clocks.
fn wait_until(call: &mut Call<'_, '_>, timeout: u64, absolute: bool, realtime: bool) -> Result<Option<u64>, Halt> {
    if timeout == 0 {
        return Ok(None);
    }
    let duration = clocks::read_duration(call, timeout)?;
    Ok(Some(match (absolute, realtime) {
        (false, _) => clock::now_ns().saturating_add(duration),
        (true, false) => call.process.to_host_ns(duration),
        (true, true) => clock::from_unix_ns(duration),
    }))
}

/// `is_file`: another machine may change the word.
fn wait(
    call: &mut Call<'_, '_>,
    address: u64,
    value: u32,
    bitset: u32,
    until_ns: Option<u64>,
    is_file: bool,
) -> CallResult {
    if is_file {
        return wait_for_change(call, address, value, until_ns);
    }
    if call.user().read_u32(address)? != value {
        return Err(Errno::EAGAIN.into());
    }
    let threads = call.process.threads.edit();
    let turn = threads.next_turn();
    threads.current_mut().state = ThreadState::Waiting(Waiting::Futex { address, bitset, until_ns, turn, owns: false });
    Err(Halt::Switch)
}

/// Waits until a word that other machines can change has another value, as if that had woken the thread.
fn wait_for_change(call: &mut Call<'_, '_>, address: u64, value: u32, until_ns: Option<u64>) -> CallResult {
    let attempts = call.progress();
    if call.user().read_u32(address)? != value {
        return if attempts == 0 { Err(Errno::EAGAIN.into()) } else { Ok(0) };
    }
    if clock::is_over(until_ns) {
        return Err(Errno::ETIMEDOUT.into());
    }
    let pause = FIRST_LOOK_NS << attempts.min(DOUBLINGS);
    let wait = Wait { call: "a futex", until_ns, look_ns: Some(clock::now_ns().saturating_add(pause)) };
    Err(call.wait_with_progress(wait, attempts.saturating_add(1)))
}

/// Wakes up to `most` threads that wait at `address` with one of these bits, the longest waiting first. Returns their
/// number.
pub(crate) fn wake(call: &mut Call<'_, '_>, address: u64, bits: u32, most: usize) -> CallResult {
    let woken = waiters(call, address, bits);
    let mut count = 0_u64;
    for (_, index) in woken.into_iter().take(most) {
        call.process.end_call(call.machine, index, 0).map_err(Halt::End)?;
        count = count.saturating_add(1);
    }
    Ok(count)
}

/// Wakes some threads, and makes others wait at another address.
fn requeue(call: &mut Call<'_, '_>, address: u64, to: u64, wake_most: i32, move_most: i32) -> CallResult {
    let (Ok(wake_most), Ok(move_most)) = (usize::try_from(wake_most), usize::try_from(move_most)) else {
        return Err(Errno::EINVAL.into());
    };
    if !to.is_multiple_of(4) {
        return Err(Errno::EINVAL.into());
    }
    let woken = if wake_most == 0 { 0 } else { wake(call, address, u32::MAX, wake_most)? };
    let mut moved = 0_u64;
    for (_, index) in waiters(call, address, u32::MAX).into_iter().take(move_most) {
        let threads = call.process.threads.edit();
        if let Some(thread) = threads.get_mut(index)
            && let ThreadState::Waiting(Waiting::Futex { address, .. }) = &mut thread.state
        {
            *address = to;
            moved = moved.saturating_add(1);
        }
    }
    Ok(woken.saturating_add(moved))
}

/// The threads that wait there, the longest waiting first: their turns and indices.
fn waiters(call: &Call<'_, '_>, wanted: u64, bits: u32) -> Vec<(u64, usize)> {
    let mut found: Vec<(u64, usize)> = call
        .process
        .threads
        .waits()
        .filter_map(|(index, waiting)| match waiting {
            Waiting::Futex { address, bitset, turn, owns: false, .. } if address == wanted && bitset & bits != 0 => {
                Some((turn, index))
            }
            _ => None,
        })
        .collect();
    found.sort_unstable();
    found
}

/// The lock of `FUTEX_LOCK_PI`: a word with its owner's number. All threads have one priority, so there is none to
/// inherit: the longest waiting thread is the next owner.
fn lock(call: &mut Call<'_, '_>, address: u64, until_ns: Option<u64>) -> CallResult {
    if take(call, address)? {
        return Ok(0);
    }
    let word = call.user().read_u32(address)? | FUTEX_WAITERS;
    call.user().write(address, &word.to_le_bytes())?;
    let threads = call.process.threads.edit();
    let turn = threads.next_turn();
    threads.current_mut().state =
        ThreadState::Waiting(Waiting::Futex { address, bitset: 0, until_ns, turn, owns: true });
    Err(Halt::Switch)
}

/// Takes a free lock; `false` if it has an owner.
fn take(call: &mut Call<'_, '_>, address: u64) -> Result<bool, Halt> {
    let word = call.user().read_u32(address)?;
    let tid = call.process.threads.current().tid;
    match word & FUTEX_TID_MASK {
        0 => {
            let waiters = if lock_waiters(call, address).is_empty() { 0 } else { FUTEX_WAITERS };
            let new = word & FUTEX_OWNER_DIED | waiters | tid;
            call.user().write(address, &new.to_le_bytes())?;
            Ok(true)
        }
        owner if owner == tid => Err(Errno::EDEADLK.into()),
        owner if call.process.threads.by_tid(owner).is_none() => Err(Errno::ESRCH.into()),
        _ => Ok(false),
    }
}

fn unlock(call: &mut Call<'_, '_>, address: u64) -> CallResult {
    let word = call.user().read_u32(address)?;
    if word & FUTEX_TID_MASK != call.process.threads.current().tid {
        return Err(Errno::EPERM.into());
    }
    pass_lock(call, address, 0)?;
    Ok(0)
}

/// Passes a lock to the longest waiting thread, or frees it. `died`: the bit of the word that says how the previous
/// owner left it.
pub(crate) fn pass_lock(call: &mut Call<'_, '_>, address: u64, died: u32) -> Result<(), Halt> {
    let waiting = lock_waiters(call, address);
    let next = waiting.first().and_then(|&(_, index)| Some((index, call.process.threads.get(index)?.tid)));
    let owner = next.map_or(0, |(_, tid)| tid);
    let waiters = if waiting.len() > 1 { FUTEX_WAITERS } else { 0 };
    call.user().write(address, &(owner | waiters | died).to_le_bytes())?;
    if let Some((index, _)) = next {
        call.process.end_call(call.machine, index, 0).map_err(Halt::End)?;
    }
    Ok(())
}

/// The threads that wait for a lock, the longest waiting first.
fn lock_waiters(call: &Call<'_, '_>, wanted: u64) -> Vec<(u64, usize)> {
    let waits = call.process.threads.waits();
    let mut found: Vec<(u64, usize)> = waits
        .filter_map(|(index, waiting)| match waiting {
            Waiting::Futex { address, turn, owns: true, .. } if address == wanted => Some((turn, index)),
            _ => None,
        })
        .collect();
    found.sort_unstable();
    found
}

/// Addresses of the locks for which threads wait.
pub(crate) fn contended(call: &Call<'_, '_>) -> Vec<u64> {
    let waits = call.process.threads.waits();
    let mut found: Vec<u64> = waits
        .filter_map(|(_, waiting)| match waiting {
            Waiting::Futex { address, owns: true, .. } => Some(address),
            _ => None,
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Applies FUTEX_WAKE_OP's operation to the second word; returns whether its comparison held before.
fn change(call: &mut Call<'_, '_>, address: u64, encoded: u32) -> Result<bool, Halt> {
    if !address.is_multiple_of(4) {
        return Err(Errno::EINVAL.into());
    }
    let field = |shift: u32, bits: u32| (encoded >> shift) & 1_u32.wrapping_shl(bits).wrapping_sub(1);
    // A signed number of twelve bits.
    let signed = |value: u32| ((value << 20).cast_signed() >> 20).cast_unsigned();
    let (operation, comparison) = (field(28, 4), field(24, 4).cast_signed());
    let (operand, against) = (signed(field(12, 12)), signed(field(0, 12)));
    let operand = if operation & OP_ARGUMENT_SHIFT == 0 { operand } else { 1_u32.wrapping_shl(operand & 31) };
    let old = call.user().read_u32(address)?;
    let new = match (operation & !OP_ARGUMENT_SHIFT).cast_signed() {
        libc::FUTEX_OP_SET => operand,
        libc::FUTEX_OP_ADD => old.wrapping_add(operand),
        libc::FUTEX_OP_OR => old | operand,
        libc::FUTEX_OP_ANDN => old & !operand,
        libc::FUTEX_OP_XOR => old ^ operand,
        _ => return Err(Errno::ENOSYS.into()),
    };
    call.user().write(address, &new.to_le_bytes())?;
    let (old, against) = (old.cast_signed(), against.cast_signed());
    Ok(match comparison {
        libc::FUTEX_OP_CMP_EQ => old == against,
        libc::FUTEX_OP_CMP_NE => old != against,
        libc::FUTEX_OP_CMP_LT => old < against,
        libc::FUTEX_OP_CMP_LE => old <= against,
        libc::FUTEX_OP_CMP_GT => old > against,
        libc::FUTEX_OP_CMP_GE => old >= against,
        _ => return Err(Errno::ENOSYS.into()),
    })
}
