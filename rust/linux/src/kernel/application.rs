// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program's application: its port is set before the program runs, or kept when it is frozen.

use crate::base::ids::PollableId;
use crate::kernel::process::Process;
use crate::pollables::application::{Application, Listeners};

/// The application of a program that serves connections.
impl Process {
    /// Sets the application's port; to be called before the program runs.
    pub fn serve_at(&mut self, port: u16) {
        self.pollables.edit().inbound.port = Some(port);
    }

    /// Whether the application listens.
    #[must_use]
    pub fn application(&self) -> Application {
        self.pollables.application()
    }

    /// Keeps the application's port. Listeners that appear on other ports later are not the application.
    pub fn keep_application(&mut self) {
        if self.pollables.inbound.port.is_none() {
            let port = self.pollables.only_port();
            self.pollables.edit().inbound.port = port;
        }
    }

    /// The application's port, if it was set or kept.
    #[must_use]
    pub fn application_port(&self) -> Option<u16> {
        self.pollables.inbound.port
    }

    /// The program's listeners for streams.
    #[must_use]
    pub fn listeners(&self) -> Listeners {
        Listeners(self.pollables.stream_listeners().map(|(_, socket)| socket.local.clone()).collect())
    }

    pub(crate) fn listening(&self) -> Vec<PollableId> {
        self.pollables.stream_listeners().map(|(id, _)| id).collect()
    }
}
