// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bounds the number of workers in the process: each is a virtual machine or a process, with its own descriptors and memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::host::resources;

/// Descriptors that a worker takes: its VM and its vCPU, or its listener and its process.
const DESCRIPTORS_PER_WORKER: u64 = 2;
/// Descriptors that are left for connections, images and files when the number of workers is derived from their limit.
const DESCRIPTORS_LEFT: u64 = 1024;
/// Processes and threads that are left for the server itself, for programs that boot, and for others.
const PROCESSES_LEFT: u64 = 256;
/// Default upper bound on workers.
const MOST: usize = 8192;
/// Lower bound on the default, whatever the limit on descriptors.
const LEAST: usize = 16;

/// Counts the process's workers.
#[derive(Debug, Clone)]
pub(crate) struct Workers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    most: usize,
    count: AtomicUsize,
}

/// The right to have one worker; returned when dropped.
#[derive(Debug)]
pub(crate) struct WorkerPermit {
    workers: Workers,
}

impl Workers {
    /// Allows `most` workers, or by default as many as the process's limits on descriptors and on processes allow. On
    /// KVM, too, a worker may have a thread of the kernel's.
    pub(crate) fn new(most: Option<u32>) -> Self {
        let (descriptors, processes) = (resources::descriptor_limit(), resources::process_limit());
        let default = most_for(descriptors, processes);
        if most.is_none() && default == LEAST {
            tracing::warn!(
                target: "mayfly::server", workers = LEAST, descriptors, processes,
                "few workers fit the limits on descriptors and processes: raise them (ulimit -n, -u; systemd: LimitNOFILE, TasksMax; containers: --pids-limit), or set `max_workers`"
            );
        }
        let most = most.map_or(default, |most| most as usize);
        Self { inner: Arc::new(Inner { most, count: AtomicUsize::new(0) }) }
    }

    pub(crate) fn most(&self) -> usize {
        self.inner.most
    }

    pub(crate) fn count(&self) -> usize {
        self.inner.count.load(Ordering::Relaxed)
    }

    /// Takes the right to one more worker, if the bound allows it.
    pub(crate) fn permit(&self) -> Option<WorkerPermit> {
        let more = |count| (count < self.inner.most).then_some(count + 1);
        let taken = self.inner.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| WorkerPermit { workers: self.clone() })
    }

    /// Takes the right to one of a fixed number of workers, beyond the bound if necessary: the configuration bounds
    /// them.
    pub(crate) fn permit_of_fixed(&self) -> WorkerPermit {
        self.inner.count.fetch_add(1, Ordering::Relaxed);
        WorkerPermit { workers: self.clone() }
    }
}

impl Drop for WorkerPermit {
    fn drop(&mut self) {
        self.workers.inner.count.fetch_sub(1, Ordering::Relaxed);
    }
}

fn most_for(descriptors: u64, processes: u64) -> usize {
    // Three per worker instead of two: each tenant's image is a descriptor, too.
    let by_descriptors = descriptors.saturating_sub(DESCRIPTORS_LEFT) / (DESCRIPTORS_PER_WORKER + 1);
    let workers = by_descriptors.min(processes.saturating_sub(PROCESSES_LEFT));
    usize::try_from(workers).unwrap_or(MOST).clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_bounded_and_returned() {
        let workers = Workers::new(Some(2));
        let (a, b) = (workers.permit(), workers.permit());
        assert!(a.is_some() && b.is_some() && workers.permit().is_none());
        drop(a);
        assert_eq!(workers.count(), 1);
        let fixed = (workers.permit_of_fixed(), workers.permit_of_fixed());
        assert!(workers.permit().is_none() && workers.count() == 3);
        drop(fixed);
        assert!(workers.permit().is_some());
    }

    #[test]
    fn the_default_leaves_descriptors_for_connections() {
        for (descriptors, most) in [(256, LEAST), (1024, LEAST), (20_000, 6325), (1 << 20, MOST), (u64::MAX, MOST)] {
            assert_eq!(most_for(descriptors, u64::MAX), most, "{descriptors}");
        }
    }

    #[test]
    fn the_default_leaves_processes_for_the_server() {
        for (processes, most) in [(0, LEAST), (256, LEAST), (2048, 1792), (32_768, MOST)] {
            assert_eq!(most_for(u64::MAX, processes), most, "{processes}");
        }
    }
}
