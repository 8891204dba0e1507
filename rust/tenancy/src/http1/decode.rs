// SPDX-License-Identifier: MIT OR Apache-2.0
//! Incremental decoder of what a program writes on its connection. How the bytes are split into pieces makes no
//! difference.

use mayfly_sandbox::{Decoded, Decoder, ResponseError, ResponseSink};

use super::chunks::Chunks;
use super::head::{Framing, Head};

/// Most interim responses (1xx) before the response.
const INTERIM_MAX: u32 = 16;
/// Buffers up to this size are kept from response to response.
const KEPT_BYTES: usize = 64 << 10;

/// Decodes one response after another.
#[derive(Debug, Default)]
pub(super) struct ResponseDecoder {
    answers_head: bool,
    interim: u32,
    has_excess: bool,
    head: Head,
    body: Vec<u8>,
    chunks: Chunks,
    state: State,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum State {
    #[default]
    Head,
    /// The body, of which this many bytes are left.
    Length(u64),
    Chunked,
    UntilEnd,
    /// Nothing: the response is complete.
    Complete,
    /// Ignored: the response is invalid.
    Broken(ResponseError),
}

impl Decoder for ResponseDecoder {
    fn begin(&mut self, method: &[u8]) {
        let mut kept = std::mem::take(self);
        self.answers_head = method == b"HEAD";
        kept.head.clear();
        kept.body.clear();
        self.head = kept.head;
        if kept.body.capacity() <= KEPT_BYTES {
            self.body = kept.body;
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Decoded, ResponseError> {
        let result = self.go_on(bytes);
        if let Err(error) = &result {
            self.state = State::Broken(error.clone());
        }
        result
    }

    fn end(&mut self) -> Result<(), ResponseError> {
        match &self.state {
            State::Complete => Ok(()),
            State::UntilEnd => {
                self.state = State::Complete;
                Ok(())
            }
            State::Head if self.head.is_empty() => Err(ResponseError::Malformed("it is empty")),
            State::Head => Err(ResponseError::Malformed("its head is incomplete")),
            State::Length(_) => Err(ResponseError::Malformed("its body is shorter than its length")),
            State::Chunked => Err(ResponseError::Malformed("its body is incomplete")),
            State::Broken(error) => Err(error.clone()),
        }
    }

    fn deliver(&mut self, sink: &mut dyn ResponseSink) {
        match self.head.announces(self.answers_head) {
            Some(length) => sink.no_body(length),
            None => sink.body(self.body.len()).copy_from_slice(&self.body),
        }
        self.head.deliver(sink);
    }
}

impl ResponseDecoder {
    fn go_on(&mut self, mut bytes: &[u8]) -> Result<Decoded, ResponseError> {
        loop {
            match &mut self.state {
                State::Head => match self.head.take(bytes)? {
                    None => return Ok(Decoded::Partial),
                    Some(rest) => {
                        bytes = rest;
                        self.begin_body()?;
                    }
                },
                State::Length(left) => {
                    let here = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    let (body, rest) = bytes.split_at(here);
                    self.body.extend_from_slice(body);
                    *left -= here as u64;
                    if *left > 0 {
                        return Ok(Decoded::Partial);
                    }
                    bytes = rest;
                    self.state = State::Complete;
                }
                State::Chunked => match self.chunks.take(bytes, &mut self.body)? {
                    None => return Ok(Decoded::Partial),
                    Some(rest) => {
                        bytes = rest;
                        self.state = State::Complete;
                    }
                },
                State::UntilEnd => {
                    self.body.extend_from_slice(bytes);
                    return Ok(Decoded::Partial);
                }
                // A connection on which the program sends more than the response is not reused.
                State::Complete => {
                    self.has_excess |= !bytes.is_empty();
                    return Ok(Decoded::Complete { keeps_open: self.head.keeps_open() && !self.has_excess });
                }
                State::Broken(error) => return Err(error.clone()),
            }
        }
    }

    /// Determines what follows the complete head.
    fn begin_body(&mut self) -> Result<(), ResponseError> {
        self.state = match self.head.parse(self.answers_head)? {
            Framing::Interim => {
                self.interim += 1;
                if self.interim > INTERIM_MAX {
                    return Err(ResponseError::Malformed("it has too many interim responses (1xx)"));
                }
                self.head.clear();
                State::Head
            }
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked,
            Framing::UntilEnd => State::UntilEnd,
        };
        Ok(())
    }
}
