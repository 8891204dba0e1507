// SPDX-License-Identifier: MIT OR Apache-2.0
//! Texts of `/proc/self/net`: the program's own sockets, and the interfaces that it sees. Source: proc_pid_net(5), and
//! `Documentation/networking/proc_net_tcp.rst`.

use std::fmt::Write;

use crate::base::arguments::count;
use crate::base::identity::UID;
use crate::base::ids::QueueId;
use crate::fs::view::procfs::NetText;
use crate::kernel::process::Process;
use crate::net::address::Address;
use crate::net::interfaces::{INTERFACES, Interface};
use crate::net::socket::{Phase, Socket};
use crate::pollables::table::PollableKind;

/// TCP's states by number.
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const FIN_WAIT: u8 = 5;
const CLOSED: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;

/// The present content of a file.
pub(super) fn text(process: &Process, text: NetText) -> String {
    match text {
        NetText::Tcp => sockets(process, libc::AF_INET, libc::SOCK_STREAM),
        NetText::Tcp6 => sockets(process, libc::AF_INET6, libc::SOCK_STREAM),
        NetText::Udp => sockets(process, libc::AF_INET, libc::SOCK_DGRAM),
        NetText::Udp6 => sockets(process, libc::AF_INET6, libc::SOCK_DGRAM),
        NetText::Unix => unix_sockets(process),
        NetText::Dev => devices(),
        NetText::Route => routes(),
        NetText::Addresses6 => addresses_6(),
        NetText::Sockets => summary(process),
    }
}

/// The program's sockets, with their inode numbers.
fn all(process: &Process) -> impl Iterator<Item = (&Socket, u64)> {
    process.pollables.list.iter().flatten().filter_map(|pollable| match &pollable.kind {
        PollableKind::Socket(socket) => Some((&**socket, pollable.number)),
        _ => None,
    })
}

/// A socket's state by TCP's number; `None`: it has no address yet.
fn state(process: &Process, socket: &Socket) -> Option<u8> {
    let ended = socket.input.and_then(|queue| process.pollables.queue(queue)).is_some_and(|queue| queue.finished);
    match &socket.phase {
        Phase::Listening(_) => Some(LISTEN),
        Phase::Connected if socket.is_datagram() => Some(ESTABLISHED),
        Phase::Connected if socket.shut_write => Some(FIN_WAIT),
        Phase::Connected if ended => Some(CLOSE_WAIT),
        Phase::Connected => Some(ESTABLISHED),
        Phase::Idle if socket.connecting => Some(SYN_SENT),
        Phase::Idle if socket.is_datagram() && socket.bound => Some(CLOSED),
        Phase::Idle => None,
    }
}

/// An address in hexadecimal: each word of the host as the processor has it.
fn hex(address: &Address) -> String {
    let words = |host: &[u8]| -> String {
        let words = host.as_chunks::<4>().0.iter();
        words.map(|word| format!("{:08X}", u32::from_le_bytes(*word))).collect()
    };
    match address {
        Address::V4(host, port) => format!("{}:{port:04X}", words(host)),
        Address::V6(host, port) => format!("{}:{port:04X}", words(host)),
        Address::Unnamed | Address::Unix(_) => String::new(),
    }
}

/// `tcp`, `tcp6`, `udp`, `udp6`.
fn sockets(process: &Process, domain: i32, kind: i32) -> String {
    let address = |text: &str| if domain == libc::AF_INET { format!("{text:<14}") } else { format!("{text:<38}") };
    let head = format!(
        "  sl  {}{}st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
        address("local_address"),
        address("rem_address"),
    );
    let mut text = format!("{head:<149}\n");
    let queued =
        |queue: Option<QueueId>| queue.and_then(|queue| process.pollables.queue(queue)).map_or(0, |queue| queue.len());
    let of_kind = all(process).filter(|(socket, _)| (socket.domain, socket.kind) == (domain, kind));
    let shown = of_kind.filter_map(|(socket, inode)| Some((socket, inode, state(process, socket)?)));
    for (number, (socket, inode, state)) in shown.enumerate() {
        let (sent, received) = match &socket.phase {
            Phase::Listening(backlog) => (0, backlog.waiting.len()),
            _ => (queued(socket.output), queued(socket.input)),
        };
        let line = format!(
            "{number:4}: {} {} {state:02X} {sent:08X}:{received:08X} 00:00000000 00000000 {UID:>5} {:>8} {inode} 1 0000000000000000 100 0 0 10 0",
            hex(&socket.local),
            hex(&socket.peer),
            0,
        );
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line:<149}");
    }
    text
}

/// `unix`.
fn unix_sockets(process: &Process) -> String {
    const ACCEPTS: u32 = 0x1_0000;
    let mut text = "Num       RefCount Protocol Flags    Type St Inode Path\n".to_owned();
    for (socket, inode) in all(process).filter(|(socket, _)| socket.is_unix()) {
        let flags = if socket.is_listening() { ACCEPTS } else { 0 };
        let state = if socket.is_connected() { 3 } else { 1 };
        let _ =
            write!(text, "0000000000000000: 00000002 00000000 {flags:08X} {:04X} {state:02X} {inode:>5}", socket.kind);
        if let Address::Unix(name) = &socket.local {
            // Abstract names begin with a NUL, paths end with one.
            let name = name.strip_suffix(b"\0").unwrap_or(name);
            let shown: Vec<u8> = name.iter().map(|&byte| if byte == 0 { b'@' } else { byte }).collect();
            let _ = write!(text, " {}", String::from_utf8_lossy(&shown).replace('\n', "?"));
        }
        text.push('\n');
    }
    text
}

fn plain_name(interface: &Interface) -> String {
    String::from_utf8_lossy(interface.plain_name()).into_owned()
}

/// `dev`. What passes is not counted.
fn devices() -> String {
    let mut text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n"
        .to_owned();
    for interface in &INTERFACES {
        let _ = writeln!(
            text,
            "{:>6}: {:7} {:7} {:4} {:4} {:4} {:5} {:10} {:9} {:8} {:7} {:4} {:4} {:4} {:5} {:7} {:10}",
            plain_name(interface),
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0
        );
    }
    text
}

/// `route`: the network of each interface but the loopback one.
fn routes() -> String {
    let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
    let mut text = format!("{head:<127}\n");
    for interface in INTERFACES.iter().filter(|interface| interface.flags & libc::IFF_LOOPBACK == 0) {
        let [address, mask] = [interface.address.0, interface.mask()].map(u32::from_le_bytes);
        let name = plain_name(interface);
        let line = format!("{name}\t{:08X}\t00000000\t0001\t0\t0\t0\t{mask:08X}\t0\t0\t0", address & mask);
        let _ = writeln!(text, "{line:<127}");
    }
    text
}

/// `if_inet6`.
fn addresses_6() -> String {
    let mut text = String::new();
    for interface in &INTERFACES {
        let (address, prefix) = interface.address_6;
        let scope = if interface.flags & libc::IFF_LOOPBACK == 0 { 0 } else { 0x10 };
        let address: String = address.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(
            text,
            "{address} {:02x} {prefix:02x} {scope:02x} 80 {:>8}",
            interface.index,
            plain_name(interface)
        );
    }
    text
}

/// `sockstat`.
fn summary(process: &Process) -> String {
    let of = |domain: i32, kind: i32| {
        count(all(process).filter(|(socket, _)| (socket.domain, socket.kind) == (domain, kind)).count())
    };
    let tcp = of(libc::AF_INET, libc::SOCK_STREAM);
    let udp = of(libc::AF_INET, libc::SOCK_DGRAM);
    let used = all(process).count();
    format!(
        "sockets: used {used}\nTCP: inuse {tcp} orphan 0 tw 0 alloc {tcp} mem 0\nUDP: inuse {udp} mem 0\n\
         UDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n"
    )
}
