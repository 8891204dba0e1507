// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prepares workers whose program has a hook (`after_restore`), ahead of their next request, in turns with the requests.
//!
//! ```text
//!   forked, or reset after a response ── prepare ── turns ──> prepared, in the mailbox
//!                         └── as many are prepared already, or memory is short ──> the hook runs within the request
//! ```
//!
//! A preparation needs no permit and does not count as a request of its tenant, nor does its failure. Its mailbox bounds
//! how many there are.

use std::sync::Arc;

use mayfly_sandbox::{Purpose, ResponseSink};

use super::{Overflow, Parked, priority};
use crate::model::failure::RequestId;
use crate::model::generation::Forked;
use crate::model::tenant::Tenant;
use crate::model::worker_mailbox::{Preparing, WorkerMailbox};
use crate::run::call::Call;
use crate::run::reply::DeferredReply;

/// What makes a parked call a preparation.
#[derive(Debug)]
pub(crate) struct Preparation {
    /// The worker fills an order of its mailbox, if that has not ended meanwhile.
    fills_order: bool,
    counted: Preparing,
}

impl Preparation {
    /// Ends the order, so that another worker can be ordered.
    pub(super) fn give_up(&self, mailbox: &WorkerMailbox) {
        if self.fills_order {
            mailbox.end_order();
        }
    }
}

impl Overflow {
    /// Prepares a worker, and puts it into the mailbox. Returns the worker if it needs no preparation, if it would not be
    /// kept or as many are prepared already, if memory is short, or if a loop would have no worker with its state
    /// meanwhile.
    pub(crate) fn prepare(
        &self,
        tenant: &Arc<Tenant>,
        forked: Forked,
        mailbox: &Arc<WorkerMailbox>,
        fills_order: bool,
    ) -> Result<(), Forked> {
        let is_due = forked.needs_hook() && (fills_order || forked.is_ephemeral());
        // The loop holds the mailbox, too.
        let is_kept = forked.permit.is_some() && Arc::strong_count(mailbox) > 1 && tenant.generation() == forked.number;
        // As with forks ahead of requests.
        let has_room = || tenant.account.has_room(1, Purpose::Boot);
        let counted = if is_due && is_kept && has_room() { Preparing::enter(mailbox) } else { None };
        let Some(counted) = counted else { return Err(forked) };
        self.push(Parked {
            tenant: Arc::clone(tenant),
            call: Call::preparing(forked, RequestId::NONE),
            reply: Box::new(NoReply::default()),
            mailbox: Arc::clone(mailbox),
            in_flight: None,
            permit: None,
            may_block: false,
            mode_header: false,
            has_used_turn: false,
            preparation: Some(Preparation { fills_order, counted }),
        });
        Ok(())
    }

    /// Keeps a worker that is or could not be prepared, if it is still of use.
    pub(super) fn keep_prepared(&self, parked: Parked, preparation: Preparation) {
        let Parked { tenant, call, mailbox, .. } = parked;
        let mut forked = call.forked;
        // Where that is not allowed, it has not been lowered.
        priority::raise(&mut forked.worker);
        if preparation.fills_order && !mailbox.end_order() {
            return;
        }
        if tenant.generation() == forked.number {
            preparation.counted.put(forked);
        }
    }
}

/// Takes what a hook answers, which no client waits for.
#[derive(Debug, Default)]
struct NoReply(Vec<u8>);

impl ResponseSink for NoReply {
    fn body(&mut self, len: usize) -> &mut [u8] {
        self.0.clear();
        self.0.resize(len, 0);
        &mut self.0
    }

    fn status(&mut self, _: u16) {}

    fn header(&mut self, _: &[u8], _: &[u8]) {}
}

impl DeferredReply for NoReply {
    fn send(self: Box<Self>) {}
}
