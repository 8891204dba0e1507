// SPDX-License-Identifier: MIT OR Apache-2.0
//! Permits to have files of the host open.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A permit to have one file of the host open; returned when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit(pub(crate) Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Number of host files that all programs have open together, mapped ones included.
pub(crate) static OPEN: AtomicUsize = AtomicUsize::new(0);
