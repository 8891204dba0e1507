// SPDX-License-Identifier: MIT OR Apache-2.0
//! A request that has left its loop.

use std::sync::Arc;

use super::prepare::Preparation;
use crate::model::failure::{Failure, answer};
use crate::model::permits::CallPermit;
use crate::model::tenant::Tenant;
use crate::model::worker_mailbox::WorkerMailbox;
use crate::run::call::Call;
use crate::run::in_flight::InFlight;
use crate::run::reply::{DeferredReply, send};

/// A request that has a worker and has left its loop.
pub(crate) struct Parked {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) call: Call,
    pub(crate) reply: Box<dyn DeferredReply>,
    pub(crate) mailbox: Arc<WorkerMailbox>,
    /// `None` for a worker that is prepared.
    pub(crate) in_flight: Option<InFlight>,
    /// `None` while it is on a deferred thread.
    pub(crate) permit: Option<CallPermit>,
    /// Its next step may block its thread.
    pub(crate) may_block: bool,
    pub(crate) mode_header: bool,
    /// It has been paused at the end of a turn.
    pub(crate) has_used_turn: bool,
    /// It is no request: the worker is prepared for one.
    pub(crate) preparation: Option<Preparation>,
}

impl Parked {
    /// A request that has had no turn here.
    pub(crate) fn of_request(
        tenant: Arc<Tenant>,
        call: Call,
        reply: Box<dyn DeferredReply>,
        mailbox: Arc<WorkerMailbox>,
        in_flight: InFlight,
        permit: Option<CallPermit>,
        mode_header: bool,
    ) -> Self {
        Self {
            tenant,
            call,
            reply,
            mailbox,
            in_flight: Some(in_flight),
            permit,
            may_block: false,
            mode_header,
            has_used_turn: false,
            preparation: None,
        }
    }

    /// Answers in the program's place, and closes the worker.
    pub(super) fn refuse(self, failure: Failure, reason: &str) {
        if let Some(preparation) = &self.preparation {
            preparation.give_up(&self.mailbox);
            return;
        }
        let Self { tenant, call, mut reply, in_flight, permit, .. } = self;
        tenant.background.failed(failure);
        tenant.log.failed(call.id, failure, reason);
        answer(failure, reason, call.id, &mut *reply);
        drop((in_flight, permit));
        send(reply);
    }
}

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parked").field("tenant", &self.tenant.name).field("call", &self.call).finish_non_exhaustive()
    }
}
