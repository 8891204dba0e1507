// SPDX-License-Identifier: MIT OR Apache-2.0
use proptest::prelude::*;

use super::*;
use crate::net::allow_list::{Outbound, OutboundHost};

fn network() -> Network {
    let name = |name: &str| Outbound { host: OutboundHost::Name(name.to_owned()), port: 1 };
    Network::new(&[name("db.example.invalid"), name("cache")])
}

/// A question with this header after its number, and these bytes behind it.
fn asked(name: &str, kind: u16, class: u16, edns: &[u8]) -> Vec<u8> {
    let flags = [1, 0x20];
    let head = [&[7, 8], &flags[..], &[0, 1, 0, 0, 0, 0, 0, u8::from(!edns.is_empty())]].concat();
    [head, encoded(name), kind.to_be_bytes().to_vec(), class.to_be_bytes().to_vec(), edns.to_vec()].concat()
}

/// The code of an answer to a question, and the data of its records.
fn found(message: &[u8]) -> (u8, Vec<Vec<u8>>) {
    let answer = answer(&network(), message).unwrap();
    assert!(answer.len() <= 512 && answer[..2] == [7, 8] && answer[2] == 0x81, "{answer:?}");
    let mut reader = Reader(&answer[HEADER_BYTES..]);
    let count = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
    assert_eq!((count(4), count(8)), (1, 0));
    reader.name().unwrap();
    reader.take(4).unwrap();
    let mut all = Vec::new();
    for _ in 0..count(6) {
        assert_eq!(reader.take(2).unwrap(), [0xc0, 12], "the name is the question's");
        reader.take(8).unwrap();
        let size = reader.word().unwrap();
        all.push(reader.take(size.into()).unwrap().to_vec());
    }
    for _ in 0..count(10) {
        assert_eq!(reader.record(), Some(Some(0)), "an OPT record");
    }
    assert!(reader.0.is_empty());
    (answer[3] & 0x0f, all)
}

#[test]
fn listed_names_have_their_addresses_and_others_do_not_exist() {
    let one = |address: [u8; 4]| (0, vec![address.to_vec()]);
    let nothing = (0, Vec::new());
    for (name, kind, expected) in [
        ("db.example.invalid", A, one([198, 18, 0, 2])),
        ("dB.eXample.invalID", A, one([198, 18, 0, 2])),
        ("cache", A, one([198, 18, 0, 3])),
        ("cache", AAAA, nothing.clone()),
        ("cache", ANY, one([198, 18, 0, 3])),
        ("cache", 15, nothing.clone()),
        ("example.invalid", A, nothing.clone()),
        ("", 2, nothing.clone()),
        ("xample.invalid", A, (3, Vec::new())),
        ("other.invalid", A, (3, Vec::new())),
        ("db.example.invalid.", A, one([198, 18, 0, 2])),
        ("a.cache", A, (3, Vec::new())),
        ("mayfly", A, one([127, 0, 0, 1])),
        ("localhost", A, one([127, 0, 0, 1])),
        ("a.localhost", AAAA, (0, vec![Ipv6Addr::LOCALHOST.octets().to_vec()])),
        ("2.0.18.198.in-addr.arpa", PTR, (0, vec![encoded("db.example.invalid")])),
        ("1.0.18.198.in-addr.arpa", PTR, (0, vec![encoded("mayfly")])),
        ("9.9.9.127.in-addr.arpa", PTR, (0, vec![encoded("localhost")])),
        ("4.0.18.198.in-addr.arpa", PTR, (3, Vec::new())),
        ("2.0.18.198.in-addr.arpa", A, nothing),
        ("cache", 252, (5, Vec::new())),
    ] {
        assert_eq!(found(&asked(name, kind, IN, &[])), expected, "{name} {kind}");
    }
    let local = format!("1.{}ip6.arpa", "0.".repeat(31));
    assert_eq!(found(&asked(&local, PTR, IN, &[])), (0, vec![encoded("localhost")]));
    assert_eq!(found(&asked("cache", A, 3, &[])), (5, Vec::new()), "another class");
}

#[test]
fn extensions_are_answered_in_kind() {
    let opt = |version: u8| vec![0, 0, 41, 16, 0, 0, version, 0, 0, 0, 4, 0, 10, 0, 0];
    assert_eq!(found(&asked("cache", A, IN, &opt(0))), (0, vec![vec![198, 18, 0, 3]]));
    let refused = answer(&network(), &asked("cache", A, IN, &opt(1))).unwrap();
    assert_eq!((refused[3] & 0x0f, refused[refused.len() - 6]), (0, 1), "BADVERS");
    let twice = answer(&network(), &{
        let mut message = asked("cache", A, IN, &[opt(0), opt(0)].concat());
        message[11] = 2;
        message
    });
    assert_eq!(twice.unwrap()[3] & 0x0f, 1);
}

#[test]
fn what_is_no_question_gets_no_answer_and_what_is_damaged_an_error() {
    let good = asked("cache", A, IN, &[]);
    for len in 0..good.len() {
        let code = answer(&network(), &good[..len]).map(|answer| answer[3] & 0x0f);
        assert_eq!(code, if len < HEADER_BYTES { None } else { Some(1) }, "{len}");
    }
    let changed = |at: usize, to: u8| {
        let mut message = good.clone();
        message[at] = to;
        answer(&network(), &message).map(|answer| answer[3] & 0x0f)
    };
    assert_eq!(changed(2, 0x81), None, "a response");
    assert_eq!(changed(2, 0x29), Some(4), "another operation");
    assert_eq!(changed(5, 2), Some(1), "two questions");
    assert_eq!(changed(12, 0xc0), Some(1), "a pointer");
    // A dot inside a label does not make it the name of two labels.
    let mut sly = asked("db.example", A, IN, &[]);
    sly.splice(12..24, *b"\x12db.example.invalid\0");
    assert_eq!(answer(&network(), &sly).map(|answer| answer[3] & 0x0f), Some(3));
}

proptest! {
    #[test]
    fn no_message_harms_the_server(
        head in prop::collection::vec(any::<u8>(), 12), body in prop::collection::vec(prop_oneof![0..5_u8, any::<u8>()], 0..400)
    ) {
        let mut message = [head, body].concat();
        for counts in [None, Some([0, 0, 0, 1, 0, 0, 0, 0, 0, 1])] {
            if let Some(counts) = counts {
                message[2..12].copy_from_slice(&counts);
            }
            if let Some(answer) = answer(&network(), &message) {
                prop_assert!(answer.len() <= 512 && answer[..2] == message[..2] && answer[2] & 0x80 != 0);
            }
        }
    }
}
