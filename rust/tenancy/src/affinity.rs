// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loop threads that keep to a processor.
//!
//! A kernel that guards tenants against each other's branch predictions makes a barrier (IBPB) when a processor turns from one virtual
//! CPU to another, and KVM flushes translations when a virtual CPU moves. A loop thread that stays where it is, with workers that
//! stay with it, spares most of both. `docs/decisions/0065-pinned-loops.md` has what it measured.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Binds the calling thread to the `number`-th of the processors that the process may use, counted round.
///
/// What the system refuses is logged, and changes nothing else.
pub(crate) fn pin_this_thread(number: u64) {
    let pinned = sched_getaffinity(None).and_then(|allowed| {
        let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
        let index = usize::try_from(number).unwrap_or(0) % processors.len().max(1);
        let mut own = CpuSet::new();
        processors.get(index).into_iter().for_each(|cpu| own.set(*cpu));
        sched_setaffinity(None, &own)
    });
    if let Err(error) = pinned {
        tracing::warn!(target: "mayfly::server", "cannot bind a loop thread to a processor: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_to_one_processor() {
        let before = sched_getaffinity(None).unwrap().count();
        for number in [0, 1, 1000] {
            let thread = std::thread::spawn(move || {
                pin_this_thread(number);
                sched_getaffinity(None).unwrap().count()
            });
            assert_eq!(thread.join().unwrap(), 1);
        }
        assert_eq!(sched_getaffinity(None).unwrap().count(), before, "and no other thread does");
    }
}
