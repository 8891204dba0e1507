// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program's application: the listener that receives connections from outside.
//!
//! The application is never guessed, since other listeners may be an administrator's or a debugger's. It is on the port
//! that the tenant configures, or, without one, on the only port on which the program listens when it is frozen; that
//! port stays. It is a TCP port: a Unix socket's listener is never reached from outside.
//!
//! One port may have several listeners. They are one application if no two of them have different addresses of one
//! family: `0.0.0.0` and `[::]`, or those of several threads (SO_REUSEPORT). A connection arrives from 127.0.0.1 at the
//! first listener that accepts it, or else from `::1` at the first of those for IPv6 only.

use std::fmt;
use std::net::IpAddr;

use crate::base::ids::PollableId;
use crate::net::address::Address;
use crate::net::socket::Socket;
use crate::pollables::table::Pollables;

/// Most listeners that a message lists.
const NAMED_MAX: usize = 16;

/// Whether a program's application listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    /// No.
    Missing,
    /// Yes.
    Listens,
    /// Several listeners qualify: there are several ports and none is configured, or the port has listeners with
    /// different addresses.
    Ambiguous,
}

/// The addresses on which a program listens, in the order in which it began to: IP addresses with ports, and names of
/// Unix sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners(pub(crate) Vec<Address>);

impl Listeners {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Listeners {
    /// As in `127.0.0.1:2019, then [::]:8080, then unix:/run/it`. The program chooses names, so unprintable characters
    /// are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (index, address) in self.0.iter().take(NAMED_MAX).enumerate() {
            f.write_str(if index == 0 { "" } else { ", then " })?;
            match address {
                Address::Unix(name) => match name.split_first() {
                    Some((0, name)) => write!(f, "unix:@{}", name.escape_ascii())?,
                    _ => write!(f, "unix:{}", name.strip_suffix(&[0]).unwrap_or(name).escape_ascii())?,
                },
                other => match other.of_network() {
                    Some(address) => write!(f, "{address}")?,
                    None => f.write_str("a socket without a name")?,
                },
            }
        }
        match self.0.len().saturating_sub(NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

impl Socket {
    /// Whether it listens for IPv6 only.
    pub(crate) fn is_for_v6_alone(&self) -> bool {
        let only_6 = self.option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY).unwrap_or(0) != 0;
        matches!(self.ip(), Some(IpAddr::V6(ip)) if only_6 || !ip.is_unspecified())
    }

    fn ip(&self) -> Option<IpAddr> {
        self.local.of_network().map(|address| address.ip())
    }
}

impl Pollables {
    /// The program's listeners for streams, the oldest first.
    pub(crate) fn stream_listeners(&self) -> impl Iterator<Item = (PollableId, &Socket)> {
        let sockets = self.listeners.iter().filter_map(|&id| Some((id, self.socket(id).ok()?)));
        sockets.filter(|(_, socket)| socket.kind == libc::SOCK_STREAM)
    }

    /// The listeners on the application's port.
    fn application_listeners(&self) -> impl Iterator<Item = (PollableId, &Socket)> {
        let port = self.inbound.port.or_else(|| self.only_port());
        self.stream_listeners().filter(move |(_, socket)| port.is_some() && socket.local.port() == port)
    }

    /// The port that all listeners share, if they do.
    pub(crate) fn only_port(&self) -> Option<u16> {
        let (_, first) = self.stream_listeners().next()?;
        let port = first.local.port()?;
        self.stream_listeners().all(|(_, socket)| socket.local.port() == Some(port)).then_some(port)
    }

    /// The listener at which connections from outside arrive.
    pub(crate) fn inbound_listener(&self) -> Option<PollableId> {
        self.application_listeners().min_by_key(|(_, socket)| socket.is_for_v6_alone()).map(|(id, _)| id)
    }

    pub(crate) fn application(&self) -> Application {
        let differ = |is_v4: bool| {
            let mut ips =
                self.application_listeners().filter_map(|(_, socket)| socket.ip()).filter(|ip| ip.is_ipv4() == is_v4);
            let first = ips.next();
            ips.any(|ip| Some(ip) != first)
        };
        if self.inbound_listener().is_some() {
            return if differ(true) || differ(false) { Application::Ambiguous } else { Application::Listens };
        }
        let has_port = |(_, socket): (_, &Socket)| socket.local.port().is_some();
        if self.inbound.port.is_none() && self.stream_listeners().any(has_port) {
            Application::Ambiguous
        } else {
            Application::Missing
        }
    }
}
