// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signal calls. State is kept and told as on Linux; handlers are not run yet (see `crate::signals`).

use super::process::is_self;
use super::{check_signal_set_size, int, waits_for_a_signal};
use crate::errno::{CallResult, Errno, Halt};
use crate::fault::Fault;
use crate::process::Step;
use crate::signals::{Action, AlternateStack, Delivery, Signal, SignalSet};
use crate::table::Call;

/// Smallest alternate stack that Linux accepts.
const MINIMUM_STACK_BYTES: u64 = 2048;
/// SS_AUTODISARM of `<linux/signal.h>`.
const SS_AUTODISARM: i32 = i32::MIN;

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
    }
    if old != 0 {
        call.user().write_words(old, &[before.handler, before.flags, before.restorer, before.mask])?;
    }
    Ok(0)
}

/// `rt_sigprocmask(2)`.
pub(crate) fn rt_sigprocmask(call: &mut Call<'_, '_>) -> CallResult {
    let [how, new, old, set_size, ..] = call.args;
    check_signal_set_size(set_size)?;
    let before = call.process.signals.blocked().bits();
    if new != 0 {
        let [set] = call.user().read_words(new)?;
        let mask = match int(how) {
            libc::SIG_BLOCK => before | set,
            libc::SIG_UNBLOCK => before & !set,
            libc::SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL.into()),
        };
        let delivery = call.process.signals.edit().set_blocked(SignalSet::mask(mask));
        deliver(call, delivery)?;
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
    let pending = call.process.signals.pending().bits().to_le_bytes();
    let wanted = usize::try_from(set_size).ok().and_then(|size| pending.get(..size)).unwrap_or_default();
    call.user().write(set, wanted)?;
    Ok(0)
}

/// `rt_sigsuspend(2)`.
pub(crate) fn rt_sigsuspend(call: &mut Call<'_, '_>) -> CallResult {
    let [set, set_size, ..] = call.args;
    check_signal_set_size(set_size)?;
    let [mask] = call.user().read_words(set)?;
    with_mask(call, SignalSet::mask(mask))?;
    Err(waits_for_a_signal("sigsuspend"))
}

/// `pause(2)`.
pub(crate) fn pause(_call: &mut Call<'_, '_>) -> CallResult {
    Err(waits_for_a_signal("pause"))
}

/// `sigaltstack(2)`.
pub(crate) fn sigaltstack(call: &mut Call<'_, '_>) -> CallResult {
    let [new, old, ..] = call.args;
    let before = call.process.signals.stack;
    if new != 0 {
        let [pointer, flags, size] = call.user().read_words(new)?;
        let flags = int(flags);
        let stack = match flags & !SS_AUTODISARM {
            libc::SS_DISABLE => AlternateStack { flags, ..AlternateStack::NONE },
            0 | libc::SS_ONSTACK if size < MINIMUM_STACK_BYTES => return Err(Errno::ENOMEM.into()),
            0 | libc::SS_ONSTACK => AlternateStack { pointer, flags: flags & SS_AUTODISARM, size },
            _ => return Err(Errno::EINVAL.into()),
        };
        call.process.signals.edit().stack = stack;
    }
    if old != 0 {
        let flags = u64::from(before.flags.cast_unsigned());
        call.user().write_words(old, &[before.pointer, flags, before.size])?;
    }
    Ok(0)
}

/// `kill(2)`: the process can signal itself, by number or as its group; it sees no other.
pub(crate) fn kill(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, number, ..] = call.args;
    let pid = int(pid);
    send(call, is_self(pid) || is_self(pid.wrapping_neg()), number)
}

/// `tkill(2)`.
pub(crate) fn tkill(call: &mut Call<'_, '_>) -> CallResult {
    let [tid, number, ..] = call.args;
    if int(tid) <= 0 {
        return Err(Errno::EINVAL.into());
    }
    send(call, is_self(int(tid)), number)
}

/// `tgkill(2)`.
pub(crate) fn tgkill(call: &mut Call<'_, '_>) -> CallResult {
    let [group, tid, number, ..] = call.args;
    if int(group) <= 0 || int(tid) <= 0 {
        return Err(Errno::EINVAL.into());
    }
    send(call, is_self(int(group)) && is_self(int(tid)), number)
}

fn send(call: &mut Call<'_, '_>, to_self: bool, number: u64) -> CallResult {
    let number = int(number);
    let signal = Signal::new(number);
    if signal.is_none() && number != 0 {
        return Err(Errno::EINVAL.into());
    }
    if !to_self {
        return Err(Errno::ESRCH.into());
    }
    // Number 0 only asks whether one could.
    if let Some(signal) = signal {
        let delivery = call.process.signals.edit().raise(signal);
        deliver(call, delivery)?;
    }
    Ok(0)
}

/// For calls that wait under a mask of their own: what is pending and not in it is delivered before the wait.
pub(crate) fn with_mask(call: &mut Call<'_, '_>, mask: SignalSet) -> Result<(), Halt> {
    let before = call.process.signals.blocked();
    let signals = call.process.signals.edit();
    let delivery = signals.set_blocked(mask);
    signals.set_blocked(before);
    deliver(call, delivery)
}

fn deliver(call: &Call<'_, '_>, delivery: Delivery) -> Result<(), Halt> {
    match delivery {
        Delivery::None => Ok(()),
        Delivery::Kill(signal) => Err(Halt::End(Step::Faulted(Fault {
            signal: signal.number(),
            vector: None,
            address: None,
            rip: call.machine.regs().rcx,
        }))),
    }
}
