// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ways in which a system-call handler returns early.

use mayfly_machine::MemoryError;
use serde::{Deserialize, Serialize};

use crate::base::errno::Errno;
use crate::base::step::Step;

/// Name of a call. The alias keeps serde's derive from borrowing it from the deserializer's input.
type CallName = &'static str;

/// How long a call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wait {
    /// Its name, for messages.
    #[serde(with = "crate::base::serde_with::call_name")]
    pub(crate) call: CallName,
    /// Its deadline by the monotonic clock. The call itself notices that it has passed: see `Call::is_over`.
    pub(crate) until_ns: Option<u64>,
    /// When to make the call again although nothing has changed: something that it waits for becomes ready by time.
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
    /// The guest gets an error number and continues.
    Errno(Errno),
    /// The call cannot complete yet, and has changed nothing: its thread waits, and the call will be made again.
    Wait(Wait),
    /// The thread cannot continue now, as its state says, or has ended.
    Switch,
    /// The thread continues from another context, which has been set.
    Restored,
    /// The guest does not continue: `Process::handle` returns this step.
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

/// For calls that wait until a signal arrives.
pub(crate) fn waits_for_a_signal(call: &'static str) -> Halt {
    Wait { call, until_ns: None, look_ns: None }.into()
}
