// SPDX-License-Identifier: MIT OR Apache-2.0
//! A request that has no worker yet.

use std::sync::Arc;

use crate::model::failure::{Failure, RequestId, answer};
use crate::model::generation::Forked;
use crate::model::permits::CallPermit;
use crate::model::slot_permit::SlotPermit;
use crate::model::store::Ticket;
use crate::model::tenant::Tenant;
use crate::model::worker_mailbox::WorkerMailbox;
use crate::run::in_flight::InFlight;
use crate::run::reply::DeferredReply;
use crate::run::request::OwnedRequest;

/// A request on its way to a background thread, or in line for a worker.
pub(crate) struct Job {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) request: OwnedRequest,
    pub(crate) id: RequestId,
    /// Where the worker may go when the request has finished.
    pub(crate) mailbox: Arc<WorkerMailbox>,
    /// A worker of the former generation, whose state the new one takes over.
    pub(crate) former: Option<Forked>,
    pub(crate) retention: Retention,
    pub(crate) reply: Box<dyn DeferredReply>,
    pub(crate) in_flight: InFlight,
    pub(crate) mode_header: bool,
    /// For a tenant with a fixed number of workers: the right to fork one of them.
    pub(crate) slot: Option<Box<SlotPermit>>,
    /// For such a tenant: which worker the request needs; `None`: any.
    pub(crate) key: Option<u64>,
    /// The right to wait in line.
    pub(crate) permit: Option<CallPermit>,
    /// Its place in line.
    pub(crate) ticket: Option<Ticket>,
    /// Since when it has waited in line, by the monotonic clock in nanoseconds. This counts as its wall-clock time.
    pub(crate) since_ns: Option<u64>,
}

/// What happens to the worker that is forked for a request.
#[derive(Debug)]
pub(crate) enum Retention {
    /// It stays with the loop.
    Stay,
    /// It stays, in place of this one.
    Replace(Forked),
    /// It is closed when the request has finished: all other workers are busier.
    Go,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("tenant", &self.tenant.name).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Job {
    /// Answers the request without running it.
    pub(crate) fn refuse(self, failure: Failure, reason: &str) {
        let mut reply = self.reply;
        self.tenant.background.failed(failure);
        answer(failure, reason, self.id, &mut *reply);
        drop((self.in_flight, self.permit));
        reply.send();
    }
}
