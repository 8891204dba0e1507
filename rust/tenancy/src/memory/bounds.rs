// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bounds on the process's memory, and the memory in use under each.
//!
//! ```text
//!   process   `max_memory_mib`, if it is set    this process's memory: anonymous pages, page tables, images,
//!                                               the kernel's for machines
//!   cgroup    memory.max, memory.high           the cgroup's memory, except what the kernel reclaims by itself
//!   machine   MemTotal                          MemTotal - MemAvailable
//! ```
//!
//! All of them hold; the one with the least room applies.

use std::path::PathBuf;

use mayfly_sandbox::{Held, PAGE_SIZE};
use serde::Serialize;

use crate::host::cgroup::{self, Cgroup, Controller};

/// The part of a bound of the system that is reserved: for growth between two measurements, and for memory that this
/// process does not know of.
const RESERVE_PART: u64 = 16;
const RESERVE_LEAST: u64 = 16 << 20;
const RESERVE_MOST: u64 = 512 << 20;

/// A bound on memory and the memory in use under it, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// What it bounds: `process`, `cgroup` or `machine`.
    pub of: &'static str,
    /// The cgroup's directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The bound, without a reserve.
    pub max_bytes: u64,
    /// The memory in use.
    pub bytes: u64,
}

impl Bound {
    /// How much more may be used; negative if too much is in use.
    pub(super) fn room(&self) -> i64 {
        to_signed(self.max_bytes).saturating_sub(to_signed(self.bytes))
    }
}

fn to_signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The bounds to measure.
#[derive(Debug)]
pub(super) struct Bounds {
    /// `max_memory_mib` in bytes.
    configured: Option<u64>,
    cgroups: Vec<Cgroup>,
}

impl Bounds {
    pub(super) fn new(configured: Option<u64>) -> Self {
        Self { configured, cgroups: cgroup::own(Controller::Memory) }
    }

    /// All bounds with the memory currently in use. `held` is the memory that machines hold.
    pub(super) fn measure(&self, held: Held) -> Vec<Bound> {
        let mut bounds = Vec::new();
        if let Some(max_bytes) = self.configured {
            bounds.push(Bound { of: "process", path: None, max_bytes, bytes: process_bytes(held) });
        }
        for group in &self.cgroups {
            if let Some(usage) = group.usage() {
                let max_bytes = without_reserve(usage.most);
                bounds.push(Bound { of: "cgroup", path: Some(group.path().to_owned()), max_bytes, bytes: usage.used });
            }
        }
        bounds.extend(machine());
        bounds
    }
}

/// A bound of the system without the reserve.
fn without_reserve(most: u64) -> u64 {
    // At least half of a very small bound remains.
    let reserve = (most / RESERVE_PART).clamp(RESERVE_LEAST, RESERVE_MOST).min(most / 2);
    most.saturating_sub(reserve)
}

/// The memory of this process. Images, workers' files and the kernel's memory for machines are added: they are not
/// anonymous memory.
pub(super) fn process_bytes(held: Held) -> u64 {
    let status = mayfly_files::kernel_text("/proc/self/status").unwrap_or_default();
    of_status(&status)
        .saturating_add([held.images, held.machines, held.files].iter().sum::<u64>().saturating_mul(PAGE_SIZE))
}

fn of_status(text: &str) -> u64 {
    ["RssAnon:", "VmPTE:"].iter().map(|name| kib_of(text, name)).fold(0, u64::saturating_add).saturating_mul(1024)
}

fn machine() -> Option<Bound> {
    of_meminfo(&mayfly_files::kernel_text("/proc/meminfo").ok()?)
}

fn of_meminfo(text: &str) -> Option<Bound> {
    let all = kib_of(text, "MemTotal:").saturating_mul(1024);
    let available = kib_of(text, "MemAvailable:").saturating_mul(1024);
    let bytes = all.saturating_sub(available);
    (all > 0).then(|| Bound { of: "machine", path: None, max_bytes: without_reserve(all), bytes })
}

/// The number of KiB after a name, or 0 if the name is missing.
fn kib_of(text: &str, name: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_kept_of_a_bound_of_the_system() {
        for (most, left) in [(300, 281), (64, 48), (16, 8), (4096, 3840), (65_536, 65_024)] {
            assert_eq!(without_reserve(most << 20) >> 20, left, "{most} MiB");
        }
    }

    #[test]
    fn figures_are_read() {
        let status = "Name:\tx\nVmRSS:\t 9000 kB\nRssAnon:\t    1000 kB\nRssFile:\t 10 kB\nVmPTE:\t      24 kB\n";
        assert_eq!(of_status(status), 1024 << 10);
        let bound = of_meminfo("MemTotal:  4194304 kB\nMemFree: 1 kB\nMemAvailable:  1048576 kB\n").unwrap();
        assert_eq!((bound.bytes >> 20, bound.max_bytes >> 20, bound.room() >> 20), (3072, 3840, 768));
        assert_eq!(of_meminfo(""), None);
    }

    #[test]
    fn the_process_memory_is_measured_closely() {
        let before = process_bytes(Held::default());
        assert!(before > 0);
        let more = vec![1_u8; 64 << 20];
        let after = process_bytes(Held::default());
        // Other tests take and give back some in the meantime, those of whole servers.
        assert!(after > before + (32 << 20), "{before} {after} {}", more.len());
        let held = Held { all: 9, images: 2, machines: 1, files: 1 };
        assert!(process_bytes(held) >= 4 * PAGE_SIZE);
        assert!(Bounds::new(Some(1)).measure(held).iter().any(|bound| bound.of == "process" && bound.room() < 0));
    }
}
