// SPDX-License-Identifier: MIT OR Apache-2.0
//! Leave to have files of the host open.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Leave to have one file of the host open; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit(pub(crate) Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Files of the host that all programs have open together, mapped ones included.
pub(crate) static OPEN: AtomicUsize = AtomicUsize::new(0);
