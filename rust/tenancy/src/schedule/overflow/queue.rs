// SPDX-License-Identifier: MIT OR Apache-2.0
//! The order in which requests get their turns, and the sleepers among them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::parked::Parked;
use super::timetable::{DueLeg, Timetable};
use crate::model::store::Ticket;
use crate::schedule::job::Job;
use crate::schedule::sleepers::Sleepers;

/// The requests of the overflow.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Tenants with requests, in the order of their turns, by address. The requests keep their tenant alive.
    pub(super) turns: VecDeque<usize>,
    pub(super) by_tenant: HashMap<usize, VecDeque<Parked>>,
    pub(super) asleep: Sleepers<Parked>,
    /// Requests that are queued for a storage program, by their tickets.
    pub(super) queued: HashMap<Ticket, Parked>,
    /// Requests that wait for one of a fixed number of workers, until the end of their time.
    pub(super) in_line: Sleepers<Job>,
    pub(super) last_ticket: u64,
    pub(super) blocked: Blocked,
    /// The sleeper's time that a thread waits for, if one does.
    pub(super) watched_ns: Option<u64>,
    /// When the programs of idle workers run.
    pub(super) timetable: Arc<Timetable>,
    /// Whether the next turn is that of a program without a request, if one is due.
    pub(super) is_legs_turn: bool,
    /// At shutdown: the time until which these requests continue.
    pub(super) closes_at: Option<Instant>,
}

/// What a thread does next.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it is moved once, and never kept")]
pub(super) enum Turn {
    Request(Parked),
    /// A program without a request, with its number in the timetable.
    Leg(u64, DueLeg),
}

/// Counts the threads whose step may block.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    most: u32,
    most_of_one: u32,
    all: u32,
    pub(super) by_tenant: HashMap<usize, u32>,
}

impl Blocked {
    pub(super) fn of(threads: u32) -> Self {
        let most = threads.saturating_sub(1).max(1);
        Self { most, most_of_one: (threads / 2).max(1), ..Self::default() }
    }

    pub(super) fn has_room(&self, tenant: usize) -> bool {
        self.all < self.most && self.by_tenant.get(&tenant).is_none_or(|own| *own < self.most_of_one)
    }

    pub(super) fn enter(&mut self, tenant: usize) {
        self.all += 1;
        *self.by_tenant.entry(tenant).or_default() += 1;
    }

    pub(super) fn leave(&mut self, tenant: usize) {
        self.all -= 1;
        if let Some(own) = self.by_tenant.get_mut(&tenant) {
            *own -= 1;
            if *own == 0 {
                self.by_tenant.remove(&tenant);
            }
        }
    }
}

impl Queue {
    pub(super) fn is_over(&self) -> bool {
        self.closes_at.is_some_and(|end| Instant::now() >= end)
    }

    /// Takes the requests that wait for one of a fixed number of workers.
    pub(super) fn clear_line(&mut self) -> impl Iterator<Item = Job> + use<> {
        self.in_line.take_all()
    }

    pub(super) fn clear(&mut self) -> impl Iterator<Item = Parked> + use<> {
        self.turns.clear();
        let queued = std::mem::take(&mut self.queued).into_values();
        std::mem::take(&mut self.by_tenant).into_values().flatten().chain(self.asleep.take_all()).chain(queued)
    }

    /// Whether the queue has something that no waiting thread was notified of.
    pub(super) fn has_news(&self) -> bool {
        !self.turns.is_empty() || self.unwatched_ns().is_some()
    }

    /// The earliest sleeper's time, or leg's, or end of a request's time, unless a thread waits for it.
    pub(super) fn unwatched_ns(&self) -> Option<u64> {
        // At shutdown no program runs without a request.
        let leg_ns = self.timetable.earliest_ns().filter(|_| self.closes_at.is_none());
        let earliest = self.asleep.earliest_ns().into_iter().chain(self.in_line.earliest_ns()).chain(leg_ns).min();
        earliest.filter(|earliest| self.watched_ns.is_none_or(|watched| watched > *earliest))
    }

    /// Gives turns to the sleepers whose time has come.
    pub(super) fn wake(&mut self, now_ns: u64) {
        while let Some(parked) = self.asleep.pop_due(now_ns) {
            self.push(parked);
        }
    }

    /// Takes the next turn. Requests and programs without a request take turns while there are both.
    pub(super) fn next_turn(&mut self, now_ns: u64) -> Option<Turn> {
        let first = if self.is_legs_turn { self.pop_leg(now_ns) } else { None };
        first.or_else(|| self.pop().map(Turn::Request)).or_else(|| self.pop_leg(now_ns)).inspect(|turn| {
            self.is_legs_turn = matches!(turn, Turn::Request(_));
        })
    }

    fn pop_leg(&self, now_ns: u64) -> Option<Turn> {
        if self.closes_at.is_some() {
            return None;
        }
        self.timetable.pop_due(now_ns).map(|(number, leg)| Turn::Leg(number, leg))
    }

    pub(super) fn push(&mut self, parked: Parked) {
        let key = Arc::as_ptr(&parked.tenant).addr();
        let requests = self.by_tenant.entry(key).or_default();
        if requests.is_empty() {
            self.turns.push_back(key);
        }
        requests.push_back(parked);
    }

    /// Takes the next request. One whose step may block is skipped until another thread may block.
    pub(super) fn pop(&mut self) -> Option<Parked> {
        let can_go = |key: &usize| match self.by_tenant.get(key).and_then(VecDeque::front) {
            Some(parked) => !parked.may_block || self.blocked.has_room(*key),
            None => true,
        };
        let at = self.turns.iter().position(can_go)?;
        let key = self.turns.remove(at)?;
        let requests = self.by_tenant.get_mut(&key)?;
        let parked = requests.pop_front();
        if parked.as_ref().is_some_and(|parked| parked.may_block) {
            self.blocked.enter(key);
        }
        if requests.is_empty() {
            self.by_tenant.remove(&key);
        } else {
            self.turns.push_back(key);
        }
        parked
    }
}
