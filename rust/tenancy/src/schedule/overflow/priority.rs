// SPDX-License-Identifier: MIT OR Apache-2.0
//! The priority of requests that have left their loop.
//!
//! The overflow's threads have a low priority, so that a loop with work preempts them. A program that is a process of
//! its own competes for processors itself, and gets the same value here. It is to have the former one back when its
//! worker serves loops again, which needs privilege (`CAP_SYS_NICE`, or a limit `RLIMIT_NICE` of 20). Where that is
//! missing, a worker that has been lowered is not used again if it can be replaced, and is only lowered once it has used
//! a whole turn, so that not each request of some milliseconds costs a fork.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use mayfly_sandbox::Worker;

use crate::model::generation::Forked;

/// The threads' nice value: high enough that a loop thread with work preempts them, and not so high that they starve on
/// a busy machine.
const NICE: i32 = 10;

/// Whether a nice value could be set back, as long as it has been tried.
static CAN_RAISE: AtomicBool = AtomicBool::new(true);

/// The nice value of the process, before any of its threads has another one.
fn normal() -> i32 {
    static NORMAL: OnceLock<i32> = OnceLock::new();
    *NORMAL.get_or_init(|| rustix::process::getpriority_process(Some(rustix::process::getpid())).unwrap_or(0))
}

/// Lowers this thread's priority below that of loop threads.
pub(super) fn lower_thread() {
    // On Linux, setpriority(2) changes only the calling thread. If it fails, requests take longer beside busy tenants.
    if let Err(error) = rustix::process::setpriority_process(None, NICE.max(normal())) {
        tracing::warn!(target: "mayfly::server", %error, "an overflow thread keeps its priority");
    }
}

/// Gives the program this thread's priority, if its turn is to be at that. `has_used_turn`: it has had a whole one.
pub(super) fn lower(worker: &mut Worker, has_used_turn: bool) {
    if (has_used_turn || CAN_RAISE.load(Ordering::Relaxed)) && normal() < NICE {
        // It only takes longer beside others if this fails.
        let _ = worker.set_nice(NICE);
    }
}

/// Gives the program the process's priority back. Returns whether it has that.
pub(super) fn raise(worker: &mut Worker) -> bool {
    let raised = worker.set_nice(normal()).is_ok();
    if !raised {
        CAN_RAISE.store(false, Ordering::Relaxed);
    }
    raised
}

/// Whether the worker serves loops as before: its priority is back, or it keeps a state that another would not have.
pub(super) fn is_kept(forked: &mut Forked) -> bool {
    raise(&mut forked.worker) || !forked.is_ephemeral()
}
