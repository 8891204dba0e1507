// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signal calls: actions, sending, waiting, and returning from a handler.

use crate::base::arguments::{check_signal_set_size, int};
use crate::base::clock::{self, is_over};
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt, Wait, waits_for_a_signal};
use crate::base::identity::{PID, is_self};
use crate::base::step::Step;
use crate::kernel::call::Call;
use crate::kernel::delivery::{Sent, SignalTarget};
use crate::signal::frame;
use crate::signal::signals::{
    Action, AlternateStack, Disposition, Info, SI_TKILL, SI_USER, Signal, SignalSet, ThreadSignals, forget,
};

/// Smallest alternate stack that Linux accepts.
const MINIMUM_STACK_BYTES: u64 = 2048;

/// `rt_sigaction(2)`.
pub(crate) fn rt_sigaction(call: &mut Call<'_, '_>) -> CallResult {
    let [number, new, old, set_size, ..] = call.args;
    check_signal_set_size(set_size)?;
    let signal = Signal::new(int(number)).ok_or(Errno::EINVAL)?;
    let before = call.process.signals.action(signal);
    if new != 0 {
        let [handler, flags, restorer, mask] = call.user().read_words(new)?;
        if !call.process.signals.edit().set_action(signal, Action { handler, flags, restorer, mask }) {
            return Err(Errno::EINVAL.into());
        }
        if call.process.signals.disposition(signal) == Disposition::Ignore {
            let shared = std::iter::once(&mut call.process.signals.edit().pending);
            forget(signal, shared.chain(call.process.threads.edit().pending_mut()));
            call.process.restart_timers();
        }
    }
    if old != 0 {
        call.user().write_words(old, &[before.handler, before.flags, before.restorer, before.mask])?;
    }
    Ok(0)
}

/// The signal state of the calling thread.
fn thread_signals<'a>(call: &'a mut Call<'_, '_>) -> &'a mut ThreadSignals {
    &mut call.process.threads.edit().current_mut().signals
}

/// Sets the mask; signals that it unblocks are delivered when the call ends.
fn set_mask(call: &mut Call<'_, '_>, mask: SignalSet) {
    let threads = call.process.threads.edit();
    threads.due = true;
    threads.current_mut().signals.blocked = mask;
}

/// `rt_sigprocmask(2)`.
pub(crate) fn rt_sigprocmask(call: &mut Call<'_, '_>) -> CallResult {
    let [how, new, old, set_size, ..] = call.args;
    check_signal_set_size(set_size)?;
    let before = call.process.threads.current().signals.blocked.bits();
    if new != 0 {
        let [set] = call.user().read_words(new)?;
        let mask = match int(how) {
            libc::SIG_BLOCK => before | set,
            libc::SIG_UNBLOCK => before & !set,
            libc::SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL.into()),
        };
        let mask = SignalSet::mask(mask);
        if mask.bits() != before {
            set_mask(call, mask);
        }
    }
    if old != 0 {
        call.user().write_words(old, &[before])?;
    }
    Ok(0)
}

/// `rt_sigpending(2)`.
pub(crate) fn rt_sigpending(call: &mut Call<'_, '_>) -> CallResult {
    let [set, set_size, ..] = call.args;
    if set_size > 8 {
        return Err(Errno::EINVAL.into());
    }
    let own = &call.process.threads.current().signals;
    let pending = own.pending.set().or(call.process.signals.pending.set()).and(own.blocked);
    let pending = pending.bits().to_le_bytes();
    let wanted = usize::try_from(set_size).ok().and_then(|size| pending.get(..size)).unwrap_or_default();
    call.user().write(set, wanted)?;
    Ok(0)
}

/// `rt_sigsuspend(2)`.
pub(crate) fn rt_sigsuspend(call: &mut Call<'_, '_>) -> CallResult {
    let [set, set_size, ..] = call.args;
    if call.waited.is_none() {
        check_signal_set_size(set_size)?;
        let [mask] = call.user().read_words(set)?;
        with_mask(call, SignalSet::mask(mask))?;
    }
    Err(waits_for_a_signal("sigsuspend"))
}

/// `pause(2)`.
pub(crate) fn pause(_call: &mut Call<'_, '_>) -> CallResult {
    Err(waits_for_a_signal("pause"))
}

/// Sets the mask of a call that waits under its own, when it is made for the first time. The mask ends with the call.
pub(crate) fn with_mask(call: &mut Call<'_, '_>, mask: SignalSet) -> Result<(), Halt> {
    let signals = thread_signals(call);
    signals.saved_mask.get_or_insert(signals.blocked);
    set_mask(call, mask);
    Ok(())
}

/// `rt_sigtimedwait(2)`.
pub(crate) fn rt_sigtimedwait(call: &mut Call<'_, '_>) -> CallResult {
    let [set, info_buffer, timeout, set_size, ..] = call.args;
    let until_ns = call.until(|call| {
        check_signal_set_size(set_size)?;
        let until = match timeout {
            0 => None,
            timeout => Some(clock::now_ns().saturating_add(crate::time::calls::clocks::read_duration(call, timeout)?)),
        };
        Ok(until)
    })?;
    let wanted = if call.waited.is_some() {
        call.process.threads.current().signals.awaited
    } else {
        let [set] = call.user().read_words(set)?;
        SignalSet::mask(set)
    };
    let shared = call.process.signals.pending.set();
    let there = call.process.threads.current().signals.pending.set().or(shared).and(wanted);
    if !there.is_empty() {
        let taken = thread_signals(call).pending.take(wanted);
        let taken = taken.or_else(|| call.process.signals.edit().pending.take(wanted));
        thread_signals(call).awaited = SignalSet::default();
        let info = call.process.note_taken(taken.ok_or(Errno::EAGAIN)?);
        if info_buffer != 0 {
            call.user().write(info_buffer, &info.to_bytes())?;
        }
        return Ok(info.signal.number().unsigned_abs().into());
    }
    if is_over(until_ns) {
        if call.waited.is_some() {
            thread_signals(call).awaited = SignalSet::default();
        }
        return Err(Errno::EAGAIN.into());
    }
    thread_signals(call).awaited = wanted;
    Err(Wait { call: "sigtimedwait", until_ns, look_ns: None }.into())
}

/// `sigaltstack(2)`.
pub(crate) fn sigaltstack(call: &mut Call<'_, '_>) -> CallResult {
    let [new, old, ..] = call.args;
    let before = call.process.threads.current().signals.stack;
    let rsp = call.machine.regs().rsp;
    if new != 0 {
        let words = call.user().read_words(new)?;
        set_stack(call, words, rsp)?;
    }
    if old != 0 {
        let state = match before {
            AlternateStack { size: 0, .. } => libc::SS_DISABLE,
            stack if stack.is_used_at(rsp) => libc::SS_ONSTACK,
            _ => 0,
        };
        let flags = state | before.flags & AlternateStack::AUTODISARM;
        // The four bytes after the flags are padding; Linux leaves them alone too.
        call.user().write_words(old, &[before.pointer])?;
        let at = |offset: u64| old.checked_add(offset).ok_or(Errno::EFAULT);
        call.user().write(at(8)?, &flags.to_le_bytes())?;
        call.user().write_words(at(16)?, &[before.size])?;
    }
    Ok(0)
}

fn set_stack(call: &mut Call<'_, '_>, [pointer, flags, size]: [u64; 3], rsp: u64) -> Result<(), Errno> {
    let flags = int(flags);
    let before = call.process.threads.current().signals.stack;
    if before.is_used_at(rsp) {
        return Err(Errno::EPERM);
    }
    let stack = match flags & !AlternateStack::AUTODISARM {
        libc::SS_DISABLE => AlternateStack { flags, ..AlternateStack::NONE },
        0 | libc::SS_ONSTACK if size < MINIMUM_STACK_BYTES => return Err(Errno::ENOMEM),
        0 | libc::SS_ONSTACK => AlternateStack { pointer, flags, size },
        _ => return Err(Errno::EINVAL),
    };
    if stack != before {
        thread_signals(call).stack = stack;
    }
    Ok(())
}

/// `rt_sigreturn(2)`: returns to where a handler was called. The frame is the program's, and is checked; an invalid one
/// is SIGSEGV.
pub(crate) fn rt_sigreturn(call: &mut Call<'_, '_>) -> CallResult {
    call.commit();
    match restore(call) {
        Ok(()) => Err(Halt::Restored),
        Err(Halt::Errno(_)) => match call.process.bad_frame(call.machine) {
            Step::Continue => Err(Halt::Restored),
            step => Err(Halt::End(step)),
        },
        Err(halt) => Err(halt),
    }
}

fn restore(call: &mut Call<'_, '_>) -> Result<(), Halt> {
    // The handler has returned to the restorer, popping its address from the frame.
    let rsp = call.machine.regs().rsp;
    let frame = rsp.checked_sub(8).ok_or(Errno::EFAULT)?;
    let at = frame.checked_add(frame::UCONTEXT).ok_or(Errno::EFAULT)?;
    let words = call.user().read_words::<{ frame::UCONTEXT_WORDS }>(at)?;
    let returned = frame::read(&words).ok_or(Errno::EFAULT)?;
    let index = call.process.threads.current;
    let mut context = call.process.take_context(call.machine, index).map_err(Halt::End)?;
    context.vector = if returned.fpstate == 0 {
        frame::initial_vector(&context.vector)
    } else {
        read_vector(call, returned.fpstate, &context.vector)?
    };
    context.regs = returned.regs;
    set_mask(call, returned.mask);
    // As on Linux, an alternate stack that cannot be set is ignored.
    let _ = set_stack(call, returned.stack, returned.regs.rsp);
    call.process.put_context(call.machine, index, context).map_err(Halt::End)
}

fn read_vector(
    call: &mut Call<'_, '_>,
    address: u64,
    now: &mayfly_machine::VectorState,
) -> Result<mayfly_machine::VectorState, Halt> {
    if !address.is_multiple_of(64) {
        return Err(Errno::EFAULT.into());
    }
    let (features, size) = call.machine.vector_features();
    let mut area = vec![0; size.saturating_add(frame::MAGIC_BYTES)];
    let (legacy, rest) = area.split_at_mut_checked(frame::LEGACY).ok_or(Errno::EFAULT)?;
    call.user().read(address, legacy)?;
    let claims_extended = frame::has_extended(legacy, size);
    if claims_extended {
        call.user()
            .read(address.checked_add(crate::base::arguments::count(frame::LEGACY)).ok_or(Errno::EFAULT)?, rest)?;
    }
    let extended = claims_extended && frame::ends_with_magic(&area);
    if !extended {
        area.truncate(frame::LEGACY);
    }
    frame::read_vector(&area, now, features, extended).ok_or_else(|| Errno::EFAULT.into())
}

/// `kill(2)`: the process can signal itself, by its number or as its group; it sees no other.
pub(crate) fn kill(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, number, ..] = call.args;
    let pid = int(pid);
    let to = if is_self(pid) || is_self(pid.wrapping_neg()) { Some(SignalTarget::Process) } else { None };
    send(call, to, number, SI_USER)
}

/// `tkill(2)`.
pub(crate) fn tkill(call: &mut Call<'_, '_>) -> CallResult {
    let [tid, number, ..] = call.args;
    if int(tid) <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let to = thread(call, tid);
    send(call, to, number, SI_TKILL)
}

/// `tgkill(2)`.
pub(crate) fn tgkill(call: &mut Call<'_, '_>) -> CallResult {
    let [group, tid, number, ..] = call.args;
    if int(group) <= 0 || int(tid) <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let to = thread(call, tid).filter(|_| int(group).cast_unsigned() == PID);
    send(call, to, number, SI_TKILL)
}

fn thread(call: &Call<'_, '_>, tid: u64) -> Option<SignalTarget> {
    call.process.threads.by_tid(int(tid).cast_unsigned()).map(SignalTarget::Thread)
}

pub(crate) fn send(call: &mut Call<'_, '_>, to: Option<SignalTarget>, number: u64, code: i32) -> CallResult {
    let number = int(number);
    let signal = Signal::new(number);
    if signal.is_none() && number != 0 {
        return Err(Errno::EINVAL.into());
    }
    let to = to.ok_or(Errno::ESRCH)?;
    // Number 0 only checks the permission.
    if let Some(signal) = signal {
        call.process.send_signal(call.machine, to, Info::user(signal, code)).map_err(Halt::End)?;
    }
    Ok(0)
}

/// `rt_sigqueueinfo(2)`.
pub(crate) fn rt_sigqueueinfo(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, number, info, ..] = call.args;
    let to = (int(pid).cast_unsigned() == PID).then_some(SignalTarget::Process);
    queue(call, to, number, info)
}

/// `rt_tgsigqueueinfo(2)`.
pub(crate) fn rt_tgsigqueueinfo(call: &mut Call<'_, '_>) -> CallResult {
    let [group, tid, number, info, ..] = call.args;
    if int(group) <= 0 || int(tid) <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let to = thread(call, tid).filter(|_| int(group).cast_unsigned() == PID);
    queue(call, to, number, info)
}

pub(crate) fn queue(call: &mut Call<'_, '_>, to: Option<SignalTarget>, number: u64, info: u64) -> CallResult {
    let [_, code, a, b, c, d] = call.user().read_words(info)?;
    let number = int(number);
    let signal = Signal::new(number);
    if signal.is_none() && number != 0 {
        return Err(Errno::EINVAL.into());
    }
    let to = to.ok_or(Errno::ESRCH)?;
    let Some(signal) = signal else { return Ok(0) };
    let info = Info { signal, code: int(code), fields: [a, b, c, d], timer: None };
    match call.process.send_signal(call.machine, to, info).map_err(Halt::End)? {
        Sent::Stripped if signal.is_queued() => Err(Errno::EAGAIN.into()),
        _ => Ok(0),
    }
}
