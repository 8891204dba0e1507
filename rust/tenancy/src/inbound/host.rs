// SPDX-License-Identifier: MIT OR Apache-2.0
//! Determines the host that a request is for (RFC 9112, 3.2).

use super::Refusal;

const MISSING: Refusal = Refusal::bad("the request has no Host field (RFC 9112, 3.2)");
const SEVERAL: Refusal = Refusal::bad("the request has more than one Host field (RFC 9112, 3.2)");
const INVALID: Refusal = Refusal::bad("the value of Host is not a host with an optional port (RFC 9112, 3.2)");
const AUTHORITY: Refusal = Refusal::bad("the target's authority is not a host with an optional port (RFC 9110, 4.2)");

/// The host that a request is for: that of an absolute target, or else that of its single `Host` field. `None` for an
/// HTTP/1.0 request without one.
///
/// # Errors
///
/// If `Host` is missing although it `is_required` (HTTP/1.1), is repeated, or is not a host. This holds even if the
/// target's authority takes precedence, since an earlier recipient may have used the field.
pub(super) fn requested_host<'a>(
    authority: Option<&'a [u8]>,
    hosts: impl IntoIterator<Item = &'a [u8]>,
    is_required: bool,
) -> Result<Option<&'a [u8]>, Refusal> {
    let mut hosts = hosts.into_iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(SEVERAL);
    }
    if host.is_none() && is_required {
        return Err(MISSING);
    }
    if !host.is_none_or(is_host) {
        return Err(INVALID);
    }
    match authority {
        // RFC 9110, 4.2.1 and 4.2.4: the host must not be empty, and there must be no user information.
        Some(authority) if authority.is_empty() || authority.starts_with(b":") || !is_host(authority) => Err(AUTHORITY),
        authority => Ok(authority.or(host)),
    }
}

/// Whether this is `uri-host [ ":" port ]` (RFC 9110, 7.2); the host may be empty (RFC 3986, 3.2.2).
fn is_host(value: &[u8]) -> bool {
    let end = match value.first() {
        Some(b'[') => match value.iter().position(|byte| *byte == b']') {
            Some(end) if end > 1 && value[1..end].iter().all(|byte| *byte == b':' || is_reg_name_byte(*byte)) => {
                end + 1
            }
            _ => return false,
        },
        _ => value.iter().position(|byte| *byte == b':').unwrap_or(value.len()),
    };
    let (name, port) = value.split_at(end);
    let is_port = port.is_empty() || (port[0] == b':' && port[1..].iter().all(u8::is_ascii_digit));
    is_port && (name.starts_with(b"[") || is_reg_name(name))
}

fn is_reg_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let Some((byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
            (byte, after) if is_reg_name_byte(*byte) => after,
            _ => return false,
        };
    }
    true
}

/// RFC 3986: `unreserved` or `sub-delims`.
fn is_reg_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}
