// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets of `AF_NETLINK`, as far as `getifaddrs(3)` needs them: it lists interfaces and their addresses.
//!
//! There is `lo`, with 127.0.0.1 and ::1, and `eth0`, with the program's own address in its synthetic network. Servers
//! ask in order to print where they are reached, and Node.js throws without an answer; glibc asks for look-ups with
//! `AI_ADDRCONFIG`, and returns no address of a family that has none beyond loopback. The whole answer to a request is
//! one datagram: the messages asked for, and `NLMSG_DONE`. All other requests are answered by `EOPNOTSUPP`.
//!
//! Source: netlink(7), rtnetlink(7), `<linux/rtnetlink.h>`.

use crate::base::arguments::count;
use crate::base::errno::Errno;
use crate::base::halt::CallResult;
use crate::base::identity::PID;
use crate::base::ids::PollableId;
use crate::event::queue::{End, Queue};
use crate::kernel::buffers::{self, Buffer};
use crate::kernel::call::Call;
use crate::net::interfaces::{INTERFACES, Interface};
use crate::net::socket::Phase;

/// Size of `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// Bytes of answers that wait to be read: some hundred answers.
const CAPACITY: usize = 64 << 10;

/// Reads a request and queues the answer.
pub(crate) fn send(call: &mut Call<'_, '_>, id: PollableId, buffers: &[Buffer]) -> CallResult {
    // C libraries write a request with one buffer.
    let Some(first) = buffers.iter().find(|buffer| buffer.len > 0) else { return Ok(0) };
    if first.len < count(HEADER_BYTES) {
        return Err(Errno::EINVAL.into());
    }
    let header = call.user().read_array::<HEADER_BYTES>(first.address)?;
    // The first byte after the header.
    let family = if first.len > count(HEADER_BYTES) {
        let behind = first.address.checked_add(count(HEADER_BYTES)).ok_or(Errno::EFAULT)?;
        let [family] = call.user().read_array::<1>(behind)?;
        family.into()
    } else {
        libc::AF_UNSPEC
    };
    let answer = answer(&header, family);
    let pollables = call.process.pollables.edit();
    let queue = match pollables.socket(id)?.input {
        Some(queue) => queue,
        None => {
            let queue = pollables.add_queue(Queue::messages(CAPACITY, End::Inside(id), End::Gone));
            let socket = pollables.socket_mut(id)?;
            socket.input = Some(queue);
            socket.phase = Phase::Connected;
            queue
        }
    };
    if pollables.room(queue) < answer.len() {
        return Err(Errno::ENOBUFS.into());
    }
    pollables.write_bytes(queue, &answer);
    pollables.note_message(queue, answer.len(), address(0).into());
    call.note_change();
    Ok(buffers::total(buffers))
}

/// `struct sockaddr_nl` of the kernel, which sends the messages (`port` 0), or of the program's socket.
pub(crate) fn address(port: u32) -> Vec<u8> {
    let family = u16::try_from(libc::AF_NETLINK).unwrap_or(0).to_le_bytes();
    [&family[..], &[0; 2], &port.to_le_bytes(), &[0; 4]].concat()
}

/// The answer to a request with this header, for this family.
fn answer(request: &[u8; HEADER_BYTES], family: i32) -> Vec<u8> {
    let [_, _, _, _, kind_0, kind_1, flags_0, flags_1, seq_0, seq_1, seq_2, seq_3, ..] = *request;
    let (kind, flags) = (u16::from_le_bytes([kind_0, kind_1]), i32::from(u16::from_le_bytes([flags_0, flags_1])));
    let seq = u32::from_le_bytes([seq_0, seq_1, seq_2, seq_3]);
    let wants = |of: i32| family == libc::AF_UNSPEC || family == of;
    let mut all = Vec::new();
    match kind {
        libc::RTM_GETLINK if flags & libc::NLM_F_DUMP != 0 => {
            for interface in &INTERFACES {
                push(&mut all, libc::RTM_NEWLINK, seq, &link(interface));
            }
        }
        libc::RTM_GETADDR if flags & libc::NLM_F_DUMP != 0 => {
            for interface in INTERFACES.iter().filter(|_| wants(libc::AF_INET)) {
                let (address, bits) = &interface.address;
                push(&mut all, libc::RTM_NEWADDR, seq, &address_of(interface, libc::AF_INET, *bits, address));
            }
            for interface in INTERFACES.iter().filter(|_| wants(libc::AF_INET6)) {
                let (address, bits) = &interface.address_6;
                push(&mut all, libc::RTM_NEWADDR, seq, &address_of(interface, libc::AF_INET6, *bits, address));
            }
        }
        _ => {
            let error = Errno::EOPNOTSUPP.number().wrapping_neg().to_le_bytes();
            let body = [&error[..], request].concat();
            push(&mut all, u16::try_from(libc::NLMSG_ERROR).unwrap_or(0), seq, &body);
            return all;
        }
    }
    push(&mut all, u16::try_from(libc::NLMSG_DONE).unwrap_or(0), seq, &0_i32.to_le_bytes());
    all
}

/// Appends a message of a multi-part answer.
fn push(all: &mut Vec<u8>, kind: u16, seq: u32, body: &[u8]) {
    let len = u32::try_from(HEADER_BYTES.saturating_add(body.len())).unwrap_or(0);
    let flags = u16::try_from(libc::NLM_F_MULTI).unwrap_or(0);
    all.extend(len.to_le_bytes());
    all.extend(kind.to_le_bytes());
    all.extend(flags.to_le_bytes());
    all.extend(seq.to_le_bytes());
    all.extend(PID.to_le_bytes());
    all.extend(body);
    all.resize(all.len().next_multiple_of(4), 0);
}

fn attribute(all: &mut Vec<u8>, kind: u16, value: &[u8]) {
    all.extend(u16::try_from(value.len().saturating_add(4)).unwrap_or(0).to_le_bytes());
    all.extend(kind.to_le_bytes());
    all.extend(value);
    all.resize(all.len().next_multiple_of(4), 0);
}

/// `struct ifinfomsg` of an interface, and its attributes.
fn link(interface: &Interface) -> Vec<u8> {
    let mut all = vec![0, 0];
    all.extend(interface.kind.to_le_bytes());
    all.extend(interface.index.to_le_bytes());
    all.extend(interface.flags.to_le_bytes());
    all.extend(0_u32.to_le_bytes());
    attribute(&mut all, libc::IFLA_ADDRESS, &interface.hardware);
    attribute(&mut all, libc::IFLA_BROADCAST, &interface.broadcast);
    attribute(&mut all, libc::IFLA_IFNAME, interface.name);
    attribute(&mut all, libc::IFLA_MTU, &interface.mtu.to_le_bytes());
    all
}

/// `struct ifaddrmsg` of one of its addresses, and its attributes.
fn address_of(interface: &Interface, family: i32, prefix_bits: u8, address: &[u8]) -> Vec<u8> {
    let permanent = u8::try_from(libc::IFA_F_PERMANENT).unwrap_or(0);
    let mut all = vec![u8::try_from(family).unwrap_or(0), prefix_bits, permanent, interface.scope];
    all.extend(interface.index.to_le_bytes());
    attribute(&mut all, libc::IFA_ADDRESS, address);
    if family == libc::AF_INET {
        attribute(&mut all, libc::IFA_LOCAL, address);
        attribute(&mut all, libc::IFA_LABEL, interface.name);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_request_is_answered_by_complete_messages(
            request: [u8; HEADER_BYTES], kind in 16_u16..24, dump: bool, family in 0..12
        ) {
            let mut request = request;
            request[4..6].copy_from_slice(&kind.to_le_bytes());
            if dump {
                request[6..8].copy_from_slice(&0x300_u16.to_le_bytes());
            }
            let answer = answer(&request, family);
            prop_assert!(answer.len() < CAPACITY / 16);
            let (mut at, mut last) = (0, 0);
            while at < answer.len() {
                let word = |offset: usize| u32::from_le_bytes(answer[at + offset..at + offset + 4].try_into().unwrap());
                let len = usize::try_from(word(0)).unwrap();
                prop_assert!(len >= HEADER_BYTES && at + len <= answer.len());
                prop_assert_eq!(&word(8).to_le_bytes()[..], &request[8..12]);
                prop_assert_eq!(word(12), PID);
                last = i32::try_from(word(4) & 0xffff).unwrap();
                at += len.next_multiple_of(4);
            }
            if dump {
                let is_known = [libc::RTM_GETLINK, libc::RTM_GETADDR].contains(&kind);
                prop_assert_eq!(last, if is_known { libc::NLMSG_DONE } else { libc::NLMSG_ERROR });
            }
        }
    }
}
