// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::base::errno::Errno;
use crate::base::ids::{ConnectionId, PollableId, QueueId};
use crate::host::sockets::HostStream;
use crate::net::address::Address;
use crate::net::remote::Remote;

/// Most bytes in each direction of a connection inside the program; about Linux's limit for a Unix socket.
pub(crate) const CONNECTION_BYTES: usize = 256 << 10;

/// Key of the second word of SO_LINGER's value.
pub(crate) const LINGER_SECONDS: i32 = -1;

/// Largest backlog: `net.core.somaxconn`.
const BACKLOG_MAX: usize = 4096;

/// Connections that wait to be accepted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Backlog {
    pub(crate) waiting: VecDeque<PollableId>,
    most: usize,
}

impl Backlog {
    /// The backlog for this argument of `listen`.
    pub(crate) fn new(most: i32) -> Self {
        Self { waiting: VecDeque::new(), most: 0 }.limited(most)
    }

    /// Linux lets one more connection wait than the argument says, and treats negative ones as very large.
    pub(crate) fn limited(self, most: i32) -> Self {
        Self { most: usize::try_from(most).unwrap_or(BACKLOG_MAX).min(BACKLOG_MAX).saturating_add(1), ..self }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= self.most
    }
}

/// State of a socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Phase {
    Idle,
    Listening(Backlog),
    Connected,
}

/// Options that a program has set: levels, names and values.
pub(crate) type Options = Vec<((i32, i32), i32)>;

/// A socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Socket {
    pub(crate) domain: i32,
    /// SOCK_STREAM and the like.
    pub(crate) kind: i32,
    pub(crate) protocol: i32,
    pub(crate) phase: Phase,
    pub(crate) local: Address,
    pub(crate) peer: Address,
    /// `bind` has set its address.
    pub(crate) bound: bool,
    /// The host part of its address comes from `connect`.
    pub(crate) local_by_connect: bool,
    /// The inode number of the file that `bind` has made, of a Unix socket.
    pub(crate) node: Option<u64>,
    pub(crate) input: Option<QueueId>,
    pub(crate) output: Option<QueueId>,
    /// The program has called `shutdown`.
    pub(crate) shut_read: bool,
    pub(crate) shut_write: bool,
    /// The peer has sent a reset.
    pub(crate) reset: bool,
    /// A connect has failed.
    pub(crate) failed: bool,
    /// The result of a non-blocking connect has not been read yet.
    pub(crate) connecting: bool,
    /// That it may send no datagrams outside is in the log.
    pub(crate) was_refused: bool,
    /// SO_ERROR.
    pub(crate) error: Option<Errno>,
    pub(crate) options: Options,
    /// SO_RCVTIMEO and SO_SNDTIMEO in nanoseconds; 0: none.
    pub(crate) receive_timeout_ns: u64,
    pub(crate) send_timeout_ns: u64,
    /// The connection from outside of which it is the program's end.
    pub(crate) connection: Option<ConnectionId>,
    /// Its remote connection, open or being opened. Copies have none. Only frozen processes are saved, which have lost
    /// theirs.
    #[serde(skip)]
    pub(crate) remote: Option<Box<Remote>>,
}

impl Clone for Socket {
    fn clone(&self) -> Self {
        self.with_options(self.options.clone())
    }
}

impl Socket {
    /// A copy with other options.
    pub(crate) fn with_options(&self, options: Options) -> Self {
        let mut copy = Self {
            phase: self.phase.clone(),
            local: self.local.clone(),
            peer: self.peer.clone(),
            options,
            remote: None,
            ..*self
        };
        if self.remote.is_some() {
            copy.mark_reset(self.stream().is_some());
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
            local_by_connect: false,
            node: None,
            input: None,
            output: None,
            shut_read: false,
            shut_write: false,
            reset: false,
            failed: false,
            connecting: false,
            was_refused: false,
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

    /// Whether it is a socket of IPv4 or IPv6.
    pub(crate) fn is_inet(&self) -> bool {
        matches!(self.domain, libc::AF_INET | libc::AF_INET6)
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

    /// SO_LINGER is on, with a time of 0.
    pub(crate) fn resets_when_closed(&self) -> bool {
        let option = |name| self.option(libc::SOL_SOCKET, name).unwrap_or(0);
        self.kind == libc::SOCK_STREAM && !self.is_unix() && option(libc::SO_LINGER) != 0 && option(LINGER_SECONDS) == 0
    }

    pub(crate) fn set_option(&mut self, level: i32, name: i32, value: i32) {
        match self.options.iter_mut().find(|(key, _)| *key == (level, name)) {
            Some((_, slot)) => *slot = value,
            None => self.options.push(((level, name), value)),
        }
    }

    /// The socket that `accept` on this one returns.
    pub(crate) fn accepted(&self, local: Address, peer: Address) -> Self {
        Self {
            phase: Phase::Connected,
            local,
            peer,
            options: self.options.clone(),
            // As on Linux, timeouts are inherited from the listener.
            receive_timeout_ns: self.receive_timeout_ns,
            send_timeout_ns: self.send_timeout_ns,
            ..Self::new(self.domain, self.kind, self.protocol)
        }
    }
}

impl Socket {
    /// Drops the remote connection: to the program it looks as if the peer had reset it.
    pub(crate) fn reset_by_peer(&mut self) {
        let was_open = self.stream().is_some();
        if self.remote.take().is_some() {
            self.mark_reset(was_open);
        }
    }

    /// As [`Socket::reset_by_peer`], for a copy that has no remote connection.
    pub(crate) fn mark_reset(&mut self, was_open: bool) {
        self.error = Some(Errno::ECONNRESET);
        if was_open {
            self.phase = Phase::Connected;
            self.reset = true;
            self.shut_read = true;
            self.shut_write = true;
        } else {
            self.failed = true;
        }
    }

    /// Applies options with a remote effect to the host's socket.
    pub(crate) fn apply_options(&mut self) {
        let is_set = |level, name| self.option(level, name).unwrap_or(0) != 0;
        let no_delay = is_set(libc::IPPROTO_TCP, libc::TCP_NODELAY);
        let keep_alive = is_set(libc::SOL_SOCKET, libc::SO_KEEPALIVE);
        if let Some(remote) = &mut self.remote {
            remote.set_options(no_delay, keep_alive);
        }
    }

    /// Whether it is connecting to a remote host.
    pub(crate) fn is_dialing(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.open().is_none())
    }

    /// Its open connection to a remote host.
    pub(crate) fn stream(&self) -> Option<&HostStream> {
        self.remote.as_ref().and_then(|remote| remote.open())
    }
}
