// SPDX-License-Identifier: MIT OR Apache-2.0
//! Queues between pollables: their account, and the events of their ends.

use crate::base::ids::{PollableId, QueueId};
use crate::event::events::Event;
use crate::event::queue::{End, Queue, Sender};
use crate::pollables::table::{PollableKind, Pollables};

/// Most bytes in the queues inside a program.
pub(crate) const HELD_MAX: usize = 32 << 20;

/// One end of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Reader,
    Writer,
}

impl Pollables {
    /// Cost of the queues inside the program, in bytes.
    pub(crate) fn held(&self) -> u64 {
        self.held as u64
    }

    /// Bytes that may be written to a queue now.
    pub(crate) fn room(&self, id: QueueId) -> usize {
        let Some(queue) = self.queue(id) else { return 0 };
        let room = queue.room();
        if queue.has_inbound_end { room } else { room.min(HELD_MAX.saturating_sub(self.held)) }
    }

    /// Whether a message of this size fits into a queue now. An empty one has a cost, too.
    pub(crate) fn has_room_for(&self, id: QueueId, size: usize) -> bool {
        let room = self.room(id);
        room > 0 && room >= size
    }

    /// Changes a queue, and updates the account of its cost.
    fn change<T>(&mut self, id: QueueId, change: impl FnOnce(&mut Queue) -> T) -> Option<T> {
        let queue = self.queue_mut(id)?;
        let (counts, before) = (!queue.has_inbound_end, queue.cost());
        let result = change(queue);
        let after = queue.cost();
        if counts {
            self.held = self.held.saturating_sub(before).saturating_add(after);
        }
        Some(result)
    }

    /// Appends `count` bytes, which `fill` provides; none if `fill` fails.
    pub(crate) fn write<E>(
        &mut self,
        id: QueueId,
        count: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.change(id, |queue| fill(queue.grow(count)).inspect_err(|_| queue.shrink(count))).unwrap_or(Ok(()))
    }

    /// Appends bytes of the host's memory.
    pub(crate) fn write_bytes(&mut self, id: QueueId, bytes: &[u8]) {
        self.change(id, |queue| queue.grow(bytes.len()).copy_from_slice(bytes));
    }

    /// Open files in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.queues.iter().flatten().fold(0, |sum, queue| sum.saturating_add(queue.attached_count()))
    }

    /// Removes the last `count` bytes that were written.
    pub(crate) fn undo_write(&mut self, id: QueueId, count: usize) {
        self.change(id, |queue| queue.shrink(count));
    }

    /// Records that bytes were written, and notifies the reader.
    pub(crate) fn note_written(&mut self, id: QueueId) {
        let Some(reader) = self.queue(id).map(|queue| queue.reader) else { return };
        self.notify(id, Side::Reader, reader, Event::Input);
    }

    /// Makes a message of the last `size` bytes that were written, and notifies the reader.
    pub(crate) fn note_message(&mut self, id: QueueId, size: usize, sender: Sender) {
        self.change(id, |queue| queue.end_message(size, sender));
        self.note_written(id);
    }

    /// Removes `count` bytes, or a message, from a queue, and notifies the writer.
    pub(crate) fn take(&mut self, id: QueueId, count: usize) {
        let freed = self.change(id, |queue| {
            let was_writable = queue.is_writable();
            queue.pop(count);
            let is_writable = queue.is_writable();
            let tell = match (queue.is_pipe(), queue.has_messages()) {
                (true, _) => !was_writable && is_writable,
                (false, true) => is_writable,
                (false, false) => queue.starved && is_writable,
            };
            if tell {
                queue.starved = false;
            }
            (queue.writer, tell)
        });
        match freed {
            Some((writer @ (End::Inside(_) | End::Many(_)), true)) => {
                self.notify(id, Side::Writer, writer, Event::Output);
            }
            // It answers what has been asked as there is space.
            Some((End::Resolver(client), _)) => self.answer_stream(client),
            _ => {}
        }
    }

    /// Records that a writer found no space.
    pub(crate) fn note_starved(&mut self, id: QueueId) {
        if let Some(queue) = self.queue_mut(id) {
            queue.starved = true;
        }
    }

    /// Drops what a queue holds. Open files in flight are orphans then.
    pub(crate) fn drain(&mut self, id: QueueId) {
        let lost = self.change(id, |queue| {
            queue.clear();
            queue.take_attached()
        });
        self.orphans.extend(lost.unwrap_or_default());
    }

    /// Closes a queue's reader, or one of many. What is in a FIFO stays there for the next.
    pub(crate) fn close_reader(&mut self, id: QueueId) {
        let Some(queue) = self.queue_mut(id) else { return };
        if let End::Many(readers) = &mut queue.reader {
            *readers = readers.saturating_sub(1);
            if *readers > 0 {
                return;
            }
        } else {
            queue.reader = End::Gone;
            self.drain(id);
        }
        let Some(queue) = self.queue_mut(id) else { return };
        queue.refused = true;
        let writer = queue.writer;
        self.notify(id, Side::Writer, writer, Event::State);
        self.drop_queue(id);
    }

    /// Closes a queue's writer, or one of many.
    pub(crate) fn close_writer(&mut self, id: QueueId) {
        let Some(queue) = self.queue_mut(id) else { return };
        if let End::Many(connected) = &mut queue.writer {
            *connected = connected.saturating_sub(1);
        } else {
            queue.writer = End::Gone;
        }
        // Datagrams may come from others at any time.
        if queue.writer == End::Gone || (queue.writer == End::Many(0) && queue.fifo.is_some()) {
            queue.finished = true;
            let reader = queue.reader;
            self.notify(id, Side::Reader, reader, Event::State);
        }
        self.drop_queue(id);
    }

    /// Ends writing, though the writer remains.
    pub(crate) fn finish(&mut self, id: QueueId) {
        let Some(queue) = self.queue_mut(id) else { return };
        queue.finished = true;
        let reader = queue.reader;
        self.notify(id, Side::Reader, reader, Event::State);
    }

    /// Ends reading, though the reader remains.
    pub(crate) fn refuse(&mut self, id: QueueId) {
        let Some(queue) = self.queue_mut(id) else { return };
        queue.refused = true;
        let writer = queue.writer;
        self.notify(id, Side::Writer, writer, Event::State);
    }

    /// Notifies the owners of one end of a queue.
    fn notify(&mut self, id: QueueId, side: Side, end: End, event: Event) {
        match end {
            End::Inside(owner) => self.record_event(owner, event),
            End::Many(0) => {}
            End::Many(_) => {
                let owners = self.owners(id, side);
                self.record_event_of(&owners, event);
            }
            End::Resolver(client) => self.answer_stream(client),
            End::Inbound(_) => self.inbound.news = true,
            End::Gone => {}
        }
    }

    /// The pollables that read from a queue, or that write to it.
    pub(crate) fn owners(&self, id: QueueId, side: Side) -> Vec<PollableId> {
        let owns = |owner: &PollableId| match (self.kind(*owner), side) {
            (Some(PollableKind::PipeReader(queue)), Side::Reader)
            | (Some(PollableKind::PipeWriter(queue)), Side::Writer)
            | (Some(PollableKind::PipeBoth(queue)), _) => *queue == id,
            (Some(PollableKind::Socket(socket)), Side::Reader) => socket.input == Some(id),
            (Some(PollableKind::Socket(socket)), Side::Writer) => socket.output == Some(id),
            _ => false,
        };
        self.ids().filter(owns).collect()
    }

    /// Drops a queue that has lost both ends.
    fn drop_queue(&mut self, id: QueueId) {
        let is_lost = |end: End| matches!(end, End::Gone | End::Many(0));
        if self.queue(id).is_none_or(|queue| !is_lost(queue.reader) || !is_lost(queue.writer)) {
            return;
        }
        self.change(id, Queue::clear);
        let QueueId(index) = id;
        if let Some(slot) = self.queues.get_mut(index) {
            *slot = None;
        }
        while self.queues.last().is_some_and(Option::is_none) {
            self.queues.pop();
        }
    }
}
