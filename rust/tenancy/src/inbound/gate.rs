// SPDX-License-Identifier: MIT OR Apache-2.0
//! The gate between a connection and the framework's parser.

use super::body::chunk_size;
use super::head::{self, Fields, Framing, Head};
use super::refusal::Stop;
use super::{Framework, HEAD_BYTES, Refusal};

/// The output buffer is kept for the next call up to this size.
const KEPT_BYTES: usize = 16 << 10;

/// This much of a first line is examined before the line is complete, so that bytes that are not HTTP, or a line
/// without an end, are refused early.
const BEGINNING_BYTES: usize = 8 << 10;

/// Bytes that no framework accepts in place of a chunk, of its end, and of a trailer section.
const NO_CHUNK: &[u8] = b"1\r\n---";
const NO_CHUNK_END: &[u8] = b"--";
const NO_TRAILER: &[u8] = b"--\r\n\r\n";

const AFTER_CHUNK: Refusal = Refusal::bad("a chunk is not followed by CR and LF (RFC 9112, 7.1)");

/// Follows the requests of one connection.
///
/// The caller must give the result of a call to the framework before the next call. The gate never holds back a
/// part of a body, and keeps no bytes: those of an incomplete head, or of an incomplete line between chunks, stay with
/// the caller.
#[derive(Debug, Default)]
pub struct Gate {
    framework: Framework,
    state: State,
    /// No request follows the current one.
    is_last: bool,
    /// The framework may have switched to another protocol.
    may_be_upgraded: bool,
    /// Number of bytes of an incomplete element that have been examined.
    examined: usize,
    output: Vec<u8>,
}

/// What comes next.
#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Head,
    /// A body, of which this many bytes are left.
    Body(u64),
    ChunkSize,
    /// A chunk, of which this many bytes are left.
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// Bytes of another protocol.
    Raw,
    /// Nothing: the last request is complete.
    Closed,
}

/// The result of passing bytes through a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateResult {
    /// The number of bytes processed. The caller passes the others in again, followed by the next ones.
    pub consumed: usize,
    /// Whether the framework gets the consumed bytes unchanged. Otherwise it gets [`Gate::output`].
    pub is_unchanged: bool,
    /// Whether the client waits for a `100 Continue`.
    pub says_continue: bool,
}

/// The progress of one call through its input.
struct Passage<'a> {
    input: &'a [u8],
    /// Number of bytes processed.
    at: usize,
    /// Start of the unchanged bytes that are not in the output yet.
    from: usize,
    is_unchanged: bool,
    says_continue: bool,
}

impl<'a> Passage<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.input[self.at..]
    }

    /// Passes the next bytes unchanged.
    fn pass(&mut self, len: usize) {
        self.at += len;
    }

    /// Drops the next bytes.
    fn skip(&mut self, len: usize, output: &mut Vec<u8>) {
        output.extend_from_slice(&self.input[self.from..self.at]);
        self.is_unchanged = false;
        self.at += len;
        self.from = self.at;
    }
}

impl Gate {
    /// Makes a gate for a new connection.
    #[must_use]
    pub fn new(framework: Framework) -> Self {
        Self { framework, ..Self::default() }
    }

    /// Processes as much of `input` as possible: the bytes left over from the last call, followed by new ones.
    ///
    /// Examines each byte once, and once more for each line of an incomplete head.
    pub fn take(&mut self, input: &[u8]) -> GateResult {
        self.output.clear();
        self.output.shrink_to(KEPT_BYTES);
        let mut passage = Passage { input, at: 0, from: 0, is_unchanged: true, says_continue: false };
        while passage.at < input.len() && self.step(&mut passage) {}
        if !passage.is_unchanged {
            passage.skip(0, &mut self.output);
        }
        let Passage { at: consumed, is_unchanged, says_continue, .. } = passage;
        GateResult { consumed, is_unchanged, says_continue }
    }

    /// The bytes for the framework in place of the consumed ones, if these are not unchanged.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// Ignores everything that follows.
    pub fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Takes one step; returns whether to continue.
    fn step(&mut self, passage: &mut Passage<'_>) -> bool {
        let rest = passage.rest();
        match self.state {
            State::Head => self.head(passage),
            State::Body(left) => {
                let len = at_most(left, rest);
                passage.pass(len);
                self.state = State::Body(left - len as u64);
                self.after_body(left == len as u64)
            }
            State::ChunkSize => match self.parse_new(rest, chunk_size) {
                Ok((size, len)) => {
                    passage.pass(len);
                    self.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
                    true
                }
                Err(stop) => self.stop_in_body(stop, NO_CHUNK, passage),
            },
            State::Chunk(left) => {
                let len = at_most(left, rest);
                passage.pass(len);
                self.state = if left == len as u64 { State::ChunkEnd } else { State::Chunk(left - len as u64) };
                true
            }
            State::ChunkEnd => match rest {
                [b'\r', b'\n', ..] => {
                    passage.pass(2);
                    self.state = State::ChunkSize;
                    true
                }
                [b'\r'] => false,
                _ => self.stop_in_body(Stop::Refused(AFTER_CHUNK), NO_CHUNK_END, passage),
            },
            State::Trailers => self.trailers(passage),
            State::Raw => {
                passage.pass(rest.len());
                false
            }
            State::Closed => {
                passage.skip(rest.len(), &mut self.output);
                false
            }
        }
    }

    fn head(&mut self, passage: &mut Passage<'_>) -> bool {
        let rest = passage.rest();
        match rest {
            // RFC 9112, 2.2: empty lines before a request.
            [b'\r', b'\n', ..] => {
                passage.skip(2, &mut self.output);
                return true;
            }
            [b'\r'] => return false,
            // No request begins with these bytes, but every WebSocket frame does.
            [0..=9 | 11..=0x1f | 0x80.., ..] if self.may_be_upgraded => {
                self.state = State::Raw;
                return true;
            }
            _ => {}
        }
        let framework = self.framework;
        let mut fields = Fields::default();
        match self.parse_new(rest, |rest| head::parse(rest, &framework, &mut fields)) {
            Ok((head, len)) if len <= HEAD_BYTES => {
                self.follow(&head);
                if head.is_plain() {
                    passage.pass(len);
                } else {
                    passage.skip(len, &mut self.output);
                    head.write(&mut self.output);
                }
                passage.says_continue = head.says_continue && passage.at == passage.input.len();
                true
            }
            Ok(_) => self.refuse(Refusal::HEAD_TOO_LARGE, passage),
            Err(Stop::Refused(refusal)) => self.refuse(refusal, passage),
            Err(Stop::Incomplete) if rest.len() < HEAD_BYTES => false,
            Err(Stop::Incomplete) => {
                let is_line = !rest.contains(&b'\n');
                self.refuse(if is_line { Refusal::TARGET_TOO_LONG } else { Refusal::HEAD_TOO_LARGE }, passage)
            }
        }
    }

    /// Enters the state that follows the head.
    fn follow(&mut self, head: &Head<'_, '_>) {
        self.is_last = head.is_last;
        self.may_be_upgraded |= head.has_upgrade;
        match head.framing {
            Framing::Length(0) => {
                self.after_body(true);
            }
            Framing::Length(length) => self.state = State::Body(length),
            Framing::Chunked => self.state = State::ChunkSize,
        }
    }

    fn after_body(&mut self, is_over: bool) -> bool {
        if is_over {
            // RFC 9112, 9.6: bytes after a request that closes the connection are ignored.
            self.state = if self.is_last { State::Closed } else { State::Head };
        }
        true
    }

    /// RFC 9110, 6.5.1: trailer fields may be dropped, and the framework's parser refuses them.
    fn trailers(&mut self, passage: &mut Passage<'_>) -> bool {
        let rest = passage.rest();
        match self.parse_new(rest, head::trailers) {
            Ok(2) => passage.pass(2),
            Ok(len) => {
                passage.skip(len, &mut self.output);
                self.output.extend_from_slice(b"\r\n");
            }
            Err(Stop::Incomplete) if rest.len() >= HEAD_BYTES => {
                return self.stop_in_body(Stop::Refused(Refusal::HEAD_TOO_LARGE), NO_TRAILER, passage);
            }
            Err(stop) => return self.stop_in_body(stop, NO_TRAILER, passage),
        }
        self.after_body(true)
    }

    /// Parses an element that may be incomplete. Only complete lines are parsed, when a new one has arrived, and the
    /// beginning of the first line. So the result does not depend on how the bytes are split, and no byte is examined
    /// often.
    fn parse_new<'a, T>(&mut self, rest: &'a [u8], parse: impl FnOnce(&'a [u8]) -> Result<T, Stop>) -> Result<T, Stop> {
        let (known, new) = rest.split_at_checked(self.examined).unwrap_or((&[], rest));
        let parsed = match new.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => parse(&rest[..=known.len() + end]),
            None if rest.len() >= HEAD_BYTES => parse(rest),
            None if known.len() < BEGINNING_BYTES && !known.contains(&b'\n') => {
                parse(rest.get(..BEGINNING_BYTES).unwrap_or(rest))
            }
            None => Err(Stop::Incomplete),
        };
        self.examined = if matches!(parsed, Err(Stop::Incomplete)) { rest.len() } else { 0 };
        parsed
    }

    /// Replaces this request by one that the framework answers with the refusal, in its turn.
    #[cold]
    fn refuse(&mut self, refusal: Refusal, passage: &mut Passage<'_>) -> bool {
        passage.skip(0, &mut self.output);
        refusal.write(&mut self.output);
        self.state = State::Closed;
        true
    }

    /// In the middle of a body the framework itself must refuse the request: `malformed` makes it do so. The request
    /// must not be completed.
    #[cold]
    fn stop_in_body(&mut self, stop: Stop, malformed: &[u8], passage: &mut Passage<'_>) -> bool {
        if matches!(stop, Stop::Incomplete) {
            return false;
        }
        passage.skip(0, &mut self.output);
        self.output.extend_from_slice(malformed);
        self.state = State::Closed;
        true
    }
}

fn at_most(left: u64, rest: &[u8]) -> usize {
    usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()))
}
