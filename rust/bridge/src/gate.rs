// SPDX-License-Identifier: MIT OR Apache-2.0
//! The gate that a connection's bytes go through.

use mayfly_tenancy::inbound;

use crate::ffi::GateResult;
use crate::guard::{Panicked, guard};

/// The gate of one connection.
pub(crate) struct Gate(inbound::Gate);

/// A gate for a new connection.
pub(crate) fn new_gate() -> Box<Gate> {
    Box::new(Gate(inbound::Gate::new(inbound::Framework::default())))
}

/// Logs, once at start, that gates check requests before the framework's parser.
pub(crate) fn announce_gate(framework: &str) {
    let _ = guard(|| {
        tracing::info!(target: "mayfly::server", framework, "requests are checked and completed before they are parsed");
    });
}

impl Gate {
    /// Takes as much as it can of a connection's bytes.
    pub(crate) fn take(&mut self, input: &[u8]) -> GateResult {
        match guard(|| self.0.take(input)) {
            Ok(inbound::GateResult { consumed, is_unchanged, says_continue }) => {
                GateResult { consumed, is_unchanged, says_continue, is_broken: false }
            }
            // It is not known how much was consumed.
            Err(Panicked { .. }) => {
                self.0.close();
                GateResult { consumed: input.len(), is_unchanged: false, says_continue: false, is_broken: true }
            }
        }
    }

    /// What is passed on instead of the bytes that were taken last, if they are not passed unchanged.
    pub(crate) fn output(&self) -> &[u8] {
        self.0.output()
    }
}
