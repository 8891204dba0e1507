// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creates and connects sockets: see `pollables/socket.rs`, `datagrams.rs`, and `remote.rs` for remote connections.

use super::{datagrams, names, netlink, remote};
use crate::base::arguments::int;
use crate::base::clock::is_over;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt, Wait};
use crate::base::identity::PID;
use crate::base::ids::PollableId;
use crate::event::calls::pipes::{install, install_pair};
use crate::event::events::Event;
use crate::fs::object::Object;
use crate::kernel::call::Call;
use crate::net::address::Address;
use crate::net::resolver;
use crate::net::socket::{CONNECTION_BYTES, Phase, Socket};
use crate::pollables::table::{PollableKind, Pollables};

/// Size of `struct sockaddr_storage`.
const ADDRESS_BYTES_MAX: u64 = 128;
/// Flags in the type argument.
const FLAGS: i32 = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;

/// The socket that a descriptor refers to, and whether it is non-blocking.
pub(crate) fn socket_of(call: &Call<'_, '_>, fd: u64) -> Result<(PollableId, bool), Errno> {
    let open = call.process.files.open_file(int(fd))?;
    let Object::Pollable(id) = open.object else { return Err(Errno::ENOTSOCK) };
    call.process.pollables.socket(id)?;
    Ok((id, open.flags & libc::O_NONBLOCK != 0))
}

/// Checks the arguments of `socket` and `socketpair`; returns the type without flags.
fn check_kind(domain: i32, kind: i32, protocol: i32) -> Result<i32, Errno> {
    let (flags, kind) = (kind & !0xf, kind & 0xf);
    if flags & !FLAGS != 0 || kind > 10 {
        return Err(Errno::EINVAL);
    }
    match domain {
        libc::AF_UNIX => match (kind, protocol) {
            (_, protocol) if protocol != 0 && protocol != libc::AF_UNIX => Err(Errno::EPROTONOSUPPORT),
            (libc::SOCK_STREAM | libc::SOCK_SEQPACKET | libc::SOCK_DGRAM, _) => Ok(kind),
            // Linux treats SOCK_RAW as SOCK_DGRAM here.
            (libc::SOCK_RAW, _) => Ok(libc::SOCK_DGRAM),
            _ => Err(Errno::ESOCKTNOSUPPORT),
        },
        libc::AF_INET | libc::AF_INET6 => match (kind, protocol) {
            (libc::SOCK_STREAM, 0 | libc::IPPROTO_TCP) | (libc::SOCK_DGRAM, 0 | libc::IPPROTO_UDP) => Ok(kind),
            (libc::SOCK_STREAM | libc::SOCK_DGRAM, _) => Err(Errno::EPROTONOSUPPORT),
            (libc::SOCK_RAW, _) => Err(Errno::EPERM),
            _ => Err(Errno::ESOCKTNOSUPPORT),
        },
        libc::AF_NETLINK => match (kind, protocol) {
            (libc::SOCK_RAW | libc::SOCK_DGRAM, libc::NETLINK_ROUTE) => Ok(libc::SOCK_DGRAM),
            (libc::SOCK_RAW | libc::SOCK_DGRAM, _) => Err(Errno::EPROTONOSUPPORT),
            _ => Err(Errno::ESOCKTNOSUPPORT),
        },
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// `socket(2)`.
pub(crate) fn socket(call: &mut Call<'_, '_>) -> CallResult {
    let [domain, flags, protocol, ..] = call.args;
    let (domain, flags, protocol) = (int(domain), int(flags), int(protocol));
    let kind = check_kind(domain, flags, protocol)?;
    call.process.files.check_room()?;
    let socket = PollableKind::Socket(Box::new(Socket::new(domain, kind, protocol_of(domain, kind))));
    crate::event::calls::pipes::make(call, socket, flags & libc::SOCK_NONBLOCK, flags & libc::SOCK_CLOEXEC != 0)
}

fn protocol_of(domain: i32, kind: i32) -> i32 {
    match (domain, kind) {
        (libc::AF_UNIX | libc::AF_NETLINK, _) => 0,
        (_, libc::SOCK_STREAM) => libc::IPPROTO_TCP,
        _ => libc::IPPROTO_UDP,
    }
}

/// `socketpair(2)`.
pub(crate) fn socketpair(call: &mut Call<'_, '_>) -> CallResult {
    let [domain, flags, protocol, address, ..] = call.args;
    let (domain, flags, protocol) = (int(domain), int(flags), int(protocol));
    let kind = check_kind(domain, flags, protocol)?;
    if domain != libc::AF_UNIX {
        return Err(Errno::EOPNOTSUPP.into());
    }
    call.process.files.check_room()?;
    let pollables = call.process.pollables.edit();
    let ids = [(); 2].map(|()| pollables.add(PollableKind::Socket(Box::new(Socket::new(domain, kind, 0)))));
    let [one, other] = ids;
    if kind == libc::SOCK_DGRAM {
        pollables.pair_up(one, other)?;
    } else {
        pollables.join(one, other, CONNECTION_BYTES);
    }
    let status = libc::O_RDWR | flags & libc::SOCK_NONBLOCK;
    install_pair(call, address, ids, [status; 2], flags & libc::SOCK_CLOEXEC != 0)
}

/// Reads an address for a socket of this family.
pub(crate) fn read_address(call: &mut Call<'_, '_>, domain: i32, address: u64, len: u64) -> Result<Address, Halt> {
    let len = u64::from(int(len).cast_unsigned());
    if len > ADDRESS_BYTES_MAX {
        return Err(Errno::EINVAL.into());
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    call.user().read(address, &mut bytes)?;
    Ok(Address::decode(domain, &bytes)?)
}

/// Writes as much of an address as fits, and its full size.
pub(crate) fn write_address(call: &mut Call<'_, '_>, bytes: &[u8], address: u64, len: u64) -> Result<(), Halt> {
    let room = call.user().read_u32(len)?.cast_signed();
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    call.user().write(address, bytes.get(..room.min(bytes.len())).unwrap_or_default())?;
    call.user().write(len, &u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes())
}

/// `bind(2)`. All addresses are this machine's.
pub(crate) fn bind(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, address, len, ..] = call.args;
    let (id, _) = socket_of(call, fd)?;
    let domain = call.process.pollables.socket(id)?.domain;
    let address = read_address(call, domain, address, len)?;
    if domain == libc::AF_NETLINK {
        // A netlink socket has a fixed address.
        return Ok(0);
    }
    let node = names::make(call, &address)?;
    let pollables = call.process.pollables.edit();
    if let Err(error) = pollables.bind(id, address) {
        if let Some((path, _)) = node {
            names::undo(call, &path);
        }
        return Err(error.into());
    }
    pollables.socket_mut(id)?.node = node.map(|(_, number)| number);
    Ok(0)
}

/// `listen(2)`.
pub(crate) fn listen(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, backlog, ..] = call.args;
    let (id, _) = socket_of(call, fd)?;
    if call.process.pollables.socket(id)?.is_datagram() {
        return Err(Errno::EOPNOTSUPP.into());
    }
    call.process.pollables.edit().listen(id, int(backlog))?;
    call.note_change();
    Ok(0)
}

/// `accept(2)`.
pub(crate) fn accept(call: &mut Call<'_, '_>) -> CallResult {
    accept_with(call, 0)
}

/// `accept4(2)`.
pub(crate) fn accept4(call: &mut Call<'_, '_>) -> CallResult {
    let [_, _, _, flags, ..] = call.args;
    accept_with(call, int(flags))
}

fn accept_with(call: &mut Call<'_, '_>, flags: i32) -> CallResult {
    let [fd, address, len, ..] = call.args;
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (id, nonblocking) = socket_of(call, fd)?;
    let socket = call.process.pollables.socket(id)?;
    let Phase::Listening(backlog) = &socket.phase else {
        return Err(if socket.is_datagram() { Errno::EOPNOTSUPP } else { Errno::EINVAL }.into());
    };
    let Some(&accepted) = backlog.waiting.front() else {
        let timeout = socket.receive_timeout_ns;
        let until_ns = crate::net::calls::receive::deadline(call, timeout)?;
        if nonblocking || is_over(until_ns) {
            return Err(Errno::EAGAIN.into());
        }
        return Err(Wait { call: "accept", until_ns, look_ns: None }.into());
    };
    call.process.files.check_room()?;
    if address != 0 {
        let peer = call.process.pollables.socket(accepted)?;
        let bytes = peer.peer.encode(peer.domain);
        // Linux has accepted the connection by then, and loses it.
        if let Err(halt) = write_address(call, &bytes, address, len) {
            take_first(call, id);
            call.process.pollables.edit().close(accepted);
            return Err(halt);
        }
    }
    take_first(call, id);
    let status = libc::O_RDWR | flags & libc::SOCK_NONBLOCK;
    let new = install(call, accepted, status, flags & libc::SOCK_CLOEXEC != 0)?;
    Ok(new.unsigned_abs().into())
}

fn take_first(call: &mut Call<'_, '_>, id: PollableId) {
    if let Ok(socket) = call.process.pollables.edit().socket_mut(id)
        && let Phase::Listening(backlog) = &mut socket.phase
    {
        backlog.waiting.pop_front();
    }
    call.note_change();
}

/// `connect(2)`.
pub(crate) fn connect(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, address, len, ..] = call.args;
    let (id, nonblocking) = socket_of(call, fd)?;
    let socket = call.process.pollables.socket(id)?;
    let (domain, kind, unix, datagram) = (socket.domain, socket.kind, socket.is_unix(), socket.is_datagram());
    let unspecified = len >= 2 && (!unix || datagram) && call.user().read_array::<2>(address)? == [0, 0];
    if unspecified {
        return disconnect(call, id);
    }
    let to = read_address(call, domain, address, len)?;
    if domain == libc::AF_NETLINK {
        // The peer of a netlink socket is always the kernel.
        return Ok(0);
    }
    if datagram {
        return datagrams::connect(call, id, to);
    }
    call.process.poll_remotes();
    let socket = call.process.pollables.socket(id)?;
    match socket.phase {
        Phase::Connected if socket.connecting => {
            call.process.pollables.edit().socket_mut(id)?.connecting = false;
            return Ok(0);
        }
        Phase::Connected => return Err(Errno::EISCONN.into()),
        Phase::Listening(_) => return Err(if unix { Errno::EINVAL } else { Errno::EISCONN }.into()),
        Phase::Idle if socket.is_dialing() || socket.connecting => {
            return remote::continue_connect(call, id, nonblocking);
        }
        Phase::Idle => {}
    }
    if let Some(error) = crate::net::calls::receive::take_error(call, id) {
        return Err(error.into());
    }
    // A socket for IPv6 alone has no way to IPv4 addresses.
    if to.is_mapped() && call.process.pollables.socket(id)?.is_for_v6_alone() {
        return Err(Errno::ENETUNREACH.into());
    }
    // A listed address means the remote host, even if a socket inside listens on it.
    if let Some(target) = remote::find(call, &to) {
        return remote::connect(call, id, to, target, nonblocking);
    }
    let to = if to.is_any() { to.loopback_beside(domain, to.port().unwrap_or(0)) } else { to };
    let listener = names::listener(call, kind, &to)?.filter(|_| is_own(&to));
    let has_address = |listener| call.process.pollables.socket(listener).is_ok_and(|socket| !socket.local.is_any());
    // The name server is at this very address, unless a socket of the program is.
    if to.of_network().is_some()
        && to.of_network() == resolver::ADDRESS.of_network()
        && !listener.is_some_and(has_address)
    {
        let pollables = call.process.pollables.edit();
        take_address(pollables, id, &to)?;
        pollables.connect_to_resolver(id)?;
        return connected(call, id, to, nonblocking);
    }
    let Some(listener) = listener else { return connect_unreachable(call, id, &to, nonblocking) };
    let timeout = call.process.pollables.socket(id)?.send_timeout_ns;
    if call.process.pollables.is_full(listener) {
        let until_ns = crate::net::calls::receive::deadline(call, timeout)?;
        if nonblocking || is_over(until_ns) {
            return Err(Errno::EAGAIN.into());
        }
        return Err(Wait { call: "connect", until_ns, look_ns: None }.into());
    }
    let pollables = call.process.pollables.edit();
    take_address(pollables, id, &to)?;
    let own = pollables.socket(id)?.local.clone();
    let other_domain = pollables.socket(listener)?.domain;
    let accepted =
        pollables.queue_connection(listener, to.clone().in_family(other_domain), own.in_family(other_domain))?;
    pollables.join(id, accepted, CONNECTION_BYTES);
    connected(call, id, to, nonblocking)
}

/// Gives a socket that connects, and has no address of its own, this machine's.
fn take_address(pollables: &mut Pollables, id: PollableId, to: &Address) -> Result<(), Errno> {
    let (domain, is_unix) = (pollables.socket(id)?.domain, pollables.socket(id)?.is_unix());
    if !is_unix && let Some(port) = pollables.port_without_address(id)? {
        pollables.socket_mut(id)?.local = to.loopback_beside(domain, port);
    }
    Ok(())
}

/// Ends a connect that has found its peer in this machine.
fn connected(call: &mut Call<'_, '_>, id: PollableId, to: Address, nonblocking: bool) -> CallResult {
    let pollables = call.process.pollables.edit();
    let socket = pollables.socket_mut(id)?;
    let unix = socket.is_unix();
    socket.peer = to;
    socket.failed = false;
    socket.connecting = nonblocking && !unix;
    pollables.record_event(id, Event::State);
    call.note_change();
    // The connection is established at once, but a non-blocking call reports that later.
    if nonblocking && !unix { Err(Errno::EINPROGRESS.into()) } else { Ok(0) }
}

/// Whether an address may be one of the program's own.
fn is_own(to: &Address) -> bool {
    to.of_network().is_none() || to.is_loopback() || to.is_any()
}

/// Connects to an address on which no socket of the program listens and to which the program may not connect.
fn connect_unreachable(call: &mut Call<'_, '_>, id: PollableId, to: &Address, nonblocking: bool) -> CallResult {
    match to {
        Address::Unix(name) if name.first() != Some(&0) => Err(Errno::ENOENT.into()),
        Address::Unix(_) => Err(Errno::ECONNREFUSED.into()),
        Address::Unnamed => Err(Errno::EINVAL.into()),
        address if !is_own(address) => match address.of_network() {
            Some(to) => Err(remote::refuse(call, to).into()),
            None => Err(Errno::ENETUNREACH.into()),
        },
        _ => {
            let pollables = call.process.pollables.edit();
            let socket = pollables.socket_mut(id)?;
            socket.failed = true;
            if nonblocking {
                socket.error = Some(Errno::ECONNREFUSED);
            }
            pollables.record_event(id, Event::State);
            call.note_change();
            Err(if nonblocking { Errno::EINPROGRESS } else { Errno::ECONNREFUSED }.into())
        }
    }
}

/// AF_UNSPEC: only a datagram socket can be separated from its peer.
fn disconnect(call: &mut Call<'_, '_>, id: PollableId) -> CallResult {
    let socket = call.process.pollables.socket(id)?;
    if socket.is_datagram() {
        return datagrams::disconnect(call, id);
    }
    Err(if socket.is_connected() { Errno::EOPNOTSUPP } else { Errno::EINVAL }.into())
}

/// `getsockname(2)`.
pub(crate) fn getsockname(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, address, len, ..] = call.args;
    let (id, _) = socket_of(call, fd)?;
    let socket = call.process.pollables.socket(id)?;
    let bytes = match socket.domain {
        libc::AF_NETLINK => netlink::address(PID),
        domain => socket.local.encode(domain),
    };
    write_address(call, &bytes, address, len)?;
    Ok(0)
}

/// `getpeername(2)`.
pub(crate) fn getpeername(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, address, len, ..] = call.args;
    let (id, _) = socket_of(call, fd)?;
    remote::refresh(call, id);
    let socket = call.process.pollables.socket(id)?;
    if !socket.is_connected() {
        return Err(Errno::ENOTCONN.into());
    }
    let bytes = socket.peer.encode(socket.domain);
    write_address(call, &bytes, address, len)?;
    Ok(0)
}

/// `shutdown(2)`.
pub(crate) fn shutdown(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, how, ..] = call.args;
    let (id, _) = socket_of(call, fd)?;
    let (read, write) = match int(how) {
        libc::SHUT_RD => (true, false),
        libc::SHUT_WR => (false, true),
        libc::SHUT_RDWR => (true, true),
        _ => return Err(Errno::EINVAL.into()),
    };
    remote::refresh(call, id);
    if call.process.pollables.socket(id)?.remote.is_some() {
        return remote::shut_down(call, id, read, write);
    }
    let result = call.process.pollables.edit().shut_down(id, read, write);
    // Threads may wait for it even if there is no peer.
    call.note_change();
    Ok(result.map(|()| 0)?)
}
