// SPDX-License-Identifier: MIT OR Apache-2.0
//! A one-way buffer between two ends: a pipe, or one direction of a connection.
//!
//! ```text
//!  bytes   [ taken already | front ............ back ]      a stream, or one message behind another
//!          0             start                    len
//! ```
//!
//! Reading advances `start`. Bytes are moved in memory only when space is needed, at most once for each byte that was
//! read.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::ids::{ConnectionId, OpenId, PollableId};
use crate::base::pages::PAGE_BYTES;

/// A buffer that has grown beyond this is freed when it holds little.
const KEPT_BYTES: usize = 256 << 10;
/// The same limit for a queue with both ends inside the program, which can have as many as descriptors.
const KEPT_INSIDE_BYTES: usize = 16 << 10;
/// Content of at least this size is shared between a snapshot and its forks.
const SHARED_BYTES: usize = 4 << 10;
/// Cost of a message besides its bytes, so that empty messages are bounded too.
const MESSAGE_COST: usize = 256;

/// The buffer: bytes in the queue, and bytes already read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<u8>", into = "Vec<u8>")]
struct Bytes {
    own: Vec<u8>,
    /// A snapshot's buffer instead of its own: a fork copies it when it first changes the queue.
    shared: Option<Arc<[u8]>>,
}

impl From<Vec<u8>> for Bytes {
    fn from(own: Vec<u8>) -> Self {
        Self { own, shared: None }
    }
}

impl From<Bytes> for Vec<u8> {
    fn from(bytes: Bytes) -> Self {
        bytes.shared.map_or(bytes.own, |shared| shared.to_vec())
    }
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        self.shared.as_deref().unwrap_or(&self.own)
    }

    fn capacity(&self) -> usize {
        self.shared.as_ref().map_or(self.own.capacity(), |shared| shared.len())
    }
}

/// The owner of one end of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    Inside(PollableId),
    /// The embedder, which holds the outer end of the connection.
    Inbound(ConnectionId),
    Gone,
}

/// The boundaries within a queue's bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Shape {
    Stream,
    /// A stream in pages: a page is free again when all of it has been read. `taken` bytes of the first page have been.
    Pipe {
        taken: usize,
    },
    /// Messages, by their sizes.
    Messages(VecDeque<usize>),
}

/// A one-way buffer.
///
/// # Invariants
///
/// `start` is at most the length of `bytes`. The sizes of messages add up to the length of the queue.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Queue {
    bytes: Bytes,
    start: usize,
    shape: Shape,
    /// Most bytes in the queue, unless they come from outside.
    pub(crate) capacity: usize,
    pub(crate) reader: End,
    pub(crate) writer: End,
    /// The writer has finished: no more bytes will come.
    pub(crate) finished: bool,
    /// The reader has finished: bytes written from now on are lost.
    pub(crate) refused: bool,
    /// A writer found no space, and has not been notified of any since.
    pub(crate) starved: bool,
    /// One of its ends is, or was, the embedder's.
    pub(crate) has_inbound_end: bool,
    /// Number of bytes or messages that have been read.
    passed: u64,
    /// Descriptors in flight (SCM_RIGHTS), in the order of the bytes that they came with.
    attached: VecDeque<Attached>,
}

/// Open files sent with some bytes, or with a message.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Attached {
    /// The range of bytes, or the message, counted from the queue's creation.
    start: u64,
    end: u64,
    open: Vec<OpenId>,
}

impl Clone for Queue {
    fn clone(&self) -> Self {
        let (bytes, start) = match &self.bytes.shared {
            Some(shared) => (Bytes { own: Vec::new(), shared: Some(Arc::clone(shared)) }, self.start),
            None => (self.front().to_vec().into(), 0),
        };
        Self { bytes, start, shape: self.shape.clone(), attached: self.attached.clone(), ..*self }
    }

    /// Reuses the buffer, unless it is large.
    fn clone_from(&mut self, source: &Self) {
        let Bytes { mut own, .. } = std::mem::take(&mut self.bytes);
        own.clear();
        if own.capacity() > source.retained_bytes() {
            own = Vec::new();
        }
        let shared = source.bytes.shared.clone();
        let start = if shared.is_some() {
            source.start
        } else {
            own.extend_from_slice(source.front());
            0
        };
        let bytes = Bytes { own, shared };
        let (shape, attached) = (source.shape.clone(), source.attached.clone());
        *self = Self { bytes, start, shape, attached, ..*source };
    }
}

impl Queue {
    fn new(shape: Shape, capacity: usize, reader: End, writer: End) -> Self {
        Self {
            bytes: Bytes::default(),
            start: 0,
            shape,
            capacity,
            reader,
            writer,
            finished: false,
            refused: false,
            starved: false,
            has_inbound_end: matches!((reader, writer), (End::Inbound(_), _) | (_, End::Inbound(_))),
            passed: 0,
            attached: VecDeque::new(),
        }
    }

    pub(crate) fn stream(capacity: usize, reader: End, writer: End) -> Self {
        Self::new(Shape::Stream, capacity, reader, writer)
    }

    pub(crate) fn pipe(capacity: usize, reader: End, writer: End) -> Self {
        Self::new(Shape::Pipe { taken: 0 }, capacity, reader, writer)
    }

    pub(crate) fn messages(capacity: usize, reader: End, writer: End) -> Self {
        Self::new(Shape::Messages(VecDeque::new()), capacity, reader, writer)
    }

    /// Makes copies share the content, if it is large.
    pub(crate) fn share(&mut self) {
        if self.len() >= SHARED_BYTES {
            self.bytes = Bytes { shared: Some(self.front().into()), own: Vec::new() };
            self.start = 0;
        }
    }

    /// The buffer, for a change. Shared content is copied first.
    fn own_mut(&mut self) -> &mut Vec<u8> {
        let Bytes { own, shared } = &mut self.bytes;
        if let Some(shared) = shared.take() {
            own.clear();
            own.extend_from_slice(shared.get(self.start..).unwrap_or_default());
            self.start = 0;
        }
        own
    }

    /// Number of bytes in the queue.
    pub(crate) fn len(&self) -> usize {
        self.bytes.as_slice().len().saturating_sub(self.start)
    }

    /// Its cost to the host.
    pub(crate) fn cost(&self) -> usize {
        match &self.shape {
            Shape::Messages(sizes) => self.len().saturating_add(sizes.len().saturating_mul(MESSAGE_COST)),
            _ => self.len(),
        }
    }

    /// Whether there is nothing to read.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.shape {
            Shape::Messages(sizes) => sizes.is_empty(),
            _ => self.len() == 0,
        }
    }

    pub(crate) fn has_messages(&self) -> bool {
        matches!(self.shape, Shape::Messages(_))
    }

    pub(crate) fn is_pipe(&self) -> bool {
        matches!(self.shape, Shape::Pipe { .. })
    }

    /// Size of the first message, or of all bytes of a stream.
    pub(crate) fn next_len(&self) -> usize {
        match &self.shape {
            Shape::Messages(sizes) => sizes.front().copied().unwrap_or(0),
            _ => self.len(),
        }
    }

    /// Number of bytes that may be written.
    pub(crate) fn room(&self) -> usize {
        let used = match &self.shape {
            Shape::Stream => self.len(),
            Shape::Pipe { taken } => self.len().saturating_add(*taken),
            Shape::Messages(_) => self.cost().saturating_add(MESSAGE_COST),
        };
        self.capacity.saturating_sub(used)
    }

    /// Whether `poll` reports it as writable.
    pub(crate) fn is_writable(&self) -> bool {
        match &self.shape {
            Shape::Pipe { .. } => self.room() >= PAGE_BYTES,
            _ => self.room() >= self.capacity / 3,
        }
    }

    /// The bytes in the queue.
    pub(crate) fn front(&self) -> &[u8] {
        self.bytes.as_slice().get(self.start..).unwrap_or_default()
    }

    /// Removes `count` bytes from the front of a stream, or the first message, whatever its size.
    pub(crate) fn pop(&mut self, count: usize) {
        let there = self.len();
        let passed = if self.has_messages() { usize::from(!self.is_empty()) } else { count.min(there) };
        self.passed = self.passed.wrapping_add(passed as u64);
        let count = match &mut self.shape {
            Shape::Messages(sizes) => sizes.pop_front().unwrap_or(0),
            Shape::Stream => count.min(there),
            Shape::Pipe { taken } => {
                let count = count.min(there);
                *taken = taken.saturating_add(count) % PAGE_BYTES;
                count
            }
        };
        self.start = self.start.saturating_add(count);
        if self.start >= self.bytes.as_slice().len() {
            self.start = 0;
            self.bytes.shared = None;
            self.bytes.own.clear();
            if let Shape::Pipe { taken } = &mut self.shape {
                *taken = 0;
            }
        }
        self.trim();
    }

    /// Largest buffer that is retained whatever it holds.
    fn retained_bytes(&self) -> usize {
        if self.has_inbound_end { KEPT_BYTES } else { KEPT_INSIDE_BYTES }
    }

    /// Frees a buffer that holds little. This copies the rest, which is less than what has been read since the last
    /// time.
    fn trim(&mut self) {
        let (len, capacity) = (self.len(), self.bytes.capacity());
        if capacity > self.retained_bytes() && len < capacity / 4 {
            (self.bytes, self.start) = (self.front().to_vec().into(), 0);
        }
    }

    /// Appends `count` zero bytes, and returns them.
    pub(crate) fn grow(&mut self, count: usize) -> &mut [u8] {
        let (left, start) = (self.len(), self.start);
        let bytes = self.own_mut();
        let is_moved = start > left && bytes.len().saturating_add(count) > bytes.capacity();
        if is_moved {
            bytes.drain(..start.min(bytes.len()));
            self.start = 0;
        }
        let bytes = self.own_mut();
        let len = bytes.len();
        bytes.resize(len.saturating_add(count), 0);
        bytes.get_mut(len..).unwrap_or_default()
    }

    /// Removes the last `count` bytes.
    pub(crate) fn shrink(&mut self, count: usize) {
        let left = self.len().saturating_sub(count);
        self.own_mut();
        let len = self.start.saturating_add(left);
        self.own_mut().truncate(len);
        self.trim();
    }

    /// Appends bytes.
    #[cfg(test)]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.grow(bytes.len()).copy_from_slice(bytes);
    }

    /// Makes a message of the last `size` bytes.
    pub(crate) fn end_message(&mut self, size: usize) {
        if let Shape::Messages(sizes) = &mut self.shape {
            sizes.push_back(size);
        }
    }

    /// Attaches open files to the last `count` bytes, or to the last message.
    pub(crate) fn attach(&mut self, count: usize, open: Vec<OpenId>) {
        let (len, count) = match &self.shape {
            Shape::Messages(sizes) => (sizes.len(), 1),
            _ => (self.len(), count),
        };
        let end = self.passed.wrapping_add(len as u64);
        self.attached.push_back(Attached { start: end.wrapping_sub(count as u64), end, open });
    }

    /// Most bytes that one read returns: a read ends with bytes that have open files attached.
    pub(crate) fn readable(&self) -> usize {
        let first = self.attached.front().filter(|_| !self.has_messages());
        first.map_or(usize::MAX, |first| usize::try_from(first.end.wrapping_sub(self.passed)).unwrap_or(usize::MAX))
    }

    /// The open files attached to the first `count` bytes, or to the first message.
    pub(crate) fn attached(&self, count: usize) -> Vec<OpenId> {
        let count = if self.has_messages() { 1 } else { count };
        match self.attached.front() {
            Some(first) if first.start < self.passed.wrapping_add(count as u64) => first.open.clone(),
            _ => Vec::new(),
        }
    }

    /// Removes the first attachment.
    pub(crate) fn detach(&mut self) {
        self.attached.pop_front();
    }

    /// Removes all attachments and returns their open files.
    pub(crate) fn take_attached(&mut self) -> Vec<OpenId> {
        std::mem::take(&mut self.attached).into_iter().flat_map(|attached| attached.open).collect()
    }

    /// Number of open files attached.
    pub(crate) fn attached_count(&self) -> usize {
        self.attached.iter().fold(0, |sum, attached| sum.saturating_add(attached.open.len()))
    }

    /// Drops the content.
    pub(crate) fn clear(&mut self) {
        self.bytes = Bytes::default();
        self.start = 0;
        if let Shape::Messages(sizes) = &mut self.shape {
            sizes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(mut queue: Queue, bytes: &[u8]) -> Queue {
        queue.push(bytes);
        queue
    }

    #[test]
    fn bytes_are_read_as_they_were_written() {
        let mut queue = Queue::stream(1 << 20, End::Gone, End::Gone);
        let (mut next_in, mut next_out) = (0_u32, 0_u32);
        for round in 0..2000_usize {
            for _ in 0..round % 7 {
                queue.push(&next_in.to_le_bytes());
                next_in += 1;
            }
            for _ in 0..(round % 5).min(queue.len() / 4) {
                assert_eq!(queue.front()[..4], next_out.to_le_bytes());
                queue.pop(4);
                next_out += 1;
            }
            assert_eq!(queue.len(), 4 * (next_in - next_out) as usize);
        }
        assert!(queue.bytes.capacity() < 16 * queue.len().max(1024), "bytes that were read are freed");
    }

    #[test]
    fn a_page_of_a_pipe_is_free_when_all_of_it_was_read() {
        let mut queue = filled(Queue::pipe(2 * PAGE_BYTES, End::Gone, End::Gone), &[1; 2 * PAGE_BYTES]);
        assert!(!queue.is_writable());
        queue.pop(PAGE_BYTES - 1);
        assert!(!queue.is_writable());
        queue.pop(1);
        assert!(queue.is_writable());
        assert_eq!(queue.room(), PAGE_BYTES);
    }

    #[test]
    fn a_message_is_read_as_a_whole() {
        let mut queue = Queue::messages(1 << 16, End::Gone, End::Gone);
        for message in [b"one".as_slice(), b"", b"three"] {
            queue.push(message);
            queue.end_message(message.len());
        }
        assert_eq!((queue.next_len(), queue.len()), (3, 8));
        queue.pop(1);
        assert_eq!((queue.next_len(), queue.is_empty()), (0, false));
        queue.pop(0);
        assert_eq!((queue.next_len(), queue.front()), (5, b"three".as_slice()));
        queue.pop(0);
        assert!(queue.is_empty());
    }

    #[test]
    fn empty_messages_fill_a_queue() {
        let mut queue = Queue::messages(4096, End::Gone, End::Gone);
        let mut count = 0;
        while queue.room() > 0 {
            queue.end_message(0);
            count += 1;
        }
        assert!(count <= 4096 / MESSAGE_COST, "{count}");
    }

    /// The host's memory for a queue is about what the queue holds: a program's account (`HELD_MAX`) counts only that.
    #[test]
    fn a_queue_retains_no_more_memory_than_its_content_needs() {
        const MOST: usize = 1 << 20;
        let bounded = |queue: &Queue, how: &str| {
            let (has, holds) = (queue.len(), queue.bytes.capacity());
            assert!(holds <= 4 * has + KEPT_INSIDE_BYTES, "{how}: {holds} bytes are held for {has}");
        };
        let inside = || End::Inside(PollableId(0));
        for make in [Queue::stream, Queue::pipe, Queue::messages] {
            let mut queue = make(MOST, inside(), inside());
            // A write whose source cannot be read.
            queue.grow(MOST);
            queue.shrink(MOST);
            bounded(&queue, "nothing was written");
            for part in [MOST / 8, MOST / 8, MOST / 2, 3] {
                queue.grow(part);
                queue.end_message(part);
                bounded(&queue, "filled");
            }
            queue.grow(MOST / 4);
            queue.shrink(MOST / 4);
            bounded(&queue, "filled, and a part undone");
            while queue.len() > 3 {
                queue.pop((queue.len() - 3).min(MOST / 64));
                bounded(&queue, "emptied in parts");
            }
            let mut copy = make(MOST, inside(), inside());
            copy.grow(MOST);
            copy.clone_from(&queue);
            bounded(&copy, "reset");
            queue.pop(3);
            bounded(&queue, "empty");
        }
    }

    /// A snapshot's queues may hold 32 MiB, and there may be a thousand forks, each reset after each request.
    #[test]
    fn forks_share_content_that_they_do_not_change() {
        const MUCH: usize = 64 << 10;
        let mut frozen = filled(Queue::stream(1 << 20, End::Gone, End::Gone), &[7; MUCH + 2]);
        frozen.pop(2);
        frozen.share();
        let mut fork = frozen.clone();
        let is_shared = |fork: &Queue| fork.front().as_ptr() == frozen.front().as_ptr();
        assert!(is_shared(&fork));
        fork.pop(MUCH / 2);
        assert_eq!(fork.front(), [7; MUCH / 2], "a read does not change other forks");
        fork.push(b"new");
        assert!(fork.front().ends_with(b"\x07new") && fork.len() == MUCH / 2 + 3);
        fork.grow(5);
        fork.shrink(6);
        assert!(fork.front().ends_with(b"\x07ne"));
        fork.clone_from(&frozen);
        assert!(is_shared(&fork));
        fork.grow(3);
        fork.shrink(3);
        assert_eq!((fork.front(), frozen.front()), (&[7; MUCH][..], &[7; MUCH][..]));
        fork.clone_from(&frozen);
        fork.pop(MUCH);
        assert!(fork.is_empty() && frozen.len() == MUCH);
        let mut little = filled(Queue::stream(1 << 20, End::Gone, End::Gone), b"little");
        little.share();
        assert_ne!(little.clone().front().as_ptr(), little.front().as_ptr());
    }

    #[test]
    fn a_copy_has_the_unread_bytes() {
        let mut queue = filled(Queue::stream(64, End::Gone, End::Gone), b"abcdef");
        queue.pop(2);
        let mut other = filled(Queue::stream(64, End::Gone, End::Gone), b"xyz");
        other.clone_from(&queue);
        assert_eq!(other.front(), b"cdef");
        assert_eq!(queue.clone().front(), b"cdef");
    }
}
