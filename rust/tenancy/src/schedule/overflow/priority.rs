// SPDX-License-Identifier: MIT OR Apache-2.0
//! The priority of requests that have left their loop.
//!
//! The overflow's threads have a low priority, so that a loop with work preempts them. A program that is a process of
//! its own competes for processors itself, and gets the same value here. It is to have the former one back when its
//! worker serves loops again, which needs privilege (`CAP_SYS_NICE`, or a limit `RLIMIT_NICE` of 20). Where that is
//! missing, a worker is only lowered if it is closed after its request: another one without state can replace it. Then
//! it has first used a whole turn, so that not each request of some milliseconds costs a fork.

use std::io::ErrorKind;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use mayfly_sandbox::Worker;
use rustix::process::setpriority_process;

use crate::model::generation::Forked;
use crate::run::call::Call;

/// The threads' nice value: high enough that a loop thread with work preempts them, and not so high that they starve on
/// a busy machine.
const NICE: i32 = 10;

/// Whether a nice value can be set back: [`lower_thread`] tries it, before any worker is lowered.
static CAN_RAISE: AtomicBool = AtomicBool::new(true);

/// Whether the nice value of a program that is not to be raised again can be set at all, as long as it has been tried.
static CAN_LOWER: AtomicBool = AtomicBool::new(true);

/// The nice value of the process, before any of its threads has another one.
fn normal() -> i32 {
    static NORMAL: OnceLock<i32> = OnceLock::new();
    *NORMAL.get_or_init(|| rustix::process::getpriority_process(Some(rustix::process::getpid())).unwrap_or(0))
}

/// Lowers this thread's priority below that of loop threads, and finds out whether it could be raised again.
pub(super) fn lower_thread() {
    // On Linux, setpriority(2) changes only the calling thread. If it fails, requests take longer beside busy tenants.
    let low = NICE.max(normal());
    let lowered = setpriority_process(None, low).and_then(|()| {
        if low == normal() {
            return Ok(());
        }
        match setpriority_process(None, normal()) {
            Ok(()) => setpriority_process(None, low),
            Err(error) => {
                note(&error.into());
                Ok(())
            }
        }
    });
    if let Err(error) = lowered {
        tracing::warn!(target: "mayfly::server", %error, "an overflow thread keeps its priority");
    }
}

/// Remembers that nice values cannot be set back, if that is what this error says. Others say that a process is gone.
fn note(error: &std::io::Error) {
    // EACCES and EPERM.
    if error.kind() == ErrorKind::PermissionDenied {
        CAN_RAISE.store(false, Ordering::Relaxed);
    }
}

/// Gives the programs of a call this thread's priority, if this turn is to be at that. `has_used_turn`: it is a
/// request's call, and has had a whole one.
pub(super) fn lower(call: &mut Call, has_used_turn: bool) {
    if normal() >= NICE {
        return;
    }
    // It only takes longer beside others if this fails.
    if CAN_RAISE.load(Ordering::Relaxed) {
        for worker in call.workers() {
            let _ = worker.set_nice(NICE);
        }
    } else if has_used_turn && call.forked.is_ephemeral() && CAN_LOWER.load(Ordering::Relaxed) {
        let lowered = call.forked.worker.set_nice(NICE);
        if lowered.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied) {
            CAN_LOWER.store(false, Ordering::Relaxed);
        }
    }
}

/// Gives the program the process's priority back. Returns whether it has that.
pub(super) fn raise(worker: &mut Worker) -> bool {
    worker.set_nice(normal()).inspect_err(note).is_ok()
}

/// Whether the worker serves loops as before: its priority is back, or it keeps a state that another would not have, or
/// no program was lowered.
pub(super) fn is_kept(forked: &mut Forked) -> bool {
    raise(&mut forked.worker) || !forked.is_ephemeral() || !CAN_LOWER.load(Ordering::Relaxed)
}
