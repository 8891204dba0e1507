// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the application of a program is: said before it runs, kept when it is frozen.

use crate::base::ids::PollableId;
use crate::kernel::process::Process;
use crate::pollables::application::{Application, Listeners};

/// The application of a program that serves connections.
impl Process {
    /// The application is on this port: to be said before the program runs.
    pub fn serve_at(&mut self, port: u16) {
        self.pollables.edit().inbound.port = Some(port);
    }

    /// Whether the application listens.
    #[must_use]
    pub fn application(&self) -> Application {
        self.pollables.application()
    }

    /// The application stays on the port that it has: what listens on another one later is none.
    pub fn keep_application(&mut self) {
        if self.pollables.inbound.port.is_none() {
            let port = self.pollables.only_port();
            self.pollables.edit().inbound.port = port;
        }
    }

    /// The application's port, as far as it is said or kept.
    #[must_use]
    pub fn application_port(&self) -> Option<u16> {
        self.pollables.inbound.port
    }

    /// All that the program listens on with connections.
    #[must_use]
    pub fn listeners(&self) -> Listeners {
        Listeners(self.pollables.stream_listeners().map(|(_, socket)| socket.local.clone()).collect())
    }

    pub(crate) fn listening(&self) -> Vec<PollableId> {
        self.pollables.stream_listeners().map(|(id, _)| id).collect()
    }
}
