// SPDX-License-Identifier: MIT OR Apache-2.0
//! The syntax of header fields, and which of them a program may send: the one thing of HTTP that the sandbox knows.
//!
//! The floors above frame messages by the same rules, so that a field that passes here can neither end a line nor frame
//! a message there.

/// Names of fields that frame a message (RFC 9112, 6) or are about one connection (RFC 9110, 7.6.1). A name that ends
/// in a hyphen stands for all names that begin with it.
const RESERVED: [&str; 8] =
    ["content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "proxy-"];

/// Whether a method or a field's name may have this byte: RFC 9110, 5.6.2.
///
/// ```
/// use mayfly_sandbox::fields::is_token_byte;
///
/// assert!(is_token_byte(b'-') && !is_token_byte(b':'));
/// ```
#[inline]
#[must_use]
pub const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

/// Whether `text` is a token, as methods and fields' names are: RFC 9110, 5.6.2.
///
/// ```
/// use mayfly_sandbox::fields::is_token;
///
/// assert!(is_token(b"content-type"));
/// assert!(!is_token(b"content type") && !is_token(b""));
/// ```
#[inline]
#[must_use]
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

/// Whether a field's value may have this byte: RFC 9110, 5.5, no control characters but the tab.
#[inline]
#[must_use]
pub const fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Whether `value` may be a field's value: RFC 9110, 5.5, with no white space at either end.
///
/// ```
/// use mayfly_sandbox::fields::is_value;
///
/// assert!(is_value(b"text/html; charset=utf-8"));
/// assert!(!is_value(b"a\r\nset-cookie: b") && !is_value(b" a"));
/// ```
#[inline]
#[must_use]
pub fn is_value(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !blank(value.first()) && !blank(value.last()) && value.iter().all(|byte| is_value_byte(*byte))
}

/// The reserved name that `name` is or begins with: a field that frames the message or is about one connection. Such
/// fields are the server's to set.
///
/// ```
/// use mayfly_sandbox::fields::reserved;
///
/// assert_eq!(reserved(b"Content-Length"), Some("content-length"));
/// assert_eq!(reserved(b"proxy-authenticate"), Some("proxy-"));
/// assert_eq!(reserved(b"content-type"), None);
/// ```
#[must_use]
pub fn reserved(name: &[u8]) -> Option<&'static str> {
    RESERVED.iter().copied().find(|reserved| match reserved.strip_suffix('-') {
        Some(_) => name.get(..reserved.len()).is_some_and(|start| start.eq_ignore_ascii_case(reserved.as_bytes())),
        None => name.eq_ignore_ascii_case(reserved.as_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_that_frame_the_message_are_reserved() {
        for name in
            ["Content-Length", "transfer-encoding", "CONNECTION", "Proxy-Authenticate", "te", "Trailer", "upgrade"]
        {
            assert!(reserved(name.as_bytes()).is_some(), "{name}");
        }
        for name in ["content-type", "set-cookie", "x-te", "proxy", "telemetry"] {
            assert_eq!(reserved(name.as_bytes()), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_field_can_split_a_message(
            name in prop::collection::vec(any::<u8>(), 0..20),
            value in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            if is_token(&name) {
                prop_assert!(!name.iter().any(|byte| b": \t\r\n\0".contains(byte) || *byte >= 0x7f));
            }
            if is_value(&value) {
                prop_assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)));
            }
        }
    }
}
