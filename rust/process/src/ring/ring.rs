// SPDX-License-Identifier: MIT OR Apache-2.0
//! One stub's conversation: receive an event, answer it.
//!
//! ```text
//!            receive                         answer / rewind
//!  Running ───────────> Doorbell, Call ───────────────────> Running      1 SEND, 1 RECV: the world switch
//!          ───────────> Signal ─── resume / load / rewind ─> Running
//!                          │ order                             ^
//!                          v                                   │
//!  Unborn ── ring ───>  Ordered ──── resume / load / rewind ───┤
//!                        │   ^                                 │
//!                        └───┘ order        order_and_resume ──┘
//!  any ── a call that no stub makes ──> poisoned
//! ```
//!
//! Kicks come at any instruction, those of the host code too. `check::interruption` says what one has interrupted; what
//! the program was to get is known from the last answer, of which a copy is kept.
//!
//! # Invariants
//!
//! - Only orders are let through, each after number and arguments were compared, and only at the host code's
//!   instruction, while ordering.
//! - A value is an answer to a doorbell or a call only. To a ring it would be an address to load registers from.
//! - Where signals abort calls that the server has received, none is answered while a kick is under way: see `settle`.
//! - A poisoned ring says nothing but that.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use mayfly_machine::{Regs, UserContext, VectorState};

use crate::code::{ANSWER_REWIND, KICK, places};
use crate::error::RingError;
use crate::layout::{CONTEXT, FRAMES_BYTES, ORDERS, ORDERS_BYTES};
use crate::poison::Poison;
use crate::ring::check::{self, Doing, Interruption, Place, State};
use crate::ring::context::{self, Frame, Goes, Interrupted};
use crate::ring::kick::{Kick, Kicker};
use crate::sys::memory::SharedPages;
use crate::sys::{notify, pidfd};

/// Most signals in a row of which the server's caller hears nothing.
const MOST_SIGNALS: u32 = 8;
/// Bytes of a SYSCALL instruction.
const SYSCALL_BYTES: u64 = 2;

/// What a stub asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The program rang the doorbell: RDI, RSI, RDX, R10, R8, R9. All of them are untrusted.
    Doorbell([u64; 6]),
    /// The program made a system call that is answered by value.
    Call {
        /// Its number.
        number: i64,
        /// Its arguments.
        arguments: [u64; 6],
        /// The instruction behind it.
        rip: u64,
    },
    /// A signal interrupted the program: a system call (SIGSYS), an exception, a kick.
    Signal(Interrupted),
    /// A kick came on the way to the frozen state: nothing of the program is to be seen. Only
    /// [`Stub::rewind`](crate::Stub::rewind) answers.
    ///
    /// A program can jump to the trampoline again and again, so that each kick finds it there: who stops programs for
    /// good counts these events.
    Rewinding,
}

/// A notification.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) id: u64,
    pub(super) place: Place,
    pub(super) data: libc::seccomp_data,
}

impl Call {
    /// Whether this is the other call, which a signal has aborted, made again.
    fn is_again(&self, other: &Self) -> bool {
        let (a, b) = (&self.data, &other.data);
        (a.nr, a.instruction_pointer, a.args) == (b.nr, b.instruction_pointer, b.args)
    }
}

/// The notification that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) call: Call,
    pub(super) kind: AnswerKind,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum AnswerKind {
    /// A doorbell, or a call by value: the answer is the call's result.
    Value,
    /// A ring of the host code, and the context that the stub can go on with.
    Ring(Option<Pending>),
    /// A kick's ring in the trampoline.
    Rewinding,
}

/// A program's context that waits in a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    pub(super) frame: Frame,
    fs_base: u64,
    gs_base: u64,
}

impl From<&Goes> for Pending {
    fn from(goes: &Goes) -> Self {
        Self { frame: goes.frame, fs_base: goes.fs_base, gs_base: goes.gs_base }
    }
}

/// A stub's listener, and what is known of the stub.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(super) listener: OwnedFd,
    kick: Arc<Kick>,
    pid: i32,
    pub(super) pages: SharedPages,
    /// Components of vector state that it may have.
    components: u64,
    pub(super) state: State,
    pub(super) waiting: Option<Waiting>,
    poison: Option<Poison>,
    /// The last answer, and the context that it restores if it is one.
    pub(super) doing: Doing,
    pub(super) goes: Option<Goes>,
    /// The expected result of the last order before the program goes on.
    pub(super) expected: u64,
    /// A kick came whose ring was no event.
    stopped: bool,
    /// Signals in a row that were no event.
    pub(super) signals: u32,
    last_call: Option<i64>,
    /// Bytes of orders, and whether there is a context, since the last [`Ring::clear`].
    pub(super) orders_bytes: usize,
    has_context: bool,
    /// Bytes from the deepest frame that was seen to the end of the frames.
    #[cfg(test)]
    deepest: u64,
}

impl Ring {
    /// The ring of a new stub: receives its first call, which names its listener.
    pub(crate) fn born(
        pid: i32,
        kick: Kick,
        listener: OwnedFd,
        listener_number: u64,
        pages: SharedPages,
        components: u64,
    ) -> Result<Self, RingError> {
        let mut ring = Self {
            listener,
            kick: Arc::new(kick),
            pid,
            pages,
            components,
            state: State::Unborn,
            waiting: None,
            poison: None,
            doing: Doing::Value,
            goes: None,
            expected: 0,
            stopped: false,
            signals: 0,
            last_call: None,
            orders_bytes: 0,
            has_context: false,
            #[cfg(test)]
            deepest: 0,
        };
        // In this state the place can only be a ring's.
        let call = ring.next()?;
        let [operation, number, ..] = call.data.args;
        if let Err(poison) = check::check_birth(operation, number, listener_number) {
            return Err(ring.poisoned(poison));
        }
        ring.state = State::Ordered;
        ring.waiting = Some(Waiting { call, kind: AnswerKind::Ring(None) });
        Ok(ring)
    }

    pub(crate) fn pidfd(&self) -> &OwnedFd {
        self.kick.pidfd()
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn kicker(&self) -> Kicker {
        Kicker(Arc::clone(&self.kick))
    }

    pub(crate) fn last_call(&self) -> Option<i64> {
        self.last_call
    }

    /// Whether a kick was wanted or came that was no event; asked again, no.
    pub(crate) fn take_kick(&mut self) -> bool {
        let wanted = self.kick.take();
        std::mem::take(&mut self.stopped) || wanted
    }

    /// Makes wake-ups synchronous, if the kernel can.
    pub(crate) fn set_synchronous(&self) -> io::Result<()> {
        notify::set_synchronous(self.listener.as_fd())
    }

    pub(super) fn poisoned(&mut self, poison: Poison) -> RingError {
        self.poison = Some(poison);
        RingError::Poisoned(poison)
    }

    /// Waits for the stub's next call, which is one that its state leads to.
    pub(super) fn next(&mut self) -> Result<Call, RingError> {
        if let Some(poison) = self.poison {
            return Err(RingError::Poisoned(poison));
        }
        if self.waiting.is_some() {
            return Err(RingError::NotWaiting);
        }
        let call = self.next_of_any()?;
        match check::check_expected(call.place, self.state) {
            Ok(()) => Ok(call),
            Err(poison) => Err(self.poisoned(poison)),
        }
    }

    /// Waits for the stub's next call, and checks what can be checked of any.
    fn next_of_any(&mut self) -> Result<Call, RingError> {
        // The host code that a kick has interrupted comes to its next call first: one kick after the other would keep
        // it from that.
        let kicks = self.doing != Doing::Nested;
        let received = loop {
            if kicks {
                self.kick.enter();
            }
            match self.receive_or_end() {
                // By whatever signal: the caller of `receive` wants to know.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => self.kick.want(),
                // A signal made the stub give the call up: it comes again, behind the handler's ring.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) && !self.has_ended()? => {}
                received => break received,
            }
        };
        self.kick.leave();
        let notification = received.map_err(|error| self.failed("SECCOMP_IOCTL_NOTIF_RECV", error))?;
        let data = notification.data;
        match self.check(notification.pid, &data) {
            Ok(place) => Ok(Call { id: notification.id, place, data }),
            Err(poison) => Err(self.poisoned(poison)),
        }
    }

    /// RECV, which ends when the stub does.
    fn receive_or_end(&self) -> io::Result<libc::seccomp_notif> {
        // Before Linux 6.11 it would wait on, so there is a call more, which takes some hundreds of nanoseconds. A
        // notification that goes with the stub in between leaves RECV with ENOENT.
        if !self.kick.recv_ends() && !pidfd::outlives(self.pidfd().as_fd(), self.listener.as_fd())? {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        notify::receive(self.listener.as_fd())
    }

    fn check(&self, pid: u32, call: &libc::seccomp_data) -> Result<Place, Poison> {
        check::check_process(pid, self.pid)?;
        check::check_convention(call)?;
        let place = check::place(call.instruction_pointer, places())?;
        check::check_number(place, call)?;
        Ok(place)
    }

    fn has_ended(&self) -> Result<bool, RingError> {
        pidfd::ends_within(self.pidfd().as_fd(), Duration::ZERO)
            .map_err(|source| RingError::Ioctl { call: "poll of a pidfd", source })
    }

    pub(super) fn failed(&self, call: &'static str, source: io::Error) -> RingError {
        match self.has_ended() {
            Ok(true) => RingError::Gone,
            _ => RingError::Ioctl { call, source },
        }
    }

    /// Answers a call.
    pub(super) fn send(&mut self, call: &Call, value: i64, doing: Doing, goes: Option<Goes>) -> Result<(), RingError> {
        (self.waiting, self.doing, self.goes) = (None, doing, goes);
        self.send_again(|listener| notify::send(listener, call.id, value))
    }

    /// Sends again as long as signals of the server's interrupt it: then nothing was sent.
    pub(super) fn send_again(&self, send: impl Fn(BorrowedFd<'_>) -> io::Result<()>) -> Result<(), RingError> {
        loop {
            match send(self.listener.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("SECCOMP_IOCTL_NOTIF_SEND", error)),
                Ok(()) => return Ok(()),
            }
        }
    }

    /// The call that can be answered now.
    ///
    /// Where signals abort calls that the server has received, a kick that is under way does that to this one. An
    /// answer might be lost, or not, without a sign: so the kick's ring is received first, and then the call again.
    pub(super) fn settle(&mut self, waiting: &Waiting) -> Result<Call, RingError> {
        let (mut call, mut received) = (waiting.call, true);
        while !received || !self.kick.is_killable() && self.kick.is_under_way() {
            self.waiting = None;
            let next = self.next_of_any()?;
            received = next.is_again(&call);
            if received {
                call = next;
                continue;
            }
            let (seen, goes) = self.read(&next)?;
            let rip = seen.regs.rip;
            let goes = match self.goes {
                Some(goes) if self.doing == Doing::Nested && check::is_behind_answer(rip, places()) => goes,
                _ if rip == call.data.instruction_pointer - SYSCALL_BYTES => goes,
                _ => return Err(self.poisoned(Poison::Unexpected)),
            };
            if seen.signal != KICK {
                return Err(self.poisoned(Poison::Unexpected));
            }
            self.go_on_in_host(&next, rip, goes)?;
        }
        self.waiting = Some(Waiting { call, ..*waiting });
        Ok(call)
    }

    /// Reads what the handler rings about.
    fn read(&mut self, call: &Call) -> Result<(Interrupted, Goes), RingError> {
        if call.place != Place::Handler {
            return Err(self.poisoned(Poison::Unexpected));
        }
        match context::read(&self.pages, &call.data) {
            Ok((seen, frame)) => {
                if seen.signal == KICK {
                    self.kick.rang();
                }
                #[cfg(test)]
                {
                    let end = crate::layout::FRAMES + FRAMES_BYTES;
                    self.deepest = self.deepest.max(end - frame.address);
                }
                let goes = Goes { frame, regs: seen.regs, fs_base: seen.fs_base, gs_base: seen.gs_base };
                Ok((seen, goes))
            }
            Err(poison) => Err(self.poisoned(poison)),
        }
    }

    /// Lets the host code, which a kick has interrupted, go on with this context.
    fn go_on_in_host(&mut self, call: &Call, rip: u64, goes: Goes) -> Result<(), RingError> {
        self.stopped = true;
        self.count_signal(rip)?;
        if !context::write_frame(&self.pages, &goes) {
            return Err(RingError::NotWaiting);
        }
        self.send(call, goes.frame.address as i64, Doing::Nested, Some(goes))
    }

    /// Counts a signal that is no event.
    fn count_signal(&mut self, rip: u64) -> Result<(), RingError> {
        self.signals += 1;
        let signals = self.signals;
        if signals > MOST_SIGNALS { Err(self.poisoned(Poison::Signals { signals, rip })) } else { Ok(()) }
    }

    /// What a signal's ring is for the server's caller, if it is anything.
    pub(super) fn interrupted(&mut self, call: &Call) -> Result<Option<(Event, AnswerKind)>, RingError> {
        let (seen, goes) = self.read(call)?;
        let rip = seen.regs.rip;
        let interruption = check::interruption(seen.signal, rip, self.state, self.doing, places());
        let interruption = interruption.map_err(|poison| self.poisoned(poison))?;
        match (interruption, self.goes) {
            (Interruption::Program, _) => {
                let kind = AnswerKind::Ring(Some(Pending::from(&goes)));
                Ok(Some((Event::Signal(seen), kind)))
            }
            (Interruption::Restoring, Some(goes)) => {
                if self.state == State::Resuming {
                    check::check_last_order(rip, seen.regs.rax, self.expected, places())
                        .map_err(|poison| self.poisoned(poison))?;
                }
                let Goes { regs, fs_base, gs_base, .. } = goes;
                let kind = AnswerKind::Ring(Some(Pending::from(&goes)));
                Ok(Some((Event::Signal(Interrupted { regs, fs_base, gs_base, ..seen }), kind)))
            }
            (Interruption::Rewinding, _) => Ok(Some((Event::Rewinding, AnswerKind::Rewinding))),
            (Interruption::Rewound, _) => {
                self.count_signal(rip)?;
                self.send(call, ANSWER_REWIND, Doing::Rewind, None)?;
                Ok(None)
            }
            (Interruption::Host, _) => self.go_on_in_host(call, rip, goes).map(|()| None),
            (Interruption::RestoringHost, Some(goes)) => self.go_on_in_host(call, rip, goes).map(|()| None),
            (Interruption::Restoring | Interruption::RestoringHost, None) => Err(self.poisoned(Poison::Unexpected)),
        }
    }

    /// Waits for the program's next event.
    pub(crate) fn receive(&mut self) -> Result<Event, RingError> {
        let (event, call, kind) = loop {
            let call = self.next()?;
            match call.place {
                Place::Bell => break (Event::Doorbell(call.data.args), call, AnswerKind::Value),
                Place::Program | Place::Vdso => {
                    let number = i64::from(call.data.nr);
                    self.last_call = Some(number);
                    let (arguments, rip) = (call.data.args, call.data.instruction_pointer);
                    break (Event::Call { number, arguments, rip }, call, AnswerKind::Value);
                }
                Place::Handler => {
                    if let Some((event, kind)) = self.interrupted(&call)? {
                        break (event, call, kind);
                    }
                }
                Place::Ring if self.state == State::Resuming => {
                    return Err(self.poisoned(Poison::LastOrder { result: call.data.args[1] }));
                }
                Place::Ring | Place::Order => return Err(self.poisoned(Poison::Unexpected)),
            }
        };
        if let Event::Signal(seen) = &event
            && seen.signal == libc::SIGSYS
        {
            self.last_call = Some(seen.regs.rax as i64);
        }
        (self.state, self.signals) = (State::Running, 0);
        self.waiting = Some(Waiting { call, kind });
        Ok(event)
    }

    /// What waits, if it is a ring of the host code.
    pub(super) fn ring(&self) -> Result<(Waiting, Option<Pending>), RingError> {
        match self.waiting {
            Some(waiting @ Waiting { kind: AnswerKind::Ring(pending), .. }) => Ok((waiting, pending)),
            _ => Err(RingError::NotWaiting),
        }
    }

    /// What waits, if it is a doorbell or a call.
    fn value(&self) -> Result<Waiting, RingError> {
        match self.waiting {
            Some(waiting @ Waiting { kind: AnswerKind::Value, .. }) => Ok(waiting),
            _ => Err(RingError::NotWaiting),
        }
    }

    /// Answers a doorbell or a call: `value` is its result.
    pub(crate) fn answer(&mut self, value: i64) -> Result<(), RingError> {
        let call = self.settle(&self.value()?)?;
        self.send(&call, value, Doing::Value, None)
    }

    /// Answers a doorbell or a call, and stops the program behind it.
    pub(crate) fn stop(&mut self, value: i64) -> Result<Interrupted, RingError> {
        self.stop_noting(value).map(|(seen, _)| seen)
    }

    /// The same, and whether the answer was lost: the call was aborted, and would have come again.
    pub(crate) fn stop_noting(&mut self, value: i64) -> Result<(Interrupted, bool), RingError> {
        let Waiting { call, .. } = self.value()?;
        self.stopped |= self.kick.send_now();
        (self.waiting, self.doing, self.goes) = (None, Doing::Value, None);
        if self.kick.is_killable() {
            match notify::send(self.listener.as_fd(), call.id, value) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.send_again(|listener| notify::send(listener, call.id, value))?;
                }
                Err(error) => return Err(self.failed("SECCOMP_IOCTL_NOTIF_SEND", error)),
                Ok(()) => {}
            }
        }
        let behind = call.data.instruction_pointer;
        let (ring, mut seen, mut goes) = loop {
            let ring = self.next_of_any()?;
            let (seen, goes) = self.read(&ring)?;
            let rip = seen.regs.rip;
            // With the trap flag set, SIGTRAP comes behind the call, and the kick on top of that.
            if seen.signal == KICK && check::is_before_call(rip, places()) {
                self.go_on_in_host(&ring, rip, goes)?;
            } else {
                break (ring, seen, goes);
            }
        };
        let lost = seen.regs.rip == behind - SYSCALL_BYTES;
        if !lost && seen.regs.rip != behind {
            return Err(self.poisoned(Poison::Unexpected));
        }
        self.signals = 0;
        (seen.regs.rip, seen.regs.rax) = (behind, value as u64);
        goes.regs = seen.regs;
        self.waiting = Some(Waiting { call: ring, kind: AnswerKind::Ring(Some(Pending::from(&goes))) });
        Ok((seen, lost))
    }

    /// Has the program start again from its frozen state.
    pub(crate) fn rewind(&mut self) -> Result<(), RingError> {
        let waiting = self.waiting.ok_or(RingError::NotWaiting)?;
        let value = match waiting.kind {
            AnswerKind::Ring(_) | AnswerKind::Rewinding => ANSWER_REWIND,
            AnswerKind::Value if waiting.call.place == Place::Bell => 0,
            AnswerKind::Value => return Err(RingError::NotWaiting),
        };
        let call = self.settle(&waiting)?;
        self.state = State::Running;
        self.send(&call, value, Doing::Rewind, None)
    }

    /// Lets an interrupted program go on with these registers; its vector state is as it was.
    pub(crate) fn resume(&mut self, regs: &Regs, bases: Option<(u64, u64)>) -> Result<(), RingError> {
        let (waiting, pending) = self.ring()?;
        let goes = goes(pending, regs, bases)?;
        self.go_on(&waiting, goes)
    }

    fn go_on(&mut self, waiting: &Waiting, goes: Goes) -> Result<(), RingError> {
        let call = self.settle(waiting)?;
        if !context::write_frame(&self.pages, &goes) {
            return Err(RingError::NotWaiting);
        }
        self.state = State::Running;
        self.send(&call, goes.frame.address as i64, Doing::Restore, Some(goes))
    }

    /// Lets the stub go on as a program with these registers and initial vector state.
    pub(crate) fn start(&mut self, regs: &Regs, fs_base: u64, gs_base: u64) -> Result<(), RingError> {
        let (waiting, _) = self.ring()?;
        self.has_context = true;
        let goes = context::write_start(&self.pages, regs, fs_base, gs_base).ok_or(RingError::NotWaiting)?;
        self.go_on(&waiting, goes)
    }

    /// Lets the stub go on as a program in this context.
    pub(crate) fn load(&mut self, context: &UserContext) -> Result<(), RingError> {
        let (waiting, _) = self.ring()?;
        self.has_context = true;
        let goes = context::write_context(&self.pages, context, self.components).ok_or(RingError::NotWaiting)?;
        self.go_on(&waiting, goes)
    }

    /// The vector state of the program that a signal interrupted.
    pub(crate) fn vector(&self) -> Option<VectorState> {
        let (_, pending) = self.ring().ok()?;
        context::read_vector(&self.pages, pending?.frame, self.components)
    }

    /// Zeroes the frames, which the program can write, and what was written into orders and context, which it can
    /// read. The program that a signal interrupted cannot go on then.
    pub(crate) fn clear(&mut self) {
        // Where signals abort calls that were received, a kick that is under way makes a frame now: it comes first. An
        // error shows at the next answer.
        if let Some(waiting) = self.waiting {
            let _ = self.settle(&waiting);
        }
        if let Some(Waiting { kind: AnswerKind::Ring(pending), .. }) = &mut self.waiting {
            *pending = None;
        }
        let mut cleared = self.pages.clear(ORDERS_BYTES, FRAMES_BYTES as usize);
        let orders = std::mem::take(&mut self.orders_bytes);
        if orders > 0 {
            cleared &= self.pages.clear(0, orders);
        }
        if std::mem::take(&mut self.has_context) {
            cleared &= self.pages.clear(CONTEXT - ORDERS, (ORDERS_BYTES - (CONTEXT - ORDERS)) as usize);
        }
        debug_assert!(cleared, "all of them lie in the pages");
    }

    #[cfg(test)]
    pub(crate) fn deepest(&self) -> u64 {
        self.deepest
    }

    /// The worker's pages.
    #[cfg(test)]
    pub(crate) fn pages(&self) -> &SharedPages {
        &self.pages
    }
}

/// The context in which a program goes on that a signal interrupted.
pub(super) fn goes(pending: Option<Pending>, regs: &Regs, bases: Option<(u64, u64)>) -> Result<Goes, RingError> {
    let Pending { frame, fs_base, gs_base } = pending.ok_or(RingError::NotWaiting)?;
    let (fs_base, gs_base) = bases.unwrap_or((fs_base, gs_base));
    Ok(Goes { frame, regs: *regs, fs_base, gs_base })
}
