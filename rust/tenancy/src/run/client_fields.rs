// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tells a program who its client is: by headers, and by the client that the sandbox learns.
//!
//! ```text
//!                      headers of the family that came         Mayfly's own
//!   from a client      removed                                 address, scheme, host
//!   from a proxy       passed on, but for the other notation   address behind those that the proxy has named;
//!                                                              scheme and host, unless the proxy has named them
//! ```
//!
//! # Invariants
//!
//! - What a client that is no trusted proxy has sent is in no header of the family ([`Forwarding`]).
//! - At most three headers are added.
//! - What comes from a proxy is as hostile as its client. A field of its list that would swallow what follows, or that
//!   the program would not receive, becomes `unknown`: without it, the program would take the proxy for the client.

use std::net::IpAddr;

use mayfly_sandbox::fields::{is_token, is_value};
use mayfly_sandbox::{Header, Request};
use smallvec::SmallVec;

use crate::config::client::{ClientConfig, ClientHeaders};
use crate::http1::forwarding::Forwarding;
use crate::http1::trimmed;
use crate::run::address_text::push_address;

/// As many headers as a request has on the stack before it comes here (`rust/bridge`: 32), and the three that are
/// added. Browsers send 12 to 20, and proxies in front of the server add up to a dozen.
const HEADERS_ON_STACK: usize = 36;
/// Text that Mayfly adds for most requests: an element of `Forwarded` has at most 326 bytes, with an address of IPv6
/// and the longest name of the domain name system.
const TEXT_ON_STACK: usize = 512;

type Text = SmallVec<[u8; TEXT_ON_STACK]>;
type Headers<'a> = SmallVec<[Header<'a>; HEADERS_ON_STACK]>;

/// Passes the request to `then` as the program is to receive it. Requests without a client are the server's own, and
/// are passed on unchanged.
#[inline]
pub(crate) fn with_client<T>(config: &ClientConfig, request: &Request<'_>, then: impl FnOnce(&Request<'_>) -> T) -> T {
    let Some(client) = request.client else { return then(request) };
    let (plain, host) = plain_headers(request.headers);
    if config.headers == ClientHeaders::None && plain.len() == request.headers.len() {
        return then(&Request { client: None, ..*request });
    }
    let host = host.filter(|host| is_value(host)).unwrap_or_default();
    let address = client.address.ip().to_canonical();
    let mut list = Text::new();
    let mut headers = Headers::new();
    headers.extend_from_slice(plain);
    let came = match &request.headers[plain.len()..] {
        [] => Came::default(),
        rest => Came::sort(config, address, rest, &mut headers, &mut list),
    };
    let scheme: &[u8] = if client.is_encrypted { b"https" } else { b"http" };
    let client = match config.headers {
        ClientHeaders::None => None,
        ClientHeaders::XForwarded => {
            push_address(address, &mut list);
            headers.push(Header { name: b"x-forwarded-for", value: &list });
            if !came.proto {
                headers.push(Header { name: b"x-forwarded-proto", value: scheme });
            }
            if !came.host && !host.is_empty() {
                headers.push(Header { name: b"x-forwarded-host", value: host });
            }
            Some(client)
        }
        ClientHeaders::Forwarded => {
            let is_first = list.is_empty();
            push_node(address, &mut list);
            if is_first {
                list.extend_from_slice(b";proto=");
                list.extend_from_slice(scheme);
                push_host(host, &mut list);
            }
            headers.push(Header { name: b"forwarded", value: &list });
            Some(client)
        }
    };
    then(&Request { headers: &headers, client, ..*request })
}

/// The headers before the first one of the family, and the value of the first `host`.
#[inline]
fn plain_headers<'a, 'h>(all: &'h [Header<'a>]) -> (&'h [Header<'a>], Option<&'a [u8]>) {
    let mut host = None;
    let mut plain = all.len();
    for (index, header) in all.iter().enumerate() {
        if header.name == b"host" {
            host = host.or(Some(header.value));
        } else if plain == all.len() && Forwarding::of(header.name).is_some() {
            plain = index;
        }
    }
    (&all[..plain], host)
}

/// What a trusted proxy says.
#[derive(Debug, Default)]
struct Came {
    proto: bool,
    host: bool,
}

impl Came {
    /// Puts those headers that are passed on into `kept`, and a trusted proxy's list into `list`, to be continued.
    #[inline(never)]
    fn sort<'a>(
        config: &ClientConfig,
        address: IpAddr,
        all: &[Header<'a>],
        kept: &mut Headers<'a>,
        list: &mut Text,
    ) -> Self {
        let mut came = Self::default();
        let is_trusted = config.trusted_proxies.iter().any(|network| network.contains(address));
        for header in all {
            let is_kept = match Forwarding::of(header.name) {
                None => true,
                Some(forwarding) => is_trusted && came.keeps(config.headers, forwarding, header.value, list),
            };
            if is_kept {
                kept.push(*header);
            }
        }
        came
    }

    /// Whether a trusted proxy's header is passed on as it is. An element of its list is added to `list` instead.
    fn keeps(&mut self, setting: ClientHeaders, forwarding: Forwarding, value: &[u8], list: &mut Text) -> bool {
        match (setting, forwarding) {
            (_, Forwarding::Disguised) => false,
            (ClientHeaders::None, _) => true,
            (ClientHeaders::XForwarded, Forwarding::For) => {
                push_list(value, is_value, b"unknown", list);
                false
            }
            (ClientHeaders::Forwarded, Forwarding::Forwarded) => {
                push_list(value, |value| is_value(value) && has_closed_quotes(value), b"for=unknown", list);
                false
            }
            // Lists that this server does not continue: what is last in them is not the last proxy.
            (ClientHeaders::XForwarded, Forwarding::Forwarded) => false,
            (
                ClientHeaders::Forwarded,
                Forwarding::For | Forwarding::Proto | Forwarding::Host | Forwarding::OtherForwarded,
            ) => false,
            (ClientHeaders::XForwarded, Forwarding::Proto) => {
                let is_said = is_said(value);
                self.proto |= is_said;
                is_said
            }
            (ClientHeaders::XForwarded, Forwarding::Host) => {
                let is_said = is_said(value);
                self.host |= is_said;
                is_said
            }
            (ClientHeaders::XForwarded, Forwarding::OtherForwarded) | (_, Forwarding::Other) => true,
        }
    }
}

/// Adds one field of a trusted proxy's list and a comma; `unknown` in its place if it cannot be continued (RFC 7239,
/// 6.2, and the same word in `X-Forwarded-For`).
fn push_list(value: &[u8], can_be_continued: impl FnOnce(&[u8]) -> bool, unknown: &[u8], list: &mut Text) {
    let value = trimmed(value);
    if value.is_empty() {
        return;
    }
    list.extend_from_slice(if can_be_continued(value) { value } else { unknown });
    list.extend_from_slice(b", ");
}

/// Whether a header has a value that programs receive.
fn is_said(value: &[u8]) -> bool {
    let value = trimmed(value);
    !value.is_empty() && is_value(value)
}

/// Whether each quoted string in `value` ends (RFC 9110, 5.6.4): otherwise it would swallow what follows.
fn has_closed_quotes(value: &[u8]) -> bool {
    let mut is_quoted = false;
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'\\' if is_quoted && bytes.next().is_none() => return false,
            _ => {}
        }
    }
    !is_quoted
}

/// `for=192.0.2.1` or `for="[2001:db8::1]"` (RFC 7239, 6).
fn push_node(address: IpAddr, out: &mut Text) {
    out.extend_from_slice(b"for=");
    if address.is_ipv6() {
        out.extend_from_slice(b"\"[");
        push_address(address, out);
        out.extend_from_slice(b"]\"");
    } else {
        push_address(address, out);
    }
}

/// `;host=shop.example` or `;host="shop.example:8080"` (RFC 7239, 5.3); nothing if there is no host.
fn push_host(host: &[u8], out: &mut Text) {
    if host.is_empty() {
        return;
    }
    out.extend_from_slice(b";host=");
    if is_token(host) {
        out.extend_from_slice(host);
        return;
    }
    out.push(b'"');
    for byte in host {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests;
