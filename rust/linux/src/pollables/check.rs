// SPDX-License-Identifier: MIT OR Apache-2.0
//! Invariants of pollables, for tests.

use crate::base::ids::{OpenId, PollableId};
use crate::event::epoll_set::WatchTarget;
use crate::pollables::table::{PollableKind, Pollables};

impl Pollables {
    /// Open files attached to messages.
    pub(crate) fn attached_files(&self) -> Vec<OpenId> {
        self.queues.iter().flatten().flat_map(|queue| queue.clone().take_attached()).collect()
    }

    pub(crate) fn check(&self) {
        assert!(self.orphans.is_empty(), "orphans are closed at once");
        let inside = self.queues.iter().flatten().filter(|queue| !queue.has_inbound_end);
        assert_eq!(self.held, inside.map(crate::event::queue::Queue::cost).sum::<usize>(), "held bytes");
        let registrations: Vec<(PollableId, WatchTarget)> = self
            .ids()
            .flat_map(|id| match self.kind(id) {
                Some(PollableKind::Epoll(epoll)) => epoll.registrations.iter().map(|it| (id, it.target)).collect(),
                _ => Vec::new(),
            })
            .collect();
        assert_eq!(self.registrations, registrations.len());
        for id in self.ids() {
            for &(watcher, count) in &self.get(id).unwrap().watchers {
                let named = registrations.iter().filter(|it| **it == (watcher, WatchTarget::Pollable(id))).count();
                assert_eq!(count, named, "watchers match registrations");
            }
        }
        for (epoll, target) in registrations {
            if let WatchTarget::Pollable(id) = target {
                let watchers = &self.get(id).expect("a watched pollable exists").watchers;
                assert!(watchers.iter().any(|(watcher, _)| *watcher == epoll));
            }
        }
        for queue in self.queues.iter().flatten() {
            for end in [queue.reader, queue.writer] {
                if let crate::event::queue::End::Inside(id) = end {
                    assert!(self.get(id).is_some(), "the pollable at an end of a queue exists");
                }
            }
        }
        let listening: Vec<_> =
            self.ids().filter(|&id| self.socket(id).is_ok_and(crate::net::socket::Socket::is_listening)).collect();
        let mut listeners = self.listeners.clone();
        listeners.sort_unstable();
        assert_eq!(listeners, listening);
    }
}
