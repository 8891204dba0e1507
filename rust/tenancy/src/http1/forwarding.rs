// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of request fields in which proxies say who the client is, and by which scheme and host it asked.
//!
//! Any client can send such a field, and programs believe it. So these are the fields that only Mayfly and trusted
//! proxies may set: RFC 7239, the `X-Forwarded-` fields that it replaces, those of known proxies and content delivery
//! networks, and those that frameworks look for. `docs/configuration.md` lists the same names for users; a test compares
//! the two.
//!
//! Each header of each request is looked up here, so most names are refused by their first two letters and their length.

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
    /// hyphens (RFC 3875, 4.1.18), or that ask for CGI's variable by a header of its name (`HTTP_CLIENT_IP`). No proxy
    /// sends such a one, and few remove it.
    Disguised,
}

/// Every name that begins with this one is of the family.
const PREFIX: &[u8] = b"x-forwarded";
/// This one, too: what CloudFront tells about the viewer, its address among it.
const VIEWER_PREFIX: &[u8] = b"cloudfront-viewer-";
/// What CGI puts before the names of headers.
const CGI_PREFIX: &[u8] = b"http-";

/// Defines [`NAMES`] and [`is_listed`], which compares by length first, as a search of the table would not.
macro_rules! names {
    ($($name:literal,)+) => {
        const NAMES: &[&[u8]] = &[$($name),+];

        fn is_listed(name: &[u8]) -> bool {
            matches!(name, $($name)|+)
        }
    };
}

// The names without those prefixes and without `Forwarded`.
names! {
    // Addresses.
    b"x-real-ip",
    b"x-client-ip",
    b"client-ip",
    b"x-cluster-client-ip",
    b"x-remote-ip",
    b"x-remote-addr",
    b"remote-addr",
    b"x-original-for",
    b"x-original-forwarded-for",
    b"x-originating-ip",
    b"x-forward-for",
    b"forwarded-for",
    b"forwarded-for-ip",
    b"true-client-ip",
    b"x-true-client-ip",
    b"cf-connecting-ip",
    b"cf-connecting-ipv6",
    b"cf-pseudo-ipv4",
    b"fastly-client-ip",
    b"fly-client-ip",
    b"do-connecting-ip",
    b"x-nf-client-connection-ip",
    b"x-vercel-forwarded-for",
    b"incap-client-ip",
    b"ali-cdn-real-ip",
    b"cdn-src-ip",
    b"x-envoy-external-address",
    b"x-azure-clientip",
    b"x-azure-socketip",
    b"x-appengine-user-ip",
    b"x-appengine-remote-addr",
    b"x-proxyuser-ip",
    b"proxy-client-ip",
    b"wl-proxy-client-ip",
    // Schemes.
    b"x-proto",
    b"x-scheme",
    b"x-url-scheme",
    b"x-original-proto",
    b"x-appengine-https",
    b"front-end-https",
    b"cf-visitor",
    b"cloudfront-forwarded-proto",
    b"fastly-ssl",
    // Hosts.
    b"x-host",
    b"x-original-host",
    b"x-http-host-override",
}

/// The longest of [`NAMES`] and [`VIEWER_PREFIX`]; longer names are of the family only by a prefix.
const LONGEST: usize = 26;

/// What the second letters and the lengths of names with the same first letter are: bit N for a letter whose code ends in
/// the five bits N, or for a length of N, the last bit for all greater lengths. Other names are not of the family.
#[derive(Clone, Copy)]
struct Likely {
    seconds: u32,
    lengths: u32,
}

/// By the last five bits of the first letter's code.
static LIKELY: [Likely; 32] = {
    let mut all = [Likely { seconds: 0, lengths: 0 }; 32];
    add(&mut all, b"forwarded", false);
    add(&mut all, PREFIX, true);
    add(&mut all, VIEWER_PREFIX, true);
    add(&mut all, CGI_PREFIX, true);
    let mut index = 0;
    while index < NAMES.len() {
        add(&mut all, NAMES[index], false);
        index += 1;
    }
    all
};

const fn add(all: &mut [Likely; 32], name: &[u8], is_prefix: bool) {
    assert!(name.len() <= LONGEST, "if disguised, it would not be recognised");
    let likely = &mut all[(name[0] & 31) as usize];
    // Any punctuation may stand for a hyphen.
    likely.seconds |= if name[1] == b'-' { u32::MAX } else { 1 << (name[1] & 31) };
    likely.lengths |= if is_prefix { u32::MAX << name.len() } else { 1 << name.len() };
}

impl Forwarding {
    /// What a field of this name, in lower case, says; `None` if it does not belong to the family.
    #[inline]
    pub(crate) fn of(name: &[u8]) -> Option<Self> {
        let [first, second, ..] = name else { return None };
        let likely = LIKELY[usize::from(first & 31)];
        if (likely.seconds >> (second & 31)) & (likely.lengths >> name.len().min(31)) & 1 == 0 {
            return None;
        }
        Self::of_likely(name)
    }

    /// Not inlined: the few names that come so far need not be short of time, and all others should not load this code.
    #[inline(never)]
    fn of_likely(name: &[u8]) -> Option<Self> {
        if name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-') && !name.starts_with(CGI_PREFIX) {
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
            _ if name.starts_with(VIEWER_PREFIX) => Some(Self::Other),
            _ => is_listed(name).then_some(Self::Other),
        }
    }
}

#[cold]
fn disguised(name: &[u8]) -> Option<Forwarding> {
    const MOST: usize = CGI_PREFIX.len() + LONGEST;
    // One byte more, which no name has: what is cut off equals none of them, and still has its prefix.
    let mut plain = [0; MOST + 1];
    let start = &name[..name.len().min(MOST + 1)];
    for (plain, byte) in plain.iter_mut().zip(start) {
        *plain = if byte.is_ascii_alphanumeric() { *byte } else { b'-' };
    }
    let plain = &plain[..start.len()];
    let plain = plain.strip_prefix(CGI_PREFIX).unwrap_or(plain);
    Forwarding::of_plain(plain).is_some().then_some(Forwarding::Disguised)
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
            ("cloudfront-forwarded-proto", Forwarding::Other),
            ("cloudfront-viewer-address", Forwarding::Other),
            ("cloudfront-viewer-something-that-does-not-exist-yet", Forwarding::Other),
            ("cloudfront_viewer_something_that_does_not_exist_yet", Forwarding::Disguised),
            ("cf_visitor", Forwarding::Disguised),
            ("http_client_ip", Forwarding::Disguised),
            ("http-client-ip", Forwarding::Disguised),
            ("http_forwarded", Forwarding::Disguised),
            ("http_x_forwarded_for", Forwarding::Disguised),
            ("http_x_forwarded_a_name_of_more_than_31_bytes", Forwarding::Disguised),
            ("http_cloudfront_forwarded_proto", Forwarding::Disguised),
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
            "cf-ray",
            "cf-visitors",
            "cf_visitors",
            "cloudfront-viewer",
            "cloudfront-is-mobile-viewer",
            "cloudfront_forwarded_proto_",
            "http2-settings",
            "http_",
            "http_host",
            "http_cloudfront_forwarded_proto_",
            "x-original-url",
            "x-request-id",
            "referer",
        ] {
            assert_eq!(Forwarding::of(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn no_listed_name_passes() {
        for name in NAMES.iter().map(|name| str::from_utf8(name).unwrap()) {
            assert_eq!(Forwarding::of(name.as_bytes()), Some(Forwarding::Other), "{name}");
            for disguise in [name.replace('-', "_"), format!("http_{}", name.replace('-', "_"))] {
                assert_eq!(Forwarding::of(disguise.as_bytes()), Some(Forwarding::Disguised), "{disguise}");
            }
            // One that only begins so, whatever its length, does pass.
            for rest in ["s", "-of-some-other-program"] {
                let longer = format!("{name}{rest}");
                assert!(NAMES.contains(&longer.as_bytes()) || Forwarding::of(longer.as_bytes()).is_none(), "{longer}");
                let disguise = longer.replace('-', "_");
                assert_eq!(Forwarding::of(disguise.as_bytes()), None, "{disguise}");
            }
        }
    }

    #[test]
    fn the_documents_list_the_same_names() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (_, list) = text.split_once("**What a client claims about itself is removed**").unwrap();
        let (list, _) = list.split_once("Disguised names").unwrap();
        let rows = list.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
        let named = |row: &str| row.split('`').skip(1).step_by(2).map(str::to_ascii_lowercase).collect::<Vec<_>>();
        let mut documented: Vec<_> = rows.flat_map(named).collect();
        documented.sort_unstable();
        let text = |bytes: &[u8]| format!("{}…", str::from_utf8(bytes).unwrap());
        let mut known: Vec<_> = NAMES.iter().map(|name| String::from_utf8(name.to_vec()).unwrap()).collect();
        known.extend(["forwarded".to_owned(), text(PREFIX), text(VIEWER_PREFIX)]);
        known.sort_unstable();
        assert_eq!(documented, known);
    }

    proptest! {
        #[test]
        fn no_spelling_of_a_name_passes(
            name in "(http-)?(x-forwarded-(for|proto|host|x{0,40})|x-real-ip|forwarded|cf-visitor|cloudfront-viewer-[a-z-]{0,40})",
            seed in any::<u64>(),
        ) {
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
