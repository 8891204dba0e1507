// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stands between a connection and the framework's parser.

use super::body::chunk_size;
use super::head::{self, Fields, Framing, Head, Stop};
use super::{Framework, HEAD_BYTES, Refusal};

/// What a gate has written is kept for the next time up to this size.
const KEPT_BYTES: usize = 16 << 10;

/// So much of a first line is looked at before it is complete: what is no HTTP, or has no end, is refused as it comes.
const BEGINNING_BYTES: usize = 8 << 10;

/// What no framework takes in the place of a chunk, of its end, and of a trailer section.
const NO_CHUNK: &[u8] = b"1\r\n---";
const NO_CHUNK_END: &[u8] = b"--";
const NO_TRAILER: &[u8] = b"--\r\n\r\n";

const AFTER_CHUNK: Refusal = Refusal::bad("a chunk is not followed by a line's end (RFC 9112, 7.1)");

/// Follows the requests of one connection.
///
/// What it passes is to be given to the framework before it takes more. It never holds back a part of a body, and keeps
/// no bytes: those of a head, or of a line between chunks, that is not complete stay with the caller.
#[derive(Debug, Default)]
pub struct Gate {
    framework: Framework,
    state: State,
    /// No request follows the one that is being read.
    is_last: bool,
    /// The framework may have stopped to speak HTTP.
    may_be_upgraded: bool,
    /// So many bytes of something incomplete have been looked at.
    looked_at: usize,
    output: Vec<u8>,
}

/// What is read next.
#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Head,
    /// Of a body, so many bytes are left.
    Body(u64),
    ChunkSize,
    /// Of a chunk, so many bytes are left.
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// Another protocol's bytes.
    Raw,
    /// Nothing: the last request has come.
    Closed,
}

/// What became of the bytes that a gate was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// So many are done with; what is left is to be given again, with what follows it.
    pub consumed: usize,
    /// Whether the consumed bytes are to be passed as they are. Otherwise [`Gate::output`] is.
    pub is_unchanged: bool,
    /// Whether the client waits for a `100 Continue`.
    pub says_continue: bool,
}

/// One call's way through its input.
struct Passage<'a> {
    input: &'a [u8],
    /// Bytes done with.
    at: usize,
    /// Where the unchanged bytes begin that are not in the output.
    from: usize,
    is_unchanged: bool,
    says_continue: bool,
}

impl<'a> Passage<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.input[self.at..]
    }

    /// Passes the next bytes as they are.
    fn pass(&mut self, len: usize) {
        self.at += len;
    }

    /// Leaves the next bytes out.
    fn skip(&mut self, len: usize, output: &mut Vec<u8>) {
        output.extend_from_slice(&self.input[self.from..self.at]);
        self.is_unchanged = false;
        self.at += len;
        self.from = self.at;
    }
}

impl Gate {
    /// A gate for a new connection.
    #[must_use]
    pub fn new(framework: Framework) -> Self {
        Self { framework, ..Self::default() }
    }

    /// Takes what it can of `input`: what was left the last time and has come since.
    ///
    /// Costs no more than to look at each byte once, and once more for each line of an incomplete head.
    pub fn take(&mut self, input: &[u8]) -> Taken {
        self.output.clear();
        self.output.shrink_to(KEPT_BYTES);
        let mut passage = Passage { input, at: 0, from: 0, is_unchanged: true, says_continue: false };
        while passage.at < input.len() && self.step(&mut passage) {}
        if !passage.is_unchanged {
            passage.skip(0, &mut self.output);
        }
        let Passage { at: consumed, is_unchanged, says_continue, .. } = passage;
        Taken { consumed, is_unchanged, says_continue }
    }

    /// What the framework is to have in the place of what was taken, if that is not unchanged.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// Nothing that follows is looked at or passed.
    pub fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Returns whether to go on.
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
            State::ChunkSize => match self.looked(rest, chunk_size) {
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
            // No request begins so, and every frame of a WebSocket does.
            [0..=9 | 11..=0x1f | 0x80.., ..] if self.may_be_upgraded => {
                self.state = State::Raw;
                return true;
            }
            _ => {}
        }
        let framework = self.framework;
        let mut fields = Fields::default();
        match self.looked(rest, |rest| head::parse(rest, &framework, &mut fields)) {
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

    /// Goes over to what follows the head.
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
            // RFC 9112, 9.6: what follows a request that closes the connection is not looked at.
            self.state = if self.is_last { State::Closed } else { State::Head };
        }
        true
    }

    /// RFC 9110, 6.5.1: trailer fields may be dropped, and the framework's parser refuses them.
    fn trailers(&mut self, passage: &mut Passage<'_>) -> bool {
        let rest = passage.rest();
        match self.looked(rest, head::trailers) {
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

    /// Parses what may be incomplete: whole lines, when another one has come, and the beginning of the first. So what
    /// comes of it does not depend on how the bytes are cut, and no byte is looked at often.
    fn looked<'a, T>(&mut self, rest: &'a [u8], parse: impl FnOnce(&'a [u8]) -> Result<T, Stop>) -> Result<T, Stop> {
        let (known, new) = rest.split_at_checked(self.looked_at).unwrap_or((&[], rest));
        let parsed = match new.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => parse(&rest[..=known.len() + end]),
            None if rest.len() >= HEAD_BYTES => parse(rest),
            None if known.len() < BEGINNING_BYTES && !known.contains(&b'\n') => {
                parse(rest.get(..BEGINNING_BYTES).unwrap_or(rest))
            }
            None => Err(Stop::Incomplete),
        };
        self.looked_at = if matches!(parsed, Err(Stop::Incomplete)) { rest.len() } else { 0 };
        parsed
    }

    /// Has the framework answer in the place of this request, in its turn.
    #[cold]
    fn refuse(&mut self, refusal: Refusal, passage: &mut Passage<'_>) -> bool {
        passage.skip(0, &mut self.output);
        refusal.write(&mut self.output);
        self.state = State::Closed;
        true
    }

    /// In the midst of a body the framework has to refuse it itself: `malformed` is what it refuses there. The request
    /// must not come to its end.
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
