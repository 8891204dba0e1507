// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hosts and ports that a program may connect to, and how the program sees them.
//!
//! ```text
//!   /etc/hosts of the program          the host side
//!   198.18.0.2  db.example    ----->   db.example, resolved when it is needed      a name has a synthetic address
//!   10.1.2.3                  ----->   10.1.2.3                                    an address is itself
//! ```
//!
//! A program finds the names that it may connect to in `/etc/hosts`, and by its name server (`resolver.rs`), each with
//! an address that reveals nothing of the real one. All forks of a program share one list.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::host::dns::Name;

/// A destination in the network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Outbound {
    /// Its host.
    pub host: OutboundHost,
    /// Its TCP port; not 0.
    pub port: u16,
}

/// A host in the network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OutboundHost {
    /// A name in lower case, which the host resolves.
    Name(String),
    /// An address; an IPv4 address is not in IPv4-mapped form.
    Address(IpAddr),
}

/// The program's own address in its synthetic network. RFC 2544 reserves 198.18.0.0/15 for networks that are not
/// connected with any other.
pub(crate) const OWN_ADDRESS: [u8; 4] = [198, 18, 0, 1];
/// First of the names' addresses, and their number.
const FIRST_ADDRESS: u32 = 0xc612_0002;
const ADDRESSES: usize = 0x1_fffc;
/// Names of the program's own machine.
pub(crate) const OWN_NAMES: [&str; 2] = ["localhost", "mayfly"];

/// The destinations that a program may connect to; cheap to clone. None by default.
#[derive(Debug, Clone, Default)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    addresses: Vec<SocketAddr>,
    names: Vec<Named>,
}

/// A name, and the ports that may be connected to.
#[derive(Debug)]
struct Named {
    name: Arc<Name>,
    /// The name's address in the program's view.
    synthetic_ip: Ipv4Addr,
    ports: Vec<u16>,
}

/// A permitted destination.
#[derive(Debug, Clone)]
pub(crate) enum Destination {
    Address(SocketAddr),
    Name(Arc<Name>, u16),
}

impl Network {
    /// A list. Its names are resolved in the background from now on.
    #[must_use]
    pub fn new(list: &[Outbound]) -> Self {
        let mut inner = Inner::default();
        let mut next = FIRST_ADDRESS;
        for Outbound { host, port } in list {
            match host {
                OutboundHost::Address(address) => inner.addresses.push(SocketAddr::new(address.to_canonical(), *port)),
                OutboundHost::Name(name) => {
                    let known = inner.names.iter().position(|named| named.name.text() == name);
                    if let Some(named) = known.and_then(|index| inner.names.get_mut(index)) {
                        named.ports.push(*port);
                    } else if inner.names.len() < ADDRESSES {
                        let synthetic_ip = Ipv4Addr::from_bits(next);
                        next = next.saturating_add(1);
                        inner.names.push(Named { name: Name::new(name), synthetic_ip, ports: vec![*port] });
                    }
                }
            }
        }
        for named in &inner.names {
            named.name.prepare();
        }
        Self { inner: Arc::new(inner) }
    }

    /// Whether the list is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.inner.addresses.is_empty() && self.inner.names.is_empty()
    }

    /// Whether `/etc/hosts` must list names.
    pub(crate) fn has_names(&self) -> bool {
        !self.inner.names.is_empty()
    }

    /// `/etc/hosts`.
    pub(crate) fn hosts(&self) -> String {
        let mut text = "127.0.0.1 localhost mayfly\n::1 localhost\n".to_owned();
        for Named { name, synthetic_ip, .. } in &self.inner.names {
            if !OWN_NAMES.contains(&name.text()) {
                // Writing to a string does not fail.
                let _ = writeln!(text, "{synthetic_ip} {}", name.text());
            }
        }
        text
    }

    /// The names, with their addresses in the program's view.
    pub(crate) fn listed(&self) -> impl Iterator<Item = (&str, Ipv4Addr)> {
        self.inner.names.iter().map(|named| (named.name.text(), named.synthetic_ip))
    }

    /// Whether the program may connect to some port of an address.
    pub(crate) fn knows(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.named(ip).is_some() || self.inner.addresses.iter().any(|address| address.ip() == ip)
    }

    /// The destination that the program's address `to` stands for, if it is permitted.
    pub(crate) fn find(&self, to: SocketAddr) -> Option<Destination> {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        if self.inner.addresses.contains(&to) {
            return Some(Destination::Address(to));
        }
        let named = self.named(to.ip())?;
        named.ports.contains(&to.port()).then(|| Destination::Name(Arc::clone(&named.name), to.port()))
    }

    /// The destination that the program's address `to` stands for, for messages.
    pub(crate) fn describe(&self, to: SocketAddr) -> String {
        match self.named(to.ip().to_canonical()) {
            Some(named) => format!("{}:{}", named.name.text(), to.port()),
            None => SocketAddr::new(to.ip().to_canonical(), to.port()).to_string(),
        }
    }

    fn named(&self, ip: IpAddr) -> Option<&Named> {
        let IpAddr::V4(ip) = ip else { return None };
        self.inner.names.iter().find(|named| named.synthetic_ip == ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str, port: u16) -> Outbound {
        Outbound { host: OutboundHost::Name(name.to_owned()), port }
    }

    #[test]
    fn only_listed_destinations_are_found() {
        let redis = Outbound { host: OutboundHost::Address([127, 0, 0, 1].into()), port: 6379 };
        let network =
            Network::new(&[name("db.invalid", 5432), redis, name("cache.invalid", 1), name("db.invalid", 80)]);
        let find = |text: &str| network.find(text.parse().unwrap());
        assert!(matches!(find("127.0.0.1:6379"), Some(Destination::Address(_))));
        assert!(matches!(find("[::ffff:127.0.0.1]:6379"), Some(Destination::Address(_))), "the same address");
        assert!(matches!(find("198.18.0.2:5432"), Some(Destination::Name(name, 5432)) if name.text() == "db.invalid"));
        assert!(matches!(find("198.18.0.2:80"), Some(Destination::Name(..))));
        assert!(matches!(find("198.18.0.3:1"), Some(Destination::Name(name, 1)) if name.text() == "cache.invalid"));
        for other in ["127.0.0.1:6380", "127.0.0.2:6379", "[::1]:6379", "198.18.0.2:1", "198.18.0.3:80", "198.18.0.4:1"]
        {
            assert!(find(other).is_none(), "{other}");
        }
        assert_eq!(network.describe("198.18.0.3:7".parse().unwrap()), "cache.invalid:7");
        assert!(Network::default().is_empty() && !network.is_empty());
    }

    #[test]
    fn hosts_lists_each_name_once_and_no_name_of_the_programs_own() {
        let network =
            Network::new(&[name("a.invalid", 1), name("localhost", 2), name("b.invalid", 1), name("a.invalid", 2)]);
        assert_eq!(
            network.hosts(),
            "127.0.0.1 localhost mayfly\n::1 localhost\n198.18.0.2 a.invalid\n198.18.0.4 b.invalid\n"
        );
    }
}
