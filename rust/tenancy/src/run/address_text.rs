// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses as text, without an allocation and without the standard library's formatter: every request has one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smallvec::{Array, SmallVec};

/// Appends an address in its preferred notation (RFC 5952).
#[inline]
pub(super) fn push_address<A: Array<Item = u8>>(address: IpAddr, out: &mut SmallVec<A>) {
    match address {
        IpAddr::V4(address) => push_4(address, out),
        IpAddr::V6(address) => push_6(address, out),
    }
}

fn push_4<A: Array<Item = u8>>(address: Ipv4Addr, out: &mut SmallVec<A>) {
    let mut text = [0; 15];
    let mut len = 0;
    let mut push = |byte: u8| {
        text[len] = byte;
        len += 1;
    };
    for (index, part) in address.octets().into_iter().enumerate() {
        if index != 0 {
            push(b'.');
        }
        if part >= 100 {
            push(b'0' + part / 100);
        }
        if part >= 10 {
            push(b'0' + part / 10 % 10);
        }
        push(b'0' + part % 10);
    }
    out.extend_from_slice(&text[..len]);
}

fn push_6<A: Array<Item = u8>>(address: Ipv6Addr, out: &mut SmallVec<A>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let parts = address.segments();
    let zeros = longest_zeros(&parts);
    let mut text = [0; 39];
    let mut len = 0;
    let mut push = |byte: u8| {
        text[len] = byte;
        len += 1;
    };
    let mut at = 0;
    while at < parts.len() {
        if at == zeros.start && !zeros.is_empty() {
            push(b':');
            push(b':');
            at = zeros.end;
            continue;
        }
        if at != 0 && at != zeros.end {
            push(b':');
        }
        let digits = (16 - (parts[at] | 1).leading_zeros()).div_ceil(4);
        for digit in (0..digits).rev() {
            push(DIGITS[usize::from(parts[at] >> (4 * digit) & 15)]);
        }
        at += 1;
    }
    out.extend_from_slice(&text[..len]);
}

/// The longest run of at least two zeros, the first of several.
fn longest_zeros(parts: &[u16; 8]) -> std::ops::Range<usize> {
    let mut longest = 0..0;
    let mut run = 0..0;
    for (index, part) in parts.iter().enumerate() {
        run = if *part == 0 { run.start..index + 1 } else { index + 1..index + 1 };
        if run.len() > longest.len().max(1) {
            longest = run.clone();
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(address: IpAddr) -> String {
        let mut out = SmallVec::<[u8; 64]>::new();
        push_address(address, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn addresses_are_in_their_preferred_notation() {
        for address in [
            "0.0.0.0",
            "127.0.0.1",
            "9.10.99.100",
            "255.255.255.255",
            "::",
            "::1",
            "1::",
            "2001:db8::1",
            "1:0:0:2::3",
            "1::2:0:0:3:4",
            "0:1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:0",
            "::2:3:4:5:6:7",
            "fe80::a0b:1c0d:0:100",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert_eq!(text(address.parse().unwrap()), address);
        }
    }

    proptest! {
        #[test]
        fn the_text_is_that_of_the_standard_library(parts in prop::array::uniform8(prop_oneof![Just(0), any::<u16>(), 0..20_u16])) {
            let address = Ipv6Addr::from(parts);
            // It has notations of its own for these.
            prop_assume!(address.to_ipv4_mapped().is_none());
            prop_assert_eq!(text(address.into()), address.to_string());
        }

        #[test]
        fn the_text_of_ipv4_is_too(address in any::<u32>()) {
            let address = Ipv4Addr::from(address);
            prop_assert_eq!(text(address.into()), address.to_string());
        }
    }
}
