// SPDX-License-Identifier: MIT OR Apache-2.0
//! Event loops on processors of their own.
//!
//! A request in a process is two switches between the loop's thread and that process, which the kernel keeps on one
//! processor. Where other threads want processors too, it may put two loops with their processes on one and leave
//! another idle: see `docs/decisions/0276-loops-on-processors.md`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The processors that the process may use, as they were when it was first asked.
fn allowed() -> &'static [usize] {
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    ALLOWED.get_or_init(|| {
        let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        (0..CpuSet::MAX_CPU).filter(|processor| set.is_set(*processor)).collect()
    })
}

/// Whether any thread has been bound.
static BOUND: AtomicBool = AtomicBool::new(false);

/// Notes which processors there are, before any thread is bound to one.
pub(crate) fn note() {
    allowed();
}

/// Binds the calling thread, the loop of this number, to a processor. Advice: nothing depends on it.
pub(crate) fn bind(number: u64) {
    let mut set = CpuSet::new();
    let processors = allowed();
    if let Some(processor) = number.checked_rem(processors.len() as u64).and_then(|at| processors.get(at as usize)) {
        BOUND.store(true, Ordering::Relaxed);
        set.set(*processor);
        let _ = sched_setaffinity(None, &set);
    }
}

/// Lets the calling thread run on all of them: it may have been started by one that is bound.
pub(crate) fn release() {
    if !BOUND.load(Ordering::Relaxed) {
        return;
    }
    let mut set = CpuSet::new();
    allowed().iter().for_each(|processor| set.set(*processor));
    if !allowed().is_empty() {
        let _ = sched_setaffinity(None, &set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processors() -> usize {
        let set = sched_getaffinity(None).unwrap();
        (0..CpuSet::MAX_CPU).filter(|processor| set.is_set(*processor)).count()
    }

    #[test]
    fn a_thread_is_bound_to_one_processor_and_released_to_all() {
        note();
        std::thread::spawn(|| {
            for number in 0..2 * allowed().len() as u64 {
                bind(number);
                assert_eq!(processors(), 1, "{number}");
            }
            release();
            assert_eq!(processors(), allowed().len());
        })
        .join()
        .unwrap();
    }
}
