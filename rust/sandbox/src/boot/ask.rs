// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that Mayfly itself makes at boot.

use mayfly_linux::Application;

use crate::boot::boot::Boot;
use crate::error::{BootError, CallError};
use crate::message::Request;
use crate::run::Event;
use crate::service::{ResponseProgress, Served};

impl Boot<'_> {
    /// Makes one request at boot; `served` has the response. The inner error says why there is none: what the program
    /// wrote is not a response, or it accepts no connection.
    pub(super) fn ask(&mut self, served: &mut Served, request: &Request<'_>) -> Result<Result<(), String>, BootError> {
        let encoded = served.encode(request, u64::MAX);
        if let Err(error) = encoded.and_then(|()| served.begin(&mut self.runner.process, request)) {
            return match (&error, self.runner.process.application()) {
                // The program has other listeners than before, or none.
                (CallError::NotListening, Application::Ambiguous) => Err(self.ambiguous()),
                (CallError::NotListening, Application::Missing) => Err(self.not_listening()),
                _ => Ok(Err(error.to_string())),
            };
        }
        let mut woken = self.wake();
        loop {
            match self.run_on(woken)? {
                Ok(Event::Doorbell) => return Ok(Err("it rang the doorbell".into())),
                Err(wait) => woken = self.sleep_until(&wait),
                Ok(Event::Output) => {
                    match served.take(&mut self.runner.process, self.limits.response_bytes) {
                        Ok(ResponseProgress::Complete) => return Ok(Ok(())),
                        Ok(ResponseProgress::Partial | ResponseProgress::Restored) => {}
                        Ok(ResponseProgress::Stale) => {
                            if let Err(error) = served.send_again(&mut self.runner.process) {
                                return Ok(Err(error.to_string()));
                            }
                        }
                        Err(error) => return Ok(Err(error.to_string())),
                    }
                    woken = self.wake();
                }
            }
        }
    }
}
