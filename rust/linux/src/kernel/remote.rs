// SPDX-License-Identifier: MIT OR Apache-2.0
//! Events of connections with remote hosts.

use std::os::fd::{AsFd, BorrowedFd};

use crate::kernel::process::Process;

impl Process {
    /// Polls the connections with remote hosts, and records their events. Does nothing without such connections.
    pub(crate) fn poll_remotes(&mut self) {
        if !self.pollables.has_poller() {
            return;
        }
        let events = match &self.pollables.remotes.poller {
            Some((poller, _)) => poller.look(),
            None => Vec::new(),
        };
        if events.is_empty() && self.pollables.remotes.dialing.is_empty() {
            return;
        }
        let before = self.pollables.remotes.dialing.len();
        self.pollables.edit().note_remote_events(events.clone());
        if !events.is_empty() || before != self.pollables.remotes.dialing.len() {
            self.note_change();
        }
    }

    /// The descriptor that becomes readable when a connection with a remote host has an event; `None` without such
    /// connections. It is valid until [`Process::wake`], or another call that continues the program.
    #[must_use]
    pub fn remote_events(&self) -> Option<BorrowedFd<'_>> {
        let (poller, _) = self.pollables.remotes.poller.as_ref()?;
        let has_remote = |id| self.pollables.socket(id).is_ok_and(|socket| socket.remote.is_some());
        self.pollables.ids().any(has_remote).then(|| poller.as_fd())
    }
}
