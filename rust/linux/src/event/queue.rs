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

/// Capacity of a pipe, as on Linux: 16 pages.
pub(crate) const PIPE_BYTES: usize = 64 << 10;
/// A buffer that has grown beyond this is freed when it holds little.
const KEPT_BYTES: usize = 256 << 10;
/// The same limit for a queue with both ends inside the program, which can have as many as descriptors.
const KEPT_INSIDE_BYTES: usize = 16 << 10;
/// Content of at least this size is shared between a snapshot and its forks.
const SHARED_BYTES: usize = 4 << 10;
/// Cost of a message besides its bytes, with its sender's address, so that empty messages are bounded too.
pub(crate) const MESSAGE_COST: usize = 256;

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
    /// Any socket may send to the reader's address; this many are connected with it.
    Many(usize),
    /// Mayfly's resolver, at the other end of this socket's connection.
    Resolver(PollableId),
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
    Messages(VecDeque<Message>),
}

/// A message in a queue, besides its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Message {
    size: usize,
    sender: Sender,
}

/// The sender of a message: a `struct sockaddr` as the receiver gets it, empty without an address.
pub(crate) type Sender = Arc<[u8]>;

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
    /// Of a FIFO: the number of its file.
    pub(crate) fifo: Option<u64>,
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
            fifo: None,
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

    /// The queue of a FIFO, which nothing has open yet.
    pub(crate) fn fifo(capacity: usize, number: u64) -> Self {
        Self { fifo: Some(number), ..Self::pipe(capacity, End::Many(0), End::Many(0)) }
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
            Shape::Messages(messages) => self.len().saturating_add(messages.len().saturating_mul(MESSAGE_COST)),
            _ => self.len(),
        }
    }

    /// Whether there is nothing to read.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.shape {
            Shape::Messages(messages) => messages.is_empty(),
            _ => self.len() == 0,
        }
    }

    /// Whether nothing more will come, as things are.
    pub(crate) fn has_ended(&self) -> bool {
        self.finished || (self.fifo.is_some() && self.writer == End::Many(0))
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
            Shape::Messages(messages) => messages.front().map_or(0, |message| message.size),
            _ => self.len(),
        }
    }

    /// The sender of the first message.
    pub(crate) fn next_sender(&self) -> Option<Sender> {
        match &self.shape {
            Shape::Messages(messages) => messages.front().map(|message| Arc::clone(&message.sender)),
            _ => None,
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
            Shape::Messages(messages) => messages.pop_front().map_or(0, |message| message.size),
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
        // Unshares the bytes, and then they start at 0.
        self.own_mut();
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
    pub(crate) fn end_message(&mut self, size: usize, sender: Sender) {
        if let Shape::Messages(messages) = &mut self.shape {
            messages.push_back(Message { size, sender });
        }
    }

    /// Attaches open files to the last `count` bytes, or to the last message.
    pub(crate) fn attach(&mut self, count: usize, open: Vec<OpenId>) {
        let (len, count) = match &self.shape {
            Shape::Messages(messages) => (messages.len(), 1),
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

    /// Whether a deserialised value keeps this type's invariants.
    pub(crate) fn is_sound(&self) -> bool {
        let sizes_match = match &self.shape {
            Shape::Messages(messages) => {
                let sum = messages.iter().try_fold(0_usize, |sum, message| sum.checked_add(message.size));
                sum == Some(self.len())
            }
            Shape::Pipe { taken } => *taken < PAGE_BYTES,
            Shape::Stream => true,
        };
        self.start <= self.bytes.as_slice().len() && sizes_match
    }

    /// Drops the content.
    pub(crate) fn clear(&mut self) {
        self.bytes = Bytes::default();
        self.start = 0;
        if let Shape::Messages(messages) = &mut self.shape {
            messages.clear();
        }
    }
}

#[cfg(test)]
mod tests;
