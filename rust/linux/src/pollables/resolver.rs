// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections with the resolver: `net/resolver.rs` answers, and this file reads questions and writes answers.
//!
//! ```text
//!   client --> queue --> End::Resolver      each message has its size in front, in two bytes: RFC 1035, 4.2.2
//!          <-- queue <--
//! ```
//!
//! There is no state but the two queues. A question stays in its queue until there is space for the answer.

use crate::base::errno::Errno;
use crate::base::ids::PollableId;
use crate::event::queue::{End, Queue};
use crate::net::resolver;
use crate::net::socket::{CONNECTION_BYTES, Phase, Socket};
use crate::pollables::table::Pollables;

/// Most answers at a time. The client takes those, which makes the rest due.
const ANSWERS_MAX: usize = 16;
/// More than any answer has with its size.
const ANSWER_BYTES: usize = 1024;
/// Bytes of the size in front of a message.
const SIZE_BYTES: usize = 2;

impl Pollables {
    /// Connects a stream socket with the resolver.
    pub(crate) fn connect_to_resolver(&mut self, id: PollableId) -> Result<(), Errno> {
        let (inside, outside) = (End::Inside(id), End::Resolver(id));
        let input = self.add_queue(Queue::stream(CONNECTION_BYTES, inside, outside));
        let output = self.add_queue(Queue::stream(CONNECTION_BYTES, outside, inside));
        let socket = self.socket_mut(id)?;
        socket.phase = Phase::Connected;
        (socket.input, socket.output) = (Some(input), Some(output));
        Ok(())
    }

    /// Answers what a client has asked, as far as there is space.
    pub(crate) fn answer_stream(&mut self, client: PollableId) {
        let Ok(Socket { input: Some(input), output: Some(output), .. }) = self.socket(client) else { return };
        let (input, output) = (*input, *output);
        let mut has_answered = false;
        for _ in 0..ANSWERS_MAX {
            // With nothing to take, the client would wait for ever.
            let has_space = self.room(input) >= ANSWER_BYTES || self.queue(input).is_some_and(Queue::is_empty);
            let Some(asked) = self.queue(output).filter(|_| has_space) else { return };
            let Some((size, rest)) = asked.front().split_first_chunk::<SIZE_BYTES>() else { break };
            let size = usize::from(u16::from_be_bytes(*size));
            let Some(message) = rest.get(..size) else { break };
            let Some(answer) = resolver::answer(&self.network, message) else {
                // As with damaged data: there is no telling what the rest is.
                self.refuse(output);
                self.finish(input);
                return;
            };
            self.take(output, size.saturating_add(SIZE_BYTES));
            let size = u16::try_from(answer.len()).unwrap_or(0).to_be_bytes();
            self.write_bytes(input, &[&size[..], &answer].concat());
            has_answered = true;
        }
        // Once for all of them.
        if has_answered {
            self.note_written(input);
        }
        let complete = |queue: &Queue| {
            let size = queue.front().first_chunk::<SIZE_BYTES>().map(|size| usize::from(u16::from_be_bytes(*size)));
            size.is_some_and(|size| queue.len() >= size.saturating_add(SIZE_BYTES))
        };
        let is_over = self.queue(output).is_some_and(|queue| queue.finished && !complete(queue));
        if is_over && self.queue(input).is_some_and(|queue| !queue.finished) {
            self.finish(input);
        }
    }

    /// The resolver closes its end of a connection whose client is gone.
    pub(crate) fn leave_resolver(&mut self, socket: &Socket) {
        let is_resolver = |end: End| matches!(end, End::Resolver(_));
        if let Some(output) = socket.output.filter(|id| self.queue(*id).is_some_and(|queue| is_resolver(queue.reader)))
        {
            self.close_reader(output);
        }
        if let Some(input) = socket.input.filter(|id| self.queue(*id).is_some_and(|queue| is_resolver(queue.writer))) {
            self.close_writer(input);
        }
    }
}
