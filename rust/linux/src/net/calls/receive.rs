// SPDX-License-Identifier: MIT OR Apache-2.0
//! How bytes are received, and what was.

use crate::base::clock;
use crate::base::errno::Errno;
use crate::base::halt::Halt;
use crate::base::ids::{OpenId, PollableId};
use crate::kernel::call::Call;

/// How bytes are received.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Receive {
    pub(crate) nonblocking: bool,
    /// MSG_PEEK.
    pub(crate) peek: bool,
    /// MSG_WAITALL.
    pub(crate) all: bool,
    /// MSG_TRUNC: of a message its real size; of a TCP stream, bytes that are thrown away.
    pub(crate) truncate: bool,
}

/// What has been received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    /// What the call returns.
    pub(crate) len: usize,
    /// A message was longer than the buffers.
    pub(crate) truncated: bool,
    /// Descriptors that came along, held for whoever takes them.
    pub(crate) open: Vec<OpenId>,
}

impl Received {
    pub(crate) fn bytes(len: usize) -> Self {
        Self { len, ..Self::default() }
    }
}

/// When a call on a socket gives up, if it has a timeout.
pub(crate) fn deadline(call: &mut Call<'_, '_>, timeout_ns: u64) -> Result<Option<u64>, Halt> {
    if timeout_ns == 0 {
        return Ok(None);
    }
    call.until(|_| Ok(Some(clock::now_ns().saturating_add(timeout_ns))))
}

/// SO_ERROR, once.
pub(crate) fn take_error(call: &mut Call<'_, '_>, id: PollableId) -> Option<Errno> {
    if let Some(stream) = call.process.pollables.socket(id).ok()?.stream() {
        return stream.take_error();
    }
    call.process.pollables.socket(id).ok()?.error?;
    call.process.pollables.edit().socket_mut(id).ok()?.error.take()
}
