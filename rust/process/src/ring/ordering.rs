// SPDX-License-Identifier: MIT OR Apache-2.0
//! Orders: calls that a stub makes for its server, where it waits at a ring of the host code.
//!
//! The server writes them into the stub's pages; the host code makes them one by one, and each is let through only if it
//! is the expected one (see the invariants of [`Ring`]).

use std::os::fd::{AsFd, BorrowedFd};

use mayfly_machine::Regs;
use mayfly_machine::layout::PAGE_SIZE;

use crate::code::{ANSWER_ORDERS, OP_DONE, OP_FAILED};
use crate::error::RingError;
use crate::layout::ORDERS_BYTES;
use crate::poison::Poison;
use crate::ring::check::{self, Doing, Place, State};
use crate::ring::context::{self, Goes};
use crate::ring::order::{Order, PASSING};
use crate::ring::ring::{AnswerKind, Call, Pending, Ring, Waiting, goes};
use crate::sys::notify;

/// Most orders at a time: those that fit the page behind its first line.
const MOST_ORDERS: usize = (PAGE_SIZE as usize - 64) / 64;
const _: () = assert!(ORDERS_BYTES as usize >= 64 + MOST_ORDERS * 64);

impl Ring {
    /// Has the stub make these calls, in this order. Afterwards it waits as before.
    ///
    /// # Errors
    ///
    /// [`RingError::OrderFailed`] if one had another result than expected: those behind it are not made, and the stub
    /// waits as before.
    pub(crate) fn order(&mut self, orders: &[Order]) -> Result<(), RingError> {
        orders.chunks(MOST_ORDERS).try_for_each(|orders| self.carry_out(orders, orders, None))
    }

    /// The same; then the program goes on, without another ring.
    pub(crate) fn order_and_resume(
        &mut self,
        orders: &[Order],
        regs: &Regs,
        bases: Option<(u64, u64)>,
    ) -> Result<(), RingError> {
        let (_, pending) = self.ring()?;
        let goes = goes(pending, regs, bases)?;
        let last = orders.len().saturating_sub(1) / MOST_ORDERS * MOST_ORDERS;
        let (before, last) = orders.split_at_checked(last).unwrap_or((orders, &[]));
        self.order(before)?;
        if last.is_empty() { self.resume(regs, bases) } else { self.carry_out(last, last, Some(goes)) }
    }

    /// Has the stub make calls that use this file, as its descriptor [`PASSING`].
    pub(crate) fn with_file(&mut self, file: BorrowedFd<'_>, orders: &[Order]) -> Result<(), RingError> {
        self.install(file, PASSING)?;
        let close = Order::close_passing();
        let done = self.order(&[orders, &[close]].concat());
        if let Err(RingError::OrderFailed { .. }) = done {
            self.order(&[close])?;
        }
        done
    }

    /// Gives the stub a descriptor of this number. Until its next ring it waits as if it were busy.
    pub(crate) fn install(&mut self, file: BorrowedFd<'_>, number: u32) -> Result<(), RingError> {
        let (waiting, _) = self.ring()?;
        let call = self.settle(&waiting)?;
        notify::add_descriptor(self.listener.as_fd(), call.id, file, number)
            .map_err(|error| self.failed("SECCOMP_IOCTL_NOTIF_ADDFD", error))
    }

    /// Writes orders where the host code reads them, what it restores behind them, if anything, and its stack pointer.
    fn place(&mut self, orders: &[Order], then: u64, stack: u64) -> bool {
        self.orders_bytes = self.orders_bytes.max(64 * (orders.len() + 1));
        self.pages.set_words(0, [orders.len() as u64, then, stack])
            && orders.iter().zip(1_u64..).all(|(order, line)| self.pages.set_words(64 * line, order.words()))
    }

    /// Has the stub make the calls that are placed, and lets the expected ones through.
    fn carry_out(&mut self, placed: &[Order], expected: &[Order], then: Option<Goes>) -> Result<(), RingError> {
        let (waiting, pending) = self.ring()?;
        let call = self.settle(&waiting)?;
        // A stack pointer outside the frames makes the kernel start at their end.
        let stack = pending.map_or(0, |pending| pending.frame.address);
        if !self.place(placed, then.map_or(0, |goes| goes.frame.address), stack) {
            return Err(RingError::NotWaiting);
        }
        self.state = State::Ordering;
        self.send(&call, ANSWER_ORDERS, Doing::Orders, None)?;
        self.let_through(expected, pending, then)
    }

    /// Lets these calls through as they arrive, and receives the ring behind them, unless the program goes on.
    fn let_through(&mut self, orders: &[Order], pending: Option<Pending>, then: Option<Goes>) -> Result<(), RingError> {
        for (order, left) in orders.iter().zip((0..orders.len()).rev()) {
            let call = self.next_beyond_kicks()?;
            if call.place == Place::Ring {
                return self.ordered(call, pending);
            }
            if let Err(poison) = check::check_order(order, &call.data) {
                return Err(self.poisoned(poison));
            }
            let call = self.settle(&Waiting { call, kind: AnswerKind::Ring(None) })?;
            (self.waiting, self.doing, self.expected) = (None, Doing::Orders, order.expected());
            // Not before: a kick behind the last answer may have had its frame there. From here on frames lie below.
            if let Some(goes) = then.filter(|_| left == 0)
                && !context::write_frame(&self.pages, &goes)
            {
                return Err(RingError::NotWaiting);
            }
            self.send_again(|listener| notify::send_continue(listener, call.id))?;
        }
        if then.is_some() {
            (self.state, self.doing, self.goes) = (State::Resuming, Doing::Restore, then);
            return Ok(());
        }
        self.state = State::Ordered;
        let call = self.next_beyond_kicks()?;
        self.ordered(call, pending)
    }

    /// Waits for the next call of a stub that has orders; kicks change nothing.
    fn next_beyond_kicks(&mut self) -> Result<Call, RingError> {
        loop {
            let call = self.next()?;
            if call.place != Place::Handler {
                self.signals = 0;
                return Ok(call);
            }
            // In this state a signal is no event.
            if self.interrupted(&call)?.is_some() {
                return Err(self.poisoned(Poison::Unexpected));
            }
        }
    }

    /// Places some orders, and expects others.
    #[cfg(test)]
    pub(crate) fn order_otherwise(&mut self, placed: &[Order], expected: &[Order]) -> Result<(), RingError> {
        self.carry_out(placed, expected, None)
    }

    /// Expects an order where none was given.
    #[cfg(test)]
    pub(crate) fn expect(&mut self, order: Order) -> Result<(), RingError> {
        self.state = State::Ordering;
        self.let_through(&[order], None, None)
    }

    /// The ring after orders: all were carried out, or one has failed.
    fn ordered(&mut self, call: Call, pending: Option<Pending>) -> Result<(), RingError> {
        let [operation, result, ..] = call.data.args;
        // A stub that is ordering makes no instruction of a program's; what rings is the host code.
        let done = match (operation, self.state) {
            (OP_DONE, State::Ordered) => Ok(()),
            (OP_FAILED, _) => Err(RingError::OrderFailed { result }),
            _ => return Err(self.poisoned(Poison::Unexpected)),
        };
        self.state = State::Ordered;
        self.waiting = Some(Waiting { call, kind: AnswerKind::Ring(pending) });
        done
    }
}
