// SPDX-License-Identifier: MIT OR Apache-2.0
//! Strict parser of a request's head (RFC 9112, 2 to 6).

mod cursor;
mod fields;

use super::host::requested_host;
use super::refusal::Stop;
use super::{COOKIE_FIELD, Framework, Refusal};
use cursor::{Cursor, LINE};
use fields::FieldKind;

pub(super) use fields::Fields;

/// The methods that the framework knows (RFC 9110, 9.3; RFC 5789; RFC 4918).
const METHODS: [&[u8]; 11] =
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"PROPFIND", b"MKCOL", b"COPY", b"MOVE"];

/// The framework's target for `*`, which means the server itself.
const SERVER_TARGET: &[u8] = b"/*";

const NO_METHOD: Refusal = Refusal::bad("the request does not begin with a method and a space (RFC 9112, 3)");
const TUNNEL: Refusal = Refusal::unsupported("the server is not a proxy and opens no tunnels");
const METHOD: Refusal = Refusal::unsupported("the server does not support the method");
const TARGET: Refusal = Refusal::bad("the request's target is malformed (RFC 9112, 3.2)");
const LENGTHS: Refusal = Refusal::bad("the request has more than one Content-Length (RFC 9112, 6.3)");
const LENGTH: Refusal = Refusal::bad("the value of Content-Length is not a number (RFC 9112, 6.3)");
const LENGTH_AND_CODING: Refusal =
    Refusal::bad("the request has both Content-Length and Transfer-Encoding (RFC 9112, 6.3)");
const OLD_CODING: Refusal = Refusal::bad("an HTTP/1.0 request must not have Transfer-Encoding (RFC 9112, 6.1)");
const NOT_CHUNKED: Refusal = Refusal::bad("the transfer coding is not chunked, or chunked twice (RFC 9112, 6.3)");
const CODING: Refusal = Refusal::unsupported("the only transfer coding that the server supports is chunked");

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// It has this many bytes; 0 without a `Content-Length`.
    Length(u64),
    Chunked,
}

/// A parsed head, and what follows from it.
#[derive(Debug)]
pub(super) struct Head<'a, 'f> {
    method: &'a [u8],
    target: Target<'a>,
    is_1_0: bool,
    fields: &'f Fields<'a>,
    pub(super) framing: Framing,
    /// The connection closes after this request.
    pub(super) is_last: bool,
    /// It asks for another protocol.
    pub(super) has_upgrade: bool,
    /// The client waits for a `100 Continue` that the framework does not send.
    pub(super) says_continue: bool,
    /// The framework sends the `100 Continue`.
    keeps_expect: bool,
    /// The framework interprets the bytes correctly and loses nothing, so they are passed unchanged.
    is_plain: bool,
}

impl Framing {
    fn has_length(self) -> bool {
        matches!(self, Self::Length(1..))
    }
}

#[derive(Debug, Clone, Copy)]
enum Target<'a> {
    /// A path with its query, or `*`.
    Plain(&'a [u8]),
    /// A URI. `rest`, which follows the authority, may lack its slash.
    Absolute { authority: &'a [u8], rest: &'a [u8] },
}

/// Parses the head at the beginning of `input`; also returns its length.
pub(super) fn parse<'a, 'f>(
    input: &'a [u8],
    framework: &Framework,
    fields: &'f mut Fields<'a>,
) -> Result<(Head<'a, 'f>, usize), Stop> {
    let mut cursor = Cursor { input, at: 0 };
    let method = cursor.token();
    cursor.expect(b' ', NO_METHOD)?;
    match method {
        b"" => return Err(NO_METHOD.into()),
        b"CONNECT" => return Err(TUNNEL.into()),
        _ if framework.knows_all_methods || METHODS.contains(&method) => {}
        _ => return Err(METHOD.into()),
    }
    let target = cursor.span(|byte| byte > b' ' && byte != 0x7f && byte != b'#');
    cursor.expect(b' ', if cursor.peek() == Some(b'#') { TARGET } else { LINE })?;
    let target = Target::parse(method, target)?;
    let minor = cursor.version()?;
    cursor.line_end(LINE)?;
    cursor.fields(fields)?;
    let is_1_0 = minor == b'0';
    let is_changed = minor > b'1' || fields.has_repeats || target.is_server();
    let head = Head::new(method, target, is_1_0, fields, is_changed, framework)?;
    Ok((head, cursor.at))
}

/// Parses a trailer section and returns its length.
pub(super) fn trailers(input: &[u8]) -> Result<usize, Stop> {
    let mut cursor = Cursor { input, at: 0 };
    cursor.fields(&mut Fields::default())?;
    Ok(cursor.at)
}

impl<'a> Target<'a> {
    fn parse(method: &[u8], target: &'a [u8]) -> Result<Self, Refusal> {
        if target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS") {
            return Ok(Self::Plain(target));
        }
        let after = |scheme: &[u8]| {
            let start = target.get(..scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then(|| &target[scheme.len()..])
        };
        let after_scheme = after(b"http://").or_else(|| after(b"https://")).ok_or(TARGET)?;
        let end = after_scheme.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(after_scheme.len());
        let (authority, rest) = after_scheme.split_at(end);
        Ok(Self::Absolute { authority, rest })
    }

    fn is_server(self) -> bool {
        matches!(self, Self::Plain(b"*"))
    }

    fn authority(self) -> Option<&'a [u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Absolute { authority, .. } => Some(authority),
        }
    }
}

impl<'a, 'f> Head<'a, 'f> {
    fn new(
        method: &'a [u8],
        target: Target<'a>,
        is_1_0: bool,
        fields: &'f Fields<'a>,
        is_changed: bool,
        framework: &Framework,
    ) -> Result<Self, Refusal> {
        requested_host(target.authority(), fields.of(FieldKind::Host), !is_1_0)?;
        let framing = framing(fields, is_1_0)?;
        let options = Options::of(fields);
        let is_last = options.close || (is_1_0 && !options.keep_alive);
        let expects = expects_continue(fields, is_1_0)?;
        let keeps_expect =
            expects && (framing.has_length() || (framing == Framing::Chunked && framework.continues_chunks));
        let is_plain = !is_changed
            && target.authority().is_none()
            && options.framework_closes(fields, is_1_0) == is_last
            && fields.of(FieldKind::Coding).all(|coding| coding == b"chunked")
            && fields.of(FieldKind::Expect).all(|expect| keeps_expect && expect == b"100-continue")
            && fields.of(FieldKind::Cookie).all(is_one_cookie)
            && !fields.has(FieldKind::Private);
        Ok(Self {
            method,
            target,
            is_1_0,
            framing,
            is_last,
            has_upgrade: fields.has(FieldKind::Upgrade),
            says_continue: expects && framing == Framing::Chunked && !keeps_expect,
            keeps_expect,
            is_plain,
            fields,
        })
    }

    /// Whether it can be passed unchanged.
    pub(super) fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Writes the head in a form that the framework interprets correctly.
    #[cold]
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method);
        out.push(b' ');
        match self.target {
            // RFC 9112, 3.2.4. Drogon treats `*` as `/`, and this as `*`.
            Target::Plain(b"*") => out.extend_from_slice(SERVER_TARGET),
            Target::Absolute { rest: b"", .. } if self.method == b"OPTIONS" => out.extend_from_slice(SERVER_TARGET),
            Target::Plain(target) => out.extend_from_slice(target),
            Target::Absolute { rest, .. } => {
                if !rest.starts_with(b"/") {
                    out.push(b'/');
                }
                out.extend_from_slice(rest);
            }
        }
        out.extend_from_slice(if self.is_1_0 { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
        if let Some(authority) = self.target.authority() {
            write_field(b"host", [authority], b"", out);
        }
        let list = &self.fields.list;
        for (index, field) in list.iter().enumerate() {
            let is_first = !list[..index].iter().any(|former| former.is_named_as(field));
            if !is_first {
                continue;
            }
            let values = list.iter().filter(|other| other.is_named_as(field)).map(|field| field.value);
            match field.kind {
                FieldKind::Private => {}
                FieldKind::Host if self.target.authority().is_some() => {}
                FieldKind::Connection if self.is_last => write_field(field.name, [&b"close"[..]], b"", out),
                FieldKind::Connection if self.is_1_0 => write_field(field.name, [&b"keep-alive"[..]], b"", out),
                FieldKind::Coding => write_field(field.name, [&b"chunked"[..]], b"", out),
                FieldKind::Expect if self.keeps_expect => write_field(field.name, [&b"100-continue"[..]], b"", out),
                FieldKind::Expect => {}
                FieldKind::Cookie => {
                    // RFC 9113, 8.2.3
                    write_field(field.name, values.clone(), b"; ", out);
                    write_field(COOKIE_FIELD.as_bytes(), values, b"; ", out);
                }
                // RFC 9110, 5.3
                FieldKind::Host | FieldKind::Connection | FieldKind::Length | FieldKind::Upgrade | FieldKind::Other => {
                    write_field(field.name, values, b", ", out);
                }
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn write_field<'a>(name: &[u8], values: impl IntoIterator<Item = &'a [u8]>, between: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    for (index, value) in values.into_iter().enumerate() {
        if index != 0 {
            out.extend_from_slice(between);
        }
        out.extend_from_slice(value);
    }
    out.extend_from_slice(b"\r\n");
}

/// The framing of the body (RFC 9112, 6.3).
fn framing(fields: &Fields<'_>, is_1_0: bool) -> Result<Framing, Refusal> {
    let mut lengths = fields.of(FieldKind::Length);
    let length = lengths.next();
    if fields.has(FieldKind::Coding) {
        if length.is_some() {
            return Err(LENGTH_AND_CODING);
        }
        if is_1_0 {
            return Err(OLD_CODING);
        }
        let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
        return match fields.elements(FieldKind::Coding).last() {
            Some(last) if is_chunked(last) => {
                let chunked = fields.elements(FieldKind::Coding).filter(|coding| is_chunked(coding)).count();
                match (chunked, fields.elements(FieldKind::Coding).count()) {
                    (1, 1) => Ok(Framing::Chunked),
                    (1, _) => Err(CODING),
                    _ => Err(NOT_CHUNKED),
                }
            }
            _ => Err(NOT_CHUNKED),
        };
    }
    if lengths.next().is_some() {
        return Err(LENGTHS);
    }
    let Some(length) = length else { return Ok(Framing::Length(0)) };
    if length.is_empty() || !length.iter().all(u8::is_ascii_digit) {
        return Err(LENGTH);
    }
    let number = std::str::from_utf8(length).ok().and_then(|digits| digits.parse().ok());
    // The framework adds to the length, which must not overflow.
    number.filter(|number| *number <= u64::MAX >> 8).map(Framing::Length).ok_or(Refusal::BODY_TOO_LARGE)
}

/// Whether the client waits for a `100 Continue` (RFC 9110, 10.1.1). An HTTP/1.0 client never does.
fn expects_continue(fields: &Fields<'_>, is_1_0: bool) -> Result<bool, Refusal> {
    let mut expects = false;
    for expectation in fields.elements(FieldKind::Expect) {
        if !is_1_0 && !expectation.eq_ignore_ascii_case(b"100-continue") {
            return Err(Refusal::EXPECTATION);
        }
        expects = !is_1_0;
    }
    Ok(expects)
}

/// Whether a cookie field survives the framework's parser, which keeps a table of cookies.
fn is_one_cookie(value: &[u8]) -> bool {
    let equals = value.iter().position(|byte| *byte == b'=');
    let first = equals.and_then(|equals| value.get(equals + 1));
    equals.is_some() && !value.contains(&b';') && !matches!(first, Some(b' ' | b'\t'))
}

/// The connection options (RFC 9110, 7.6.1).
struct Options {
    close: bool,
    keep_alive: bool,
}

impl Options {
    fn of(fields: &Fields<'_>) -> Self {
        let mut options = Self { close: false, keep_alive: false };
        for option in fields.elements(FieldKind::Connection) {
            options.close |= option.eq_ignore_ascii_case(b"close");
            options.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
        options
    }

    /// How the framework interprets these fields: it compares whole values, and only with these.
    fn framework_closes(&self, fields: &Fields<'_>, is_1_0: bool) -> bool {
        match is_1_0 {
            true => !fields.of(FieldKind::Connection).any(|value| matches!(value, b"keep-alive" | b"Keep-Alive")),
            false => fields.of(FieldKind::Connection).any(|value| value == b"close"),
        }
    }
}
