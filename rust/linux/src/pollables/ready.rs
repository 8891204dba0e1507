// SPDX-License-Identifier: MIT OR Apache-2.0
//! Readiness of pollables. For each kind of file it is that of Linux: see the `*_poll` functions that poll(2),
//! epoll(7), pipe(7), tcp(7) and unix(7) describe.

use crate::base::ids::PollableId;
use crate::event::epoll_set::{Epoll, Registration, WatchTarget};
use crate::event::events::Events;
use crate::event::look::{LOG_READINESS, Look, earlier};
use crate::event::poll_bits::bits::{self, ERR, HUP, IN, INPUTS, OUT, OUTPUTS, RDHUP, READ, WRBAND, WRITE};
use crate::event::queue::Queue;
use crate::net::socket::{Phase, Socket};
use crate::pollables::table::{PollableKind, Pollables};

impl Pollables {
    /// Readiness in the bits of `poll`.
    pub(crate) fn readiness(&self, id: PollableId, look: &mut Look) -> u32 {
        match self.kind(id) {
            None => 0,
            Some(PollableKind::PipeReader(queue)) => self.queue(*queue).map_or(HUP, read_readiness),
            Some(PollableKind::PipeWriter(queue)) => self.queue(*queue).map_or(ERR, write_readiness),
            Some(PollableKind::PipeBoth(queue)) => {
                self.queue(*queue).map_or(HUP | ERR, |queue| read_readiness(queue) | write_readiness(queue))
            }
            Some(PollableKind::Counter(counter)) => {
                bits_if(counter.value > 0, IN) | bits_if(counter.value < u64::MAX.wrapping_sub(1), OUT)
            }
            Some(PollableKind::Timer(timer)) => {
                bits_if(timer.next_ns.is_some() && timer.expired(look.now_ns()) > 0, IN)
            }
            Some(PollableKind::Epoll(epoll)) => {
                let ready = epoll.registrations.iter().any(|registration| self.wanted(registration, look) != 0);
                bits_if(ready, READ)
            }
            Some(PollableKind::Socket(socket)) => self.socket_readiness(socket),
            Some(PollableKind::Signals(mask)) => bits_if(!look.pending.and(*mask).is_empty(), IN),
            Some(PollableKind::Inotify(inotify)) => bits_if(!inotify.ignored.is_empty(), READ),
            Some(PollableKind::Process) => 0,
        }
    }

    fn socket_readiness(&self, socket: &Socket) -> u32 {
        let write = if socket.is_unix() { WRITE | WRBAND } else { WRITE };
        let error = bits_if(socket.error.is_some(), ERR);
        if socket.is_datagram() {
            return self.datagram_readiness(socket) | error;
        }
        if socket.remote.is_some() {
            // A socket that is still connecting is ready for nothing.
            return socket.stream().map_or(0, crate::host::sockets::HostStream::readiness) | error;
        }
        match &socket.phase {
            Phase::Listening(backlog) => bits_if(!backlog.waiting.is_empty(), READ),
            Phase::Idle if socket.failed => write | READ | RDHUP | HUP | error,
            Phase::Idle => write | HUP | error,
            Phase::Connected => {
                let input = socket.input.and_then(|queue| self.queue(queue));
                let output = socket.output.and_then(|queue| self.queue(queue));
                let has_input = input.is_some_and(|queue| !queue.is_empty());
                let ended = socket.shut_read || input.is_some_and(|queue| queue.finished);
                let refused = socket.is_unix() && output.is_some_and(|queue| queue.refused);
                let closed_out = socket.shut_write || refused;
                let writable = output.is_none_or(Queue::is_writable) || (closed_out && !socket.is_unix());
                bits_if(has_input, READ)
                    | bits_if(ended, READ | RDHUP)
                    | bits_if(ended && closed_out || socket.reset, HUP)
                    | bits_if(writable, write)
                    | bits_if(socket.reset && !socket.is_unix(), ERR)
                    | error
            }
        }
    }

    /// Only a Unix socket that is connected can be unable to send; other messages are lost, or fail when they are sent.
    fn datagram_readiness(&self, socket: &Socket) -> u32 {
        let has_input = socket.input.and_then(|queue| self.queue(queue)).is_some_and(|queue| !queue.is_empty());
        let output = socket.output.and_then(|queue| self.queue(queue));
        bits_if(has_input || socket.shut_read, READ)
            | bits_if(socket.shut_read, RDHUP)
            | bits_if(socket.shut_read && socket.shut_write, HUP)
            | bits_if(output.is_none_or(Queue::is_writable), WRITE | WRBAND)
    }

    /// The readiness that a registration asks for.
    pub(crate) fn wanted(&self, registration: &Registration, look: &mut Look) -> u32 {
        if registration.disabled || !look.step() {
            return 0;
        }
        let mask = registration.interest & !(bits::ET | bits::ONESHOT | bits::EXCLUSIVE | bits::WAKEUP) | ERR | HUP;
        match registration.target {
            WatchTarget::Log(_) if registration.interest & bits::ET != 0 && registration.reported.is_some() => 0,
            WatchTarget::Log(_) => LOG_READINESS & mask,
            WatchTarget::Pollable(id) => {
                if registration.interest & bits::ET != 0 && !self.has_news(registration, id, look) {
                    return 0;
                }
                self.readiness(id, look) & mask
            }
        }
    }

    /// Whether there were events since an edge-triggered registration was last reported.
    fn has_news(&self, registration: &Registration, id: PollableId, look: &mut Look) -> bool {
        let Some(reported) = registration.reported else { return true };
        let now = self.events(id, look);
        let interest = registration.interest;
        now.state != reported.state
            || (interest & (INPUTS | RDHUP) != 0 && now.input != reported.input)
            || (interest & OUTPUTS != 0 && now.output != reported.output)
    }

    /// Its event counts. An expired timer counts as one event until it is read.
    pub(crate) fn events(&self, id: PollableId, look: &mut Look) -> Events {
        let Some(pollable) = self.get(id) else { return Events::default() };
        let expired = match &pollable.kind {
            PollableKind::Timer(timer) if timer.next_ns.is_some() => timer.expired(look.now_ns()).min(1),
            PollableKind::Epoll(epoll) => self.expired_within(epoll, look),
            _ => 0,
        };
        Events { input: pollable.events.input.wrapping_add(expired), ..pollable.events }
    }

    fn expired_within(&self, epoll: &Epoll, look: &mut Look) -> u64 {
        let mut sum: u64 = 0;
        for registration in &epoll.registrations {
            let WatchTarget::Pollable(id) = registration.target else { continue };
            if !look.step() {
                break;
            }
            let expired = match self.kind(id) {
                Some(PollableKind::Timer(timer)) if timer.next_ns.is_some() => timer.expired(look.now_ns()).min(1),
                Some(PollableKind::Epoll(epoll)) => self.expired_within(epoll, look),
                _ => 0,
            };
            sum = sum.wrapping_add(expired);
        }
        sum
    }

    /// When it may become ready by time alone, as of this look.
    pub(crate) fn next_expiry_ns(&self, id: PollableId, look: &mut Look) -> Option<u64> {
        match self.kind(id)? {
            PollableKind::Timer(timer) => timer.next_ns.filter(|_| timer.expired(look.now_ns()) == 0),
            PollableKind::Socket(socket) => self.remote_look_ns(socket, look),
            PollableKind::Epoll(epoll) => {
                let mut next = None;
                for registration in epoll.registrations.iter().filter(|registration| !registration.disabled) {
                    if let WatchTarget::Pollable(id) = registration.target
                        && look.step()
                    {
                        next = earlier(next, self.next_expiry_ns(id, look));
                    }
                }
                next
            }
            _ => None,
        }
    }
}

fn read_readiness(queue: &Queue) -> u32 {
    bits_if(!queue.is_empty(), READ) | bits_if(queue.finished, HUP)
}

fn write_readiness(queue: &Queue) -> u32 {
    bits_if(queue.is_writable(), WRITE) | bits_if(queue.refused, ERR)
}

fn bits_if(condition: bool, bits: u32) -> u32 {
    if condition { bits } else { 0 }
}
