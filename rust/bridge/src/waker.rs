// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wakers of C++ event loops.

use cxx::UniquePtr;

use crate::ffi;

/// A waker that other threads call.
///
/// # Invariant
///
/// It is not null.
pub(crate) struct OtherThreads(UniquePtr<ffi::Waker>);

// SAFETY: a `mayfly::Waker` may be called and destroyed on any thread, by one at a time (cpp/include/mayfly/waker.hpp);
// owning it by value here, and the lock that the tenancy holds when it calls it, ensure "one at a time".
unsafe impl Send for OtherThreads {}

impl OtherThreads {
    /// Takes a waker over; `None` if it is null.
    pub(crate) fn new(waker: UniquePtr<ffi::Waker>) -> Option<Self> {
        (!waker.is_null()).then_some(Self(waker))
    }

    pub(crate) fn wake(&self) {
        ffi::waker_wake(&self.0);
    }
}
