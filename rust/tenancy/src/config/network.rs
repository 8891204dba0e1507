// SPDX-License-Identifier: MIT OR Apache-2.0
//! Networks in the configuration's notation: `10.0.0.0/8`, `2001:db8::/32`, or one address (RFC 4632, 3.1; RFC 4291,
//! 2.3).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::config::schema::inline_schema;

const EXPECTED: &str = "expected an address or a network such as \"10.0.0.0/8\", \"2001:db8::/32\" or \"::1\"";

/// The addresses with a common prefix. IPv4-mapped IPv6 addresses count as IPv4 addresses.
///
/// # Invariants
///
/// `first` is not an IPv4-mapped address, and has no bit behind its prefix. `prefix` is at most 32 or 128.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` belongs to it.
    ///
    /// ```
    /// let network: mayfly_tenancy::Network = "10.0.0.0/8".parse()?;
    /// assert!(network.contains("10.1.2.3".parse()?) && network.contains("::ffff:10.1.2.3".parse()?));
    /// assert!(!network.contains("11.0.0.0".parse()?) && !network.contains("::a01:203".parse()?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                (first.to_bits() ^ address.to_bits()) & mask_4(self.prefix) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                (first.to_bits() ^ address.to_bits()) & mask_6(self.prefix) == 0
            }
            _ => false,
        }
    }

    /// The network of this prefix with this address in it; `None` if the prefix is too long.
    fn around(address: IpAddr, prefix: u8) -> Option<Self> {
        let first = match address {
            IpAddr::V4(address) if prefix <= 32 => Ipv4Addr::from_bits(address.to_bits() & mask_4(prefix)).into(),
            IpAddr::V6(address) if prefix <= 128 => match (address.to_ipv4_mapped(), prefix.checked_sub(96)) {
                (Some(mapped), Some(prefix)) => return Self::around(mapped.into(), prefix),
                _ => Ipv6Addr::from_bits(address.to_bits() & mask_6(prefix)).into(),
            },
            IpAddr::V4(_) | IpAddr::V6(_) => return None,
        };
        Some(Self { first, prefix })
    }
}

/// The mask of a prefix of at most 32 bits.
fn mask_4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

/// The mask of a prefix of at most 128 bits.
fn mask_6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Network {
    type Err = String;

    /// The error is a message for the user.
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| EXPECTED)?;
        let prefix = match prefix {
            None if address.is_ipv4() => 32,
            None => 128,
            // Rust's parser allows a sign and leading zeros.
            Some(digits) if digits.starts_with('+') || (digits.starts_with('0') && digits != "0") => {
                return Err(EXPECTED.to_owned());
            }
            Some(digits) => digits.parse().map_err(|_| EXPECTED)?,
        };
        let network = Self::around(address, prefix).ok_or(EXPECTED)?;
        if network.first == address.to_canonical() {
            Ok(network)
        } else {
            // Most likely a digit is wrong, and the network is not the one that was meant.
            Err(format!("\"{text}\" has bits behind its prefix: the network is \"{network}\""))
        }
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

inline_schema!(Network: {
    "type": "string",
    "maxLength": 50,
    "pattern": r"^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])){3}(/(3[0-2]|[12]?[0-9]))?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?)$"
});

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn networks_and_addresses_are_read() {
        for (text, read) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("127.0.0.1", "127.0.0.1/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.0.2.128/25", "192.0.2.128/25"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
            ("2001:DB8:0::/33", "2001:db8::/33"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
        ] {
            assert_eq!(network(text).to_string(), read, "{text}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "/",
            "/8",
            "10",
            "10/8",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0.0/255.0.0.0",
            "010.0.0.0/8",
            "10.0.0.0 /8",
            " ::1",
            "::1/129",
            "::1/",
            "[::1]",
            "[::1]/128",
            "fe80::1%eth0",
            "fe80::%1/64",
            "localhost",
            "*",
            "256.0.0.0/8",
            ":::/0",
        ] {
            assert_eq!(text.parse::<Network>(), Err(EXPECTED.to_owned()), "{text:?}");
        }
        let problem = |text: &str| text.parse::<Network>().unwrap_err();
        assert_eq!(problem("10.0.0.1/8"), r#""10.0.0.1/8" has bits behind its prefix: the network is "10.0.0.0/8""#);
        assert!(problem("2001:db8::1/64").ends_with(r#"the network is "2001:db8::/64""#));
        assert!(problem("::ffff:10.0.0.0/90").ends_with(r#"the network is "::ffc0:0:0/90""#));
        assert!(problem("::ffff:10.0.0.1/104").ends_with(r#"the network is "10.0.0.0/8""#));
    }

    #[test]
    fn families_are_separate_except_for_mapped_addresses() {
        let contains = |text: &str, address: &str| network(text).contains(address.parse().unwrap());
        assert!(contains("0.0.0.0/0", "255.255.255.255") && contains("0.0.0.0/0", "::ffff:1.2.3.4"));
        assert!(!contains("0.0.0.0/0", "::1") && !contains("::/0", "1.2.3.4") && !contains("::/0", "::ffff:1.2.3.4"));
        assert!(contains("::/0", "ffff::") && contains("::1", "::1") && !contains("::1", "::2"));
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.0"));
    }

    proptest! {
        #[test]
        fn membership_is_equality_of_the_first_bits(one in any::<u32>(), other in any::<u32>(), prefix in 0..=32_u8) {
            // Addresses that share this many bits at least, or by chance.
            for other in [other, one ^ other.checked_shr(u32::from(prefix)).unwrap_or(0)] {
                let network = Network::around(Ipv4Addr::from(one).into(), prefix).unwrap();
                let equal = u64::from(one) >> (32 - prefix) == u64::from(other) >> (32 - prefix);
                prop_assert_eq!(network.contains(Ipv4Addr::from(other).into()), equal);
                prop_assert_eq!(network.contains(Ipv4Addr::from(other).to_ipv6_mapped().into()), equal);
                prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
            }
        }

        #[test]
        fn membership_of_ipv6_is_too(one in any::<u128>(), other in any::<u128>(), prefix in 0..=128_u8) {
            for other in [other, one ^ other.checked_shr(u32::from(prefix)).unwrap_or(0)] {
                let first = Ipv6Addr::from(one);
                prop_assume!(first.to_ipv4_mapped().is_none() && Ipv6Addr::from(other).to_ipv4_mapped().is_none());
                let network = Network::around(first.into(), prefix).unwrap();
                let equal = prefix == 0 || one >> (128 - prefix) == other >> (128 - prefix);
                prop_assert_eq!(network.contains(Ipv6Addr::from(other).into()), equal);
                prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-f:./%\\[\\]+-]{0,24}") {
            if let Ok(network) = text.parse::<Network>() {
                prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
            }
        }
    }
}
