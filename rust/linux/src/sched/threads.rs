// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program's threads, which share the one vCPU. `schedule.rs` decides which one runs.
//!
//! ```text
//!               a call that has to wait                     the vCPU has one thread's context: the live one's;
//!      Ready ----------------------------> Waiting           the others' are saved here
//!        ^   <----------------------------    |
//!        |    it has what it waits for,       |
//!        |    or its deadline has passed      |
//!        +------------ woken -----------------+
//! ```
//!
//! # Waiting
//!
//! A call that cannot complete yet changes nothing and returns [`Halt::Wait`](crate::base::halt::Halt::Wait). It is
//! repeated from its beginning whenever something has changed that it may wait for ([`Threads::note_change`]), and at
//! its deadline. So a handler only describes the present. A futex is the exception: the waking thread decides which
//! threads to wake, and how many.

use mayfly_machine::UserContext;
use serde::{Deserialize, Serialize};

use crate::base::clock;
use crate::base::halt::Wait;
use crate::base::identity::PID;
use crate::base::limits::Limits;
use crate::signal::signals::{Pending, SignalSet, ThreadSignals};

/// Size of a thread's name with its NUL.
pub(crate) const NAME_BYTES: usize = 16;

/// A thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Thread {
    pub(crate) tid: u32,
    pub(crate) name: [u8; NAME_BYTES],
    /// Address to clear, and whose futex to wake, when the thread ends: `set_tid_address`, CLONE_CHILD_CLEARTID.
    pub(crate) clear_tid: u64,
    /// `set_robust_list`.
    pub(crate) robust_list: u64,
    pub(crate) state: ThreadState,
    /// Bytes that the waiting call has transferred. A call that is interrupted later returns this number.
    pub(crate) progress: usize,
    pub(crate) signals: ThreadSignals,
    /// Its CPU time up to its present turn.
    pub(crate) cpu_ns: u64,
    /// Its context, unless the vCPU has it.
    pub(crate) saved: Option<UserContext>,
}

impl Thread {
    /// The first thread. Its name, as on Linux, is the last component of the program's path.
    fn first(path: &str) -> Self {
        let last = path.rsplit('/').next().unwrap_or_default();
        let mut name = [0; NAME_BYTES];
        for (slot, byte) in name.iter_mut().take(NAME_BYTES.saturating_sub(1)).zip(last.bytes()) {
            *slot = byte;
        }
        let signals = ThreadSignals::new(SignalSet::default());
        Self {
            tid: PID,
            name,
            clear_tid: 0,
            robust_list: 0,
            state: ThreadState::Ready,
            progress: 0,
            signals,
            cpu_ns: 0,
            saved: None,
        }
    }
}

/// Whether a thread can run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ThreadState {
    Ready,
    Waiting(Waiting),
    /// Held at the doorbell while the others come to rest, before the program is frozen.
    Held,
}

/// Reason for a thread to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Waiting {
    /// Its call is to be repeated.
    Call {
        number: u64,
        args: [u64; 6],
        wait: Wait,
        /// [`Threads::changes`] when it was last made.
        seen: u64,
    },
    /// It waits to be woken.
    Futex {
        address: u64,
        bitset: u32,
        /// Deadline, with `ETIMEDOUT`.
        until_ns: Option<u64>,
        /// Lower for threads that have waited longer.
        turn: u64,
        /// It waits to own the lock in the word, and is woken as its owner.
        owns: bool,
    },
}

impl Waiting {
    /// Its next deadline.
    pub(crate) fn until_ns(&self) -> Option<u64> {
        match *self {
            Self::Call { wait, .. } => wait.next_ns(),
            Self::Futex { until_ns, .. } => until_ns,
        }
    }

    /// Name of the call, for messages.
    pub(crate) fn call(&self) -> &'static str {
        match self {
            Self::Call { wait, .. } => wait.call,
            Self::Futex { .. } => "a futex",
        }
    }
}

/// A program's threads.
///
/// # Invariants
///
/// There is at least one thread. `current` and `live` are indices into the list. The live thread's context is in the
/// vCPU; the others' contexts are saved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Threads {
    list: Vec<Thread>,
    /// The thread that the host works for.
    pub(crate) current: usize,
    /// The thread whose context the vCPU has.
    pub(crate) live: Option<usize>,
    /// In a worker that has not run yet: the thread that the machine enters directly; only RAX is to be set.
    pub(crate) entry: Option<usize>,
    /// The current thread may have to handle a signal, or restore its mask, before it continues.
    pub(crate) due: bool,
    /// The machine has stopped at a call that is to be repeated from its beginning. Never so in a frozen program: it
    /// has stopped at the doorbell, or where a wait ends.
    #[serde(skip)]
    pub(crate) call_again: bool,
    /// The thread whose call is repeated first: the first for which there was no time.
    #[serde(skip)]
    pub(crate) next_look: usize,
    next_tid: u32,
    next_turn: u64,
    changes: u64,
}

impl Threads {
    /// The first thread of the program at `path`, live.
    pub(crate) fn new(path: &str) -> Self {
        let first = Thread::first(path);
        Self {
            list: vec![first],
            current: 0,
            live: Some(0),
            entry: None,
            due: false,
            call_again: false,
            next_look: 0,
            next_tid: PID.saturating_add(1),
            next_turn: 0,
            changes: 0,
        }
    }

    /// Whether a deserialised value keeps this type's invariants and the limits.
    pub(crate) fn is_sound(&self, limits: &Limits) -> bool {
        let exists = |index: usize| index < self.list.len();
        let most = usize::try_from(limits.threads).unwrap_or(usize::MAX).max(1);
        // The machine enters the live thread, or the entry thread, whose context is saved.
        exists(self.current)
            && self.list.len() <= most
            && self.live.is_none_or(exists)
            && self.entry.is_none_or(exists)
            && self.list.iter().enumerate().all(|(index, thread)| self.live == Some(index) || thread.saved.is_some())
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Thread> {
        self.list.iter()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Thread> {
        self.list.get(index)
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut Thread> {
        self.list.get_mut(index)
    }

    /// The pending signals of each thread.
    pub(crate) fn pending_mut(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.list.iter_mut().map(|thread| &mut thread.signals.pending)
    }

    pub(crate) fn by_tid(&self, tid: u32) -> Option<usize> {
        self.list.iter().position(|thread| thread.tid == tid)
    }

    /// The thread that the host works for.
    #[allow(clippy::indexing_slicing, reason = "an invariant of the type")]
    pub(crate) fn current(&self) -> &Thread {
        &self.list[self.current]
    }

    #[allow(clippy::indexing_slicing, reason = "an invariant of the type")]
    pub(crate) fn current_mut(&mut self) -> &mut Thread {
        &mut self.list[self.current]
    }

    /// Records a change for which calls may wait: waiting calls are repeated.
    pub(crate) fn note_change(&mut self) {
        self.changes = self.changes.wrapping_add(1);
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The turn of the next thread that waits.
    pub(crate) fn next_turn(&mut self) -> u64 {
        self.next_turn = self.next_turn.wrapping_add(1);
        self.next_turn
    }

    /// Adds a thread that continues with `context`; returns its identity.
    pub(crate) fn add(&mut self, context: UserContext, clear_tid: u64) -> u32 {
        let tid = self.next_tid;
        self.next_tid = self.next_tid.saturating_add(1);
        let name = self.current().name;
        let state = ThreadState::Ready;
        let signals = ThreadSignals::new(self.current().signals.blocked);
        self.list.push(Thread {
            tid,
            name,
            clear_tid,
            robust_list: 0,
            state,
            progress: 0,
            signals,
            cpu_ns: 0,
            saved: Some(context),
        });
        tid
    }

    /// Removes the current thread, which is not the last one. Its context is lost.
    pub(crate) fn remove_current(&mut self) {
        debug_assert!(self.list.len() > 1, "the last thread's end is the program's");
        let gone = self.current;
        if self.list.len() > 1 {
            self.list.remove(gone);
        }
        let moved = |index: usize| if index > gone { index.saturating_sub(1) } else { index };
        self.live = self.live.filter(|&live| live != gone).map(moved);
        self.entry = self.entry.filter(|&entry| entry != gone).map(moved);
        // Scheduling continues with the next thread.
        self.current = gone.checked_sub(1).unwrap_or_else(|| self.list.len().saturating_sub(1));
    }

    /// The next ready thread. The current one is considered first, or last.
    pub(crate) fn next_ready(&self, current_last: bool) -> Option<usize> {
        let start = self.current.saturating_add(usize::from(current_last));
        let (before, after) = self.list.split_at_checked(start.min(self.list.len()))?;
        let ready = |thread: &Thread| thread.state == ThreadState::Ready;
        after
            .iter()
            .position(ready)
            .map(|index| index.saturating_add(before.len()))
            .or_else(|| before.iter().position(ready))
    }

    /// Whether another thread than the current one is ready.
    pub(crate) fn others_are_ready(&self) -> bool {
        self.next_ready(true).is_some_and(|index| index != self.current)
    }

    /// The earliest deadline.
    pub(crate) fn until_ns(&self) -> Option<u64> {
        self.waits().filter_map(|(_, waiting)| waiting.until_ns()).min()
    }

    /// Postpones the deadlines of all waits.
    pub(crate) fn postpone(&mut self, by_ns: u64) {
        for thread in &mut self.list {
            match &mut thread.state {
                ThreadState::Waiting(Waiting::Call { wait, .. }) => {
                    wait.until_ns = wait.until_ns.map(|until| clock::postponed(until, by_ns));
                    wait.look_ns = wait.look_ns.map(|look| clock::postponed(look, by_ns));
                }
                ThreadState::Waiting(Waiting::Futex { until_ns, .. }) => {
                    *until_ns = until_ns.map(|until| clock::postponed(until, by_ns));
                }
                ThreadState::Ready | ThreadState::Held => {}
            }
        }
    }

    /// All waiting threads.
    pub(crate) fn waits(&self) -> impl Iterator<Item = (usize, Waiting)> + '_ {
        self.list.iter().enumerate().filter_map(|(index, thread)| match thread.state {
            ThreadState::Waiting(waiting) => Some((index, waiting)),
            ThreadState::Ready | ThreadState::Held => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_named_after_the_file() {
        assert_eq!(&Thread::first("/srv/tenants/hello").name, b"hello\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&Thread::first("a-name-that-is-too-long").name, b"a-name-that-is-\0");
    }

    #[test]
    fn a_wait_ends_at_its_earlier_deadline() {
        let wait = |until_ns, look_ns| Wait { call: "poll", until_ns, look_ns };
        assert_eq!(wait(Some(3), Some(2)).next_ns(), Some(2));
        assert_eq!(wait(None, Some(2)).next_ns(), Some(2));
        assert_eq!(wait(None, None).next_ns(), None);
    }
}
