// SPDX-License-Identifier: MIT OR Apache-2.0
//! One request on one worker, and what a failure becomes.

use mayfly_sandbox::{CallError, Request, ResponseError, ResponseSink, Worker};

use crate::failure::{Failure, RequestId, answer};
use crate::meter::Counters;
use crate::tenant::Tenant;

/// Calls the worker and fills the sink, whatever happens. The worker may be poisoned afterwards.
pub(crate) fn serve(
    tenant: &Tenant,
    counters: &Counters,
    worker: &mut Worker,
    request: &Request<'_>,
    id: RequestId,
    sink: &mut Watched<'_, impl ResponseSink + ?Sized>,
) {
    let result = worker.call(id.0, request, sink);
    tenant.log.end_partial_lines();
    match result {
        Ok(_) => counters.resets.increase(),
        Err(error) => {
            let failure = Failure::from(&error);
            counters.failed(failure);
            let reason = error.to_string();
            tenant.log.failed(id, failure, &reason);
            // An error after the response (the reset failed) costs the worker, not the client.
            if !sink.answered {
                answer(failure, &reason, id, sink);
            }
        }
    }
}

impl From<&CallError> for Failure {
    fn from(error: &CallError) -> Self {
        match error {
            CallError::RequestTooLarge { .. } => Self::RequestTooLarge,
            CallError::Exited { .. } => Self::Exited,
            CallError::Faulted(_) => Self::Faulted,
            CallError::Response(ResponseError::TooLarge { .. }) => Self::ResponseTooLarge,
            CallError::Response(_) => Self::BadResponse,
            CallError::CpuLimit { .. } | CallError::WallLimit { .. } | CallError::Stuck { .. } => Self::CpuLimit,
            CallError::MemoryLimit { .. } => Self::MemoryLimit,
            CallError::Handover { .. } | CallError::Failed(_) | CallError::Poisoned => Self::Internal,
        }
    }
}

/// Remembers whether there is a response. A body alone is none: the sandbox may fail while it reads one.
pub(crate) struct Watched<'a, S: ?Sized> {
    sink: &'a mut S,
    pub(crate) answered: bool,
}

impl<'a, S: ?Sized> Watched<'a, S> {
    pub(crate) fn new(sink: &'a mut S) -> Self {
        Self { sink, answered: false }
    }
}

impl<S: ResponseSink + ?Sized> ResponseSink for Watched<'_, S> {
    fn body(&mut self, len: usize) -> &mut [u8] {
        self.sink.body(len)
    }

    fn status(&mut self, status: u16) {
        self.answered = true;
        self.sink.status(status);
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        self.sink.header(name, value);
    }
}
