// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interfaces that a program sees: `lo`, with 127.0.0.1 and ::1, and `eth0`, with the program's own address in its
//! synthetic network.

use crate::net::allow_list::OWN_ADDRESS;

const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_HOST: u8 = 254;
/// As `OWN_ADDRESS`, in the network that RFC 5180 reserves for the same purpose.
const OWN_ADDRESS_6: [u8; 16] = [0x20, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// An interface.
pub(crate) struct Interface {
    pub(crate) index: u32,
    /// With its NUL.
    pub(crate) name: &'static [u8],
    pub(crate) kind: u16,
    pub(crate) flags: i32,
    pub(crate) hardware: [u8; 6],
    pub(crate) broadcast: [u8; 6],
    pub(crate) mtu: u32,
    pub(crate) scope: u8,
    /// Addresses, with the lengths of their networks' prefixes.
    pub(crate) address: ([u8; 4], u8),
    pub(crate) address_6: ([u8; 16], u8),
}

/// All interfaces.
pub(crate) const INTERFACES: [Interface; 2] = [
    Interface {
        index: 1,
        name: b"lo\0",
        kind: libc::ARPHRD_LOOPBACK,
        flags: libc::IFF_UP | libc::IFF_LOOPBACK | libc::IFF_RUNNING | libc::IFF_LOWER_UP,
        hardware: [0; 6],
        broadcast: [0; 6],
        mtu: 65_536,
        scope: RT_SCOPE_HOST,
        address: ([127, 0, 0, 1], 8),
        address_6: (std::net::Ipv6Addr::LOCALHOST.octets(), 128),
    },
    Interface {
        index: 2,
        name: b"eth0\0",
        kind: libc::ARPHRD_ETHER,
        flags: libc::IFF_UP | libc::IFF_BROADCAST | libc::IFF_RUNNING | libc::IFF_MULTICAST | libc::IFF_LOWER_UP,
        hardware: [2, 0, 0, 0, 0, 1],
        broadcast: [0xff; 6],
        mtu: 1500,
        scope: RT_SCOPE_UNIVERSE,
        address: (OWN_ADDRESS, 15),
        address_6: (OWN_ADDRESS_6, 48),
    },
];

impl Interface {
    /// Its name without the NUL.
    pub(crate) fn plain_name(&self) -> &'static [u8] {
        self.name.strip_suffix(b"\0").unwrap_or(self.name)
    }

    /// Its address's netmask.
    pub(crate) fn mask(&self) -> [u8; 4] {
        let (_, len) = self.address;
        u32::MAX.checked_shl(32_u32.saturating_sub(len.into())).unwrap_or(0).to_be_bytes()
    }

    /// Its address's broadcast address; none for the loopback interface.
    pub(crate) fn broadcast_address(&self) -> [u8; 4] {
        if self.flags & libc::IFF_BROADCAST == 0 {
            return [0; 4];
        }
        let (address, mask) = (u32::from_be_bytes(self.address.0), u32::from_be_bytes(self.mask()));
        (address | !mask).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_masks() {
        let [lo, eth0] = &INTERFACES;
        assert_eq!((lo.mask(), lo.broadcast_address(), lo.plain_name()), ([255, 0, 0, 0], [0; 4], &b"lo"[..]));
        assert_eq!((eth0.mask(), eth0.broadcast_address()), ([255, 254, 0, 0], [198, 19, 255, 255]));
    }
}
