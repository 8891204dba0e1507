// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets that are connected with remote hosts: the host's sockets behind them.
//!
//! ```text
//!   connect ──> resolving ──> connecting ──────────> open         the poller reports events of those with a descriptor
//!                   │           │  ^   └─> (next address)
//!                   └───────────┴──┴──> failed: SO_ERROR
//! ```
//!
//! A remote is the only part of a process that can be neither copied nor restored. It is closed with its socket, and a
//! reset closes those that a request has opened. Those that exist at the freeze are lost to all forks
//! ([`Socket::reset_by_peer`]), which find them reset by the peer.

use crate::base::errno::Errno;
use crate::base::ids::PollableId;
use crate::event::events::Event;
use crate::event::look::Look;
use crate::event::poll_bits::bits;
use crate::host::permits::Permit;
use crate::host::sockets::RemotePoller;
use crate::net::allow_list::Destination;
use crate::net::remote::{Remote, Remotes};
use crate::net::socket::{Phase, Socket};
use crate::pollables::table::Pollables;

/// Most polls in a row: there are no more connections than descriptors.
const LOOKS_MAX: usize = 32;

impl Pollables {
    /// Begins to connect a socket with a remote host. `permit` grants descriptors of the host's.
    pub(crate) fn dial(
        &mut self,
        id: PollableId,
        target: Destination,
        permit: impl Fn() -> Result<Permit, Errno>,
    ) -> Result<(), Errno> {
        if self.remotes.poller.is_none() {
            self.remotes.poller = Some((RemotePoller::new()?, permit()?));
        }
        let permit = permit()?;
        let socket = self.socket_mut(id)?;
        socket.failed = false;
        socket.remote = Some(Box::new(Remote::new(target, permit)));
        socket.apply_options();
        self.remotes.dialing.push(id);
        self.advance(id);
        Ok(())
    }

    /// Continues a connect.
    fn advance(&mut self, id: PollableId) {
        let Self { list, remotes, .. } = self;
        let PollableId(index) = id;
        let pollable = list.get_mut(index).and_then(Option::as_mut).map(|pollable| &mut pollable.kind);
        let (Some(crate::pollables::table::PollableKind::Socket(socket)), Some((poller, _))) =
            (pollable, &remotes.poller)
        else {
            return;
        };
        let Some(remote) = &mut socket.remote else { return };
        let Some(result) = remote.advance(poller, index as u64) else { return };
        // The program's next `connect` returns the result.
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
        self.record_event(id, Event::State);
    }

    /// A socket is closed.
    pub(crate) fn hang_up(&mut self, id: PollableId) {
        self.remotes.dialing.retain(|&dialing| dialing != id);
    }

    /// Drops all remote connections.
    pub(crate) fn drop_remotes(&mut self) {
        let remote = |id: &PollableId| self.socket(*id).is_ok_and(|socket| socket.remote.is_some());
        let all: Vec<PollableId> = self.ids().filter(remote).collect();
        for id in all {
            if let Ok(socket) = self.socket_mut(id) {
                socket.reset_by_peer();
            }
            self.record_event(id, Event::State);
        }
        self.remotes = Remotes::default();
    }

    /// Whether there may be remote events. Costs no system call.
    pub(crate) fn has_poller(&self) -> bool {
        self.remotes.poller.is_some()
    }

    /// Continues connects, and counts events.
    pub(crate) fn note_remote_events(&mut self, mut events: Vec<(u64, u32)>) {
        for id in self.remotes.dialing.clone() {
            self.advance(id);
        }
        for _ in 0..LOOKS_MAX {
            for &(token, what) in &events {
                let id = PollableId(usize::try_from(token).unwrap_or(usize::MAX));
                if what & bits::IN != 0 {
                    self.record_event(id, Event::Input);
                }
                if what & bits::OUT != 0 {
                    self.record_event(id, Event::Output);
                }
                if what & (bits::RDHUP | bits::HUP | bits::ERR) != 0 {
                    self.record_event(id, Event::State);
                }
            }
            let found = events.len();
            events = match &self.remotes.poller {
                Some((poller, _)) if !RemotePoller::is_exhausted(found) => poller.look(),
                _ => break,
            };
        }
    }

    /// When to check a socket again without an event.
    pub(crate) fn remote_look_ns(&self, socket: &Socket, look: &mut Look) -> Option<u64> {
        socket.remote.as_ref().filter(|remote| remote.is_resolving())?.look_ns(look.now_ns())
    }
}

#[cfg(test)]
mod tests {
    use crate::base::clock;
    use crate::host::dns::Name;
    use std::io::Read;
    use std::net::{IpAddr, TcpListener};

    use super::*;
    use crate::fs::mounts::Mounts;
    use crate::pollables::table::PollableKind;

    /// A socket that has connected, or failed to, with port `port` of a name with these addresses.
    fn dialed(addresses: &[&str], port: u16) -> (Pollables, PollableId) {
        let name = Name::new("somewhere.invalid");
        name.set_addresses(addresses.iter().map(|address| address.parse::<IpAddr>().unwrap()).collect());
        let mut pollables = Pollables::default();
        let socket = Socket::new(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP);
        let id = pollables.add(PollableKind::Socket(Box::new(socket)));
        pollables.dial(id, Destination::Name(name, port), || Mounts::default().permit()).unwrap();
        let end = clock::now_ns() + 10_000_000_000;
        while pollables.socket(id).unwrap().is_dialing() && clock::now_ns() < end {
            pollables.note_remote_events(Vec::new());
        }
        (pollables, id)
    }

    #[test]
    fn a_names_addresses_are_tried_in_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // The first two addresses have no listener.
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
    fn the_error_of_the_last_address_is_returned() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (pollables, id) = dialed(&["127.0.0.2", "127.0.0.1"], port);
        let socket = pollables.socket(id).unwrap();
        assert!(socket.remote.is_none() && socket.failed);
        assert_eq!(socket.error, Some(Errno::ECONNREFUSED));
    }

    #[test]
    fn a_copy_has_lost_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (pollables, id) = dialed(&["127.0.0.1"], listener.local_addr().unwrap().port());
        let copy = pollables.clone();
        let socket = copy.socket(id).unwrap();
        assert!(socket.stream().is_none() && socket.reset && !copy.has_poller());
        assert_eq!(socket.error, Some(Errno::ECONNRESET));
        let all = bits::READ | bits::WRITE | bits::RDHUP | bits::HUP | bits::ERR;
        assert_eq!(copy.readiness(id, &mut Look::new()), all);
        assert!(pollables.socket(id).unwrap().stream().is_some(), "the original still has it");
    }
}
