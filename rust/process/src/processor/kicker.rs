// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stops a processor's run, by a flag that stays set.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ring::kick;

/// Makes a processor's run return, by a handler of signals on the thread that runs it.
#[derive(Debug)]
pub struct Kicker {
    stub: Option<kick::Kicker>,
    is_set: Arc<AtomicBool>,
}

impl Kicker {
    pub(crate) fn new(stub: Option<kick::Kicker>, is_set: Arc<AtomicBool>) -> Self {
        Self { stub, is_set }
    }

    /// Makes the current or the next run return at once. It is async-signal-safe.
    pub fn set(&self) {
        self.is_set.store(true, Ordering::SeqCst);
        if let Some(stub) = &self.stub {
            stub.stop();
        }
    }

    /// Whether a run would return at once.
    #[inline]
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    /// Clears it.
    pub fn clear(&self) {
        self.is_set.store(false, Ordering::SeqCst);
    }
}
