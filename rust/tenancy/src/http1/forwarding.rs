// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of request fields in which proxies say who the client is, and by which scheme and host it asked.
//!
//! Any client can send such a field, and programs believe it. So these are the fields that only Mayfly and trusted
//! proxies may set: RFC 7239, the `X-Forwarded-` fields that it replaces, and those of common proxies and content
//! delivery networks. `docs/configuration.md` lists them for users.

/// What a field of this family says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forwarding {
    /// `Forwarded`.
    Forwarded,
    /// `X-Forwarded-For`.
    For,
    /// `X-Forwarded-Proto`.
    Proto,
    /// `X-Forwarded-Host`.
    Host,
    /// Another name that begins with `X-Forwarded`.
    OtherForwarded,
    /// The field of some proxy or network.
    Other,
    /// A name that equals one of the above only for programs that replace punctuation in names, as CGI does with
    /// hyphens (RFC 3875, 4.1.18). No proxy sends such a one, and few remove it.
    Disguised,
}

/// Names that are longer are of the family only by their prefix.
const LONGEST: usize = 24;
const PREFIX: &[u8] = b"x-forwarded";

impl Forwarding {
    /// What a field of this name, in lower case, says; `None` if it does not belong to the family.
    #[inline]
    pub(crate) fn of(name: &[u8]) -> Option<Self> {
        // Most names begin with other letters.
        match name {
            [b'x', second, ..] if !second.is_ascii_alphanumeric() => {}
            [b'f', b'a' | b'o' | b'r', ..] | [b'c', b'f' | b'l', ..] | [b't', b'r', ..] | [b'w', b'l', ..] => {}
            _ => return None,
        }
        if name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-') {
            Self::of_plain(name)
        } else {
            disguised(name)
        }
    }

    fn of_plain(name: &[u8]) -> Option<Self> {
        match name {
            b"forwarded" => Some(Self::Forwarded),
            b"x-forwarded-for" => Some(Self::For),
            b"x-forwarded-proto" => Some(Self::Proto),
            b"x-forwarded-host" => Some(Self::Host),
            _ if name.starts_with(PREFIX) => Some(Self::OtherForwarded),
            // Addresses.
            b"x-real-ip" | b"x-client-ip" | b"client-ip" | b"x-cluster-client-ip" | b"x-remote-ip" | b"x-remote-addr"
            | b"x-original-forwarded-for" | b"true-client-ip" | b"cf-connecting-ip" | b"cf-connecting-ipv6"
            | b"fastly-client-ip" | b"x-envoy-external-address" | b"x-azure-clientip" | b"x-azure-socketip"
            | b"x-appengine-user-ip" | b"x-proxyuser-ip" | b"wl-proxy-client-ip"
            // Schemes and hosts.
            | b"x-scheme" | b"x-url-scheme" | b"x-original-proto" | b"front-end-https" | b"x-host"
            | b"x-original-host" => Some(Self::Other),
            _ => None,
        }
    }
}

#[cold]
fn disguised(name: &[u8]) -> Option<Forwarding> {
    let mut plain = [0; LONGEST];
    let start = &name[..name.len().min(LONGEST)];
    for (plain, byte) in plain.iter_mut().zip(start) {
        *plain = if byte.is_ascii_alphanumeric() { *byte } else { b'-' };
    }
    let plain = &plain[..start.len()];
    let is_of_family =
        if name.len() > LONGEST { plain.starts_with(PREFIX) } else { Forwarding::of_plain(plain).is_some() };
    is_of_family.then_some(Forwarding::Disguised)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_recognised() {
        for (name, says) in [
            ("forwarded", Forwarding::Forwarded),
            ("x-forwarded-for", Forwarding::For),
            ("x-forwarded-proto", Forwarding::Proto),
            ("x-forwarded-host", Forwarding::Host),
            ("x-forwarded", Forwarding::OtherForwarded),
            ("x-forwarded-port", Forwarding::OtherForwarded),
            ("x-forwarded-a-name-of-more-than-24-bytes", Forwarding::OtherForwarded),
            ("x-real-ip", Forwarding::Other),
            ("cf-connecting-ipv6", Forwarding::Other),
            ("true-client-ip", Forwarding::Other),
            ("wl-proxy-client-ip", Forwarding::Other),
            ("front-end-https", Forwarding::Other),
            ("x-original-forwarded-for", Forwarding::Other),
            ("x-envoy-external-address", Forwarding::Other),
            ("x_forwarded_for", Forwarding::Disguised),
            ("x-forwarded_proto", Forwarding::Disguised),
            ("x.forwarded.host", Forwarding::Disguised),
            ("x_forwarded_a_name_of_more_than_24_bytes", Forwarding::Disguised),
            ("x_real~ip", Forwarding::Disguised),
            ("x_envoy_external_address", Forwarding::Disguised),
        ] {
            assert_eq!(Forwarding::of(name.as_bytes()), Some(says), "{name}");
        }
        for name in [
            "",
            "x",
            "host",
            "cookie",
            "content-type",
            "x-forward",
            "x-real-ip-2",
            "x_requested_with",
            "from",
            "te",
            "via",
            "x-envoy-external-addresses",
            "x_envoy_external_addresses",
            "wwwforwarded",
            "connection",
        ] {
            assert_eq!(Forwarding::of(name.as_bytes()), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_spelling_of_a_name_passes(name in "x-forwarded-(for|proto|host|x{0,40})|x-real-ip|forwarded", seed in any::<u64>()) {
            let spelt: Vec<u8> = name.bytes().enumerate()
                .map(|(at, byte)| if byte == b'-' { b"-_.~!"[(seed >> (at % 60)) as usize % 5] } else { byte })
                .collect();
            prop_assert!(Forwarding::of(&spelt).is_some());
        }

        #[test]
        fn any_name_is_read(name in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Forwarding::of(&name);
        }
    }
}
