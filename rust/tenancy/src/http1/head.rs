// SPDX-License-Identifier: MIT OR Apache-2.0
//! A response's head: the status line, the headers, and the framing of the body.

use mayfly_sandbox::{ResponseError, ResponseSink};

use super::{has_option, is_of_the_connection, is_token, is_value, trimmed};

/// Largest head, in bytes.
pub(super) const HEAD_MAX: usize = 64 << 10;
/// Most headers, including those that are not passed on.
const HEADERS_MAX: usize = 128;

/// How the end of the body is determined: RFC 9112, 6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// An interim response: another head follows.
    Interim,
    /// By its length, which may be 0.
    Length(u64),
    Chunked,
    /// By the end of the connection.
    UntilEnd,
}

/// A head, while it is being received and once it is complete.
#[derive(Debug, Default)]
pub(super) struct Head {
    raw: Vec<u8>,
    /// Whether the current line is empty so far, and is not the first one.
    is_blank: bool,
    status: u16,
    /// Names and values of the headers that are passed on, concatenated.
    text: Vec<u8>,
    /// Their ends in `text`.
    ends: Vec<(usize, usize)>,
    keeps_open: bool,
    /// The declared length. The body has this length, except that answers to `HEAD` and 304 have no body.
    announced: Option<u64>,
}

impl Head {
    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.raw.clear();
        self.text.clear();
        self.ends.clear();
        (self.is_blank, self.status, self.keeps_open, self.announced) = (false, 0, false, None);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Whether the connection can carry another request, according to the program.
    pub(super) fn keeps_open(&self) -> bool {
        self.keeps_open
    }

    /// `Some` if the response cannot have a body but may declare the length that one would have: RFC 9110, 8.6 and
    /// 9.3.2. A 204 declares none.
    pub(super) fn announces(&self, answers_head: bool) -> Option<Option<u64>> {
        ((answers_head && self.status != 204) || self.status == 304).then_some(self.announced)
    }

    /// Consumes the bytes that belong to the head; returns the bytes behind it when it is complete.
    pub(super) fn take<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, ResponseError> {
        let room = HEAD_MAX - self.raw.len();
        for (index, &byte) in bytes.iter().take(room).enumerate() {
            match byte {
                b'\n' if self.is_blank => {
                    let (head, rest) = bytes.split_at(index + 1);
                    self.raw.extend_from_slice(head);
                    return Ok(Some(rest));
                }
                b'\n' => self.is_blank = true,
                b'\r' => {}
                _ => self.is_blank = false,
            }
        }
        if bytes.len() >= room {
            return Err(ResponseError::TooLarge { bytes: HEAD_MAX as u64, limit: HEAD_MAX as u64 });
        }
        self.raw.extend_from_slice(bytes);
        Ok(None)
    }

    /// Parses the complete head. `answers_head`: the request's method was `HEAD`.
    pub(super) fn parse(&mut self, answers_head: bool) -> Result<Framing, ResponseError> {
        let Self { raw, status, text, ends, keeps_open, announced, .. } = self;
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(raw) {
            Ok(httparse::Status::Complete(size)) if size == raw.len() => {}
            Ok(_) => return Err(ResponseError::Malformed("its head is incomplete")),
            Err(error) => return Err(refusal(error)),
        }
        let code = response.code.unwrap_or_default();
        *status = match code {
            101 => return Err(ResponseError::Malformed("it switches to another protocol")),
            100..=199 => return Ok(Framing::Interim),
            200..=599 => code,
            _ => return Err(ResponseError::Status { status: code.into() }),
        };
        let is_1_1 = response.version == Some(1);
        let mut length = None;
        let mut is_chunked = false;
        let (mut closes, mut stays) = (false, false);
        for (index, header) in (0_u32..).zip(response.headers.iter()) {
            let value = trimmed(header.value);
            if !is_token(header.name.as_bytes()) {
                return Err(ResponseError::HeaderName { index });
            }
            if !is_value(value) {
                return Err(ResponseError::HeaderValue { index });
            }
            if header.name.eq_ignore_ascii_case("content-length") {
                if length.replace(parse_length(value)?).is_some() {
                    return Err(ResponseError::Malformed("it has two lengths"));
                }
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                if std::mem::replace(&mut is_chunked, true) || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(ResponseError::Malformed("its transfer coding is not just \"chunked\""));
                }
            } else if header.name.eq_ignore_ascii_case("connection") {
                closes |= has_option(value, b"close");
                stays |= has_option(value, b"keep-alive");
            }
        }
        let connections = || response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("connection"));
        for header in response.headers.iter() {
            let name = header.name.as_bytes();
            if is_of_the_connection(name) || connections().any(|connection| has_option(connection.value, name)) {
                continue;
            }
            text.extend_from_slice(name);
            let end = text.len();
            text.extend_from_slice(trimmed(header.value));
            ends.push((end, text.len()));
        }
        *keeps_open = !closes && (is_1_1 || stays);
        *announced = length;
        match (is_chunked, length) {
            _ if answers_head || matches!(code, 204 | 304) => Ok(Framing::Length(0)),
            (true, Some(_)) => Err(ResponseError::Malformed("it is chunked and has a length")),
            (true, None) if is_1_1 => Ok(Framing::Chunked),
            (true, None) => Err(ResponseError::Malformed("it is chunked, which HTTP/1.0 does not support")),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) => {
                *keeps_open = false;
                Ok(Framing::UntilEnd)
            }
        }
    }

    /// Passes status and headers to `sink`.
    pub(super) fn deliver(&self, sink: &mut dyn ResponseSink) {
        sink.status(self.status);
        let mut start = 0;
        for &(name, value) in &self.ends {
            sink.header(&self.text[start..name], &self.text[name..value]);
            start = value;
        }
    }
}

/// Digits alone: no sign, no list.
fn parse_length(value: &[u8]) -> Result<u64, ResponseError> {
    let length = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    length.and_then(|text| text.parse().ok()).ok_or(ResponseError::Malformed("its length is not a number"))
}

fn refusal(error: httparse::Error) -> ResponseError {
    match error {
        httparse::Error::TooManyHeaders => {
            ResponseError::HeaderCount { count: HEADERS_MAX as u32 + 1, limit: HEADERS_MAX as u32 }
        }
        httparse::Error::HeaderName => ResponseError::Malformed("the name of a header is invalid"),
        httparse::Error::HeaderValue => ResponseError::Malformed("the value of a header is invalid"),
        httparse::Error::Version => ResponseError::Malformed("it does not begin with HTTP/1.1 or HTTP/1.0"),
        _ => ResponseError::Malformed("its first line is invalid"),
    }
}
