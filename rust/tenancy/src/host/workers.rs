// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bounds the number of workers in the process: each is a virtual machine or a process, with its own descriptors and memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::host::resources;

/// Descriptors that a worker takes: its VM and its vCPU, or its listener and its process.
const DESCRIPTORS_PER_WORKER: u64 = 2;
/// Descriptors that are left for connections, images and files when the number of workers is derived from their limit.
const DESCRIPTORS_LEFT: u64 = 1024;
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
    /// Allows `most` workers, or by default as many as the process's limit on descriptors allows.
    pub(crate) fn new(most: Option<u32>) -> Self {
        let descriptors = resources::descriptor_limit();
        if most.is_none() && most_for(descriptors) == LEAST {
            tracing::warn!(
                target: "mayfly::server", workers = LEAST, descriptors,
                "few workers fit the limit on descriptors: raise it (ulimit -n; systemd: LimitNOFILE), or set `max_workers`"
            );
        }
        let most = most.map_or_else(|| most_for(descriptors), |most| most as usize);
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
}

impl Drop for WorkerPermit {
    fn drop(&mut self) {
        self.workers.inner.count.fetch_sub(1, Ordering::Relaxed);
    }
}

fn most_for(descriptors: u64) -> usize {
    // Three per worker instead of two: each tenant's image is a descriptor, too.
    let workers = descriptors.saturating_sub(DESCRIPTORS_LEFT) / (DESCRIPTORS_PER_WORKER + 1);
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
        assert!(workers.permit().is_some());
    }

    #[test]
    fn the_default_leaves_descriptors_for_connections() {
        for (descriptors, most) in [(256, LEAST), (1024, LEAST), (20_000, 6325), (1 << 20, MOST), (u64::MAX, MOST)] {
            assert_eq!(most_for(descriptors), most, "{descriptors}");
        }
    }
}
