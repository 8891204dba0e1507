// SPDX-License-Identifier: MIT OR Apache-2.0
//! The workers of one loop thread: one of each tenant, ready before it is asked for.

use std::sync::Arc;

use mayfly_sandbox::{Request, ResponseSink};

use crate::deferred::{DeferredReply, Job};
use crate::failure::{Failure, RequestId, answer};
use crate::forker::Berth;
use crate::meter::Meter;
use crate::request::{OwnedRequest, size};
use crate::serve::{Watched, serve};
use crate::server::Server;
use crate::tenant::Forked;

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The sink holds a complete response: the tenant's, or Mayfly's own about a failure.
    Done,
    /// No worker is ready and the sink is untouched: use [`LoopPool::call_later`].
    NeedsWorker,
}

/// One loop thread's workers.
///
/// A call takes no lock and allocates nothing while the tenant answers. A worker is forked, and a poisoned one is closed, by
/// other threads only.
#[derive(Debug)]
pub struct LoopPool {
    server: Server,
    meter: Arc<Meter>,
    slots: Box<[Slot]>,
    ids: Ids,
    /// Keeps the pool in the server's list of those that want workers.
    _registered: Arc<[Arc<Berth>]>,
}

#[derive(Debug)]
struct Slot {
    worker: Option<Forked>,
    berth: Arc<Berth>,
}

impl LoopPool {
    pub(crate) fn new(server: Server, number: u64, berths: Arc<[Arc<Berth>]>) -> Self {
        let slots = berths.iter().map(|berth| Slot { worker: None, berth: Arc::clone(berth) }).collect();
        let meter = server.meters().add();
        let ids = Ids { next: server.id_seed().wrapping_add(number << 40) };
        Self { server, meter, slots, ids, _registered: berths }
    }

    /// Serves a request on this thread, unless that would mean to wait for a worker.
    pub fn call(&mut self, request: &Request<'_>, sink: &mut (impl ResponseSink + ?Sized)) -> Outcome {
        let Some(index) = self.server.route(request) else {
            self.refuse(request, Failure::NoRoute, NO_ROUTE, sink);
            return Outcome::Done;
        };
        let tenant = &self.server.tenants()[index];
        let forker = self.server.forker();
        let slot = &mut self.slots[index];
        let current = tenant.generation();
        if slot.worker.as_ref().is_none_or(|forked| forked.generation != current) {
            if current == 0 {
                self.refuse(request, Failure::Unavailable, &tenant.excuse(), sink);
                return Outcome::Done;
            }
            if let Some(old) = std::mem::replace(&mut slot.worker, slot.berth.take()) {
                forker.close(old);
            }
        }
        // The worker comes back only after the call: one that a panic interrupts is dropped, and never used again.
        let Some(mut forked) = slot.worker.take_if(|forked| forked.generation == current) else {
            forker.order(index, &slot.berth);
            return Outcome::NeedsWorker;
        };
        let counters = self.meter.tenant(index);
        counters.requests.increase();
        serve(tenant, counters, &mut forked.worker, request, self.ids.next(), &mut Watched::new(sink));
        if forked.is_ready() {
            slot.worker = Some(forked);
        } else {
            forker.close(forked);
            forker.order(index, &slot.berth);
        }
        Outcome::Done
    }

    /// Copies the request and has a background thread fork a worker, call it and send the reply.
    ///
    /// When too many requests wait already, the reply is sent at once, with 503.
    pub fn call_later(&mut self, request: &Request<'_>, mut reply: Box<dyn DeferredReply>) {
        let Some(index) = self.server.route(request) else {
            self.refuse(request, Failure::NoRoute, NO_ROUTE, &mut *reply);
            return reply.send();
        };
        // The sandbox checks this too, but a copy that is bounded needs the answer first.
        let limit = self.server.tenants()[index].config.limits.machine.request_bytes;
        if size(request) > limit {
            let reason = format!("the request is above the tenant's limit of {limit} bytes");
            self.refuse(request, Failure::RequestTooLarge, &reason, &mut *reply);
            return reply.send();
        }
        self.meter.tenant(index).requests.increase();
        let berth = Arc::clone(&self.slots[index].berth);
        let job = Job { tenant: index, request: OwnedRequest::copy(request), id: self.ids.next(), berth, reply };
        self.server.deferred().submit(job, &self.meter);
    }

    /// Answers a request that does not reach its tenant, and counts it: for what the HTTP server in front finds wrong.
    pub fn refuse(
        &mut self,
        request: &Request<'_>,
        failure: Failure,
        reason: &str,
        sink: &mut (impl ResponseSink + ?Sized),
    ) {
        match self.server.route(request) {
            None => self.meter.unrouted.increase(),
            Some(index) => {
                self.meter.tenant(index).requests.increase();
                self.meter.tenant(index).failed(failure);
            }
        }
        answer(failure, reason, self.ids.next(), sink);
    }
}

const NO_ROUTE: &str = "no tenant answers this path";

/// Numbers the requests of one pool.
#[derive(Debug)]
struct Ids {
    next: u64,
}

impl Ids {
    /// The finaliser of SplitMix64 is a bijection: different numbers stay different, and neighbours look nothing alike.
    fn next(&mut self) -> RequestId {
        self.next = self.next.wrapping_add(1);
        let mut x = self.next;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        RequestId(x ^ (x >> 31))
    }
}
