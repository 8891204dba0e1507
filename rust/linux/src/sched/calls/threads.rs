// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads: creation, exit, and what C libraries set up for them.

use super::futex::{FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS, contended, pass_lock, wake};
use crate::base::arguments::{flag, int};
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt};
use crate::base::pages::TASK_SIZE;
use crate::base::step::Step;
use crate::kernel::call::{Call, unknown};

/// Size of `struct robust_list_head`.
const ROBUST_LIST_HEAD_BYTES: u64 = 24;
/// Most entries of a robust list that are processed: Linux's ROBUST_LIST_LIMIT.
const ROBUST_LIST_MAX: u32 = 2048;

/// Parameters of a new thread.
struct Start {
    flags: u64,
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    thread_pointer: u64,
}

/// `clone(2)`.
pub(crate) fn clone(call: &mut Call<'_, '_>) -> CallResult {
    let [flags, stack, parent_tid, child_tid, thread_pointer, _] = call.args;
    start(call, &Start { flags, stack, parent_tid, child_tid, thread_pointer }, libc::SYS_clone)
}

/// `clone3(2)`.
pub(crate) fn clone3(call: &mut Call<'_, '_>) -> CallResult {
    /// CLONE_ARGS_SIZE_VER0.
    const ARGUMENTS_BYTES_MIN: u64 = 64;
    let [arguments, size, ..] = call.args;
    if size < ARGUMENTS_BYTES_MIN {
        return Err(Errno::EINVAL.into());
    }
    let [flags, _, child_tid, parent_tid, _, stack, stack_bytes, thread_pointer] = call.user().read_words(arguments)?;
    let stack = stack.checked_add(stack_bytes).ok_or(Errno::EINVAL)?;
    start(call, &Start { flags, stack, parent_tid, child_tid, thread_pointer }, libc::SYS_clone3)
}

/// Creates a thread; other processes cannot be created.
fn start(call: &mut Call<'_, '_>, start: &Start, number: libc::c_long) -> CallResult {
    const SHARED: u64 = flag(libc::CLONE_VM) | flag(libc::CLONE_SIGHAND) | flag(libc::CLONE_THREAD);
    if start.flags & flag(libc::CLONE_THREAD) == 0 {
        return Err(unknown(call.process, call.context, number.cast_unsigned()).into());
    }
    if start.flags & SHARED != SHARED || start.stack >= TASK_SIZE {
        return Err(Errno::EINVAL.into());
    }
    let set_pointer = start.flags & flag(libc::CLONE_SETTLS) != 0;
    if set_pointer && start.thread_pointer >= TASK_SIZE {
        return Err(Errno::EPERM.into());
    }
    if call.process.threads.len() >= call.process.shared.limits.threads as usize {
        let hits = &mut call.process.hits.threads;
        *hits = hits.saturating_add(1);
        return Err(Errno::EAGAIN.into());
    }
    let poison = |why: String| Halt::End(Step::Poison(why));
    let context = call.machine.context().map_err(|error| poison(format!("a new thread: {error}")))?;
    let mut context = context.ok_or_else(|| poison("a new thread without a context".into()))?;
    context.regs.rax = 0;
    if start.stack != 0 {
        context.regs.rsp = start.stack;
    }
    if set_pointer {
        context.fs_base = start.thread_pointer;
    }
    let clears_tid = start.flags & flag(libc::CLONE_CHILD_CLEARTID) != 0;
    let tid = call.process.threads.edit().add(context, if clears_tid { start.child_tid } else { 0 });
    for (wanted, address) in
        [(libc::CLONE_PARENT_SETTID, start.parent_tid), (libc::CLONE_CHILD_SETTID, start.child_tid)]
    {
        if start.flags & flag(wanted) != 0 {
            // As on Linux, an error here does not undo the creation.
            ignore_fault(call.user().write(address, &tid.to_le_bytes()))?;
        }
    }
    Ok(tid.into())
}

/// `exit(2)`: ends the thread. The last thread's exit ends the program.
pub(crate) fn exit(call: &mut Call<'_, '_>) -> CallResult {
    let [status, ..] = call.args;
    if call.process.threads.len() == 1 {
        return Err(Halt::End(Step::Exited { status: int(status) & 0xff }));
    }
    call.commit();
    let thread = call.process.threads.current();
    let (tid, clear_tid, robust_list) = (thread.tid, thread.clear_tid, thread.robust_list);
    if robust_list != 0 {
        ignore_fault(release_robust_list(call, robust_list, tid))?;
    }
    // Locks of an ended thread that others wait for are released.
    for address in contended(call) {
        ignore_fault(release_lock(call, address, tid))?;
    }
    if clear_tid != 0 && ignore_fault(call.user().write(clear_tid, &[0; 4]))? {
        wake(call, clear_tid, u32::MAX, 1)?;
    }
    call.process.charge();
    call.process.threads.edit().remove_current();
    Err(Halt::Switch)
}

/// Marks the futexes that the thread still owns, and wakes one waiter of each (`get_robust_list(2)`).
fn release_robust_list(call: &mut Call<'_, '_>, head: u64, tid: u32) -> Result<(), Halt> {
    let [mut entry, offset, pending] = call.user().read_words(head)?;
    for _ in 0..ROBUST_LIST_MAX {
        // The lowest bit marks locks that the kernel passes on.
        let node = entry & !1;
        if node == head || node == 0 {
            break;
        }
        let [next] = call.user().read_words(node)?;
        if node != pending & !1 {
            release_entry(call, entry, offset, tid)?;
        }
        entry = next;
    }
    match pending & !1 {
        0 => Ok(()),
        _ => release_entry(call, pending, offset, tid),
    }
}

/// Releases the lock of an entry in a robust list; the entry's lowest bit is set for priority-inheritance locks.
fn release_entry(call: &mut Call<'_, '_>, entry: u64, offset: u64, tid: u32) -> Result<(), Halt> {
    let address = (entry & !1).wrapping_add(offset);
    if entry & 1 != 0 { release_lock(call, address, tid) } else { release_futex(call, address, tid) }
}

fn release_lock(call: &mut Call<'_, '_>, address: u64, tid: u32) -> Result<(), Halt> {
    if call.user().read_u32(address)? & FUTEX_TID_MASK == tid {
        pass_lock(call, address, FUTEX_OWNER_DIED)?;
    }
    Ok(())
}

fn release_futex(call: &mut Call<'_, '_>, address: u64, tid: u32) -> Result<(), Halt> {
    let word = call.user().read_u32(address)?;
    if word & FUTEX_TID_MASK == tid {
        let left = word & FUTEX_WAITERS | FUTEX_OWNER_DIED;
        call.user().write(address, &left.to_le_bytes())?;
        if word & FUTEX_WAITERS != 0 {
            wake(call, address, u32::MAX, 1)?;
        }
    }
    Ok(())
}

/// Ignores a fault on memory that the program registered earlier and may have unmapped since. Returns whether it was
/// accessible.
fn ignore_fault(result: Result<(), Halt>) -> Result<bool, Halt> {
    match result {
        Ok(()) => Ok(true),
        Err(Halt::Errno(_)) => Ok(false),
        Err(halt) => Err(halt),
    }
}

/// `gettid(2)`.
pub(crate) fn gettid(call: &mut Call<'_, '_>) -> CallResult {
    Ok(call.process.threads.current().tid.into())
}

/// `set_tid_address(2)`.
pub(crate) fn set_tid_address(call: &mut Call<'_, '_>) -> CallResult {
    let [address, ..] = call.args;
    let thread = call.process.threads.edit().current_mut();
    thread.clear_tid = address;
    Ok(thread.tid.into())
}

/// `set_robust_list(2)`.
pub(crate) fn set_robust_list(call: &mut Call<'_, '_>) -> CallResult {
    let [head, size, ..] = call.args;
    if size != ROBUST_LIST_HEAD_BYTES {
        return Err(Errno::EINVAL.into());
    }
    call.process.threads.edit().current_mut().robust_list = head;
    Ok(0)
}

/// `get_robust_list(2)`: of the calling thread or of another one.
pub(crate) fn get_robust_list(call: &mut Call<'_, '_>) -> CallResult {
    let [tid, head, size, ..] = call.args;
    let threads = &call.process.threads;
    let thread = match int(tid) {
        0 => Some(threads.current()),
        tid => threads.by_tid(tid.cast_unsigned()).and_then(|index| threads.get(index)),
    };
    let list = thread.ok_or(Errno::ESRCH)?.robust_list;
    call.user().write_words(size, &[ROBUST_LIST_HEAD_BYTES])?;
    call.user().write_words(head, &[list])?;
    Ok(0)
}

/// `rseq(2)`: not offered, as on a kernel built without it; C libraries do without.
pub(crate) fn rseq(_call: &mut Call<'_, '_>) -> CallResult {
    Err(Errno::ENOSYS.into())
}
