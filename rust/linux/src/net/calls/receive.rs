// SPDX-License-Identifier: MIT OR Apache-2.0
//! Options and results of receiving.

use crate::base::clock;
use crate::base::errno::Errno;
use crate::base::halt::Halt;
use crate::base::ids::{OpenId, PollableId};
use crate::event::queue::Sender;
use crate::kernel::call::Call;

/// Options of a receive.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Receive {
    pub(crate) nonblocking: bool,
    /// MSG_PEEK.
    pub(crate) peek: bool,
    /// MSG_WAITALL.
    pub(crate) all: bool,
    /// MSG_TRUNC: a message's real size is returned; bytes of a TCP stream are discarded.
    pub(crate) truncate: bool,
}

/// The result of a receive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    /// The call's return value.
    pub(crate) len: usize,
    /// A message was longer than the buffers.
    pub(crate) truncated: bool,
    /// The sender of a message.
    pub(crate) sender: Option<Sender>,
    /// Received descriptors. A reference is held to each until it is installed or closed.
    pub(crate) open: Vec<OpenId>,
}

impl Received {
    pub(crate) fn bytes(len: usize) -> Self {
        Self { len, ..Self::default() }
    }
}

/// The deadline of a call on a socket, if the socket has a timeout.
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
