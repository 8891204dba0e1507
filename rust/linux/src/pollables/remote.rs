// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets that are connected with something outside the machine: the host's sockets behind them.
//!
//! ```text
//!   connect ──> resolving ──> connecting ──────────> open         what happens to those with a descriptor is told by the wire
//!                   │           │  ^   └─> (next address)
//!                   └───────────┴──┴──> failed: SO_ERROR
//! ```
//!
//! A remote is the one thing in a process that cannot be copied and not be restored: it goes with its socket, a reset drops what a
//! request has made, and what there is at the freeze is lost to all forks ([`Socket::lose`]): they find it reset by the peer.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::socket::{Phase, Socket};
use super::{Event, Look, PollableId, Pollables, bits};
use crate::clock;
use crate::errno::Errno;
use crate::mounts::Permit;
use crate::net::{Stream, Wire};
use crate::outbound::Target;
use crate::process::Process;
use crate::resolver::{Answer, Name};

/// How often a name is asked for that is being resolved.
const RESOLVING_NS: u64 = 5_000_000;
/// How long that may take.
const PATIENCE_NS: u64 = 10_000_000_000;
/// Looks at the wire in a row: there are no more connections than descriptors.
const LOOKS_MAX: usize = 32;

/// What is behind a socket outside the machine.
#[derive(Debug)]
pub(crate) struct Remote {
    stage: Stage,
    /// Addresses that have not been tried, the next one last.
    left: Vec<SocketAddr>,
    no_delay: bool,
    keep_alive: bool,
    _permit: Permit,
}

#[derive(Debug)]
enum Stage {
    Resolving {
        name: Arc<Name>,
        port: u16,
        until_ns: u64,
    },
    Connecting(Stream),
    Open(Stream),
    /// The last attempt, if there was one.
    Failed(Errno),
}

impl Remote {
    fn new(target: Target, permit: Permit) -> Self {
        let (stage, left) = match target {
            Target::Address(to) => (Stage::Failed(Errno::EHOSTUNREACH), vec![to]),
            Target::Name(name, port) => {
                let until_ns = clock::now_ns().saturating_add(PATIENCE_NS);
                (Stage::Resolving { name, port, until_ns }, Vec::new())
            }
        };
        Self { stage, left, no_delay: false, keep_alive: false, _permit: permit }
    }

    /// The connection, once there is one.
    pub(crate) fn open(&self) -> Option<&Stream> {
        match &self.stage {
            Stage::Open(stream) => Some(stream),
            _ => None,
        }
    }

    fn is_resolving(&self) -> bool {
        matches!(self.stage, Stage::Resolving { .. })
    }

    /// When to look at it again though nothing tells of it.
    pub(crate) fn look_ns(&self, now_ns: u64) -> Option<u64> {
        self.is_resolving().then(|| now_ns.saturating_add(RESOLVING_NS))
    }

    pub(crate) fn set_options(&mut self, no_delay: bool, keep_alive: bool) {
        (self.no_delay, self.keep_alive) = (no_delay, keep_alive);
        if let Stage::Open(stream) = &self.stage {
            stream.set_options(no_delay, keep_alive);
        }
    }

    /// Goes on with connecting, as far as that is possible now; `None`: not to an end.
    fn advance(&mut self, wire: &Wire, token: u64) -> Option<Result<(), Errno>> {
        // Each round but the first tries an address.
        loop {
            let next = match &self.stage {
                Stage::Open(_) => return Some(Ok(())),
                Stage::Resolving { name, port, until_ns } => match name.resolve() {
                    Answer::Addresses(list) => {
                        self.left = list.into_iter().rev().map(|ip| SocketAddr::new(ip, *port)).collect();
                        Stage::Failed(Errno::EHOSTUNREACH)
                    }
                    Answer::Pending if clock::now_ns() < *until_ns => return None,
                    Answer::Pending | Answer::Nothing => return Some(Err(Errno::EHOSTUNREACH)),
                },
                Stage::Connecting(stream) => match stream.connected() {
                    None => return None,
                    Some(Err(error)) => Stage::Failed(error),
                    Some(Ok(())) => {
                        stream.set_options(self.no_delay, self.keep_alive);
                        let failed = Stage::Failed(Errno::EIO);
                        match std::mem::replace(&mut self.stage, failed) {
                            Stage::Connecting(stream) => Stage::Open(stream),
                            other => other,
                        }
                    }
                },
                Stage::Failed(error) => match self.left.pop() {
                    None => return Some(Err(*error)),
                    Some(to) => match Stream::connect(to).and_then(|new| wire.watch(&new, token).map(|()| new)) {
                        Ok(stream) => Stage::Connecting(stream),
                        Err(error) => Stage::Failed(error),
                    },
                },
            };
            self.stage = next;
        }
    }
}

/// The wire, and who waits for it to connect. A copy of it is one of a process that has no connections.
#[derive(Debug, Default)]
pub(crate) struct Remotes {
    wire: Option<(Wire, Permit)>,
    /// Sockets that are not connected yet.
    dialing: Vec<PollableId>,
}

impl Clone for Remotes {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Socket {
    /// What was outside is there no more: to the program it looks as if the peer had reset the connection.
    pub(super) fn lose(&mut self) {
        let was_open = self.stream().is_some();
        if self.remote.take().is_some() {
            self.be_lost(was_open);
        }
    }

    /// As [`Socket::lose`], without having had it.
    pub(super) fn be_lost(&mut self, was_open: bool) {
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

    /// Has options that matter outside set there.
    pub(crate) fn tell_remote(&mut self) {
        let is_set = |level, name| self.option(level, name).unwrap_or(0) != 0;
        let no_delay = is_set(libc::IPPROTO_TCP, libc::TCP_NODELAY);
        let keep_alive = is_set(libc::SOL_SOCKET, libc::SO_KEEPALIVE);
        if let Some(remote) = &mut self.remote {
            remote.set_options(no_delay, keep_alive);
        }
    }

    /// Whether it is on its way to somewhere outside.
    pub(crate) fn is_dialing(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.open().is_none())
    }

    /// Its connection with somewhere outside.
    pub(crate) fn stream(&self) -> Option<&Stream> {
        self.remote.as_ref().and_then(|remote| remote.open())
    }
}

impl Pollables {
    /// Begins to connect a socket with somewhere outside. Leave to open descriptors of the host's is given by `permit`.
    pub(crate) fn dial(
        &mut self,
        id: PollableId,
        target: Target,
        permit: impl Fn() -> Result<Permit, Errno>,
    ) -> Result<(), Errno> {
        if self.remotes.wire.is_none() {
            self.remotes.wire = Some((Wire::new()?, permit()?));
        }
        let permit = permit()?;
        let socket = self.socket_mut(id)?;
        socket.failed = false;
        socket.remote = Some(Box::new(Remote::new(target, permit)));
        socket.tell_remote();
        self.remotes.dialing.push(id);
        self.advance(id);
        Ok(())
    }

    /// Goes on with a connect.
    fn advance(&mut self, id: PollableId) {
        let Self { nodes, remotes, .. } = self;
        let PollableId(index) = id;
        let node = nodes.get_mut(index).and_then(Option::as_mut).map(|node| &mut node.kind);
        let (Some(super::Kind::Socket(socket)), Some((wire, _))) = (node, &remotes.wire) else { return };
        let Some(remote) = &mut socket.remote else { return };
        let Some(result) = remote.advance(wire, index as u64) else { return };
        // The next connect is told how this one ended.
        socket.connecting = true;
        match result {
            Ok(()) => {
                socket.phase = Phase::Connected;
            }
            Err(error) => {
                socket.remote = None;
                socket.failed = true;
                socket.error = Some(error);
            }
        }
        remotes.dialing.retain(|&dialing| dialing != id);
        self.happen(id, Event::State);
    }

    /// A socket is closed.
    pub(super) fn hang_up(&mut self, id: PollableId) {
        self.remotes.dialing.retain(|&dialing| dialing != id);
    }

    /// Loses all connections with what is outside.
    pub(crate) fn cut_off(&mut self) {
        let remote = |id: &PollableId| self.socket(*id).is_ok_and(|socket| socket.remote.is_some());
        let all: Vec<PollableId> = self.ids().filter(remote).collect();
        for id in all {
            if let Ok(socket) = self.socket_mut(id) {
                socket.lose();
            }
            self.happen(id, Event::State);
        }
        self.remotes = Remotes::default();
    }

    /// Whether there may be news from outside. Costs no system call.
    pub(crate) fn is_wired(&self) -> bool {
        self.remotes.wire.is_some()
    }

    /// Counts what has happened outside.
    fn hear(&mut self, mut events: Vec<(u64, u32)>) {
        for id in self.remotes.dialing.clone() {
            self.advance(id);
        }
        for _ in 0..LOOKS_MAX {
            for &(token, what) in &events {
                let id = PollableId(usize::try_from(token).unwrap_or(usize::MAX));
                if what & bits::IN != 0 {
                    self.happen(id, Event::Input);
                }
                if what & bits::OUT != 0 {
                    self.happen(id, Event::Output);
                }
                if what & (bits::RDHUP | bits::HUP | bits::ERR) != 0 {
                    self.happen(id, Event::State);
                }
            }
            let found = events.len();
            events = match &self.remotes.wire {
                Some((wire, _)) if !Wire::is_exhausted(found) => wire.look(),
                _ => break,
            };
        }
    }

    /// When a socket is to be looked at again by itself.
    pub(super) fn remote_look_ns(&self, socket: &Socket, look: &mut Look) -> Option<u64> {
        socket.remote.as_ref().filter(|remote| remote.is_resolving())?.look_ns(look.now_ns())
    }
}

impl Process {
    /// Takes notice of what has happened to connections with the outside since this was last asked. Processes without one do nothing.
    pub(crate) fn listen_outside(&mut self) {
        if !self.pollables.is_wired() {
            return;
        }
        let events = match &self.pollables.remotes.wire {
            Some((wire, _)) => wire.look(),
            None => Vec::new(),
        };
        if events.is_empty() && self.pollables.remotes.dialing.is_empty() {
            return;
        }
        let before = self.pollables.remotes.dialing.len();
        self.pollables.edit().hear(events.clone());
        if !events.is_empty() || before != self.pollables.remotes.dialing.len() {
            self.note_change();
        }
    }

    /// What becomes readable when something has happened to a connection with the outside; `None`: there are none. It is so until
    /// [`Process::wake`], or whatever else lets the program go on.
    #[must_use]
    pub fn outside(&self) -> Option<BorrowedFd<'_>> {
        let (wire, _) = self.pollables.remotes.wire.as_ref()?;
        let has_remote = |id| self.pollables.socket(id).is_ok_and(|socket| socket.remote.is_some());
        self.pollables.ids().any(has_remote).then(|| wire.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{IpAddr, TcpListener};

    use super::super::Kind;
    use super::*;
    use crate::mounts::Mounts;

    /// A socket that has begun to connect with port `port` of a name with these addresses.
    fn dialed(addresses: &[&str], port: u16) -> (Pollables, PollableId) {
        let name = Name::new("somewhere.invalid");
        name.learn(addresses.iter().map(|address| address.parse::<IpAddr>().unwrap()).collect());
        let mut pollables = Pollables::default();
        let socket = Socket::new(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP);
        let id = pollables.add(Kind::Socket(Box::new(socket)));
        pollables.dial(id, Target::Name(name, port), || Mounts::default().permit()).unwrap();
        let end = clock::now_ns() + 10_000_000_000;
        while pollables.socket(id).unwrap().is_dialing() && clock::now_ns() < end {
            pollables.hear(Vec::new());
        }
        (pollables, id)
    }

    #[test]
    fn a_names_addresses_are_tried_in_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // Nobody listens at the first ones.
        let (pollables, id) = dialed(&["127.0.0.2", "127.0.0.3", "127.0.0.1"], port);
        let stream = pollables.socket(id).unwrap().stream().unwrap();
        assert_eq!(stream.send(b"hello"), Ok(5));
        let (mut peer, _) = listener.accept().unwrap();
        drop(pollables);
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn the_last_addresss_error_is_told() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (pollables, id) = dialed(&["127.0.0.2", "127.0.0.1"], port);
        let socket = pollables.socket(id).unwrap();
        assert!(socket.remote.is_none() && socket.failed);
        assert_eq!(socket.error, Some(Errno::ECONNREFUSED));
    }

    #[test]
    fn a_copy_of_a_connection_has_lost_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (pollables, id) = dialed(&["127.0.0.1"], listener.local_addr().unwrap().port());
        let copy = pollables.clone();
        let socket = copy.socket(id).unwrap();
        assert!(socket.stream().is_none() && socket.reset && !copy.is_wired());
        assert_eq!(socket.error, Some(Errno::ECONNRESET));
        let all = bits::READ | bits::WRITE | bits::RDHUP | bits::HUP | bits::ERR;
        assert_eq!(copy.readiness(id, &mut Look::new()), all);
        assert!(pollables.socket(id).unwrap().stream().is_some(), "which has it still");
    }
}
