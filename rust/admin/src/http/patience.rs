// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time limits of the listener.

use std::time::Duration;

/// How long a call in progress may delay the end of the server.
pub(crate) const FAREWELL: Duration = Duration::from_secs(2);

/// Time limits for a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For a request's head.
    pub(crate) head: Duration,
    /// Between two pieces of a body.
    pub(crate) pause: Duration,
    /// For a whole body.
    pub(crate) body: Duration,
    /// For a whole connection.
    pub(crate) connection: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            pause: Duration::from_secs(15),
            body: Duration::from_secs(600),
            connection: Duration::from_secs(1200),
        }
    }
}
