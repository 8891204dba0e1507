// SPDX-License-Identifier: MIT OR Apache-2.0
//! The name server that a program sees at [`ADDRESS`]: it answers questions about the names that the program may
//! connect to, from the list alone. Nothing is asked on the host's side, and nothing waits.
//!
//! Other names do not exist. An answer says the same as `/etc/hosts`: a name has its synthetic address
//! (`allow_list.rs`). So it is shorter than 512 bytes, and never truncated.
//!
//! Sources: RFC 1035; RFC 2308 (names without such records), RFC 6891 (EDNS), RFC 6761 (localhost), RFC 8482 (ANY).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::net::address::Address;
use crate::net::allow_list::{Network, OWN_ADDRESS};

/// The server's address, which is that of systemd-resolved on many machines.
pub(crate) const ADDRESS: Address = Address::V4([127, 0, 0, 53], 53);
/// Longest question that is read: a name, a type and a class, and whatever options a client adds.
pub(crate) const QUESTION_MAX: usize = 4096;

const HEADER_BYTES: usize = 12;
const LABEL_MAX: usize = 63;
const NAME_MAX: usize = 255;
/// How long an answer may be cached, in seconds. A program's list never changes.
const TTL: u32 = 60;
/// Size of datagrams in the OPT record.
const PAYLOAD_BYTES: u16 = 1232;

/// Classes.
const IN: u16 = 1;
const ANY_CLASS: u16 = 255;
/// Types of records.
const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const OPT: u16 = 41;
const TRANSFERS: [u16; 2] = [251, 252];
const ANY: u16 = 255;

/// Response codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    Success = 0,
    FormatError = 1,
    NameError = 3,
    NotImplemented = 4,
    Refused = 5,
    /// Of EDNS: its lower four bits are in the header.
    BadVersion = 16,
}

/// What a client asks.
struct Question<'a> {
    /// The name in lower case, its labels joined by dots.
    name: String,
    kind: u16,
    class: u16,
    /// The question's bytes, for the answer.
    bytes: &'a [u8],
    /// The version of EDNS, if the client uses that.
    edns: Option<u8>,
}

/// A message that is read from its front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (part, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(part)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn word(&mut self) -> Option<u16> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*word))
    }

    /// The labels of a question's name; nothing stands before it to which a pointer could lead.
    fn name(&mut self) -> Option<Vec<&'a [u8]>> {
        let (mut labels, mut len): (Vec<&[u8]>, usize) = (Vec::new(), 1);
        loop {
            let label_len = usize::from(self.byte()?);
            if label_len == 0 {
                return Some(labels);
            }
            len = len.saturating_add(label_len).saturating_add(1);
            if label_len > LABEL_MAX || len > NAME_MAX {
                return None;
            }
            labels.push(self.take(label_len)?);
        }
    }

    /// Skips a record, and returns the version of EDNS if it is an OPT record.
    fn record(&mut self) -> Option<Option<u8>> {
        let mut is_root = true;
        loop {
            match self.byte()? {
                0 => break,
                len @ 1..=63 => {
                    is_root = false;
                    self.take(usize::from(len))?;
                }
                // A pointer ends the name.
                0xc0.. => {
                    is_root = false;
                    self.byte()?;
                    break;
                }
                _ => return None,
            }
        }
        let kind = self.word()?;
        let (_class, ttl) = (self.word()?, self.take(4)?);
        let size = self.word()?;
        self.take(usize::from(size))?;
        let version = ttl.get(1).copied();
        Some(version.filter(|_| kind == OPT && is_root))
    }
}

/// The answer to a message from a client; `None`: it is not a question, and gets none.
pub(crate) fn answer(network: &Network, message: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = message.split_first_chunk::<HEADER_BYTES>()?;
    let [_, _, flags, _, counts @ ..] = header;
    if flags & 0x80 != 0 {
        return None;
    }
    if flags & 0x78 != 0 {
        return Some(reply(header, None, Code::NotImplemented, &[]));
    }
    let Some(question) = question(counts, rest) else {
        return Some(reply(header, None, Code::FormatError, &[]));
    };
    let (code, records) = if question.edns.is_some_and(|version| version > 0) {
        (Code::BadVersion, Vec::new())
    } else if ![IN, ANY_CLASS].contains(&question.class) || TRANSFERS.contains(&question.kind) {
        (Code::Refused, Vec::new())
    } else {
        match records(network, &question) {
            Some(records) => (Code::Success, records),
            None => (Code::NameError, Vec::new()),
        }
    };
    Some(reply(header, Some(&question), code, &records))
}

/// Reads the one question, and the OPT record behind it.
fn question<'a>(counts: &[u8; 8], body: &'a [u8]) -> Option<Question<'a>> {
    let [questions, answers, authorities, additional] = [0, 2, 4, 6]
        .map(|at| counts.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |it| u16::from_be_bytes(*it)));
    if questions != 1 {
        return None;
    }
    let mut reader = Reader(body);
    let labels = reader.name()?;
    let (kind, class) = (reader.word()?, reader.word()?);
    let bytes = body.get(..body.len().saturating_sub(reader.0.len()))?;
    let mut edns = None;
    // Each record has eleven bytes or more, so a message bounds the work, whatever it counts.
    for _ in 0..u32::from(answers).saturating_add(authorities.into()).saturating_add(additional.into()) {
        if let Some(version) = reader.record()? {
            // There is at most one.
            if edns.replace(version).is_some() {
                return None;
            }
        }
    }
    // A dot within a label is not one between labels, and no listed name has it.
    let text = |label: &&[u8]| String::from_utf8_lossy(label).to_ascii_lowercase().replace('.', "\\.");
    let name = labels.iter().map(text).collect::<Vec<_>>().join(".");
    Some(Question { name, kind, class, bytes, edns })
}

/// A record's type and data.
type Record = (u16, Vec<u8>);

/// The records that answer a question; `None`: there is no such name.
fn records(network: &Network, question: &Question<'_>) -> Option<Vec<Record>> {
    let all: Vec<Record> = match pointed_at(&question.name) {
        Some(ip) => vec![(PTR, encoded(&network.name_of(ip)?))],
        None => network.addresses_of(&question.name)?.into_iter().map(address_record).collect(),
    };
    Some(all.into_iter().filter(|(kind, _)| [*kind, ANY].contains(&question.kind)).collect())
}

fn address_record(ip: IpAddr) -> Record {
    match ip {
        IpAddr::V4(ip) => (A, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AAAA, ip.octets().to_vec()),
    }
}

/// The address of a name for reverse look-ups.
fn pointed_at(name: &str) -> Option<IpAddr> {
    if let Some(name) = name.strip_suffix(".in-addr.arpa") {
        let bytes: Vec<u8> = name.rsplit('.').map(|byte| byte.parse().ok()).collect::<Option<_>>()?;
        return <[u8; 4]>::try_from(bytes).ok().map(|bytes| Ipv4Addr::from(bytes).into());
    }
    let digits = name.strip_suffix(".ip6.arpa")?.rsplit('.');
    let digit = |text: &str| if text.len() == 1 { u128::from_str_radix(text, 16).ok() } else { None };
    let digits: Vec<u128> = digits.map(digit).collect::<Option<_>>()?;
    let all = digits.iter().fold(0_u128, |all, digit| all << 4 | digit);
    (digits.len() == 32).then(|| Ipv6Addr::from_bits(all).into())
}

/// A name as labels.
fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len().min(LABEL_MAX)).unwrap_or(0));
        bytes.extend(label.bytes().take(LABEL_MAX));
    }
    bytes.push(0);
    bytes
}

fn reply(header: &[u8; HEADER_BYTES], question: Option<&Question<'_>>, code: Code, records: &[Record]) -> Vec<u8> {
    let [id_0, id_1, asked, more, ..] = *header;
    let (code, edns) = (code as u8, question.and_then(|question| question.edns));
    // A response, with the client's opcode and its wish for recursion, which is available; checking is as it asked.
    let mut all = vec![id_0, id_1, 0x80 | asked & 0x79, 0x80 | more & 0x10 | code & 0x0f];
    let count = |count: usize| u16::try_from(count).unwrap_or(0).to_be_bytes();
    for part in [usize::from(question.is_some()), records.len(), 0, usize::from(edns.is_some())] {
        all.extend(count(part));
    }
    all.extend(question.map_or(&[][..], |question| question.bytes));
    for (kind, data) in records {
        // The name is the question's, right behind the header.
        all.extend([0xc0, 12]);
        all.extend(kind.to_be_bytes());
        all.extend(IN.to_be_bytes());
        all.extend(TTL.to_be_bytes());
        all.extend(count(data.len()));
        all.extend(data);
    }
    if edns.is_some() {
        all.push(0);
        all.extend(OPT.to_be_bytes());
        all.extend(PAYLOAD_BYTES.to_be_bytes());
        all.extend([code >> 4, 0, 0, 0, 0, 0]);
    }
    all
}

impl Network {
    /// The addresses of a name, in lower case; none if there are only names below it. `None`: there is no such name.
    fn addresses_of(&self, name: &str) -> Option<Vec<IpAddr>> {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        if name == "localhost" || name.ends_with(".localhost") {
            return Some(vec![loopback, Ipv6Addr::LOCALHOST.into()]);
        }
        if name == "mayfly" {
            return Some(vec![loopback]);
        }
        if let Some(ip) = self.listed().find(|(listed, _)| *listed == name).map(|(_, ip)| ip) {
            return Some(vec![ip.into()]);
        }
        let is_above = |listed: &str| listed.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
        (name.is_empty() || self.listed().any(|(listed, _)| is_above(listed))).then(Vec::new)
    }

    /// The name of an address.
    fn name_of(&self, ip: IpAddr) -> Option<String> {
        if ip.is_loopback() {
            return Some("localhost".to_owned());
        }
        if ip == IpAddr::from(OWN_ADDRESS) {
            return Some("mayfly".to_owned());
        }
        self.listed().find(|(_, listed)| IpAddr::V4(*listed) == ip).map(|(name, _)| name.to_owned())
    }
}

#[cfg(test)]
mod tests;
