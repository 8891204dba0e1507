// SPDX-License-Identifier: MIT OR Apache-2.0
//! Invariants of the table, for one that comes from a file: see `kernel/save.rs`.

use crate::base::ids::{PollableId, QueueId};
use crate::event::epoll_set::WatchTarget;
use crate::event::fifo::Opener;
use crate::event::queue::{End, Queue};
use crate::net::socket::{Phase, Socket};
use crate::pollables::epoll::{DEPTH_MAX, REGISTRATIONS_MAX};
use crate::pollables::queues::{HELD_MAX, Side};
use crate::pollables::table::{POLLABLES_MAX, PollableKind, Pollables};

/// Most bytes of a queue, unless they come from outside.
const CAPACITY_MAX: usize = 1 << 20;

impl Pollables {
    /// Whether a deserialised value keeps this type's invariants, on which later code relies: what an identifier names
    /// exists, accounts are right, and nothing nests deeper than the host's stack is.
    pub(crate) fn is_sound(&self) -> bool {
        // The limit on descriptors bounds what is open besides.
        self.list.len() <= 2 * POLLABLES_MAX
            && self.queues.len() <= 4 * POLLABLES_MAX
            && self.orphans.is_empty()
            && self.ids().all(|id| self.is_sound_pollable(id))
            && self.openers.len() <= POLLABLES_MAX
            && self.openers.iter().all(|opener| self.queue(opener.queue).is_some_and(|queue| queue.fifo.is_some()))
            && self.queues_are_sound()
            && self.watches_are_sound()
    }

    fn is_sound_pollable(&self, id: PollableId) -> bool {
        match self.kind(id) {
            Some(PollableKind::PipeReader(queue)) => self.has_end(id, *queue, Side::Reader),
            Some(PollableKind::PipeWriter(queue)) => self.has_end(id, *queue, Side::Writer),
            Some(PollableKind::PipeBoth(queue)) => {
                self.has_end(id, *queue, Side::Reader) && self.has_end(id, *queue, Side::Writer)
            }
            Some(PollableKind::Socket(socket)) => {
                // One that waits to be accepted is closed with its listener, so it must not be a listener itself.
                let is_connected = |waiting: &PollableId| self.socket(*waiting).is_ok_and(Socket::is_connected);
                let backlog_is_sound = match &socket.phase {
                    Phase::Listening(backlog) => backlog.waiting.iter().all(is_connected),
                    Phase::Idle | Phase::Connected => true,
                };
                socket.input.is_none_or(|queue| self.has_end(id, queue, Side::Reader))
                    && socket.output.is_none_or(|queue| self.has_end(id, queue, Side::Writer))
                    && backlog_is_sound
                    && socket.is_listening() == self.listeners.contains(&id)
            }
            Some(_) => true,
            None => false,
        }
    }

    /// Whether a pollable that names a queue has this end of it.
    fn has_end(&self, id: PollableId, queue: QueueId, side: Side) -> bool {
        let end = self.queue(queue).map(|queue| if side == Side::Reader { queue.reader } else { queue.writer });
        match end {
            Some(End::Inside(owner)) => owner == id,
            Some(End::Many(_)) => true,
            Some(End::Resolver(_) | End::Inbound(_) | End::Gone) | None => false,
        }
    }

    fn queues_are_sound(&self) -> bool {
        let ids = (0..self.queues.len()).map(QueueId);
        let mut queues = ids.filter_map(|id| Some((id, self.queue(id)?)));
        let ends = |(id, queue): (QueueId, &Queue)| {
            let one = |side: Side, end: End| match end {
                End::Inside(owner) => self.owners(id, side) == [owner],
                End::Many(count) => {
                    let opens = |opener: &&Opener| opener.queue == id && opener.reads == (side == Side::Reader);
                    let openers = self.openers.iter().filter(opens).count();
                    self.owners(id, side).len().saturating_add(openers) == count
                }
                // The other queue of the client leads there.
                End::Resolver(client) => self.socket(client).is_ok_and(|socket| match side {
                    Side::Reader => socket.output == Some(id),
                    Side::Writer => socket.input == Some(id),
                }),
                End::Inbound(_) => queue.has_inbound_end,
                End::Gone => true,
            };
            let is_input = queue.has_inbound_end && matches!(queue.reader, End::Inside(_));
            queue.is_sound()
                && queue.fifo.is_none_or(|_| queue.is_pipe())
                && (queue.capacity <= CAPACITY_MAX || is_input)
                && one(Side::Reader, queue.reader)
                && one(Side::Writer, queue.writer)
        };
        let inside = self.queues.iter().flatten().filter(|queue| !queue.has_inbound_end);
        let held = inside.fold(0_usize, |sum, queue| sum.saturating_add(queue.cost()));
        queues.all(ends) && self.held == held && held <= 2 * HELD_MAX
    }

    /// Whether registrations and watchers match, and epolls nest no deeper than programs can nest them.
    fn watches_are_sound(&self) -> bool {
        let epolls = || self.ids().filter_map(|id| Some((id, self.epoll(id).ok()?)));
        let registrations =
            || epolls().flat_map(|(id, epoll)| epoll.registrations.iter().map(move |it| (id, it.target)));
        let mut depths = vec![0_usize; self.list.len()];
        let all = registrations().count();
        if all != self.registrations || all > REGISTRATIONS_MAX {
            return false;
        }
        let is_watched = |(epoll, target): (PollableId, WatchTarget)| match target {
            WatchTarget::Pollable(id) => {
                self.get(id).is_some_and(|pollable| pollable.watchers.iter().any(|(watcher, _)| *watcher == epoll))
            }
            WatchTarget::Log(_) => true,
        };
        let is_counted = |id: PollableId| {
            let watchers = self.get(id).map_or(&[][..], |pollable| &pollable.watchers);
            // With none of a count of 0 and no watcher twice: each is one registration at least, and all are counted.
            let mut counted = watchers.iter().map(|(watcher, _)| *watcher).collect::<Vec<_>>();
            counted.sort_unstable();
            let are_distinct = counted.windows(2).all(|pair| pair.first() != pair.last());
            are_distinct
                && watchers.iter().all(|&(watcher, count)| {
                    count > 0
                        && count == registrations().filter(|it| *it == (watcher, WatchTarget::Pollable(id))).count()
                })
        };
        if !registrations().all(is_watched) || !self.ids().all(is_counted) {
            return false;
        }
        // Each round knows the depths of one more level. In a circle they never end.
        for _ in 0..=DEPTH_MAX {
            let before = depths.clone();
            for (PollableId(index), epoll) in epolls() {
                let below = epoll.registrations.iter().filter_map(|registration| match registration.target {
                    WatchTarget::Pollable(PollableId(inner)) => before.get(inner).copied(),
                    WatchTarget::Log(_) => None,
                });
                let depth = below.max().unwrap_or(0).saturating_add(1);
                if let Some(slot) = depths.get_mut(index) {
                    *slot = depth;
                }
            }
            if depths == before {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::epoll_set::{Epoll, Registration};

    fn epoll(targets: &[usize]) -> PollableKind {
        let registration = |&target: &usize| Registration {
            fd: 3,
            target: WatchTarget::Pollable(PollableId(target)),
            interest: 1,
            data: 0,
            reported: None,
            disabled: false,
        };
        PollableKind::Epoll(Epoll { registrations: targets.iter().map(registration).collect(), start: 0 })
    }

    /// Epolls that watch these others, with watchers to match.
    fn nested(targets: &[&[usize]]) -> Pollables {
        let mut pollables = Pollables::default();
        for targets in targets {
            pollables.add(epoll(targets));
        }
        for (watcher, targets) in targets.iter().enumerate() {
            for &target in *targets {
                pollables.list[target].as_mut().unwrap().watchers.push((PollableId(watcher), 1));
                pollables.registrations += 1;
            }
        }
        pollables
    }

    #[test]
    fn epolls_nest_in_no_circle_and_not_too_deep() {
        assert!(nested(&[&[1, 2], &[2], &[]]).is_sound());
        assert!(nested(&[&[1], &[2], &[3], &[4], &[]]).is_sound());
        assert!(!nested(&[&[0]]).is_sound());
        assert!(!nested(&[&[1], &[2], &[0]]).is_sound());
        let chain: Vec<[usize; 1]> = (1..200).map(|next| [next]).collect();
        let mut chain: Vec<&[usize]> = chain.iter().map(|it| &it[..]).collect();
        chain.push(&[]);
        assert!(!nested(&chain).is_sound());
        let mut lost = nested(&[&[1], &[]]);
        lost.list[1].as_mut().unwrap().watchers.clear();
        assert!(!lost.is_sound());
        let mut watched_by_itself = nested(&[&[1], &[]]);
        watched_by_itself.get_mut(PollableId(0)).unwrap().watchers.push((PollableId(0), 0));
        assert!(!watched_by_itself.is_sound(), "no registration stands for it");
        let mut twice = nested(&[&[1], &[]]);
        twice.get_mut(PollableId(1)).unwrap().watchers.push((PollableId(0), 1));
        assert!(!twice.is_sound());
    }

    #[test]
    fn queues_have_the_ends_that_they_name() {
        let sockets = || {
            let mut pollables = Pollables::default();
            let [one, other] = [(); 2].map(|()| {
                pollables.add(PollableKind::Socket(Box::new(Socket::new(libc::AF_UNIX, libc::SOCK_DGRAM, 0))))
            });
            pollables.pair_up(one, other).unwrap();
            let queue = pollables.socket(one).unwrap().input.unwrap();
            pollables.write_bytes(queue, b"abc");
            pollables.note_message(queue, 3, [].into());
            (pollables, one, queue)
        };
        assert!(sockets().0.is_sound());
        let (mut pollables, one, _) = sockets();
        pollables.socket_mut(one).unwrap().output = Some(QueueId(7));
        assert!(!pollables.is_sound(), "no such queue");
        let (mut pollables, _, queue) = sockets();
        pollables.queue_mut(queue).unwrap().writer = End::Many(2);
        assert!(!pollables.is_sound(), "too many senders");
        let (mut pollables, _, queue) = sockets();
        pollables.queue_mut(queue).unwrap().reader = End::Inside(PollableId(9));
        assert!(!pollables.is_sound(), "no such reader");
        let (mut pollables, _, queue) = sockets();
        pollables.queue_mut(queue).unwrap().capacity = usize::MAX;
        assert!(!pollables.is_sound(), "it holds too much");
        let (mut pollables, _, queue) = sockets();
        pollables.queue_mut(queue).unwrap().end_message(5, [].into());
        assert!(!pollables.is_sound(), "messages are longer than their bytes");
        let (mut pollables, _, _) = sockets();
        pollables.held = 0;
        assert!(!pollables.is_sound(), "the account is wrong");
        let (mut pollables, one, _) = sockets();
        pollables.listeners.push(one);
        assert!(!pollables.is_sound(), "it does not listen");
    }
}
