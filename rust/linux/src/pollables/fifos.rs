// SPDX-License-Identifier: MIT OR Apache-2.0
//! FIFOs: pipes with a name, which any number of open files read and write: fifo(7).
//!
//! ```text
//!   open file --> PipeReader --+                 +-- PipeWriter <-- open file
//!   open file --> PipeReader --+<---- queue <----+-- PipeWriter <-- open file
//!   open file --> PipeBoth ----+-----------------+                                O_RDWR
//!   a thread in `open` --------+                 +---- a thread in `open`         `Opener`, until it has met the other
//! ```
//!
//! `End::Many` counts both. A FIFO's queue exists while something has it open, or opens it.

use crate::base::ids::{PollableId, QueueId};
use crate::event::events::Event;
use crate::event::fifo::{Access, Opener};
use crate::event::queue::{End, PIPE_BYTES, Queue};
use crate::pollables::queues::Side;
use crate::pollables::table::{PollableKind, Pollables};

impl Pollables {
    /// The FIFO whose file has this number, if anything has it open.
    pub(crate) fn fifo(&self, number: u64) -> Option<QueueId> {
        let is_it = |queue: &Option<Queue>| queue.as_ref().is_some_and(|queue| queue.fifo == Some(number));
        self.queues.iter().position(is_it).map(QueueId)
    }

    /// The number of the file of the FIFO that a pollable is an end of.
    pub(crate) fn fifo_number(&self, id: PollableId) -> Option<u64> {
        match self.kind(id)? {
            PollableKind::PipeReader(queue) | PollableKind::PipeWriter(queue) | PollableKind::PipeBoth(queue) => {
                self.queue(*queue)?.fifo
            }
            _ => None,
        }
    }

    /// Whether a FIFO is open in this direction.
    pub(crate) fn has_fifo_end(&self, queue: QueueId, side: Side) -> bool {
        let end = self.queue(queue).map(|queue| if side == Side::Reader { queue.reader } else { queue.writer });
        matches!(end, Some(End::Many(1..)))
    }

    /// Counts one more that has a FIFO open, or opens it. `open_fifo` or [`Pollables::leave_fifo`] is to follow.
    pub(crate) fn join_fifo(&mut self, number: u64, access: Access) -> QueueId {
        let id = match self.fifo(number) {
            Some(id) => id,
            None => self.add_queue(Queue::fifo(PIPE_BYTES, number)),
        };
        let more = |end: &mut End| {
            if let End::Many(count) = end {
                *count = count.saturating_add(1);
            }
        };
        if let Some(queue) = self.queue_mut(id) {
            if access.reads {
                more(&mut queue.reader);
                queue.refused = false;
            }
            if access.writes {
                more(&mut queue.writer);
                queue.finished = false;
            }
        }
        for opener in self.openers.iter_mut().filter(|opener| opener.queue == id) {
            opener.met |= if opener.reads { access.writes } else { access.reads };
        }
        let owners = [self.owners(id, Side::Reader), self.owners(id, Side::Writer)].concat();
        self.record_event_of(&owners, Event::State);
        id
    }

    /// Undoes [`Pollables::join_fifo`].
    pub(crate) fn leave_fifo(&mut self, id: QueueId, access: Access) {
        if access.reads {
            self.close_reader(id);
        }
        if access.writes {
            self.close_writer(id);
        }
    }

    /// Makes the pollable of an open file of a FIFO that was joined.
    pub(crate) fn open_fifo(&mut self, queue: QueueId, access: Access) -> PollableId {
        self.add(match (access.reads, access.writes) {
            (true, true) => PollableKind::PipeBoth(queue),
            (true, false) => PollableKind::PipeReader(queue),
            (false, _) => PollableKind::PipeWriter(queue),
        })
    }

    /// Records that a thread that has joined a FIFO waits.
    pub(crate) fn add_opener(&mut self, tid: u32, queue: QueueId, reads: bool) {
        self.openers.push(Opener { tid, queue, reads, met: false });
    }

    /// What a thread waits for in `open`, and whether it has been opened.
    pub(crate) fn opener(&self, tid: u32) -> Option<Opener> {
        self.openers.iter().find(|opener| opener.tid == tid).copied()
    }

    /// Ends a thread's wait in `open`: its open file follows.
    pub(crate) fn take_opener(&mut self, tid: u32) {
        self.openers.retain(|opener| opener.tid != tid);
    }

    /// Drops the threads that wait in `open` no longer, which a signal has interrupted, or which have ended; returns
    /// whether there was any.
    pub(crate) fn drop_openers(&mut self, waits: impl Fn(u32) -> bool) -> bool {
        let (kept, gone): (Vec<_>, Vec<_>) = self.openers.iter().copied().partition(|opener| waits(opener.tid));
        self.openers = kept;
        for opener in &gone {
            self.leave_fifo(opener.queue, Access { reads: opener.reads, writes: !opener.reads });
        }
        !gone.is_empty()
    }
}
