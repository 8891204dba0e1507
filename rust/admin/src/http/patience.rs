// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long operators and the end of the server are waited for.

use std::time::Duration;

/// How long a call in progress may hold up the end.
pub(crate) const FAREWELL: Duration = Duration::from_secs(2);

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For a request's head.
    pub(crate) head: Duration,
    /// Between two pieces of a body,
    pub(crate) pause: Duration,
    /// and for all of it.
    pub(crate) body: Duration,
    /// For everything.
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
