// SPDX-License-Identifier: MIT OR Apache-2.0
//! A loop's pool of workers, as C++ sees it.

use std::pin::Pin;

use cxx::UniquePtr;
use mayfly_tenancy as tenancy;
use tenancy::Failure;

use crate::ffi::{self, Outcome, Reply, RouteHit};
use crate::guard::{Panicked, guard};
use crate::reply::{Deferred, Sink};
use crate::request::RequestView;
use crate::waker::OtherThreads;

/// One event-loop thread's workers.
pub(crate) struct LoopPool(tenancy::LoopPool);

impl LoopPool {
    pub(crate) fn new(pool: tenancy::LoopPool) -> Self {
        Self(pool)
    }

    /// Finds the tenant, other than the default one, that has this host and path.
    pub(crate) fn claims(&mut self, host: &[u8], path: &[u8]) -> RouteHit {
        // After a panic the request goes where it would go without tenants.
        let hit = guard(|| self.0.claims(host, path)).ok().flatten();
        hit.map_or(RouteHit { epoch: 0, index: 0 }, |hit| RouteHit { epoch: hit.epoch, index: hit.index })
    }

    /// Whether there is a default tenant.
    pub(crate) fn has_default(&mut self) -> bool {
        guard(|| self.0.has_default()).unwrap_or(false)
    }

    /// Counts a request that got 404 because neither a tenant nor a route of the application takes it.
    pub(crate) fn count_unrouted(&mut self) {
        self.0.count_unrouted();
    }

    /// Serves `request` on this thread, if that takes no longer than the tenant's inline budget. `hit` is what
    /// [`Self::claims`] has returned for it, or no hit.
    pub(crate) fn call(&mut self, hit: RouteHit, request: &RequestView, reply: Pin<&mut Reply>) -> Outcome {
        let mut sink = Sink(reply);
        let hit = (hit.epoch != 0).then_some(tenancy::RouteHit { epoch: hit.epoch, index: hit.index });
        request.with(|request| match guard(|| self.0.call_found(hit, request, &mut sink)) {
            Ok(tenancy::Outcome::Done) => Outcome::Done,
            Ok(tenancy::Outcome::Later) => Outcome::Later,
            Err(Panicked { .. }) => {
                self.0.refuse(request, Failure::Internal, "internal error; see the server log", &mut sink);
                Outcome::Done
            }
        })
    }

    /// Serves `request`, for which [`Self::call`] returned `Later`, in the background, and then sends `reply`. A panic
    /// drops the reply, which answers as well.
    pub(crate) fn call_later(&mut self, request: &RequestView, reply: UniquePtr<Reply>) {
        let _ = guard(|| {
            if let Some(reply) = Deferred::new(reply) {
                request.with(|request| self.0.call_later(request, Box::new(reply)));
            }
        });
    }

    /// Sets the waker that other threads call when the pool's own thread should call [`Self::tend`]; null removes it.
    pub(crate) fn set_waker(&mut self, waker: UniquePtr<ffi::Waker>) {
        let _ = guard(|| match OtherThreads::new(waker) {
            Some(waker) => self.0.set_waker(move || waker.wake()),
            None => self.0.clear_waker(),
        });
    }

    /// Leaves workers with much to reset to [`Self::reset_answered`].
    pub(crate) fn defer_resets(&mut self) {
        self.0.defer_resets();
    }

    /// Whether [`Self::call`] has left workers to reset.
    pub(crate) fn resets_are_due(&self) -> bool {
        self.0.resets_are_due()
    }

    /// Resets these workers.
    pub(crate) fn reset_answered(&mut self) {
        let _ = guard(|| self.0.reset_answered());
    }

    /// Does the pool's work besides requests.
    pub(crate) fn tend(&mut self) {
        let _ = guard(|| self.0.tend());
    }
}
