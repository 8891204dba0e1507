// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets: what they are, whom they are connected with, and how they end.
//!
//! What listens is reached from inside the program and from outside the machine alike, and every address is this machine's, but those that
//! the program may connect to: see `remote.rs`. Sources: socket(7), ip(7), ipv6(7), tcp(7), unix(7).

use std::collections::VecDeque;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ConnectionId, End, Event, Kind, PollableId, Pollables, Queue, QueueId, Remote};
use crate::errno::Errno;

/// Most bytes in each direction of a connection inside the program; about what Linux has for a Unix socket.
pub(crate) const CONNECTION_BYTES: usize = 256 << 10;
/// Most connections that wait to be accepted: `net.core.somaxconn`.
const BACKLOG_MAX: usize = 4096;
/// Most bytes of a Unix socket's name.
pub(crate) const UNIX_NAME_MAX: usize = 108;

/// An address of a socket.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Address {
    #[default]
    Unnamed,
    V4([u8; 4], u16),
    V6([u8; 16], u16),
    /// A path with its NUL, or an abstract name that starts with one.
    Unix(Arc<[u8]>),
}

impl Address {
    pub(crate) const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
    const LOOPBACK_6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::V4(_, port) | Self::V6(_, port) => Some(*port),
            Self::Unnamed | Self::Unix(_) => None,
        }
    }

    pub(crate) fn with_port(self, port: u16) -> Self {
        match self {
            Self::V4(host, _) => Self::V4(host, port),
            Self::V6(host, _) => Self::V6(host, port),
            other => other,
        }
    }

    /// The address that stands for all, in this family.
    pub(crate) fn any(domain: i32) -> Self {
        match domain {
            libc::AF_INET => Self::V4([0; 4], 0),
            libc::AF_INET6 => Self::V6([0; 16], 0),
            _ => Self::Unnamed,
        }
    }

    /// 127.0.0.1, as a socket of this family sees it.
    pub(crate) fn loopback(domain: i32, port: u16) -> Self {
        match domain {
            libc::AF_INET => Self::V4(Self::LOOPBACK, port),
            libc::AF_INET6 => Self::V6(mapped(Self::LOOPBACK), port),
            _ => Self::Unnamed,
        }
    }

    /// ::1.
    pub(super) fn loopback_6(port: u16) -> Self {
        Self::V6(Self::LOOPBACK_6, port)
    }

    pub(crate) fn is_any(&self) -> bool {
        match self {
            Self::V4(host, _) => *host == [0; 4],
            Self::V6(host, _) => *host == [0; 16],
            Self::Unnamed | Self::Unix(_) => false,
        }
    }

    pub(crate) fn is_loopback(&self) -> bool {
        match self {
            Self::V4([first, ..], _) => *first == 127,
            Self::V6(host, _) => {
                *host == Self::LOOPBACK_6 || host.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127])
            }
            Self::Unnamed | Self::Unix(_) => false,
        }
    }

    /// The same, as a socket of this family sees it.
    pub(crate) fn in_family(self, domain: i32) -> Self {
        match (self, domain) {
            (Self::V4(host, port), libc::AF_INET6) => Self::V6(mapped(host), port),
            (other, _) => other,
        }
    }

    /// Without regard to how a family writes the other one's.
    fn host(&self) -> Option<[u8; 16]> {
        match self {
            Self::V4(host, _) => Some(mapped(*host)),
            Self::V6(host, _) => Some(*host),
            Self::Unnamed | Self::Unix(_) => None,
        }
    }

    /// Whether what is sent to `to` arrives here.
    fn takes(&self, to: &Self) -> bool {
        match (self, to) {
            (Self::Unix(name), Self::Unix(other)) => name == other,
            _ => {
                let same_family = matches!((self, to), (Self::V4(..), Self::V4(..)) | (Self::V6(..), _));
                self.port() == to.port() && same_family && (self.is_any() || to.is_any() || self.host() == to.host())
            }
        }
    }

    /// Whether two sockets with these addresses would be in each other's way.
    fn collides(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(name), Self::Unix(other)) => name == other,
            (Self::Unix(_) | Self::Unnamed, _) | (_, Self::Unix(_) | Self::Unnamed) => false,
            _ => self.port() == other.port() && (self.is_any() || other.is_any() || self.host() == other.host()),
        }
    }

    /// As an address of the network, if it is one.
    pub(crate) fn of_network(&self) -> Option<SocketAddr> {
        let (ip, port) = match self {
            Self::V4(host, port) => ((*host).into(), *port),
            Self::V6(host, port) => (Ipv6Addr::from(*host).to_canonical(), *port),
            Self::Unnamed | Self::Unix(_) => return None,
        };
        Some(SocketAddr::new(ip, port))
    }

    /// As `struct sockaddr_in` and its kin.
    pub(crate) fn encode(&self, domain: i32) -> Vec<u8> {
        let family = u16::try_from(domain).unwrap_or(0).to_le_bytes();
        let mut bytes = family.to_vec();
        match self {
            Self::V4(host, port) => {
                bytes.extend(port.to_be_bytes());
                bytes.extend(host);
                bytes.extend([0; 8]);
            }
            Self::V6(host, port) => {
                bytes.extend(port.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(host);
                bytes.extend([0; 4]);
            }
            Self::Unix(name) => bytes.extend(name.iter()),
            Self::Unnamed => {}
        }
        bytes
    }

    /// Reads the address that a socket of this family is given.
    pub(crate) fn decode(domain: i32, bytes: &[u8]) -> Result<Self, Errno> {
        let (family, rest) = bytes.split_first_chunk::<2>().ok_or(Errno::EINVAL)?;
        let family = i32::from(u16::from_le_bytes(*family));
        let wrong = if domain == libc::AF_UNIX { Errno::EINVAL } else { Errno::EAFNOSUPPORT };
        match domain {
            libc::AF_INET => {
                let (port, rest) = rest.split_first_chunk().ok_or(Errno::EINVAL)?;
                let (host, rest) = rest.split_first_chunk().ok_or(Errno::EINVAL)?;
                match family {
                    _ if rest.len() < 8 => Err(Errno::EINVAL),
                    libc::AF_INET => Ok(Self::V4(*host, u16::from_be_bytes(*port))),
                    _ => Err(wrong),
                }
            }
            libc::AF_INET6 => {
                let (port, rest) = rest.split_first_chunk().ok_or(Errno::EINVAL)?;
                let (_flow, rest) = rest.split_first_chunk::<4>().ok_or(Errno::EINVAL)?;
                let (host, _) = rest.split_first_chunk().ok_or(Errno::EINVAL)?;
                if family == libc::AF_INET6 { Ok(Self::V6(*host, u16::from_be_bytes(*port))) } else { Err(wrong) }
            }
            libc::AF_NETLINK if rest.len() < 10 => Err(Errno::EINVAL),
            libc::AF_NETLINK if family != domain => Err(wrong),
            libc::AF_NETLINK => Ok(Self::Unnamed),
            _ if family != libc::AF_UNIX || rest.len() > UNIX_NAME_MAX => Err(wrong),
            _ if rest.is_empty() => Ok(Self::Unnamed),
            // An abstract name has the length that it is given with; a path ends with its first NUL.
            _ if rest.first() == Some(&0) => Ok(Self::Unix(rest.into())),
            _ => {
                let path = rest.split(|&byte| byte == 0).next().unwrap_or_default();
                Ok(Self::Unix([path, &[0]].concat().into()))
            }
        }
    }
}

fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// Connections that wait to be accepted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Backlog {
    pub(crate) waiting: VecDeque<PollableId>,
    most: usize,
}

impl Backlog {
    /// For `listen` with this argument.
    pub(crate) fn new(most: i32) -> Self {
        Self { waiting: VecDeque::new(), most: 0 }.limited(most)
    }

    /// Linux lets one more wait than it is told, and takes what is negative for very many.
    pub(crate) fn limited(self, most: i32) -> Self {
        Self { most: usize::try_from(most).unwrap_or(BACKLOG_MAX).min(BACKLOG_MAX).saturating_add(1), ..self }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= self.most
    }
}

/// How far a socket is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Phase {
    Idle,
    Listening(Backlog),
    Connected,
}

/// What a program has set and may ask for: levels, names and values.
pub(crate) type Options = Vec<((i32, i32), i32)>;

/// A socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Socket {
    pub(crate) domain: i32,
    /// SOCK_STREAM and so on.
    pub(crate) kind: i32,
    pub(crate) protocol: i32,
    pub(crate) phase: Phase,
    pub(crate) local: Address,
    pub(crate) peer: Address,
    /// It was given its address by `bind`.
    pub(crate) bound: bool,
    pub(crate) input: Option<QueueId>,
    pub(crate) output: Option<QueueId>,
    /// `shutdown`, by the program.
    pub(crate) shut_read: bool,
    pub(crate) shut_write: bool,
    /// The peer has answered that nobody is there any more.
    pub(crate) reset: bool,
    /// A connect has failed.
    pub(crate) failed: bool,
    /// A connect that did not wait has not been asked about yet.
    pub(crate) connecting: bool,
    /// SO_ERROR.
    pub(crate) error: Option<Errno>,
    pub(crate) options: Options,
    /// SO_RCVTIMEO and SO_SNDTIMEO in nanoseconds; 0: for ever.
    pub(crate) receive_timeout_ns: u64,
    pub(crate) send_timeout_ns: u64,
    /// The connection from outside that it is an end of.
    pub(crate) connection: Option<ConnectionId>,
    /// What it is connected with outside the machine, or on its way to. No copy has it, and what is saved is frozen, and has lost it.
    #[serde(skip)]
    pub(crate) remote: Option<Box<Remote>>,
}

impl Clone for Socket {
    fn clone(&self) -> Self {
        self.with_options(self.options.clone())
    }
}

impl Socket {
    /// A copy with these for its options.
    pub(super) fn with_options(&self, options: Options) -> Self {
        let mut copy = Self {
            phase: self.phase.clone(),
            local: self.local.clone(),
            peer: self.peer.clone(),
            options,
            remote: None,
            ..*self
        };
        if self.remote.is_some() {
            copy.be_lost(self.stream().is_some());
        }
        copy
    }

    pub(crate) fn new(domain: i32, kind: i32, protocol: i32) -> Self {
        Self {
            domain,
            kind,
            protocol,
            phase: Phase::Idle,
            local: Address::any(domain),
            peer: Address::any(domain),
            bound: false,
            input: None,
            output: None,
            shut_read: false,
            shut_write: false,
            reset: false,
            failed: false,
            connecting: false,
            error: None,
            options: Vec::new(),
            receive_timeout_ns: 0,
            send_timeout_ns: 0,
            connection: None,
            remote: None,
        }
    }

    pub(crate) fn is_unix(&self) -> bool {
        self.domain == libc::AF_UNIX
    }

    pub(crate) fn is_datagram(&self) -> bool {
        self.kind == libc::SOCK_DGRAM
    }

    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected)
    }

    pub(crate) fn is_listening(&self) -> bool {
        matches!(self.phase, Phase::Listening(_))
    }

    pub(crate) fn option(&self, level: i32, name: i32) -> Option<i32> {
        self.options.iter().find(|(key, _)| *key == (level, name)).map(|(_, value)| *value)
    }

    pub(crate) fn set_option(&mut self, level: i32, name: i32, value: i32) {
        match self.options.iter_mut().find(|(key, _)| *key == (level, name)) {
            Some((_, slot)) => *slot = value,
            None => self.options.push(((level, name), value)),
        }
    }

    /// A socket that `accept` on this one gives.
    fn accepted(&self, local: Address, peer: Address) -> Self {
        Self {
            phase: Phase::Connected,
            local,
            peer,
            options: self.options.clone(),
            // As on Linux, timeouts too are those of who listens.
            receive_timeout_ns: self.receive_timeout_ns,
            send_timeout_ns: self.send_timeout_ns,
            ..Self::new(self.domain, self.kind, self.protocol)
        }
    }
}

impl Pollables {
    /// Connects two sockets with each other by two queues.
    pub(crate) fn join(&mut self, one: PollableId, other: PollableId, capacity: usize) {
        let (mut queues, messages) =
            ([None, None], self.socket(one).is_ok_and(|socket| socket.kind != libc::SOCK_STREAM));
        for (slot, (reader, writer)) in queues.iter_mut().zip([(one, other), (other, one)]) {
            let (reader, writer) = (End::Inside(reader), End::Inside(writer));
            let queue = if messages {
                Queue::messages(capacity, reader, writer)
            } else {
                Queue::stream(capacity, reader, writer)
            };
            *slot = Some(self.add_queue(queue));
        }
        let [to_one, to_other] = queues;
        for (id, input, output) in [(one, to_one, to_other), (other, to_other, to_one)] {
            if let Ok(socket) = self.socket_mut(id) {
                socket.phase = Phase::Connected;
                socket.input = input;
                socket.output = output;
            }
        }
    }

    /// The address for `bind`, or why it cannot be had.
    pub(crate) fn bind(&mut self, id: PollableId, address: Address) -> Result<(), Errno> {
        let socket = self.socket(id)?;
        if socket.bound || socket.is_connected() || socket.remote.is_some() {
            return Err(Errno::EINVAL);
        }
        let domain = socket.domain;
        let address = match address {
            Address::Unnamed => Address::Unix(self.free_name()),
            inet if inet.port() == Some(0) => {
                let port = self.free_port();
                inet.with_port(port)
            }
            other => other,
        };
        let socket = self.socket(id)?;
        let shares = |socket: &Socket, name| socket.option(libc::SOL_SOCKET, name).unwrap_or(0) != 0;
        let taken = self.ids().filter(|&other| other != id).filter_map(|other| self.socket(other).ok()).any(|other| {
            let only_6 = |socket: &Socket| {
                socket.domain == libc::AF_INET6
                    && socket.option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY).unwrap_or(0) != 0
            };
            let apart = other.domain != domain && (only_6(other) || only_6(socket));
            let reuse =
                shares(other, libc::SO_REUSEADDR) && shares(socket, libc::SO_REUSEADDR) && !other.is_listening();
            let both = shares(other, libc::SO_REUSEPORT) && shares(socket, libc::SO_REUSEPORT);
            other.bound
                && other.kind == socket.kind
                && !apart
                && other.local.collides(&address)
                && (domain == libc::AF_UNIX || !(reuse || both))
        });
        if taken {
            return Err(Errno::EADDRINUSE);
        }
        let socket = self.socket_mut(id)?;
        socket.local = address;
        socket.bound = true;
        Ok(())
    }

    /// A name for a Unix socket that does not care: five hexadecimal digits behind a NUL.
    fn free_name(&mut self) -> Arc<[u8]> {
        self.made = self.made.saturating_add(1);
        [b"\0".as_slice(), format!("{:05x}", self.made & 0xf_ffff).as_bytes()].concat().into()
    }

    /// Who listens at `address`, for sockets of this kind.
    pub(crate) fn listener(&self, kind: i32, address: &Address) -> Option<PollableId> {
        let to_v4 = address.of_network().is_some_and(|address| address.is_ipv4());
        let takes = |socket: &Socket| {
            socket.kind == kind && socket.local.takes(address) && !(to_v4 && socket.is_for_v6_alone())
        };
        self.listeners.iter().copied().find(|&id| self.socket(id).is_ok_and(takes))
    }

    /// Makes the socket that `listener` will accept, with `peer` for its peer's address.
    pub(crate) fn arrive(&mut self, listener: PollableId, local: Address, peer: Address) -> Result<PollableId, Errno> {
        let socket = self.socket(listener)?;
        match &socket.phase {
            Phase::Listening(backlog) if backlog.is_full() || self.is_crowded() => return Err(Errno::EAGAIN),
            Phase::Listening(_) => {}
            _ => return Err(Errno::ECONNREFUSED),
        }
        let local = if socket.local.is_any() { local } else { socket.local.clone() };
        let accepted = socket.accepted(local, peer);
        let id = self.add(Kind::Socket(Box::new(accepted)));
        if let Phase::Listening(backlog) = &mut self.socket_mut(listener)?.phase {
            backlog.waiting.push_back(id);
        }
        self.happen(listener, Event::Input);
        Ok(id)
    }

    /// Whether no more connections may wait there.
    pub(crate) fn is_full(&self, listener: PollableId) -> bool {
        if self.is_crowded() {
            return true;
        }
        self.socket(listener)
            .is_ok_and(|socket| matches!(&socket.phase, Phase::Listening(backlog) if backlog.is_full()))
    }

    /// `listen`.
    pub(crate) fn listen(&mut self, id: PollableId, most: i32) -> Result<(), Errno> {
        if !self.socket(id)?.bound {
            let socket = self.socket(id)?;
            if socket.is_unix() {
                return Err(Errno::EINVAL);
            }
            let any = Address::any(socket.domain);
            self.bind(id, any)?;
        }
        let socket = self.socket_mut(id)?;
        if socket.remote.is_some() {
            return Err(Errno::EINVAL);
        }
        match std::mem::replace(&mut socket.phase, Phase::Idle) {
            Phase::Idle => {
                socket.phase = Phase::Listening(Backlog::new(most));
                self.listeners.push(id);
                self.happen(id, Event::State);
            }
            Phase::Listening(backlog) => socket.phase = Phase::Listening(backlog.limited(most)),
            Phase::Connected => {
                socket.phase = Phase::Connected;
                return Err(Errno::EINVAL);
            }
        }
        Ok(())
    }

    /// A socket's last descriptor is closed, or it was never accepted.
    pub(super) fn close_socket(&mut self, id: PollableId, socket: &Socket) {
        if socket.remote.is_some() {
            self.hang_up(id);
        }
        if let Phase::Listening(backlog) = &socket.phase {
            self.listeners.retain(|&listener| listener != id);
            for &waiting in &backlog.waiting {
                self.close(waiting);
            }
        }
        // What it has not read tells the peer that it does not get its answer.
        let unread = socket.input.and_then(|queue| self.queue(queue)).is_some_and(|queue| !queue.is_empty());
        if let Some(output) = socket.output {
            if let (true, false, Some(End::Inside(peer))) =
                (unread, socket.is_datagram(), self.queue(output).map(|queue| queue.reader))
                && let Ok(peer) = self.socket_mut(peer)
            {
                peer.error = Some(Errno::ECONNRESET);
                peer.reset = true;
            }
            self.leave_writing(output);
        }
        if let Some(input) = socket.input {
            self.leave_reading(input);
        }
        if let Some(connection) = socket.connection {
            self.outside.left(connection);
        }
    }

    /// `shutdown`.
    pub(crate) fn shut_down(&mut self, id: PollableId, read: bool, write: bool) -> Result<(), Errno> {
        let socket = self.socket_mut(id)?;
        match socket.phase {
            Phase::Connected => {}
            // That ends listening.
            Phase::Listening(_) if !socket.is_unix() && read => {
                let Phase::Listening(backlog) = std::mem::replace(&mut socket.phase, Phase::Idle) else {
                    return Ok(());
                };
                self.listeners.retain(|&listener| listener != id);
                for waiting in backlog.waiting {
                    self.close(waiting);
                }
                self.happen(id, Event::State);
                return Ok(());
            }
            _ => return Err(Errno::ENOTCONN),
        }
        socket.shut_read |= read;
        socket.shut_write |= write;
        let (input, output, unix) = (socket.input, socket.output, socket.is_unix());
        if write && let Some(output) = output {
            self.finish(output);
        }
        if read
            && unix
            && let Some(input) = input
        {
            self.refuse(input);
        }
        self.happen(id, Event::State);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_they_were() {
        for (domain, address) in [
            (libc::AF_INET, Address::V4([127, 0, 0, 1], 8080)),
            (libc::AF_INET6, Address::V6([7; 16], 65_535)),
            (libc::AF_UNIX, Address::Unix(b"/tmp/socket\0".as_slice().into())),
            (libc::AF_UNIX, Address::Unix(b"\0abstract".as_slice().into())),
            (libc::AF_UNIX, Address::Unnamed),
        ] {
            assert_eq!(Address::decode(domain, &address.encode(domain)), Ok(address));
        }
        assert_eq!(Address::decode(libc::AF_INET, &[2, 0, 0, 0]), Err(Errno::EINVAL));
        assert_eq!(Address::decode(libc::AF_INET, &[9; 16]), Err(Errno::EAFNOSUPPORT));
        assert_eq!(Address::decode(libc::AF_UNIX, &[1; 200]), Err(Errno::EINVAL));
    }

    #[test]
    fn what_listens_on_all_addresses_takes_each() {
        let to = Address::V4([127, 0, 0, 1], 80);
        assert!(Address::any(libc::AF_INET).with_port(80).takes(&to));
        assert!(Address::any(libc::AF_INET6).with_port(80).takes(&to));
        assert!(!Address::V4([127, 0, 0, 2], 80).takes(&to));
        assert!(!Address::V4([127, 0, 0, 1], 81).takes(&to));
    }
}
