// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pollables: pipes, sockets, event counters, timers, and the epolls that watch them.
//!
//! ```text
//!   open file --> pollable --+--> queue <--+-- pollable <-- open file          a pipe: one queue
//!                            +--> queue <--+                                   a connection: one each way
//!                 pollable ------> queue <------ outside                       of a connection from outside
//! ```
//!
//! A pollable belongs to one open file and is closed with it; a connection that was not accepted yet has none. All of
//! it is plain state of one process: a reset copies the snapshot's back.
//!
//! # Events
//!
//! Readiness is computed when it is needed. For edge-triggered watchers, each pollable also counts its events: see
//! [`Events`].

use serde::{Deserialize, Serialize};

use crate::base::errno::Errno;
use crate::base::ids::{OpenId, PollableId, QueueId};
use crate::event::epoll_set::{Epoll, WatchTarget};
use crate::event::events::{Counter, Event, Events, Inotify};
use crate::event::fifo::{Access, Opener};
use crate::event::look::Look;
use crate::event::queue::{End, Queue};
use crate::event::timer::Timer;
use crate::host::attributes::Attributes;
use crate::net::allow_list::Network;
use crate::net::inbound::InboundConnections;
use crate::net::remote::Remotes;
use crate::net::socket::Socket;
use crate::signal::signals::SignalSet;

/// Most pollables. The limit on descriptors bounds the open ones; the others wait to be accepted.
pub(crate) const POLLABLES_MAX: usize = 4096;
/// First of the inode numbers, for `fstat` and `/proc/self/fd`.
const FIRST_NUMBER: u64 = 20_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum PollableKind {
    PipeReader(QueueId),
    PipeWriter(QueueId),
    /// Both ends of a FIFO.
    PipeBoth(QueueId),
    Counter(Counter),
    Timer(Timer),
    Epoll(Epoll),
    Socket(Box<Socket>),
    /// `signalfd`: the signals that it reads.
    Signals(SignalSet),
    Inotify(Box<Inotify>),
    /// `pidfd_open` of the process itself.
    Process,
}

/// A file that can be waited for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pollable {
    pub(crate) kind: PollableKind,
    pub(crate) events: Events,
    /// Its inode number, for `fstat`.
    pub(crate) number: u64,
    /// The epolls that watch it, each with the number of its registrations.
    pub(crate) watchers: Vec<(PollableId, usize)>,
}

impl Clone for Pollable {
    fn clone(&self) -> Self {
        Self { kind: self.kind.clone(), watchers: self.watchers.clone(), ..*self }
    }

    /// Reuses allocations: a reset does this to all pollables.
    fn clone_from(&mut self, source: &Self) {
        match (&mut self.kind, &source.kind) {
            (PollableKind::Epoll(epoll), PollableKind::Epoll(source)) => epoll.clone_from(source),
            (PollableKind::Socket(socket), PollableKind::Socket(source)) => {
                let mut options = std::mem::take(&mut socket.options);
                options.clone_from(&source.options);
                **socket = source.with_options(options);
            }
            (kind, source) => *kind = source.clone(),
        }
        self.watchers.clone_from(&source.watchers);
        self.events = source.events;
        self.number = source.number;
    }
}

/// All pollables of a process.
///
/// # Invariants
///
/// A queue exists while one of its ends does. Registrations and watchers match. `held` is the cost of the queues with
/// both ends inside.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Pollables {
    pub(crate) list: Vec<Option<Pollable>>,
    pub(crate) queues: Vec<Option<Queue>>,
    pub(crate) held: usize,
    pub(crate) made: u64,
    /// Registrations of all epolls together.
    pub(crate) registrations: usize,
    /// Listening sockets, the oldest first.
    pub(crate) listeners: Vec<PollableId>,
    pub(crate) next_port: u16,
    pub(crate) inbound: InboundConnections,
    /// Open files that were in flight to a closed receiver: they are to be closed.
    pub(crate) orphans: Vec<OpenId>,
    /// Threads that wait in `open` of a FIFO, each at most once.
    pub(crate) openers: Vec<Opener>,
    /// The names that its resolver knows; the same in all copies.
    #[serde(skip)]
    pub(crate) network: Network,
    /// Connections with remote hosts. A saved process has none.
    #[serde(skip)]
    pub(crate) remotes: Remotes,
}

impl Clone for Pollables {
    fn clone(&self) -> Self {
        Self {
            list: self.list.clone(),
            queues: self.queues.clone(),
            listeners: self.listeners.clone(),
            inbound: self.inbound.clone(),
            orphans: self.orphans.clone(),
            openers: self.openers.clone(),
            network: self.network.clone(),
            remotes: self.remotes.clone(),
            ..*self
        }
    }

    /// Reuses allocations.
    fn clone_from(&mut self, source: &Self) {
        self.list.clone_from(&source.list);
        self.queues.clone_from(&source.queues);
        self.listeners.clone_from(&source.listeners);
        self.inbound.clone_from(&source.inbound);
        self.orphans.clone_from(&source.orphans);
        self.openers.clone_from(&source.openers);
        self.remotes.clone_from(&source.remotes);
        self.held = source.held;
        self.made = source.made;
        self.registrations = source.registrations;
        self.next_port = source.next_port;
    }
}

/// Puts a value into the first free slot.
fn insert<T: Clone>(slots: &mut Vec<Option<T>>, value: T) -> usize {
    let index = slots.iter().position(Option::is_none).unwrap_or(slots.len());
    match slots.get_mut(index) {
        Some(slot) => *slot = Some(value),
        None => slots.push(Some(value)),
    }
    index
}

impl Pollables {
    /// None, for a program that may connect to these hosts.
    pub(crate) fn new(network: Network) -> Self {
        Self { network, ..Self::default() }
    }

    /// Adds a pollable.
    pub(crate) fn add(&mut self, kind: PollableKind) -> PollableId {
        self.made = self.made.saturating_add(1);
        let number = FIRST_NUMBER.saturating_add(self.made);
        PollableId(insert(&mut self.list, Pollable { kind, events: Events::default(), number, watchers: Vec::new() }))
    }

    pub(crate) fn add_queue(&mut self, queue: Queue) -> QueueId {
        QueueId(insert(&mut self.queues, queue))
    }

    pub(crate) fn get(&self, PollableId(index): PollableId) -> Option<&Pollable> {
        self.list.get(index).and_then(Option::as_ref)
    }

    pub(crate) fn get_mut(&mut self, PollableId(index): PollableId) -> Option<&mut Pollable> {
        self.list.get_mut(index).and_then(Option::as_mut)
    }

    pub(crate) fn kind(&self, id: PollableId) -> Option<&PollableKind> {
        self.get(id).map(|pollable| &pollable.kind)
    }

    /// Whether there are as many as possible.
    pub(crate) fn is_at_capacity(&self) -> bool {
        self.list.len() >= POLLABLES_MAX
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = PollableId> + '_ {
        self.list.iter().enumerate().filter(|(_, pollable)| pollable.is_some()).map(|(index, _)| PollableId(index))
    }

    pub(crate) fn queue(&self, QueueId(index): QueueId) -> Option<&Queue> {
        self.queues.get(index).and_then(Option::as_ref)
    }

    pub(crate) fn queue_mut(&mut self, QueueId(index): QueueId) -> Option<&mut Queue> {
        self.queues.get_mut(index).and_then(Option::as_mut)
    }

    pub(crate) fn socket(&self, id: PollableId) -> Result<&Socket, Errno> {
        match self.kind(id) {
            Some(PollableKind::Socket(socket)) => Ok(socket),
            _ => Err(Errno::ENOTSOCK),
        }
    }

    pub(crate) fn socket_mut(&mut self, id: PollableId) -> Result<&mut Socket, Errno> {
        match self.get_mut(id).map(|pollable| &mut pollable.kind) {
            Some(PollableKind::Socket(socket)) => Ok(socket),
            _ => Err(Errno::ENOTSOCK),
        }
    }

    /// Makes copies share the content of large queues.
    pub(crate) fn share(&mut self) {
        self.queues.iter_mut().flatten().for_each(Queue::share);
    }

    /// Records that a blocked signal is pending.
    pub(crate) fn signal_pending(&mut self) {
        let takers: Vec<_> = self.ids().filter(|&id| matches!(self.kind(id), Some(PollableKind::Signals(_)))).collect();
        for id in takers {
            self.record_event(id, Event::Input);
        }
    }

    /// Whether there is a `signalfd`.
    pub(crate) fn takes_signals(&self) -> bool {
        self.list.iter().flatten().any(|pollable| matches!(pollable.kind, PollableKind::Signals(_)))
    }

    /// Whether a timer is armed.
    pub(crate) fn has_timers(&self) -> bool {
        self.list
            .iter()
            .flatten()
            .any(|pollable| matches!(&pollable.kind, PollableKind::Timer(timer) if timer.next_ns.is_some()))
    }

    /// Postpones the timers of the monotonic clock.
    pub(crate) fn postpone(&mut self, by_ns: u64) {
        for pollable in self.list.iter_mut().flatten() {
            if let PollableKind::Timer(timer) = &mut pollable.kind {
                timer.postpone(by_ns);
            }
        }
    }

    /// Counts an event, also for the epolls that watch the pollable.
    pub(crate) fn record_event(&mut self, id: PollableId, event: Event) {
        self.propagate_event(id, event, &mut Look::new());
    }

    /// The same of several. Their watchers' watchers count against one bound, since one call of the program has caused
    /// all of them.
    pub(crate) fn record_event_of(&mut self, ids: &[PollableId], event: Event) {
        let mut look = Look::new();
        for id in ids {
            self.propagate_event(*id, event, &mut look);
        }
    }

    fn propagate_event(&mut self, id: PollableId, event: Event, look: &mut Look) {
        let Some(pollable) = self.get_mut(id) else { return };
        let count = match event {
            Event::Input => &mut pollable.events.input,
            Event::Output => &mut pollable.events.output,
            Event::State => &mut pollable.events.state,
        };
        *count = count.wrapping_add(1);
        // By index, since the list must not be borrowed meanwhile.
        let mut next = 0;
        while look.step()
            && let Some(&(watcher, _)) = self.get(id).and_then(|pollable| pollable.watchers.get(next))
        {
            self.propagate_event(watcher, Event::Input, look);
            next = next.saturating_add(1);
        }
    }

    /// Closes a pollable whose last descriptor is gone.
    pub(crate) fn close(&mut self, id: PollableId) {
        let PollableId(index) = id;
        let Some(pollable) = self.list.get_mut(index).and_then(Option::take) else { return };
        for &(epoll, _) in &pollable.watchers {
            self.unwatch(epoll, WatchTarget::Pollable(id));
        }
        match pollable.kind {
            PollableKind::PipeReader(queue) => self.close_reader(queue),
            PollableKind::PipeWriter(queue) => self.close_writer(queue),
            PollableKind::PipeBoth(queue) => self.leave_fifo(queue, Access { reads: true, writes: true }),
            PollableKind::Socket(socket) => self.close_socket(id, &socket),
            PollableKind::Epoll(epoll) => self.forget_watcher(id, &epoll),
            PollableKind::Counter(_)
            | PollableKind::Timer(_)
            | PollableKind::Signals(_)
            | PollableKind::Inotify(_)
            | PollableKind::Process => {}
        }
        while self.list.last().is_some_and(Option::is_none) {
            self.list.pop();
        }
    }

    /// Whether it is a pipe or a socket.
    pub(crate) fn is_stream(&self, id: PollableId) -> bool {
        matches!(
            self.kind(id),
            Some(
                PollableKind::PipeReader(_)
                    | PollableKind::PipeWriter(_)
                    | PollableKind::PipeBoth(_)
                    | PollableKind::Socket(_)
            )
        )
    }

    /// Attributes, for `fstat`.
    pub(crate) fn attributes(&self, id: PollableId) -> Attributes {
        let Some(pollable) = self.get(id) else { return Attributes::synthetic(0, 0) };
        let mode = match pollable.kind {
            PollableKind::PipeReader(_) | PollableKind::PipeWriter(_) | PollableKind::PipeBoth(_) => {
                libc::S_IFIFO | 0o600
            }
            PollableKind::Socket(_) => libc::S_IFSOCK | 0o777,
            // Anonymous inodes have no file type.
            PollableKind::Counter(_)
            | PollableKind::Timer(_)
            | PollableKind::Epoll(_)
            | PollableKind::Signals(_)
            | PollableKind::Inotify(_)
            | PollableKind::Process => 0o600,
        };
        Attributes::synthetic(self.number(pollable), mode)
    }

    /// Both ends of a pipe are one file.
    fn number(&self, pollable: &Pollable) -> u64 {
        match pollable.kind {
            PollableKind::PipeWriter(queue) => match self.queue(queue).map(|queue| queue.reader) {
                Some(End::Inside(reader)) => self.get(reader).map_or(pollable.number, |reader| reader.number),
                _ => pollable.number,
            },
            _ => pollable.number,
        }
    }

    /// Target of the link in `/proc/self/fd`.
    pub(crate) fn path(&self, id: PollableId) -> Vec<u8> {
        let Some(pollable) = self.get(id) else { return Vec::new() };
        match pollable.kind {
            PollableKind::PipeReader(_) | PollableKind::PipeWriter(_) | PollableKind::PipeBoth(_) => {
                format!("pipe:[{}]", self.number(pollable)).into_bytes()
            }
            PollableKind::Socket(_) => format!("socket:[{}]", pollable.number).into_bytes(),
            PollableKind::Counter(_) => b"anon_inode:[eventfd]".to_vec(),
            PollableKind::Timer(_) => b"anon_inode:[timerfd]".to_vec(),
            PollableKind::Epoll(_) => b"anon_inode:[eventpoll]".to_vec(),
            PollableKind::Signals(_) => b"anon_inode:[signalfd]".to_vec(),
            PollableKind::Inotify(_) => b"anon_inode:inotify".to_vec(),
            PollableKind::Process => b"anon_inode:[pidfd]".to_vec(),
        }
    }

    /// Picks an unused ephemeral port. It is never the application's, which the program binds by number.
    pub(crate) fn free_port(&mut self) -> u16 {
        /// `net.ipv4.ip_local_port_range`.
        const FIRST: u16 = 32_768;
        const LAST: u16 = 60_999;
        /// As many as a program can have descriptors, so only a malicious program exhausts them.
        const ATTEMPTS: u32 = 1024;
        for _ in 0..ATTEMPTS {
            self.next_port =
                if (FIRST..LAST).contains(&self.next_port) { self.next_port.saturating_add(1) } else { FIRST };
            let port = self.next_port;
            let taken = self.ids().any(|id| self.socket(id).is_ok_and(|socket| socket.local.port() == Some(port)));
            if !taken && self.inbound.port != Some(port) {
                break;
            }
        }
        self.next_port
    }
}
