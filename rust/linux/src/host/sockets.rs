// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's sockets: the only place where the personality makes system calls on them.
//!
//! # Invariants
//!
//! * No call here waits: sockets are non-blocking, and `poll` and `epoll_wait` have no timeout.
//! * The caller has found the address in the program's list: [`crate::net::allow_list::Network`].
//! * Nothing is buffered here: bytes lie in the host kernel's buffers, whose sizes are the host's.
//! * Descriptors are closed on exec, and counted by a [`crate::host::permits::Permit`] that their owner holds.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, sockopt};

use crate::base::errno::Errno;

/// Most events of one `epoll_wait`.
const EVENTS: usize = 64;
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// A TCP connection, open or being opened.
#[derive(Debug)]
pub(crate) struct HostStream(OwnedFd);

impl HostStream {
    /// Begins to connect; [`HostStream::connected`] reports the result.
    pub(crate) fn connect(to: SocketAddr) -> Result<Self, Errno> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None).map_err(guest_errno)?;
        match rustix::net::connect(&fd, &to) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS | rustix::io::Errno::INTR) => Ok(Self(fd)),
            Err(error) => Err(guest_errno(error)),
        }
    }

    /// The result of a connect; `None`: not finished yet.
    pub(crate) fn connected(&self) -> Option<Result<(), Errno>> {
        let ready = self.readiness();
        if ready & u32::from(PollFlags::OUT.bits() | PollFlags::ERR.bits() | PollFlags::HUP.bits()) == 0 {
            return None;
        }
        Some(match self.take_error() {
            Some(error) => Err(error),
            None if ready & u32::from(PollFlags::OUT.bits()) != 0 => Ok(()),
            None => Err(Errno::ECONNREFUSED),
        })
    }

    /// Its readiness in the bits of `poll`.
    pub(crate) fn readiness(&self) -> u32 {
        const ASKED: PollFlags = PollFlags::IN
            .union(PollFlags::OUT)
            .union(PollFlags::RDNORM)
            .union(PollFlags::WRNORM)
            .union(PollFlags::RDHUP);
        const TOLD: PollFlags = ASKED.union(PollFlags::ERR).union(PollFlags::HUP);
        let mut polled = [PollFd::new(&self.0, ASKED)];
        match rustix::event::poll(&mut polled, Some(&NOW)) {
            Ok(_) => polled.first().map_or(0, |polled| u32::from(polled.revents().intersection(TOLD).bits())),
            Err(_) => 0,
        }
    }

    /// Receives bytes, or peeks at them. 0 means the end.
    pub(crate) fn receive(&self, out: &mut [u8], peek: bool) -> Result<usize, Errno> {
        let flags = RecvFlags::DONTWAIT | if peek { RecvFlags::PEEK } else { RecvFlags::empty() };
        loop {
            match rustix::net::recv(&self.0, &mut *out, flags) {
                Ok((got, _)) => return Ok(got),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(guest_errno(error)),
            }
        }
    }

    /// Sends as many bytes as the socket accepts: at least one, or an error.
    pub(crate) fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        loop {
            match rustix::net::send(&self.0, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => return Ok(sent),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(guest_errno(error)),
            }
        }
    }

    pub(crate) fn shut_down(&self, read: bool, write: bool) -> Result<(), Errno> {
        let how = match (read, write) {
            (true, true) => Shutdown::Both,
            (true, false) => Shutdown::Read,
            _ => Shutdown::Write,
        };
        rustix::net::shutdown(&self.0, how).map_err(guest_errno)
    }

    /// SO_ERROR, once.
    pub(crate) fn take_error(&self) -> Option<Errno> {
        sockopt::socket_error(&self.0).and_then(|error| error).err().map(guest_errno)
    }

    /// FIONREAD.
    pub(crate) fn readable_bytes(&self) -> Result<u64, Errno> {
        rustix::io::ioctl_fionread(&self.0).map_err(guest_errno)
    }

    /// TCP_NODELAY and SO_KEEPALIVE. The connection is usable without them, so errors are ignored.
    pub(crate) fn set_options(&self, no_delay: bool, keep_alive: bool) {
        let _ = sockopt::set_tcp_nodelay(&self.0, no_delay);
        let _ = sockopt::set_socket_keepalive(&self.0, keep_alive);
    }
}

/// An epoll over all of a process's remote connections, so that one descriptor wakes the process. It is edge-triggered:
/// each event is reported once.
#[derive(Debug)]
pub(crate) struct RemotePoller(OwnedFd);

impl RemotePoller {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC).map_err(guest_errno)?))
    }

    /// Watches a connection until it is closed.
    pub(crate) fn watch(&self, stream: &HostStream, token: u64) -> Result<(), Errno> {
        let all = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.0, &stream.0, EventData::new_u64(token), all).map_err(guest_errno)
    }

    /// The events since the last look: the token of the connection, and its readiness in the bits of `poll`. There may
    /// be more events if this returns as many as fit: see [`RemotePoller::is_exhausted`].
    pub(crate) fn look(&self) -> Vec<(u64, u32)> {
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS];
        let count = epoll::wait(&self.0, &mut events[..], Some(&NOW)).unwrap_or(0);
        // The fields are packed: copied, not borrowed.
        events.iter().take(count).map(|event| ({ event.data }.u64(), { event.flags }.bits())).collect()
    }

    /// Whether a look that returned `found` events has returned all.
    pub(crate) fn is_exhausted(found: usize) -> bool {
        found < EVENTS
    }
}

impl AsFd for RemotePoller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The guest's error number for one of the host's.
fn guest_errno(error: rustix::io::Errno) -> Errno {
    use rustix::io::Errno as Host;
    match error {
        Host::AGAIN => Errno::EAGAIN,
        Host::CONNREFUSED => Errno::ECONNREFUSED,
        Host::CONNRESET => Errno::ECONNRESET,
        Host::CONNABORTED => Errno::ECONNABORTED,
        Host::PIPE => Errno::EPIPE,
        Host::TIMEDOUT => Errno::ETIMEDOUT,
        Host::NOTCONN => Errno::ENOTCONN,
        Host::NETUNREACH | Host::NETDOWN | Host::AFNOSUPPORT => Errno::ENETUNREACH,
        Host::HOSTUNREACH | Host::HOSTDOWN => Errno::EHOSTUNREACH,
        Host::ACCESS | Host::PERM => Errno::EACCES,
        Host::ADDRNOTAVAIL => Errno::EADDRNOTAVAIL,
        Host::MFILE | Host::NFILE => Errno::ENFILE,
        Host::NOMEM | Host::NOBUFS => Errno::ENOBUFS,
        _ => Errno::EIO,
    }
}
