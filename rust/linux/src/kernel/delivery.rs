// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signal delivery: sends signals, ends waits, and runs handlers.
//!
//! ```text
//! send ----> a thread that does not block it ----> deliver, when that thread is about to continue:
//!      |       (its wait ends: interrupt)                     after a call or a fault, or after a switch to it
//!      +---> pending for the process, if all block it
//! ```
//!
//! A thread without signals costs one check of a flag after each call: [`crate::sched::threads::Threads::due`], which
//! says that the current thread may have something to do before it continues.

use mayfly_engine::Machine;
use mayfly_machine::UserContext;

use crate::base::arguments::flag;
use crate::base::clock;
use crate::base::errno::Errno;
use crate::base::halt::Halt;
use crate::base::step::{Fault, Step};
use crate::kernel::process::Process;
use crate::mm::user::UserMemory;
use crate::sched::threads::{ThreadState, Waiting};
use crate::signal::frame::{self, FrameContents, Trap};
use crate::signal::signals::{
    Action, Disposition, Info, Interrupted, SA_NODEFER, SA_RESETHAND, SA_RESTART, SA_RESTORER, SI_KERNEL, Signal,
    SignalSet,
};

/// Length of the `syscall` instruction.
const SYSCALL_BYTES: u64 = 2;
/// Flags cleared for a handler: TF, DF, RF.
const FLAGS_CLEARED: u64 = 0x100 | 0x400 | 0x1_0000;

/// Recipient of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalTarget {
    /// Any thread that does not block it.
    Process,
    /// The thread at this index.
    Thread(usize),
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Ignored,
    /// It was delivered, or is pending.
    Taken,
    /// It is pending, but its `siginfo` was dropped.
    Stripped,
}

impl Process {
    /// Sends a signal. An error ends the program.
    pub(crate) fn send_signal(
        &mut self,
        machine: &mut Machine,
        target: SignalTarget,
        info: Info,
    ) -> Result<Sent, Step> {
        let signal = info.signal;
        let Some(index) = self.taker(target, signal) else {
            return Ok(self.leave_pending(target, info));
        };
        match self.signals.disposition(signal) {
            Disposition::Ignore => return Ok(Sent::Ignored),
            Disposition::Kill => return Err(killed(machine, signal)),
            Disposition::Handle(_) => {}
        }
        let threads = self.threads.edit();
        let is_current = threads.current == index;
        let Some(thread) = threads.get_mut(index) else { return Ok(Sent::Ignored) };
        let whole = thread.signals.pending.add(info);
        if is_current {
            threads.due = true;
        }
        self.interrupt(machine, index)?;
        Ok(if whole { Sent::Taken } else { Sent::Stripped })
    }

    /// Sends a signal to the current thread for what it has done: SIGPIPE and the like.
    pub(crate) fn raise_on_current(&mut self, machine: &mut Machine, signal: Signal) -> Result<(), Step> {
        let info = Info::user(signal, crate::signal::signals::SI_USER);
        self.send_signal(machine, SignalTarget::Thread(self.threads.current), info).map(|_| ())
    }

    /// The thread that gets a signal now; `None` if all that could block it.
    fn taker(&self, target: SignalTarget, signal: Signal) -> Option<usize> {
        let takes = |index: usize| {
            self.threads.get(index).is_some_and(|thread| {
                let signals = &thread.signals;
                !signals.blocked.contains(signal) && !signals.awaited.contains(signal)
            })
        };
        match target {
            SignalTarget::Thread(index) => Some(index).filter(|&index| takes(index)),
            // A thread that waits for the signal in `rt_sigtimedwait` takes precedence.
            SignalTarget::Process if self.threads.iter().any(|thread| thread.signals.awaited.contains(signal)) => None,
            SignalTarget::Process => {
                let current = self.threads.current;
                std::iter::once(current).chain(0..self.threads.len()).find(|&index| takes(index))
            }
        }
    }

    fn leave_pending(&mut self, target: SignalTarget, info: Info) -> Sent {
        let threads = self.threads.edit();
        let whole = match target {
            SignalTarget::Process => self.signals.edit().pending.add(info),
            SignalTarget::Thread(index) => match threads.get_mut(index) {
                Some(thread) => thread.signals.pending.add(info),
                None => return Sent::Ignored,
            },
        };
        // Threads may wait for it.
        threads.note_change();
        if self.pollables.takes_signals() {
            self.pollables.edit().signal_pending();
        }
        if whole { Sent::Taken } else { Sent::Stripped }
    }

    /// Ends the wait of a thread that has a signal to handle.
    pub(crate) fn interrupt(&mut self, machine: &mut Machine, index: usize) -> Result<(), Step> {
        let Some(ThreadState::Waiting(waiting)) = self.threads.get(index).map(|thread| thread.state.clone()) else {
            return Ok(());
        };
        // The FIFO that it opens has been opened at the other end: the call succeeds, and then the signal is handled.
        let tid = self.threads.get(index).map_or(0, |thread| thread.tid);
        if self.pollables.opener(tid).is_some_and(|opener| opener.met) {
            return Ok(());
        }
        let interrupted = match waiting {
            Waiting::Call { number, args, wait, .. } => {
                let progress = self.threads.get(index).map_or(0, |thread| thread.progress);
                let moved = if counts_attempts(number) { 0 } else { progress };
                let value = match self.write_rest(machine, number, args, wait.until_ns) {
                    // Bytes already transferred must not be transferred again: the call returns their number.
                    Ok(()) if moved > 0 => moved as u64,
                    Ok(()) => Errno::EINTR.to_return_value(),
                    Err(halt) => self.value_of(Err(halt))?,
                };
                let may_restart = moved == 0 && wait.until_ns.is_none() && may_restart(number);
                Interrupted { number, may_restart, must_restart: false, value }
            }
            Waiting::Futex { until_ns, owns, .. } => Interrupted {
                number: libc::SYS_futex.cast_unsigned(),
                may_restart: until_ns.is_none(),
                // A deadline, if there is one, is absolute, so a repeated call keeps it.
                must_restart: owns,
                value: Errno::EINTR.to_return_value(),
            },
        };
        if let Some(thread) = self.threads.edit().get_mut(index) {
            thread.state = ThreadState::Ready;
            thread.signals.awaited = SignalSet::default();
            thread.signals.interrupted = Some(interrupted);
        }
        Ok(())
    }

    /// Writes the remaining time for an interrupted sleep.
    fn write_rest(
        &mut self,
        machine: &mut Machine,
        number: u64,
        args: [u64; 6],
        until_ns: Option<u64>,
    ) -> Result<(), Halt> {
        let [_, second, _, fourth, ..] = args;
        let rest = match number.cast_signed() {
            libc::SYS_nanosleep => second,
            libc::SYS_clock_nanosleep if second & flag(libc::TIMER_ABSTIME) == 0 => fourth,
            _ => 0,
        };
        let (Some(until_ns), true) = (until_ns, rest != 0) else { return Ok(()) };
        let words = clock::timespec(until_ns.saturating_sub(clock::now_ns()));
        UserMemory { machine, space: &self.memory, inodes: self.overlay.inodes(), may_block: true }
            .write_words(rest, &words)
    }

    /// Whether the thread has something to do before it continues.
    pub(crate) fn wants_attention(&self, index: usize) -> bool {
        let shared = self.signals.pending.set();
        self.threads.get(index).is_some_and(|thread| thread.signals.wants_attention(shared))
    }

    /// Whether a signal is pending that the thread does not block.
    pub(crate) fn has_deliverable(&self, index: usize) -> bool {
        let shared = self.signals.pending.set();
        self.threads.get(index).is_some_and(|thread| thread.signals.has_deliverable(shared))
    }

    /// The call of the current thread, which is live, has ended with a result. Restores the mask if the call waited
    /// under its own, and delivers pending signals.
    pub(crate) fn finish_call(&mut self, machine: &mut Machine) -> Result<(), Step> {
        self.deliver(machine, self.threads.current)
    }

    /// Delivers the signals of a thread that is about to continue: sets up their handlers, one on top of the other.
    pub(crate) fn deliver(&mut self, machine: &mut Machine, index: usize) -> Result<(), Step> {
        self.threads.edit().due = false;
        let Some(thread) = self.threads.edit().get_mut(index) else { return Ok(()) };
        let mut interrupted = thread.signals.interrupted.take();
        if interrupted.is_none() {
            // The call that it waited in has completed.
            restore_mask(&mut thread.signals);
        }
        let mut context: Option<UserContext> = None;
        while let Some(info) = self.take_signal(index) {
            let action = match self.signals.disposition(info.signal) {
                Disposition::Ignore => continue,
                Disposition::Kill => return Err(killed(machine, info.signal)),
                Disposition::Handle(action) => action,
            };
            let mut at = match context.take() {
                Some(context) => context,
                None => self.take_context(machine, index)?,
            };
            if let Some(interrupted) = interrupted.take() {
                let again = interrupted.must_restart || interrupted.may_restart && action.has(SA_RESTART);
                if again { make_again(&mut at, interrupted.number) } else { at.regs.rax = interrupted.value }
            }
            self.run_handler(machine, index, &mut at, &info, &action, Trap::default())?;
            context = Some(at);
        }
        if let Some(interrupted) = interrupted {
            // The program has ignored the signal meanwhile.
            let mut at = self.take_context(machine, index)?;
            make_again(&mut at, interrupted.number);
            context = Some(at);
        }
        if let Some(thread) = self.threads.edit().get_mut(index) {
            restore_mask(&mut thread.signals);
        }
        match context {
            Some(context) => self.put_context(machine, index, context),
            None => Ok(()),
        }
    }

    /// Takes the thread's next signal: its own before those of the process.
    fn take_signal(&mut self, index: usize) -> Option<Info> {
        let wanted = SignalSet::mask(u64::MAX).without(self.threads.get(index)?.signals.blocked);
        if !self.has_deliverable(index) {
            return None;
        }
        let own = self.threads.edit().get_mut(index)?.signals.pending.take(wanted);
        let info = own.or_else(|| self.signals.edit().pending.take(wanted))?;
        Some(self.note_taken(info))
    }

    /// Restarts a timer whose signal has been taken.
    pub(crate) fn note_taken(&mut self, mut info: Info) -> Info {
        if let Some(timer) = info.timer {
            let now = self.timer_now_ns(timer);
            let overrun = self.timers.edit().signal_taken(timer, now);
            if let (crate::signal::signals::TimerId::Posix(_), [first, ..]) = (timer, &mut info.fields) {
                *first |= u64::from(overrun) << 32;
            }
        }
        info
    }

    /// A fault of the current thread, which is live: runs its handler, or ends the program.
    pub(crate) fn fault(&mut self, machine: &mut Machine, fault: Fault, code: i32, trap: Trap) -> Step {
        let end = Step::Faulted(fault);
        let Some(signal) = Signal::new(fault.signal) else { return end };
        let current = self.threads.current;
        if self.synchronous(current, signal).is_none() {
            return end;
        }
        let mut context = match self.take_context(machine, current) {
            Ok(context) => context,
            Err(step) => return step,
        };
        let (code, address) = match (signal.number(), trap.number) {
            (libc::SIGFPE, 16 | 19) => (frame::float_exception(&context.vector, trap.number == 19), fault.rip),
            (libc::SIGFPE | libc::SIGILL, _) | (_, 1) => (code, fault.rip),
            _ => (code, fault.address.unwrap_or(0)),
        };
        let Some(action) = self.synchronous(current, signal) else { return end };
        let info = Info::kernel(signal, code, address);
        let done = self
            .run_handler(machine, current, &mut context, &info, &action, trap)
            .and_then(|()| self.put_context(machine, current, context));
        match done {
            Ok(()) if self.has_deliverable(current) => self.deliver(machine, current).err().unwrap_or(Step::Continue),
            Ok(()) => Step::Continue,
            // Reports the fault, which has more details than the signal.
            Err(Step::Faulted(killed)) if killed.signal == fault.signal => end,
            Err(step) => step,
        }
    }

    /// Ends the current thread's call by SIGSEGV: it returned from a handler with an invalid frame.
    pub(crate) fn bad_frame(&mut self, machine: &mut Machine) -> Step {
        let rip = machine.user_regs().map_or(0, |regs| regs.rip);
        let fault = Fault { signal: libc::SIGSEGV, vector: None, address: None, rip };
        self.fault(machine, fault, SI_KERNEL, Trap::default())
    }

    /// The handler for a synchronous signal, which cannot wait.
    fn synchronous(&self, index: usize, signal: Signal) -> Option<Action> {
        let blocked = self.threads.get(index)?.signals.blocked.contains(signal);
        match self.signals.disposition(signal) {
            Disposition::Handle(action) if !blocked => Some(action),
            _ => None,
        }
    }

    /// Makes `context` run a handler. If the frame cannot be written, that is SIGSEGV; if that fails too, the program
    /// ends.
    fn run_handler(
        &mut self,
        machine: &mut Machine,
        index: usize,
        context: &mut UserContext,
        info: &Info,
        action: &Action,
        trap: Trap,
    ) -> Result<(), Step> {
        self.apply_resethand(info.signal, action);
        match self.push_frame(machine, index, context, info, action, trap) {
            Ok(()) => return Ok(()),
            Err(Halt::End(step)) => return Err(step),
            Err(_) => {}
        }
        let fault = Step::Faulted(Fault {
            signal: libc::SIGSEGV,
            vector: None,
            address: Some(context.regs.rsp),
            rip: context.regs.rip,
        });
        let second = if info.signal == Signal::SEGV { None } else { self.synchronous(index, Signal::SEGV) };
        let Some(action) = second else { return Err(fault) };
        self.apply_resethand(Signal::SEGV, &action);
        let info = Info::kernel(Signal::SEGV, SI_KERNEL, 0);
        match self.push_frame(machine, index, context, &info, &action, Trap::default()) {
            Ok(()) => Ok(()),
            Err(Halt::End(step)) => Err(step),
            Err(_) => Err(fault),
        }
    }

    fn apply_resethand(&mut self, signal: Signal, action: &Action) {
        if action.has(SA_RESETHAND) {
            self.signals.edit().reset_handler(signal);
        }
    }

    fn push_frame(
        &mut self,
        machine: &mut Machine,
        index: usize,
        context: &mut UserContext,
        info: &Info,
        action: &Action,
        trap: Trap,
    ) -> Result<(), Halt> {
        let signals = self.threads.get(index).map(|thread| &thread.signals).ok_or(Errno::EFAULT)?;
        let stack = signals.stack;
        let mask = signals.saved_mask.unwrap_or(signals.blocked);
        let (features, size) = machine.vector_features();
        let addresses = frame::addresses(context.regs.rsp, action, &stack, size).ok_or(Errno::EFAULT)?;
        if !action.has(SA_RESTORER) || !Machine::is_program_address(action.handler) {
            return Err(Errno::EFAULT.into());
        }
        let bytes = frame::build(&context.regs, addresses, &FrameContents { action, info, trap, mask, stack: &stack });
        let vector = frame::build_vector(&context.vector, features, size);
        let mut user = UserMemory { machine, space: &self.memory, inodes: self.overlay.inodes(), may_block: true };
        user.write(addresses.fpstate, &vector)?;
        user.write(addresses.frame, &bytes)?;
        let regs = &mut context.regs;
        regs.rdi = info.signal.number().unsigned_abs().into();
        regs.rsi = addresses.frame.saturating_add(frame::SIGINFO_OFFSET);
        regs.rdx = addresses.frame.saturating_add(frame::UCONTEXT);
        regs.rax = 0;
        regs.rip = action.handler;
        regs.rsp = addresses.frame;
        regs.rflags &= !FLAGS_CLEARED;
        context.vector = frame::initial_vector(&context.vector);
        if let Some(thread) = self.threads.edit().get_mut(index) {
            let signals = &mut thread.signals;
            signals.saved_mask = None;
            signals.blocked = signals.blocked.or(SignalSet::mask(action.mask));
            if !action.has(SA_NODEFER) {
                signals.blocked = SignalSet::mask(signals.blocked.with(info.signal).bits());
            }
            if stack.disarms() {
                signals.stack = crate::signal::signals::AlternateStack::NONE;
            }
        }
        Ok(())
    }

    /// The context of a thread that is about to continue, for a change.
    pub(crate) fn take_context(&mut self, machine: &mut Machine, index: usize) -> Result<UserContext, Step> {
        if self.threads.live == Some(index) {
            let context = machine.context().map_err(|error| Step::Poison(format!("a signal: {error}")))?;
            return context.ok_or_else(|| Step::Poison("a signal for a thread whose context cannot be saved".into()));
        }
        let saved = self.threads.get(index).and_then(|thread| thread.saved.clone());
        saved.ok_or_else(|| Step::Poison("a signal for a thread without a context".into()))
    }

    /// Writes the changed context back.
    pub(crate) fn put_context(
        &mut self,
        machine: &mut Machine,
        index: usize,
        context: UserContext,
    ) -> Result<(), Step> {
        if self.threads.live == Some(index) {
            return machine.set_context(&context).map_err(|error| Step::Poison(format!("a signal: {error}")));
        }
        let threads = self.threads.edit();
        // The thread no longer continues where the machine would enter by itself.
        threads.entry = threads.entry.filter(|&entry| entry != index);
        if let Some(thread) = threads.get_mut(index) {
            thread.saved = Some(context);
        }
        Ok(())
    }
}

/// Restores the mask from before the call.
fn restore_mask(signals: &mut crate::signal::signals::ThreadSignals) {
    if let Some(mask) = signals.saved_mask.take() {
        signals.blocked = mask;
    }
}

fn make_again(context: &mut UserContext, number: u64) {
    context.regs.rip = context.regs.rip.wrapping_sub(SYSCALL_BYTES);
    context.regs.rax = number;
}

/// Whether a call's progress is the number of its attempts, and not of bytes.
fn counts_attempts(number: u64) -> bool {
    matches!(number.cast_signed(), libc::SYS_flock | libc::SYS_fcntl | libc::SYS_futex)
}

/// Whether a call continues to wait after a handler with SA_RESTART (`signal(7)`).
fn may_restart(number: u64) -> bool {
    !matches!(
        number.cast_signed(),
        libc::SYS_poll
            | libc::SYS_ppoll
            | libc::SYS_select
            | libc::SYS_pselect6
            | libc::SYS_epoll_wait
            | libc::SYS_epoll_pwait
            | libc::SYS_epoll_pwait2
            | libc::SYS_nanosleep
            | libc::SYS_clock_nanosleep
            | libc::SYS_pause
            | libc::SYS_rt_sigsuspend
            | libc::SYS_rt_sigtimedwait
    )
}

fn killed(machine: &Machine, signal: Signal) -> Step {
    let rip = machine.user_regs().map_or_else(|| machine.regs().rip, |regs| regs.rip);
    Step::Faulted(Fault { signal: signal.number(), vector: None, address: None, rip })
}
