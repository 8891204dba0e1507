// SPDX-License-Identifier: MIT OR Apache-2.0
//! The key by which a request gets the worker of its client: see [`Affinity`].
//!
//! A client chooses its cookies and headers, so it can choose its worker, and nothing more. The work is bounded by the
//! request's headers, of which at most [`HASHED_MAX`] bytes are hashed; nothing is allocated. Equal values have equal
//! keys in every run of the server.

use std::net::SocketAddr;

use mayfly_sandbox::Request;

use crate::config::affinity::Affinity;

/// Bytes of a value that count. Values that differ only behind them share a worker.
const HASHED_MAX: usize = 1024;

/// The request's key; `None` if it has no such cookie or header, or no client.
pub(crate) fn client_key(affinity: &Affinity, request: &Request<'_>) -> Option<u64> {
    match affinity {
        Affinity::Connection => request.client.map(|client| of_address(client.address)),
        Affinity::Cookie(name) => cookie(request, name.as_bytes()).map(hash),
        Affinity::Header(name) => value(request, name.as_bytes()).map(hash),
    }
}

/// The value of the first header of this name.
fn value<'a>(request: &Request<'a>, name: &[u8]) -> Option<&'a [u8]> {
    request.headers.iter().find(|header| header.name == name).map(|header| header.value)
}

/// The value of the first cookie of this name (RFC 6265, 4.2.1).
fn cookie<'a>(request: &Request<'a>, name: &[u8]) -> Option<&'a [u8]> {
    let lists = request.headers.iter().filter(|header| header.name == b"cookie");
    lists.flat_map(|list| list.value.split(|byte| *byte == b';')).find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"=")?;
        Some(value)
    })
}

fn of_address(address: SocketAddr) -> u64 {
    let port = address.port().to_be_bytes();
    match address {
        SocketAddr::V4(v4) => finish(add(add(START, &v4.ip().octets()), &port)),
        SocketAddr::V6(v6) => finish(add(add(START, &v6.ip().octets()), &port)),
    }
}

fn hash(value: &[u8]) -> u64 {
    finish(add(START, &value[..value.len().min(HASHED_MAX)]))
}

const START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits.
fn add(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Spreads the bits: a worker is chosen by the high ones, which FNV-1a changes least for short values. The finaliser of
/// MurmurHash3.
fn finish(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use mayfly_sandbox::{Client, Header};

    use super::*;

    fn key(affinity: &Affinity, headers: &[(&str, &str)], client: Option<&str>) -> Option<u64> {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| Header { name: name.as_bytes(), value: value.as_bytes() }).collect();
        let client = client.map(|address| Client { address: address.parse().unwrap(), is_encrypted: false });
        let request = Request { method: b"GET", path: b"/", query: b"", headers: &headers, body: b"", client };
        client_key(affinity, &request)
    }

    #[test]
    fn a_connection_is_an_address_and_a_port() {
        let of = |client| key(&Affinity::Connection, &[], client);
        assert_eq!(of(None), None);
        let first = of(Some("192.0.2.1:80"));
        assert!(first.is_some());
        assert_eq!(first, of(Some("192.0.2.1:80")));
        for other in ["192.0.2.1:81", "192.0.2.2:80", "[::1]:80"] {
            assert_ne!(of(Some(other)), first, "{other}");
        }
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let of = |headers: &[(&str, &str)]| key(&Affinity::Cookie("id".to_owned()), headers, None);
        let expected = of(&[("cookie", "id=7")]);
        assert!(expected.is_some());
        for list in ["a=b; id=7", "xid=9; id=7; id=8", " id=7 ", "id=7;", "Id=3;id=7", "idx=1; id=7"] {
            assert_eq!(of(&[("accept", "id=1"), ("cookie", list)]), expected, "{list}");
        }
        assert_eq!(of(&[("cookie", "a=b"), ("cookie", "id=7")]), expected);
        for list in ["", ";", "=", "id", "xid=7", "a=id=7", "ID=7"] {
            assert_eq!(of(&[("cookie", list)]), None, "{list}");
        }
        assert!(of(&[("cookie", "id=")]).is_some_and(|key| Some(key) != expected));
    }

    #[test]
    fn the_first_header_of_a_name_counts() {
        let of = |headers: &[(&str, &str)]| key(&Affinity::Header("x-user".to_owned()), headers, None);
        assert_eq!(of(&[("x-user", "a"), ("x-user", "b")]), of(&[("x-user", "a")]));
        assert_ne!(of(&[("x-user", "b")]), of(&[("x-user", "a")]));
        assert_eq!(of(&[("x-users", "a")]), None);
    }

    #[test]
    fn only_the_beginning_of_a_long_value_counts() {
        let of = |value: &str| key(&Affinity::Header("a".to_owned()), &[("a", value)], None);
        let long = "v".repeat(HASHED_MAX);
        assert_eq!(of(&format!("{long}1")), of(&format!("{long}2")));
        assert_ne!(of(&long), of(&long[1..]));
    }

    #[test]
    fn short_values_are_spread_over_the_high_bits() {
        let mut counts = [0_u32; 4];
        for number in 0..4000 {
            let key = key(&Affinity::Header("a".to_owned()), &[("a", &number.to_string())], None).unwrap();
            counts[(key >> 62) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn keys_stay_the_same_from_run_to_run() {
        assert_eq!(hash(b"client"), finish(add(START, b"client")));
        assert_eq!(hash(b""), 0xefd0_1f60_ba99_2926);
    }
}
