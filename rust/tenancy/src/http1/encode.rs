// SPDX-License-Identifier: MIT OR Apache-2.0
//! Encodes a request as a program reads it from its connection.
//!
//! Whatever the parts contain, the result is one request of the given length. Bytes that could end a line or a part of
//! it are percent-encoded in the target; a header that contains them is left out.

use mayfly_sandbox::{Header, Request};

use super::forwarding::Forwarding;
use super::{has_option, is_of_the_connection, is_token, is_token_byte, is_value, trimmed};

/// `Connection` headers that are examined.
const CONNECTIONS_MAX: usize = 4;
/// Host of requests without a `Host` header, which HTTP/1.1 servers would refuse.
const HOST: &[u8] = b"localhost";

pub(super) fn encode(request: &Request<'_>, out: &mut Vec<u8>) {
    let before = out.len();
    out.extend(request.method.iter().filter(|byte| is_token_byte(**byte)));
    if out.len() == before {
        out.extend_from_slice(b"GET");
    }
    out.push(b' ');
    if request.path != b"*" && !request.path.starts_with(b"/") {
        out.push(b'/');
    }
    add_to_target(request.path, b"#?", out);
    if !request.query.is_empty() {
        out.push(b'?');
        add_to_target(request.query, b"#", out);
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let named = |name: &'static [u8]| request.headers.iter().filter(move |header| header.name == name);
    let host = named(b"host").map(|header| trimmed(header.value)).find(|host| is_value(host));
    add_header(b"host", host.unwrap_or(HOST), out);
    // Found once: each header is compared with their options.
    let mut connections = [&[][..]; CONNECTIONS_MAX];
    let mut count = 0;
    for (connection, header) in connections.iter_mut().zip(named(b"connection")) {
        *connection = header.value;
        count += 1;
    }
    for Header { name, value } in request.headers {
        let value = trimmed(value);
        let goes = is_token(name)
            && is_value(value)
            && !matches!(*name, b"host" | b"expect" | b"http2-settings")
            && !is_of_the_connection(name)
            && !(connections[..count].iter().any(|connection| has_option(connection, name))
                // Those that are left are Mayfly's or a trusted proxy's: a client must not remove them by this option.
                && Forwarding::of(name).is_none());
        if goes {
            add_header(name, value, out);
        }
    }
    if !request.body.is_empty() || matches!(request.method, b"POST" | b"PUT" | b"PATCH") {
        add_header(b"content-length", request.body.len().to_string().as_bytes(), out);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(request.body);
}

fn add_header(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Adds a part of the target. Characters that are not allowed in it, and those that would end this part, are
/// percent-encoded.
fn add_to_target(part: &[u8], ends: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in part {
        if byte.is_ascii_graphic() && !ends.contains(&byte) {
            out.push(byte);
        } else {
            out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}
