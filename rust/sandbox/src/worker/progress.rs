// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a leg may use, what a worker can do now, and how far a request got.

use std::time::Duration;

/// What a leg may use of the thread that it runs on.
///
/// ```
/// use std::time::Duration;
/// use mayfly_sandbox::Slice;
///
/// let millisecond = Duration::from_millis(1);
/// assert!(!Slice::non_blocking(millisecond).may_block);
/// assert_eq!(Slice::from(millisecond), Slice::blocking(millisecond));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Wall-clock time.
    pub time: Duration,
    /// Whether the host may wait for a disk or a network file system on the program's behalf, or do milliseconds of
    /// work at a time. If not, a leg that comes to such a step ends with [`Progress::Waits`] with a deadline of *now*:
    /// the next leg that may block takes the step.
    pub may_block: bool,
}

impl Slice {
    /// For a thread that must not block: an event loop.
    #[must_use]
    pub fn non_blocking(time: Duration) -> Self {
        Self { time, may_block: false }
    }

    /// For a thread that may block: a worker pool's.
    #[must_use]
    pub fn blocking(time: Duration) -> Self {
        Self { time, may_block: true }
    }
}

impl From<Duration> for Slice {
    /// A slice that may block.
    fn from(time: Duration) -> Self {
        Self::blocking(time)
    }
}

/// How a program stands after a leg between requests. Its worker is [`WorkerState::Ready`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum BackgroundProgress {
    /// All its threads wait: it has nothing to do before `until_ns`, or before [`crate::Worker::waits_for`] is
    /// readable.
    Waits {
        /// When one of them goes on, by `CLOCK_MONOTONIC` in nanoseconds; `None`: not before a request. A time that is
        /// over means that the next step may block.
        until_ns: Option<u64>,
    },
    /// The slice is over, and threads can run.
    Paused,
}

/// What a worker can do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// It can take a request.
    Ready,
    /// It is in the middle of a request, at the end of a slice, in a call or asleep. Resume it, or reset it to give the
    /// request up.
    Paused,
    /// It has answered a request and must be reset before the next one.
    Answered,
    /// It must be replaced.
    Poisoned,
}

/// Counts of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallStats {
    /// Exits of the machine; 1 in the steady state.
    pub exits: u64,
    /// System calls among them.
    pub syscalls: u64,
    /// Page faults among them.
    pub faults: u64,
}

/// How far a request got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// The sink holds the response; the worker is [`WorkerState::Answered`]: reset it.
    Answered(CallStats),
    /// The program has answered its hook, and the sink is untouched: the worker is [`WorkerState::Ready`]. Only after
    /// [`crate::Worker::start_hook`].
    Restored,
    /// The slice is over, and the sink is untouched. Continue with [`crate::Worker::resume`], on this or another
    /// thread.
    Paused,
    /// All of the request's threads wait, and the sink is untouched: there is nothing to do before `until_ns` by
    /// `CLOCK_MONOTONIC`, which is never later than the end of the request's wall-clock time. The worker is
    /// [`WorkerState::Paused`]: continue with [`crate::Worker::resume`] at that time, or as soon as
    /// [`crate::Worker::waits_for`] is readable. Resuming earlier does no harm.
    Waits {
        /// When the request goes on, in nanoseconds.
        until_ns: u64,
    },
    /// The program calls a function of its storage program, and the sink is untouched. Take the call from
    /// [`crate::Worker::peer_call`], give the result to [`crate::Worker::answer_peer`], and continue with
    /// [`crate::Worker::resume`]. The worker is [`WorkerState::Paused`].
    Calls,
}
