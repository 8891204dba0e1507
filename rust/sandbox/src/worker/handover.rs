// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hands state over from one generation's worker to another's, by requests that the host makes itself and the SDK
//! answers.

use crate::abi::{METHOD_RESTORE, METHOD_SAVE};
use crate::error::CallError;
use crate::message::{BufferedResponse, Request};
use crate::worker::worker::Worker;

impl Worker {
    /// Makes the program serialise its state, of at most [`Limits::response_bytes`](crate::Limits::response_bytes). The
    /// program goes on as after any request. All limits hold.
    ///
    /// # Errors
    ///
    /// As [`Worker::call`], and [`CallError::Handover`] if the program has no hooks or refuses.
    pub fn save(&mut self) -> Result<Vec<u8>, CallError> {
        self.hand_over(METHOD_SAVE, &[])
    }

    /// Gives the program the state that another generation's worker has saved.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mayfly_sandbox::{BufferedResponse, Host, Limits, NoLog, Program, Request, Snapshot, Worker};
    /// # let path = std::path::Path::new("../../build/tenants/visits/visits"); // `make tenants` builds it.
    /// # let (Ok(host), true) = (Host::open(), path.exists()) else { return Ok(()) }; // Or no engine runs here.
    /// # let snapshot = Snapshot::boot(&host, &Program::load(path)?, &Limits::default(), Arc::new(NoLog))?;
    /// # let request = Request { method: b"GET", path: b"/", query: b"", headers: &[], body: b"", client: None };
    /// # let mut response = BufferedResponse::default();
    /// let mut old = Worker::fork_keeping_state(&snapshot)?;
    /// old.call(1, &request, &mut response)?;
    /// let mut new = Worker::fork_keeping_state(&snapshot)?;
    /// new.restore(&old.save()?)?;
    /// new.call(2, &request, &mut response)?;
    /// assert_eq!(response.body, b"visit 2\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Worker::save`]; [`CallError::RequestTooLarge`] if the state is above
    /// [`Limits::request_bytes`](crate::Limits::request_bytes).
    pub fn restore(&mut self, state: &[u8]) -> Result<(), CallError> {
        self.hand_over(METHOD_RESTORE, state).map(drop)
    }

    fn hand_over(&mut self, method: &[u8], body: &[u8]) -> Result<Vec<u8>, CallError> {
        if !self.snapshot().has_handover() {
            return Err(CallError::Handover { status: None });
        }
        let request = Request { method, path: b"", query: b"", headers: &[], body, client: None };
        let mut response = BufferedResponse::default();
        self.call(0, &request, &mut response)?;
        match response.status {
            200 => Ok(response.body),
            status => Err(CallError::Handover { status: Some(status) }),
        }
    }
}
