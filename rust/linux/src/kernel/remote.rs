// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has happened to connections with the outside.

use std::os::fd::{AsFd, BorrowedFd};

use crate::kernel::process::Process;

impl Process {
    /// Takes notice of what has happened to connections with the outside since this was last asked. Processes without
    /// one do nothing.
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

    /// What becomes readable when something has happened to a connection with the outside; `None`: there are none. It
    /// is so until
    /// [`Process::wake`], or whatever else lets the program go on.
    #[must_use]
    pub fn remote_events(&self) -> Option<BorrowedFd<'_>> {
        let (poller, _) = self.pollables.remotes.poller.as_ref()?;
        let has_remote = |id| self.pollables.socket(id).is_ok_and(|socket| socket.remote.is_some());
        self.pollables.ids().any(has_remote).then(|| poller.as_fd())
    }
}
