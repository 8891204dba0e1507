// SPDX-License-Identifier: MIT OR Apache-2.0
//! What wakes a C++ event loop.

use cxx::UniquePtr;

use crate::ffi;

/// A waker that other threads call.
///
/// # Invariant
///
/// It is not null.
pub(crate) struct OtherThreads(UniquePtr<ffi::Waker>);

// SAFETY: `mayfly::Waker` demands that it may be called and destroyed on any thread, by one at a time
// (cpp/include/mayfly/server.hpp);
// owning it by value here, and the lock that the tenancy calls it under, give "one at a time".
unsafe impl Send for OtherThreads {}

impl OtherThreads {
    /// Takes a waker over; `None` if there is none.
    pub(crate) fn new(waker: UniquePtr<ffi::Waker>) -> Option<Self> {
        (!waker.is_null()).then_some(Self(waker))
    }

    pub(crate) fn wake(&self) {
        ffi::waker_wake(&self.0);
    }
}
