// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a handler of a system call leaves early.

use mayfly_machine::MemoryError;
use serde::{Deserialize, Serialize};

use crate::base::errno::Errno;
use crate::base::step::Step;

/// Name of a call. By this name derived code does not take it for a part of what it reads.
type CallName = &'static str;

/// How long a call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wait {
    /// Its name, for messages.
    #[serde(with = "crate::base::serde_with::call_name")]
    pub(crate) call: CallName,
    /// When it is to end in any case, by the monotonic clock; the call finds that out by itself: see `Call::is_over`.
    pub(crate) until_ns: Option<u64>,
    /// When to make it again although nothing has changed: something that it waits for becomes ready by time.
    pub(crate) look_ns: Option<u64>,
}

impl Wait {
    pub(crate) fn next_ns(&self) -> Option<u64> {
        match (self.until_ns, self.look_ns) {
            (Some(until), Some(look)) => Some(until.min(look)),
            (until, look) => until.or(look),
        }
    }
}

/// Why a handler did not return a value.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The guest gets an error number and goes on.
    Errno(Errno),
    /// The call cannot end yet, and has changed nothing: its thread waits, and it will be made again.
    Wait(Wait),
    /// The thread does not go on now, as its state says, or is gone.
    Switch,
    /// The thread goes on elsewhere: its context has been set.
    Restored,
    /// The guest does not go on: what the caller of `Process::handle` is told instead.
    End(Step),
}

impl From<Errno> for Halt {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<MemoryError> for Halt {
    fn from(error: MemoryError) -> Self {
        Self::End(error.into())
    }
}

/// What a system-call handler returns: the value for RAX, or why there is none.
pub(crate) type CallResult = Result<u64, Halt>;

impl From<Wait> for Halt {
    fn from(wait: Wait) -> Self {
        Self::Wait(wait)
    }
}

/// For calls that wait until a signal comes.
pub(crate) fn waits_for_a_signal(call: &'static str) -> Halt {
    Wait { call, until_ns: None, look_ns: None }.into()
}
