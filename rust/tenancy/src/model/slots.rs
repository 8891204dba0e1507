// SPDX-License-Identifier: MIT OR Apache-2.0
//! A fixed number of places for workers, and the requests that wait for them.
//!
//! ```text
//!             take                      give back, none waits
//!   Idle(worker) ──> Taken <───────────────────────────────> Idle
//!                     │ │└── give back: the next ticket gets the worker ──┐
//!                     │ └───────────────────────<─────────────────────────┘
//!                     └── vacate: the worker is lost ──> Vacant ── take ──> Taken, and the taker forks a worker
//! ```
//!
//! A request with a key waits for the worker of that key, any other request for any worker. Each worker takes the
//! ticket that has waited longest, of its own line and of the common one.
//!
//! # Invariants
//!
//! - While a worker is idle, no ticket waits that it could serve, unless the slots have just changed: see
//!   [`Slots::next_due`].
//! - A slot is taken by one taker, which gives a worker back to it or vacates it. A slot that is gone is not taken: its
//!   taker's worker is closed when it comes back.
//! - A line's tickets ascend.

use std::collections::VecDeque;

use crate::model::store::Ticket;

/// The slots. `W` is a worker.
#[derive(Debug)]
pub(crate) struct Slots<W> {
    /// Number of slots that were ever made.
    made: u64,
    slots: Vec<Slot<W>>,
    /// Requests that any worker may serve.
    line: VecDeque<Waiting>,
    /// Workers that come back while no request waits are closed.
    is_closing: bool,
}

#[derive(Debug)]
struct Slot<W> {
    /// Distinguishes it from slots that were at its place before.
    serial: u64,
    place: Place<W>,
    /// Requests that only this slot's worker may serve.
    line: VecDeque<Waiting>,
}

#[derive(Debug)]
enum Place<W> {
    Idle(W),
    Taken,
    Vacant,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    ticket: Ticket,
    key: Option<u64>,
}

/// A taken slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotNumber {
    serial: u64,
    index: usize,
}

/// The result of asking for a worker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Take<W> {
    /// The taker gives the worker back.
    Worker(W),
    /// The slot has no worker: the taker forks one.
    Vacant(SlotNumber),
    /// Others have all workers that may serve the request, or wait for them.
    Busy,
    /// There are no slots.
    Closed,
}

/// What to do with a worker that was given back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum GivenBack<W> {
    /// Nothing: it is idle.
    Kept,
    /// It is for the request of this ticket.
    Next(Ticket, W),
    /// It is not needed any more.
    Close(W),
}

/// What is to be done when a worker is missing, or slots have changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due<W> {
    /// The request of this ticket has a worker.
    Serve(Ticket, W),
    /// A worker is to be forked for this slot, which is now taken, and for the request of the ticket, if one waits.
    Fork(SlotNumber, Option<Ticket>),
    /// There are no slots: the request of this ticket waits for none.
    Leave(Ticket),
}

impl<W> Default for Slots<W> {
    fn default() -> Self {
        Self { made: 0, slots: Vec::new(), line: VecDeque::new(), is_closing: false }
    }
}

impl<W> Slots<W> {
    /// Number of slots.
    pub(crate) fn count(&self) -> usize {
        self.slots.len()
    }

    /// Number of idle workers.
    pub(crate) fn idle(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot.place, Place::Idle(_))).count()
    }

    /// Number of requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.slots.iter().map(|slot| slot.line.len()).sum::<usize>() + self.line.len()
    }

    /// Makes as many slots as `workers` has elements, for a new program; returns the workers that are not needed any
    /// more. Those that others have taken are closed when they come back.
    ///
    /// `tell` tells a worker the number of its slot.
    pub(crate) fn open(&mut self, workers: Vec<Option<W>>, tell: impl Fn(&mut W, SlotNumber)) -> Vec<W> {
        let old = std::mem::take(&mut self.slots);
        for (index, worker) in workers.into_iter().enumerate() {
            let mut slot = self.new_slot();
            if let Some(mut worker) = worker {
                tell(&mut worker, SlotNumber { serial: slot.serial, index });
                slot.place = Place::Idle(worker);
            }
            self.slots.push(slot);
        }
        self.queue_again(old)
    }

    /// Changes the number of slots, and keeps the workers. Returns those beyond the number.
    pub(crate) fn resize(&mut self, count: usize) -> Vec<W> {
        let mut beyond = self.slots.split_off(count.min(self.slots.len()));
        for slot in &mut self.slots {
            self.line.append(&mut slot.line);
        }
        while self.slots.len() < count {
            let slot = self.new_slot();
            self.slots.push(slot);
        }
        for slot in &mut beyond {
            self.line.append(&mut slot.line);
        }
        self.queue_again(beyond)
    }

    fn new_slot(&mut self) -> Slot<W> {
        self.made += 1;
        Slot { serial: self.made, place: Place::Vacant, line: VecDeque::new() }
    }

    /// Puts the tickets of former slots into lines again; returns the idle workers of those slots.
    fn queue_again(&mut self, old: Vec<Slot<W>>) -> Vec<W> {
        let mut waiting: Vec<Waiting> = std::mem::take(&mut self.line).into();
        let mut idle = Vec::new();
        for slot in old {
            waiting.extend(slot.line);
            if let Place::Idle(worker) = slot.place {
                idle.push(worker);
            }
        }
        waiting.sort_unstable_by_key(|waiting| waiting.ticket.0);
        for waiting in waiting {
            self.line_of(waiting.key).push_back(waiting);
        }
        idle
    }

    /// Keeps no more idle workers; returns those that there are. Requests that wait are served.
    pub(crate) fn close(&mut self) -> Vec<W> {
        self.is_closing = true;
        let idle = self.slots.iter_mut().filter_map(|slot| match std::mem::replace(&mut slot.place, Place::Vacant) {
            Place::Idle(worker) => Some(worker),
            place => {
                slot.place = place;
                None
            }
        });
        idle.collect()
    }

    /// Takes a worker. Of several that are idle, the request gets the first from number `first` on.
    pub(crate) fn take(&mut self, key: Option<u64>, first: usize) -> Take<W> {
        let count = self.slots.len();
        if count == 0 {
            return Take::Closed;
        }
        if let Some(key) = key {
            let index = index_of(key, count);
            let is_waited_for = self.next_line(index).is_some();
            return if is_waited_for { Take::Busy } else { self.take_at(index) };
        }
        if !self.line.is_empty() {
            return Take::Busy;
        }
        let from_first = || (0..count).map(|at| (first + at) % count);
        let is_idle = |index: &usize| matches!(self.slots[*index].place, Place::Idle(_));
        let is_vacant = |index: &usize| {
            let slot = &self.slots[*index];
            matches!(slot.place, Place::Vacant) && slot.line.is_empty()
        };
        let found = from_first().find(is_idle).or_else(|| from_first().find(is_vacant));
        found.map_or(Take::Busy, |index| self.take_at(index))
    }

    fn take_at(&mut self, index: usize) -> Take<W> {
        let slot = &mut self.slots[index];
        match std::mem::replace(&mut slot.place, Place::Taken) {
            Place::Idle(worker) => Take::Worker(worker),
            Place::Vacant => Take::Vacant(SlotNumber { serial: slot.serial, index }),
            Place::Taken => Take::Busy,
        }
    }

    /// Takes the worker of one slot, if it is idle. The taker gives it back.
    pub(crate) fn take_idle(&mut self, number: SlotNumber) -> Option<W> {
        let slot = self.slots.get_mut(number.index).filter(|slot| slot.serial == number.serial)?;
        match std::mem::replace(&mut slot.place, Place::Taken) {
            Place::Idle(worker) => Some(worker),
            place => {
                slot.place = place;
                None
            }
        }
    }

    /// The worker of one slot, if it is idle.
    pub(crate) fn idle_at(&self, number: SlotNumber) -> Option<&W> {
        match &self.slots.get(number.index).filter(|slot| slot.serial == number.serial)?.place {
            Place::Idle(worker) => Some(worker),
            Place::Taken | Place::Vacant => None,
        }
    }

    /// Queues a ticket, unless there is a worker for it now.
    pub(crate) fn enqueue(&mut self, ticket: Ticket, key: Option<u64>, first: usize) -> Option<Take<W>> {
        match self.take(key, first) {
            Take::Busy => {
                self.line_of(key).push_back(Waiting { ticket, key });
                None
            }
            take => Some(take),
        }
    }

    /// Removes a ticket whose request does not wait any more.
    pub(crate) fn forget(&mut self, ticket: Ticket, key: Option<u64>) {
        let line = self.line_of(key);
        if let Ok(at) = line.binary_search_by_key(&ticket.0, |waiting| waiting.ticket.0) {
            line.remove(at);
        }
    }

    fn line_of(&mut self, key: Option<u64>) -> &mut VecDeque<Waiting> {
        let count = self.slots.len();
        match key {
            Some(key) if count > 0 => &mut self.slots[index_of(key, count)].line,
            _ => &mut self.line,
        }
    }

    /// The line whose first ticket is the next of this slot: its own (`true`) or the common one.
    fn next_line(&self, index: usize) -> Option<bool> {
        let first = |line: &VecDeque<Waiting>| line.front().map(|waiting| waiting.ticket.0);
        match (first(&self.slots[index].line), first(&self.line)) {
            (None, None) => None,
            (own, common) => Some(own.is_some_and(|own| common.is_none_or(|common| own < common))),
        }
    }

    fn pop(&mut self, index: usize) -> Option<Ticket> {
        let line = if self.next_line(index)? { &mut self.slots[index].line } else { &mut self.line };
        line.pop_front().map(|waiting| waiting.ticket)
    }

    fn is_taken(&self, number: SlotNumber) -> bool {
        let slot = self.slots.get(number.index).filter(|slot| slot.serial == number.serial);
        slot.is_some_and(|slot| matches!(slot.place, Place::Taken))
    }

    /// Gives a worker back to the slot that it has.
    pub(crate) fn give_back(&mut self, number: SlotNumber, worker: W) -> GivenBack<W> {
        if !self.is_taken(number) {
            return GivenBack::Close(worker);
        }
        if let Some(ticket) = self.pop(number.index) {
            return GivenBack::Next(ticket, worker);
        }
        let place = &mut self.slots[number.index].place;
        if self.is_closing {
            *place = Place::Vacant;
            return GivenBack::Close(worker);
        }
        *place = Place::Idle(worker);
        GivenBack::Kept
    }

    /// Marks a slot as vacant, if it is still its taker's. Returns whether a worker is missing now.
    pub(crate) fn vacate(&mut self, number: SlotNumber) -> bool {
        let is_taken = self.is_taken(number);
        if is_taken {
            self.slots[number.index].place = Place::Vacant;
        }
        is_taken && (!self.is_closing || self.next_line(number.index).is_some())
    }

    /// Whether a request waits that this slot could serve.
    pub(crate) fn is_waited_for(&self, number: SlotNumber) -> bool {
        number.index < self.slots.len() && self.next_line(number.index).is_some()
    }

    /// Finds what is to be done: first for requests that wait.
    pub(crate) fn next_due(&mut self) -> Option<Due<W>> {
        if self.slots.is_empty() {
            return self.line.pop_front().map(|waiting| Due::Leave(waiting.ticket));
        }
        let is_waited_for = |index: &usize| self.next_line(*index).is_some();
        let is_taken = |index: &usize| matches!(self.slots[*index].place, Place::Taken);
        let is_vacant = |index: &usize| matches!(self.slots[*index].place, Place::Vacant);
        let mut waited_for = (0..self.slots.len()).filter(|index| !is_taken(index) && is_waited_for(index));
        let mut vacant = (0..self.slots.len()).filter(|index| is_vacant(index) && !self.is_closing);
        let index = waited_for.next().or_else(|| vacant.next())?;
        let ticket = self.pop(index);
        let slot = &mut self.slots[index];
        let number = SlotNumber { serial: slot.serial, index };
        Some(match (std::mem::replace(&mut slot.place, Place::Taken), ticket) {
            (Place::Idle(worker), Some(ticket)) => Due::Serve(ticket, worker),
            (_, ticket) => Due::Fork(number, ticket),
        })
    }
}

/// The slot of a key, of `count`.
fn index_of(key: u64, count: usize) -> usize {
    // Every bit of the key counts, and the result is below `count`.
    ((u128::from(key) * count as u128) >> 64) as usize
}

#[cfg(test)]
mod tests;
