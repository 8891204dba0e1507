// SPDX-License-Identifier: MIT OR Apache-2.0
//! One stub's conversation: receive an event, answer it.
//!
//! ```text
//!            receive                         answer / load
//!  Running ───────────> Doorbell, Call ───────────────────> Running      1 SEND, 1 RECV: the world switch
//!          ───────────> Signal ─── resume / load ─────────> Running
//!                          │ order                             ^
//!                          v                                   │
//!  Unborn ── ring ───>  Ordered ──── resume / load ────────────┘
//!                        │   ^
//!                        └───┘ order
//!  any ── a call that no stub makes ──> poisoned
//! ```
//!
//! # Invariants
//!
//! - Only orders are let through, each after number and arguments were compared, and only at the host code's
//!   instruction, while ordering.
//! - A value is an answer to a doorbell or a call only. To a ring it would be an address to load registers from.
//! - A poisoned ring says nothing but that.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use mayfly_machine::Regs;
use mayfly_machine::layout::PAGE_SIZE;

use crate::code::{ANSWER_ORDERS, ANSWER_RESTORE, OP_DONE, OP_FAILED, places};
use crate::error::RingError;
use crate::layout::ORDERS_BYTES;
use crate::poison::Poison;
use crate::ring::check::{self, Place, State};
use crate::ring::context::{self, Frame, Interrupted};
use crate::ring::order::Order;
use crate::sys::memory::SharedPages;
use crate::sys::{notify, pidfd};

/// Most orders at a time: those that fit the page behind its first line.
const MOST_ORDERS: usize = (PAGE_SIZE as usize - 64) / 64;

/// What a stub asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The program rang the doorbell: RDI, RSI, RDX. All of them are untrusted.
    Doorbell([u64; 3]),
    /// The program made a system call that is answered by value.
    Call {
        /// Its number.
        number: i64,
        /// Its arguments.
        arguments: [u64; 6],
    },
    /// A signal interrupted the program: a system call (SIGSYS), an exception, a kick.
    Signal(Interrupted),
}

/// The notification that waits for an answer.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    id: u64,
    kind: AnswerKind,
}

#[derive(Debug, Clone, Copy)]
enum AnswerKind {
    /// A doorbell, or a call by value: the answer is the call's result.
    Value,
    /// A ring of the host code, and the context that the stub can go on with.
    Ring(Option<Frame>),
}

/// A stub's listener, and what is known of the stub.
#[derive(Debug)]
pub(crate) struct Ring {
    listener: OwnedFd,
    pidfd: OwnedFd,
    pid: i32,
    pages: SharedPages,
    state: State,
    waiting: Option<Waiting>,
    poison: Option<Poison>,
}

impl Ring {
    /// The ring of a new stub: receives its first call, which names its listener.
    pub(crate) fn born(
        pid: i32,
        pidfd: OwnedFd,
        listener: OwnedFd,
        listener_number: u64,
        pages: SharedPages,
    ) -> Result<Self, RingError> {
        let (state, waiting, poison) = (State::Unborn, None, None);
        let mut ring = Self { listener, pidfd, pid, pages, state, waiting, poison };
        // In this state the place can only be a ring's.
        let (_, call, id) = ring.next()?;
        let [operation, number, ..] = call.args;
        if let Err(poison) = check::check_birth(operation, number, listener_number) {
            return Err(ring.poisoned(poison));
        }
        ring.state = State::Ordered;
        ring.waiting = Some(Waiting { id, kind: AnswerKind::Ring(None) });
        Ok(ring)
    }

    pub(crate) fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Makes wake-ups synchronous, if the kernel can.
    pub(crate) fn set_synchronous(&self) -> io::Result<()> {
        notify::set_synchronous(self.listener.as_fd())
    }

    fn poisoned(&mut self, poison: Poison) -> RingError {
        self.poison = Some(poison);
        RingError::Poisoned(poison)
    }

    /// Waits for the stub's next call, and checks what can be checked of any.
    fn next(&mut self) -> Result<(Place, libc::seccomp_data, u64), RingError> {
        if let Some(poison) = self.poison {
            return Err(RingError::Poisoned(poison));
        }
        if self.waiting.is_some() {
            return Err(RingError::NotWaiting);
        }
        let notification = loop {
            match notify::receive(self.listener.as_fd()) {
                Ok(notification) => break notification,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A signal made the stub give the call up: it comes again, behind the handler's ring.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) && !self.has_ended()? => {}
                Err(error) => return Err(self.failed("SECCOMP_IOCTL_NOTIF_RECV", error)),
            }
        };
        let call = notification.data;
        match self.check(notification.pid, &call) {
            Ok(place) => Ok((place, call, notification.id)),
            Err(poison) => Err(self.poisoned(poison)),
        }
    }

    fn check(&self, pid: u32, call: &libc::seccomp_data) -> Result<Place, Poison> {
        check::check_process(pid, self.pid)?;
        check::check_convention(call)?;
        let place = check::place(call.instruction_pointer, places())?;
        check::check_expected(place, self.state)?;
        check::check_number(place, call)?;
        Ok(place)
    }

    fn has_ended(&self) -> Result<bool, RingError> {
        pidfd::ends_within(self.pidfd.as_fd(), Duration::ZERO)
            .map_err(|source| RingError::Ioctl { call: "poll of a pidfd", source })
    }

    fn failed(&self, call: &'static str, source: io::Error) -> RingError {
        match self.has_ended() {
            Ok(true) => RingError::Gone,
            _ => RingError::Ioctl { call, source },
        }
    }

    /// Answers what is waiting.
    fn send(&mut self, id: u64, value: i64) -> Result<(), RingError> {
        self.waiting = None;
        self.send_again(|listener| notify::send(listener, id, value))
    }

    /// Sends again as long as signals of the server's interrupt it: then nothing was sent.
    fn send_again(&self, send: impl Fn(BorrowedFd<'_>) -> io::Result<()>) -> Result<(), RingError> {
        loop {
            match send(self.listener.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("SECCOMP_IOCTL_NOTIF_SEND", error)),
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Waits for the program's next event.
    pub(crate) fn receive(&mut self) -> Result<Event, RingError> {
        let (place, call, id) = self.next()?;
        let [a, b, c, ..] = call.args;
        let (event, kind) = match place {
            Place::Bell => (Event::Doorbell([a, b, c]), AnswerKind::Value),
            Place::Program => (Event::Call { number: call.nr.into(), arguments: call.args }, AnswerKind::Value),
            Place::Handler => match context::read(&self.pages, &call) {
                Ok((interrupted, frame)) => (Event::Signal(interrupted), AnswerKind::Ring(Some(frame))),
                Err(poison) => return Err(self.poisoned(poison)),
            },
            Place::Ring | Place::Order => return Err(self.poisoned(Poison::Unexpected)),
        };
        self.waiting = Some(Waiting { id, kind });
        Ok(event)
    }

    /// Answers a doorbell or a call: `value` is its result.
    pub(crate) fn answer(&mut self, value: i64) -> Result<(), RingError> {
        match self.waiting {
            Some(Waiting { id, kind: AnswerKind::Value }) => self.send(id, value),
            _ => Err(RingError::NotWaiting),
        }
    }

    /// Lets an interrupted program go on with these registers; its vector state is as it was.
    pub(crate) fn resume(&mut self, regs: &Regs) -> Result<(), RingError> {
        match self.waiting {
            Some(Waiting { id, kind: AnswerKind::Ring(Some(frame)) })
                if context::write_frame(&self.pages, frame, regs) =>
            {
                self.state = State::Running;
                self.send(id, ANSWER_RESTORE)
            }
            _ => Err(RingError::NotWaiting),
        }
    }

    /// Lets the stub go on as a program with these registers and initial vector state.
    pub(crate) fn load(&mut self, regs: &Regs, fs_base: u64, gs_base: u64) -> Result<(), RingError> {
        let Some(Waiting { id, kind: AnswerKind::Ring(_) }) = self.waiting else { return Err(RingError::NotWaiting) };
        let context = context::write_context(&self.pages, regs, fs_base, gs_base).ok_or(RingError::NotWaiting)?;
        self.state = State::Running;
        self.send(id, context as i64)
    }

    /// Has the stub make these calls, in this order. Afterwards it waits as before.
    ///
    /// # Errors
    ///
    /// [`RingError::OrderFailed`] if one had another result than expected: those behind it are not made, and the stub
    /// waits as before.
    pub(crate) fn order(&mut self, orders: &[Order]) -> Result<(), RingError> {
        orders.chunks(MOST_ORDERS).try_for_each(|orders| {
            self.place(orders)?;
            self.carry_out(orders)
        })
    }

    /// Writes orders where the host code reads them.
    fn place(&self, orders: &[Order]) -> Result<(), RingError> {
        let then_ring = 1;
        let written = self.pages.set_words(0, [orders.len() as u64, then_ring])
            && orders.iter().zip(1_u64..).all(|(order, line)| self.pages.set_words(64 * line, order.words()));
        if written { Ok(()) } else { Err(RingError::NotWaiting) }
    }

    /// Has the stub make the calls that were placed, and lets these through.
    fn carry_out(&mut self, orders: &[Order]) -> Result<(), RingError> {
        let Some(Waiting { id, kind: AnswerKind::Ring(frame) }) = self.waiting else {
            return Err(RingError::NotWaiting);
        };
        self.state = State::Ordering;
        self.send(id, ANSWER_ORDERS)?;
        self.let_through(orders, frame)
    }

    /// Lets these calls through as they arrive, and receives the ring behind them.
    fn let_through(&mut self, orders: &[Order], frame: Option<Frame>) -> Result<(), RingError> {
        for order in orders {
            let (place, call, id) = self.next()?;
            if place == Place::Ring {
                return self.ordered(&call, id, frame);
            }
            if let Err(poison) = check::check_order(order, &call) {
                return Err(self.poisoned(poison));
            }
            self.send_again(|listener| notify::send_continue(listener, id))?;
        }
        self.state = State::Ordered;
        let (_, call, id) = self.next()?;
        self.ordered(&call, id, frame)
    }

    /// Places some orders, and expects others.
    #[cfg(test)]
    pub(crate) fn order_otherwise(&mut self, placed: &[Order], expected: &[Order]) -> Result<(), RingError> {
        self.place(placed)?;
        self.carry_out(expected)
    }

    /// Expects an order where none was given.
    #[cfg(test)]
    pub(crate) fn expect(&mut self, order: Order) -> Result<(), RingError> {
        self.state = State::Ordering;
        self.let_through(&[order], None)
    }

    /// The worker's pages.
    #[cfg(test)]
    pub(crate) fn pages(&self) -> &SharedPages {
        &self.pages
    }

    /// The ring after orders: all were carried out, or one has failed.
    fn ordered(&mut self, call: &libc::seccomp_data, id: u64, frame: Option<Frame>) -> Result<(), RingError> {
        let [operation, result, ..] = call.args;
        // A stub that is ordering makes no instruction of a program's; what rings is the host code.
        let done = match (operation, self.state) {
            (OP_DONE, State::Ordered) => Ok(()),
            (OP_FAILED, _) => Err(RingError::OrderFailed { result }),
            _ => return Err(self.poisoned(Poison::Unexpected)),
        };
        self.state = State::Ordered;
        self.waiting = Some(Waiting { id, kind: AnswerKind::Ring(frame) });
        done
    }
}

const _: () = assert!(ORDERS_BYTES as usize >= 64 + MOST_ORDERS * 64);
