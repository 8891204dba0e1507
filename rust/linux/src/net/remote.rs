// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections to remote hosts.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::clock;
use crate::base::errno::Errno;
use crate::base::ids::PollableId;
use crate::host::dns::{Answer, Name};
use crate::host::permits::Permit;
use crate::host::sockets::{HostStream, RemotePoller};
use crate::net::allow_list::Destination;

/// Interval between checks of a name that is being resolved.
const RESOLVING_NS: u64 = 5_000_000;

/// How long resolving may take.
const PATIENCE_NS: u64 = 10_000_000_000;

/// The host's side of a socket that is connected with a remote host.
#[derive(Debug)]
pub(crate) struct Remote {
    stage: Stage,
    /// Addresses left to try, the next one last.
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
    Connecting(HostStream),
    Open(HostStream),
    /// No attempt is in progress. The error of the last one, unless there are addresses left.
    Failed(Errno),
}

impl Remote {
    pub(crate) fn new(target: Destination, permit: Permit) -> Self {
        let (stage, left) = match target {
            Destination::Address(to) => (Stage::Failed(Errno::EHOSTUNREACH), vec![to]),
            Destination::Name(name, port) => {
                let until_ns = clock::now_ns().saturating_add(PATIENCE_NS);
                (Stage::Resolving { name, port, until_ns }, Vec::new())
            }
        };
        Self { stage, left, no_delay: false, keep_alive: false, _permit: permit }
    }

    /// The connection, once it is open.
    pub(crate) fn open(&self) -> Option<&HostStream> {
        match &self.stage {
            Stage::Open(stream) => Some(stream),
            _ => None,
        }
    }

    pub(crate) fn is_resolving(&self) -> bool {
        matches!(self.stage, Stage::Resolving { .. })
    }

    /// When to check it again: nothing signals the end of resolving.
    pub(crate) fn look_ns(&self, now_ns: u64) -> Option<u64> {
        self.is_resolving().then(|| now_ns.saturating_add(RESOLVING_NS))
    }

    pub(crate) fn set_options(&mut self, no_delay: bool, keep_alive: bool) {
        (self.no_delay, self.keep_alive) = (no_delay, keep_alive);
        if let Stage::Open(stream) = &self.stage {
            stream.set_options(no_delay, keep_alive);
        }
    }

    /// Continues to connect as far as possible; `None`: not finished yet.
    pub(crate) fn advance(&mut self, poller: &RemotePoller, token: u64) -> Option<Result<(), Errno>> {
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
                    Some(to) => match HostStream::connect(to).and_then(|new| poller.watch(&new, token).map(|()| new)) {
                        Ok(stream) => Stage::Connecting(stream),
                        Err(error) => Stage::Failed(error),
                    },
                },
            };
            self.stage = next;
        }
    }
}

/// The poller, and the sockets that are connecting. A copy is that of a process without connections.
#[derive(Debug, Default)]
pub(crate) struct Remotes {
    pub(crate) poller: Option<(RemotePoller, Permit)>,
    /// Sockets whose connect is not finished.
    pub(crate) dialing: Vec<PollableId>,
}

impl Clone for Remotes {
    fn clone(&self) -> Self {
        Self::default()
    }
}
