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
//! - What comes from a proxy is as hostile as its client, so a list that cannot be continued is replaced.

use std::net::IpAddr;

use mayfly_sandbox::fields::{is_token, is_value};
use mayfly_sandbox::{Header, Request};
use smallvec::SmallVec;

use crate::config::client::{ClientConfig, ClientHeaders};
use crate::http1::forwarding::Forwarding;
use crate::http1::trimmed;
use crate::run::address_text::push_address;
use crate::run::request::host;

/// Most requests have no more headers than this.
const HEADERS_ON_STACK: usize = 32;
/// Text that Mayfly adds for most requests: an address, or an element of `Forwarded` with a host.
const TEXT_ON_STACK: usize = 128;

type Text = SmallVec<[u8; TEXT_ON_STACK]>;
type Headers<'a> = SmallVec<[Header<'a>; HEADERS_ON_STACK]>;

/// Passes the request to `then` as the program is to receive it. Requests without a client are the server's own, and
/// are passed on unchanged.
#[inline]
pub(crate) fn with_client<T>(config: &ClientConfig, request: &Request<'_>, then: impl FnOnce(&Request<'_>) -> T) -> T {
    let Some(client) = request.client else { return then(request) };
    let is_plain = request.headers.iter().all(|header| Forwarding::of(header.name).is_none());
    if config.headers == ClientHeaders::None && is_plain {
        return then(&Request { client: None, ..*request });
    }
    let address = client.address.ip().to_canonical();
    let mut text = Text::new();
    let mut headers = Headers::new();
    let came = if is_plain {
        headers.extend_from_slice(request.headers);
        Came::default()
    } else {
        let is_trusted = config.trusted_proxies.iter().any(|network| network.contains(address));
        Came::sort(config.headers, is_trusted, request.headers, &mut headers)
    };
    let scheme: &[u8] = if client.is_encrypted { b"https" } else { b"http" };
    let client = match config.headers {
        ClientHeaders::None => None,
        ClientHeaders::XForwarded => {
            came.continue_list(request.headers, Forwarding::For, &mut text);
            push_address(address, &mut text);
            headers.push(Header { name: b"x-forwarded-for", value: &text });
            if !came.proto {
                headers.push(Header { name: b"x-forwarded-proto", value: scheme });
            }
            let host = host(request);
            if !came.host && !host.is_empty() && is_value(host) {
                headers.push(Header { name: b"x-forwarded-host", value: host });
            }
            Some(client)
        }
        ClientHeaders::Forwarded => {
            came.continue_list(request.headers, Forwarding::Forwarded, &mut text);
            let is_first = text.is_empty();
            push_node(address, &mut text);
            if is_first {
                text.extend_from_slice(b";proto=");
                text.extend_from_slice(scheme);
                push_host(host(request), &mut text);
            }
            headers.push(Header { name: b"forwarded", value: &text });
            Some(client)
        }
    };
    then(&Request { headers: &headers, client, ..*request })
}

/// The headers of the family that came from a trusted proxy.
#[derive(Debug, Default)]
struct Came {
    /// There is a list to which the proxy's own address is to be added.
    list: bool,
    proto: bool,
    host: bool,
}

impl Came {
    /// Puts those headers that are passed on into `kept`.
    #[cold]
    fn sort<'a>(setting: ClientHeaders, is_trusted: bool, all: &[Header<'a>], kept: &mut Headers<'a>) -> Self {
        let mut came = Self::default();
        for header in all {
            let Some(forwarding) = Forwarding::of(header.name) else {
                kept.push(*header);
                continue;
            };
            if !is_trusted {
                continue;
            }
            let is_kept = match (setting, forwarding) {
                (_, Forwarding::Disguised) => false,
                (ClientHeaders::None, _) => true,
                (ClientHeaders::XForwarded, Forwarding::For) | (ClientHeaders::Forwarded, Forwarding::Forwarded) => {
                    came.list = true;
                    false
                }
                // Lists that this server does not continue: what is last in them is not the last proxy.
                (ClientHeaders::XForwarded, Forwarding::Forwarded) => false,
                (
                    ClientHeaders::Forwarded,
                    Forwarding::For | Forwarding::Proto | Forwarding::Host | Forwarding::OtherForwarded,
                ) => false,
                (ClientHeaders::XForwarded, Forwarding::Proto) => {
                    let is_said = is_said(header.value);
                    came.proto |= is_said;
                    is_said
                }
                (ClientHeaders::XForwarded, Forwarding::Host) => {
                    let is_said = is_said(header.value);
                    came.host |= is_said;
                    is_said
                }
                (ClientHeaders::XForwarded, Forwarding::OtherForwarded) | (_, Forwarding::Other) => true,
            };
            if is_kept {
                kept.push(*header);
            }
        }
        came
    }

    /// Writes what the proxy's lists contain, in their order, and a comma, if something can follow them.
    fn continue_list(&self, all: &[Header<'_>], list: Forwarding, out: &mut Text) {
        if !self.list {
            return;
        }
        for header in all.iter().filter(|header| Forwarding::of(header.name) == Some(list)) {
            let value = trimmed(header.value);
            let is_closed = list == Forwarding::For || has_closed_quotes(value);
            if !value.is_empty() && is_value(value) && is_closed {
                out.extend_from_slice(value);
                out.extend_from_slice(b", ");
            }
        }
    }
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

/// `;host=shop.example` or `;host="shop.example:8080"` (RFC 7239, 5.3); nothing if there is no valid host.
fn push_host(host: &[u8], out: &mut Text) {
    if host.is_empty() || !is_value(host) {
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
