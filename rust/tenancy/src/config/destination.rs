// SPDX-License-Identifier: MIT OR Apache-2.0
//! Destinations that a program may connect to, in the configuration's notation: `redis.internal:6379`, `192.0.2.1:80`,
//! `[2001:db8::1]:80`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mayfly_sandbox::{Outbound, OutboundHost};
use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer};

use crate::config::schema::inline_schema;
use crate::config::values::is_host_name;

const EXPECTED: &str =
    "a host and a port such as \"redis.internal:6379\", \"192.0.2.1:80\" or \"[::1]:80\": no wildcard, no final dot";

/// An element of `outbound`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination(Outbound);

impl From<Destination> for Outbound {
    fn from(destination: Destination) -> Self {
        destination.0
    }
}

inline_schema!(Destination: {
    "type": "string",
    "maxLength": 259,
    "pattern": r"^([A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*|\[[0-9A-Fa-f:.]+\]):([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$"
});

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let parsed = parse(&text).map(Self);
        parsed.ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &EXPECTED))
    }
}

fn parse(text: &str) -> Option<Outbound> {
    let (host, port) = text.rsplit_once(':')?;
    let is_port = !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| is_port)?;
    Some(Outbound { host: parse_host(host)?, port })
}

fn parse_host(host: &str) -> Option<OutboundHost> {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        // An IPv4-mapped IPv6 address is the same destination as the IPv4 address.
        return address
            .parse::<Ipv6Addr>()
            .ok()
            .map(|address| OutboundHost::Address(IpAddr::V6(address).to_canonical()));
    }
    if !is_host_name(host) {
        return None;
    }
    // A name that resolvers take for an address, including its old notations, must be an address in the usual notation.
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_number = last.starts_with(|first: char| first.is_ascii_digit())
        && (last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X"));
    if is_number {
        return host.parse::<Ipv4Addr>().ok().map(|address| OutboundHost::Address(address.into()));
    }
    Some(OutboundHost::Name(host.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_distinguished() {
        let name = |name: &str, port| Some(Outbound { host: OutboundHost::Name(name.to_owned()), port });
        let address =
            |address: &str, port| Some(Outbound { host: OutboundHost::Address(address.parse().unwrap()), port });
        assert_eq!(parse("Redis.Internal:6379"), name("redis.internal", 6379));
        assert_eq!(parse("redis_1:65535"), name("redis_1", 65535));
        assert_eq!(parse("1.2.3.4.example:1"), name("1.2.3.4.example", 1));
        assert_eq!(parse("0x.example:1"), name("0x.example", 1));
        assert_eq!(parse("127.0.0.1:6379"), address("127.0.0.1", 6379));
        assert_eq!(parse("[2001:DB8:0::1]:80"), address("2001:db8::1", 80));
        assert_eq!(parse("[::ffff:10.0.0.1]:80"), address("10.0.0.1", 80));
    }

    #[test]
    fn ambiguous_and_invalid_destinations_are_refused() {
        for bad in [
            "",
            ":",
            "redis",
            "redis:",
            ":80",
            "redis:0",
            "redis:080",
            "redis:65536",
            "redis:+1",
            "redis:*",
            "*:80",
            "*.a:80",
            "a.:80",
            "a b:80",
            "-a:80",
            "::1:80",
            "[::1]",
            "[::1]:",
            "[::1%eth0]:80",
            "[a]:80",
            "[127.0.0.1]:80",
            "127.1:80",
            "2130706433:80",
            "0x7f000001:80",
            "127.0.0.0x1:80",
            "256.0.0.1:80",
            "1.2.3.04:80",
            "http://a:80",
            "a:80/",
            "ä:80",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
